//! Answers that a shard has ready: the first page for the limits that clients use.
//!
//! A prepared answer belongs to one snapshot and one second (its `Date`). It is never changed, because it may be in
//! flight; when either has moved on, a new one is made.

use std::rc::Rc;

use super::prepared_answer::{COPIES_MAX_BYTES, PreparedAnswer};
use super::served::{Form, Served, ServedBody, WHOLE_BODY_MAX_BYTES};
use super::{LocalBody, LocalSnapshot};
use crate::http::Coding;
use crate::http::cors::Grant;
use crate::snapshot::{Page, Snapshot};

/// Lists that are kept ready at the same time; the one used longest ago makes room. Clients ask for a few limits, but a
/// hundred of them are looked through faster than one list is made.
const LISTS_MAX: usize = 128;
/// Bytes that they take at most, in one piece each: what CPUs share of third-level cache for each core.
const LISTS_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Largest body that is copied once the same list is asked for again; before, and above, it is sent from the snapshot.
const HOT_BODY_MAX_BYTES: u64 = 128 * 1024;
/// How often a longer one is sent from the snapshot before that is made flat, where no version before was: by then, it has been
/// asked for often enough that it will be again.
const USES_BEFORE_FLAT: u32 = 8;
const _: () = assert!(2 * (COPIES_MAX_BYTES + HOT_BODY_MAX_BYTES as usize) < LISTS_MAX_BYTES, "one list leaves room");

/// A first page, ready to be sent on a connection that stays open.
pub struct PreparedList {
    /// The head, and behind it the body if it is copied.
    answer: PreparedAnswer,
    body: PreparedBody,
    /// The page, of the snapshot that the list was made from.
    pub page: Page,
    /// The page in a content coding; `None`: identity.
    pub encoded: Option<Rc<LocalBody>>,
    /// The answer 304 to a request that names its entity tag in this coding.
    unchanged: Option<(Coding, PreparedAnswer)>,
    /// How often the body has been sent from the snapshot.
    uses: u32,
    /// How often it was the answer, or was found unchanged.
    pub answers: u64,
}

/// Where the body of a prepared list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PreparedBody {
    /// Behind the head.
    Copied,
    /// In the snapshot, or in what the encoder has made of it.
    Shared,
}

impl PreparedList {
    /// The list of this page, whose head is `head`.
    pub fn new(snapshot: &Snapshot, page: Page, encoded: Option<Rc<LocalBody>>, head: Vec<u8>) -> PreparedList {
        let mut list = PreparedList {
            answer: PreparedAnswer::new(head),
            body: PreparedBody::Shared,
            page,
            encoded,
            unchanged: None,
            uses: 0,
            answers: 0,
        };
        if list.body_bytes() <= WHOLE_BODY_MAX_BYTES {
            list.copy_body(snapshot);
        }
        list
    }

    /// Takes `page`, of another snapshot, for its own if it has the same bytes; `false` if it has not. All that the head says
    /// follows from them and from whether a page follows, which the entity tag tells.
    fn go_on_with(&mut self, page: Page) -> bool {
        let is_same = self.page.entity_tag == page.entity_tag && self.page.content_length == page.content_length;
        if is_same {
            self.page = page;
        }
        is_same
    }

    #[inline]
    fn body_bytes(&self) -> u64 {
        self.encoded.as_ref().map_or(self.page.content_length, |encoded| encoded.len())
    }

    /// Bytes of memory that it has copied.
    #[inline]
    fn kept_bytes(&self) -> usize {
        self.answer.copies.len() + self.unchanged.as_ref().map_or(0, |(_, answer)| answer.copies.len())
    }

    fn copy_body(&mut self, snapshot: &Snapshot) {
        let mut bytes = Vec::with_capacity(self.answer.answer_bytes + self.body_bytes() as usize);
        bytes.extend_from_slice(&self.answer.copies);
        let take = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            true
        };
        match &self.encoded {
            Some(encoded) => encoded.take_pieces(&mut 0, take),
            None => {
                let mut body = self.page.body;
                body.take_pieces(snapshot, take);
            }
        }
        self.answer = PreparedAnswer::new(bytes);
        self.body = PreparedBody::Copied;
    }

    /// The list `times` times, or as often as the form allows; `None` if it cannot be had in this form. `snapshot` is the one that
    /// the list was made from.
    #[inline]
    pub fn serve(&mut self, snapshot: &Rc<LocalSnapshot>, times: usize, form: Form) -> Option<Served> {
        if self.body == PreparedBody::Shared {
            if form == Form::OnePiece {
                return None;
            }
            self.uses += 1;
            if self.uses == 1 || self.body_bytes() > HOT_BODY_MAX_BYTES {
                return Some(self.serve_shared(snapshot));
            }
            self.copy_body(snapshot);
        }
        self.answer.serve(times, form)
    }

    fn serve_shared(&self, snapshot: &Rc<LocalSnapshot>) -> Served {
        let body = match &self.encoded {
            Some(encoded) => ServedBody::Encoded(Rc::clone(encoded)),
            None => {
                if self.uses == USES_BEFORE_FLAT || snapshot.was_flat() {
                    snapshot.flatten();
                }
                ServedBody::Todos(Rc::clone(snapshot), self.page.body)
            }
        };
        Served { bytes: Rc::clone(&self.answer.copies), length: self.answer.answer_bytes, answers: 1, body }
    }

    /// The answer 304 with the tag of this coding, as [`PreparedList::serve`] does; `write` writes it the first time.
    #[inline]
    pub fn serve_unchanged(
        &mut self,
        coding: Coding,
        times: usize,
        form: Form,
        write: impl FnOnce(&Page, &mut Vec<u8>),
    ) -> Option<Served> {
        if self.unchanged.as_ref().is_some_and(|(of, _)| *of != coding) {
            self.unchanged = None;
        }
        let (_, answer) = self.unchanged.get_or_insert_with(|| {
            let mut bytes = Vec::with_capacity(256);
            write(&self.page, &mut bytes);
            (coding, PreparedAnswer::new(bytes))
        });
        answer.serve(times, form)
    }
}

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListKey {
    /// The first so many todos; `None` for all.
    pub limit: Option<usize>,
    /// The coding that was asked for: the list has it as soon as the encoder has made it.
    pub coding: Coding,
    /// What its answer says to pages of other origins.
    pub grant: Grant,
}

/// What a list that is sent now is of.
#[derive(Clone, Copy)]
pub struct Present<'s> {
    pub snapshot: &'s Rc<LocalSnapshot>,
    pub unix_seconds: i64,
}

struct Entry {
    snapshot_version: u64,
    unix_seconds: i64,
    used_at: u64,
    /// What it keeps, as far as that is counted among the bytes of all.
    counted_bytes: usize,
    list: PreparedList,
}

/// The lists that are ready.
#[derive(Default)]
pub struct PreparedLists {
    /// Of the entries, which stand in the same order. They are looked through for each answer, so they stand close together.
    keys: Vec<ListKey>,
    entries: Vec<Entry>,
    /// Bytes that all keep.
    bytes: usize,
    uses: u64,
    /// How often lists were asked for that went with their snapshot: they are asked for again with the next one.
    asked: Vec<(ListKey, u64)>,
}

impl PreparedLists {
    /// Calls `use_list` with the list of this key, made by `make`, which is told how often the one before was the answer, unless
    /// the one at hand is of this second, and of this snapshot or of one whose page was the same.
    #[inline]
    pub fn with<R>(
        &mut self,
        key: ListKey,
        present: Present<'_>,
        make: impl FnOnce(u64) -> PreparedList,
        use_list: impl FnOnce(&mut PreparedList) -> R,
    ) -> R {
        let at = match self.keys.iter().position(|of| *of == key) {
            Some(at) => {
                self.entries[at].refresh(key, present, make);
                at
            }
            None => self.insert(key, present, make),
        };
        self.uses += 1;
        let entry = &mut self.entries[at];
        entry.used_at = self.uses;
        let used = use_list(&mut entry.list);
        let kept_bytes = entry.list.kept_bytes();
        if kept_bytes != entry.counted_bytes {
            self.bytes = self.bytes - std::mem::replace(&mut entry.counted_bytes, kept_bytes) + kept_bytes;
            while self.bytes > LISTS_MAX_BYTES && self.entries.len() > 1 {
                self.remove_oldest();
            }
        }
        used
    }

    fn insert(&mut self, key: ListKey, present: Present<'_>, make: impl FnOnce(u64) -> PreparedList) -> usize {
        if self.entries.len() >= LISTS_MAX {
            self.remove_oldest();
        }
        let list = make(self.take_asked(key));
        self.keys.push(key);
        self.entries.push(Entry {
            snapshot_version: present.snapshot.version(),
            unix_seconds: present.unix_seconds,
            used_at: 0,
            counted_bytes: 0,
            list,
        });
        self.entries.len() - 1
    }

    fn remove_oldest(&mut self) {
        let oldest = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.used_at);
        if let Some((oldest, _)) = oldest {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, at: usize) -> (ListKey, Entry) {
        let (key, entry) = (self.keys.swap_remove(at), self.entries.swap_remove(at));
        self.bytes -= entry.counted_bytes;
        (key, entry)
    }

    /// Lets go of these lists, whatever they say to other origins: there is a better one.
    pub fn forget(&mut self, limit: Option<usize>, coding: Coding) {
        for at in (0..self.keys.len()).rev() {
            if (self.keys[at].limit, self.keys[at].coding) == (limit, coding) {
                self.remove(at);
            }
        }
    }

    /// Lets go of lists of other snapshots, so that an unused limit does not keep an old list alive. Those that need none
    /// stay: the page may be the same.
    pub fn retain_version(&mut self, snapshot_version: u64) {
        for at in (0..self.entries.len()).rev() {
            let entry = &self.entries[at];
            if entry.snapshot_version == snapshot_version || entry.stands_alone(self.keys[at]) {
                continue;
            }
            let (key, entry) = self.remove(at);
            if key.coding != Coding::Identity {
                if self.asked.len() >= LISTS_MAX {
                    self.asked.remove(0);
                }
                self.asked.push((key, entry.list.answers));
            }
        }
    }

    fn take_asked(&mut self, key: ListKey) -> u64 {
        let mut sum = 0;
        self.asked.retain(|(of, answers)| {
            sum += if *of == key { *answers } else { 0 };
            *of != key
        });
        sum
    }
}

impl Entry {
    /// Makes the list anew, if it is not that of the present.
    #[inline]
    fn refresh(&mut self, key: ListKey, present: Present<'_>, make: impl FnOnce(u64) -> PreparedList) {
        let Present { snapshot, unix_seconds } = present;
        if self.snapshot_version == snapshot.version() && self.unix_seconds == unix_seconds {
            return;
        }
        let goes_on = self.unix_seconds == unix_seconds
            && self.stands_alone(key)
            && self.list.go_on_with(snapshot.page(None, key.limit));
        if !goes_on {
            self.list = make(self.list.answers);
        }
        self.snapshot_version = snapshot.version();
        self.unix_seconds = unix_seconds;
    }

    /// Whether it needs nothing of its snapshot, and nothing better can come for it.
    fn stands_alone(&self, key: ListKey) -> bool {
        key.coding == Coding::Identity && self.list.body == PreparedBody::Copied
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::{HashKeys, SnapshotBuilder};
    use crate::todo::{Timestamp, Todo, TodoId};

    /// A list of so many todos, in this version.
    fn snapshot(todos: i64, version: u64) -> Rc<LocalSnapshot> {
        let mut builder = SnapshotBuilder::new(HashKeys::new(&[1; 32]));
        for number in (0..todos).rev() {
            let at = Timestamp::from_micros(number);
            let (title, description, user_id) = ("a".into(), String::new(), "u".into());
            let id = TodoId::from_u128(number as u128);
            builder.push(&Todo { id, title, description, completed: false, user_id, created_at: at, updated_at: at });
        }
        Rc::new(LocalSnapshot::new(Arc::new(builder.finish(version))))
    }

    fn list(snapshot: &LocalSnapshot, head: &str) -> PreparedList {
        PreparedList::new(snapshot, snapshot.page(None, None), None, head.as_bytes().to_vec())
    }

    fn head(list: &PreparedList) -> String {
        let text = std::str::from_utf8(&list.answer.copies[..list.answer.answer_bytes]).expect("ASCII");
        text.split('[').next().expect("a part").to_owned()
    }

    const fn key(limit: usize, coding: Coding) -> ListKey {
        ListKey { limit: Some(limit), coding, grant: Grant::NONE }
    }

    impl PreparedLists {
        fn head(&mut self, key: ListKey, snapshot: &Rc<LocalSnapshot>, unix_seconds: i64, new: &str) -> String {
            self.with(key, Present { snapshot, unix_seconds }, |_| list(snapshot, new), |list| head(list))
        }
    }

    #[test]
    fn a_list_is_made_anew_for_each_page_and_second() {
        const PLAIN: ListKey = key(10, Coding::Identity);
        const ZIPPED: ListKey = key(10, Coding::Gzip);
        let mut lists = PreparedLists::default();
        let mut get = |key, snapshot: &_, seconds, new: &str| lists.head(key, snapshot, seconds, new);
        let first = snapshot(1, 1);
        assert_eq!(get(PLAIN, &first, 1, "a"), "a");
        assert_eq!(get(PLAIN, &first, 1, "b"), "a", "still good");
        let second = snapshot(2, 2);
        assert_eq!(get(PLAIN, &second, 1, "c"), "c");
        let third = snapshot(2, 3);
        assert_eq!(get(PLAIN, &third, 1, "d"), "c", "another version with the same page");
        assert_eq!(get(PLAIN, &third, 2, "d"), "d", "another date");
        assert_eq!(get(ZIPPED, &third, 2, "zipped"), "zipped");
        assert_eq!(get(key(11, Coding::Identity), &third, 2, "another limit"), "another limit");
        assert_eq!(get(PLAIN, &third, 2, "e"), "d", "each for its own");
        assert_eq!(get(ZIPPED, &snapshot(2, 4), 2, "made for this version"), "made for this version");
        lists.forget(ZIPPED.limit, ZIPPED.coding);
        assert_eq!(lists.head(PLAIN, &third, 2, "e"), "d");
        assert_eq!(lists.head(ZIPPED, &third, 2, "better"), "better");
    }

    #[test]
    fn many_limits_do_not_grow_it() {
        let (mut lists, list) = (PreparedLists::default(), snapshot(1, 1));
        for limit in 0..1000 {
            lists.head(key(7, Coding::Identity), &list, 1, "hot");
            lists.head(key(1000 + limit, Coding::Gzip), &list, 1, "cold");
        }
        assert!(lists.entries.len() <= LISTS_MAX && lists.keys.len() == lists.entries.len());
        assert_eq!(lists.head(key(7, Coding::Identity), &list, 1, "made again"), "hot", "what is used stays");
        lists.retain_version(2);
        assert_eq!(lists.entries.len(), 1, "what needs no snapshot stays");
        assert!(lists.asked.len() <= LISTS_MAX);
    }

    #[test]
    fn their_copies_are_bounded_together() {
        let (mut lists, snapshot) = (PreparedLists::default(), snapshot(50, 1));
        let form = Form::Pieces { bytes_max: usize::MAX };
        for limit in 0..LISTS_MAX {
            let present = Present { snapshot: &snapshot, unix_seconds: 1 };
            let make = |_| list(&snapshot, "head");
            let served =
                lists.with(key(limit, Coding::Identity), present, make, |list| list.serve(&snapshot, 64, form));
            assert!(served.is_some_and(|served| served.length > COPIES_MAX_BYTES / 2));
            let kept: usize = lists.entries.iter().map(|entry| entry.list.kept_bytes()).sum();
            assert!(kept == lists.bytes && kept <= LISTS_MAX_BYTES, "{kept} bytes");
            assert!(lists.keys.contains(&key(limit, Coding::Identity)), "the one in use stays");
        }
        lists.retain_version(2);
        (0..LISTS_MAX).for_each(|limit| lists.forget(Some(limit), Coding::Identity));
        assert_eq!((lists.bytes, lists.entries.len()), (0, 0));
    }

    #[test]
    fn an_answer_is_served_so_often() {
        for (answer_bytes, counts) in [(3, [1, 2, 5, 64, 1000]), (100_000, [1, 2, 3, 4, 9]), (300_000, [1, 2, 1, 3, 1])]
        {
            let bytes: Vec<u8> = (0..answer_bytes).map(|at| (at % 251) as u8).collect();
            let mut answer = PreparedAnswer::new(bytes.clone());
            for count in counts {
                let mut sent = Vec::new();
                while sent.len() < bytes.len() * count {
                    let form = Form::Pieces { bytes_max: bytes.len() * count - sent.len() };
                    let served = answer.serve(count, form).expect("any pieces will do");
                    assert!(served.answers > 0 && served.length == served.answers * bytes.len());
                    sent.extend_from_slice(&served.bytes[..served.length]);
                }
                assert!(sent == bytes.repeat(count), "{count} of {answer_bytes} bytes");
                assert!(answer.copies.len() <= COPIES_MAX_BYTES.max(answer_bytes));
            }
            let served = answer.serve(9, Form::Pieces { bytes_max: 0 }).expect("once at least");
            assert_eq!((served.answers, served.length), (1, answer_bytes));
        }
    }

    #[test]
    fn a_list_is_served_as_one_piece_or_not_at_all() {
        let snapshot = snapshot(0, 1);
        let mut small = list(&snapshot, "head");
        for count in [1, 2, 5] {
            let served = small.serve(&snapshot, count, Form::OnePiece).expect("its body is copied");
            assert_eq!(served.bytes[..served.length], b"head[]".repeat(count));
        }
        assert!(small.serve(&snapshot, COPIES_MAX_BYTES, Form::OnePiece).is_none(), "more than copies may be");
        let write = |_: &Page, text: &mut Vec<u8>| text.extend_from_slice(b"304");
        let served = small.serve_unchanged(Coding::Gzip, 2, Form::OnePiece, write).expect("it is short");
        assert_eq!(&served.bytes[..served.length], b"304304");
        let large = self::snapshot(300, 1);
        let mut long = list(&large, "head");
        assert!(long.serve(&large, 1, Form::OnePiece).is_none(), "its body is in the list");
        let any = Form::Pieces { bytes_max: usize::MAX };
        let served = long.serve(&large, 1, any).expect("any pieces will do");
        assert!(&served.bytes[..served.length] == b"head" && matches!(served.body, ServedBody::Todos(..)));
        let served = long.serve(&large, 2, any).expect("any pieces will do");
        assert!(served.answers == 2 && matches!(served.body, ServedBody::Copied), "asked for again, it is copied");
    }
}
