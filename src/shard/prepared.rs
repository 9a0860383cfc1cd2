//! Answers that a shard has ready: the first page for the limits that clients use.
//!
//! A prepared answer belongs to one snapshot and one second (its `Date`). It is never changed, because it may be in
//! flight; when either has moved on, a new one is made.

use std::rc::Rc;

use super::encoded_pages::LocalBody;
use super::local_snapshot::LocalSnapshot;
use super::output::Output;
use crate::http::Coding;
use crate::snapshot::{Page, Snapshot};

/// Limits that are kept ready at the same time; the one used longest ago makes room.
const LISTS_MAX: usize = 16;
/// Largest body that is always copied behind its head into one piece: one plain send then beats a vectored write.
pub const WHOLE_BODY_MAX_BYTES: u64 = 16 * 1024;
/// Largest body that is copied once the same list is asked for again; before, and above, it is sent from the snapshot.
const HOT_BODY_MAX_BYTES: u64 = 128 * 1024;
/// How often a longer one is sent from the snapshot before that is made flat, where no version before was: by then, it has been
/// asked for often enough that it will be again.
const USES_BEFORE_FLAT: u32 = 8;
/// Most bytes of the copies of one answer: a deep pipeline of small answers then leaves as one piece, and the copies stay
/// in the second-level cache. With [`LISTS_MAX`] it bounds what a shard keeps ready to 4 MiB.
const COPIES_MAX_BYTES: usize = 256 * 1024;

/// A complete answer, as often in a row as pipelines have asked for it. It is never changed, because it may be in flight.
pub struct PreparedAnswer {
    copies: Rc<[u8]>,
    answer_bytes: usize,
}

impl PreparedAnswer {
    /// An answer of these bytes, not empty.
    pub fn new(bytes: Vec<u8>) -> PreparedAnswer {
        PreparedAnswer { answer_bytes: bytes.len(), copies: bytes.into() }
    }

    /// Bytes of one answer.
    #[inline]
    pub fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// Gives `push` the pieces that together are `count` of this answer: a buffer, and how much of it.
    #[inline]
    pub fn push_pieces(&mut self, count: usize, mut push: impl FnMut(Rc<[u8]>, usize)) {
        if count > 1 {
            self.make_copies(count);
        }
        let mut rest = count * self.answer_bytes;
        while rest > 0 {
            let piece = rest.min(self.copies.len());
            push(Rc::clone(&self.copies), piece);
            rest -= piece;
        }
    }

    /// To copy is no more work than what it saves: the kernel copies as much out of them.
    fn make_copies(&mut self, count: usize) {
        let wanted = count.next_power_of_two().min(COPIES_MAX_BYTES / self.answer_bytes);
        if wanted * self.answer_bytes > self.copies.len() && count * self.answer_bytes > self.copies.len() {
            self.copies = self.copies[..self.answer_bytes].repeat(wanted).into();
        }
    }
}

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

    /// What a full answer is sent in.
    #[inline]
    pub fn coding(&self) -> Coding {
        self.encoded.as_ref().map_or(Coding::Identity, |encoded| encoded.coding())
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

    fn copy_body(&mut self, snapshot: &Snapshot) {
        let mut bytes = Vec::with_capacity(self.answer.answer_bytes() + self.body_bytes() as usize);
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

    /// Appends the list `count` times at most, as far as the output takes it, and once at least; returns how often.
    /// `snapshot` is the one that the list was made from.
    #[inline]
    pub fn push(
        &mut self,
        snapshot: &Rc<LocalSnapshot>,
        count: impl FnOnce(usize) -> usize,
        output: &mut Output,
    ) -> usize {
        if self.body == PreparedBody::Shared {
            self.uses += 1;
            if self.uses == 1 || self.body_bytes() > HOT_BODY_MAX_BYTES {
                if (self.uses == USES_BEFORE_FLAT || snapshot.was_flat()) && self.encoded.is_none() {
                    snapshot.flatten();
                }
                output.push_prepared(&mut self.answer, 1);
                match &self.encoded {
                    Some(encoded) => output.push_encoded(Rc::clone(encoded)),
                    None => output.push_todos(Rc::clone(snapshot), self.page.body),
                }
                return 1;
            }
            self.copy_body(snapshot);
        }
        let count = count(output.room_for(self.answer.answer_bytes()));
        output.push_prepared(&mut self.answer, count);
        count
    }

    /// The list `count` times, or so often the answer that it is unchanged, if that is ready as one piece: a buffer, and how
    /// much of it.
    #[inline]
    pub fn share(&mut self, unchanged: Option<Coding>, count: usize) -> Option<(Rc<[u8]>, usize)> {
        let answer = match (unchanged, &mut self.unchanged) {
            (None, _) => (self.body == PreparedBody::Copied).then_some(&mut self.answer)?,
            (Some(coding), Some((of, answer))) if *of == coding => answer,
            (Some(_), _) => return None,
        };
        if count > 1 {
            answer.make_copies(count);
        }
        let bytes = count * answer.answer_bytes;
        (bytes <= answer.copies.len()).then(|| (Rc::clone(&answer.copies), bytes))
    }

    /// Appends the answer 304 with the tag of this coding, as [`PreparedList::push`] does; `write_unchanged` writes it the
    /// first time.
    #[inline]
    pub fn push_unchanged(
        &mut self,
        coding: Coding,
        write_unchanged: impl FnOnce(&Page, &mut Vec<u8>),
        count: impl FnOnce(usize) -> usize,
        output: &mut Output,
    ) -> usize {
        if self.unchanged.as_ref().is_some_and(|(of, _)| *of != coding) {
            self.unchanged = None;
        }
        let (_, answer) = self.unchanged.get_or_insert_with(|| {
            let mut bytes = Vec::with_capacity(256);
            write_unchanged(&self.page, &mut bytes);
            (coding, PreparedAnswer::new(bytes))
        });
        let count = count(output.room_for(answer.answer_bytes()));
        output.push_prepared(answer, count);
        count
    }
}

struct Entry {
    limit: Option<usize>,
    /// The coding that was asked for: the list has it as soon as the encoder has made it.
    coding: Coding,
    snapshot_version: u64,
    unix_seconds: i64,
    used_at: u64,
    list: PreparedList,
}

/// The lists that are ready.
#[derive(Default)]
pub struct PreparedLists {
    entries: Vec<Entry>,
    uses: u64,
    /// How often lists were asked for that went with their snapshot: they are asked for again with the next one.
    asked: Vec<(Option<usize>, Coding, u64)>,
}

impl PreparedLists {
    /// The list for this limit and those who prefer this coding, made by `make`, which is told how often the one before was the
    /// answer, unless the one at hand is of this second, and of
    /// this snapshot or of one whose `page` for the limit was the same.
    #[inline]
    pub fn get(
        &mut self,
        limit: Option<usize>,
        coding: Coding,
        snapshot_version: u64,
        unix_seconds: i64,
        page: impl FnOnce() -> Page,
        make: impl FnOnce(u64) -> PreparedList,
    ) -> &mut PreparedList {
        self.uses += 1;
        let found = self.entries.iter().position(|entry| entry.limit == limit && entry.coding == coding);
        let at = match found {
            Some(at) => {
                let entry = &mut self.entries[at];
                if entry.snapshot_version != snapshot_version || entry.unix_seconds != unix_seconds {
                    if entry.unix_seconds != unix_seconds || !entry.stands_alone() || !entry.list.go_on_with(page()) {
                        entry.list = make(entry.list.answers);
                    }
                    entry.snapshot_version = snapshot_version;
                    entry.unix_seconds = unix_seconds;
                }
                at
            }
            None => {
                if self.entries.len() >= LISTS_MAX {
                    let oldest = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.used_at);
                    if let Some((oldest, _)) = oldest {
                        self.entries.swap_remove(oldest);
                    }
                }
                let asked = self.take_asked(limit, coding);
                self.entries.push(Entry {
                    limit,
                    coding,
                    snapshot_version,
                    unix_seconds,
                    used_at: 0,
                    list: make(asked),
                });
                self.entries.len() - 1
            }
        };
        self.entries[at].used_at = self.uses;
        &mut self.entries[at].list
    }

    /// Lets go of the answer for this limit and coding: there is a better one.
    pub fn forget(&mut self, limit: Option<usize>, coding: Coding) {
        self.entries.retain(|entry| entry.limit != limit || entry.coding != coding);
    }

    /// Lets go of answers of other snapshots, so that an unused limit does not keep an old list alive. Those that need none
    /// stay: the page may be the same.
    pub fn retain_version(&mut self, snapshot_version: u64) {
        let PreparedLists { entries, asked, .. } = self;
        entries.retain(|entry| {
            let stays = entry.snapshot_version == snapshot_version || entry.stands_alone();
            if !stays && entry.coding != Coding::Identity {
                if asked.len() >= LISTS_MAX {
                    asked.remove(0);
                }
                asked.push((entry.limit, entry.coding, entry.list.answers));
            }
            stays
        });
    }

    fn take_asked(&mut self, limit: Option<usize>, coding: Coding) -> u64 {
        let mut sum = 0;
        self.asked.retain(|(of, in_coding, answers)| {
            let is_it = (*of, *in_coding) == (limit, coding);
            sum += if is_it { *answers } else { 0 };
            !is_it
        });
        sum
    }
}

impl Entry {
    /// Whether it needs nothing of its snapshot, and nothing better can come for it.
    fn stands_alone(&self) -> bool {
        self.coding == Coding::Identity && self.list.body == PreparedBody::Copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::HashKeys;

    fn list(text: &str) -> PreparedList {
        let snapshot = Snapshot::empty(HashKeys::new(&[1; 32]));
        PreparedList::new(&snapshot, snapshot.page(None, None), None, text.as_bytes().to_vec())
    }

    fn text(list: &PreparedList) -> &[u8] {
        list.answer.copies.strip_suffix(b"[]").expect("the empty list is copied behind the head")
    }

    fn same() -> Page {
        Snapshot::empty(HashKeys::new(&[1; 32])).page(None, None)
    }

    fn other() -> Page {
        Page { entity_tag: !same().entity_tag, ..same() }
    }

    #[test]
    fn a_list_is_made_anew_for_each_page_and_second() {
        let mut lists = PreparedLists::default();
        let mut get = |limit, coding, version, seconds, page: fn() -> Page, new: &str| {
            let list = lists.get(limit, coding, version, seconds, page, |_| list(new));
            String::from_utf8(text(list).to_vec()).expect("ASCII")
        };
        const PLAIN: Coding = Coding::Identity;
        assert_eq!(get(Some(10), PLAIN, 1, 1, other, "a"), "a");
        assert_eq!(get(Some(10), PLAIN, 1, 1, other, "b"), "a", "still good");
        assert_eq!(get(Some(10), PLAIN, 2, 1, other, "c"), "c");
        assert_eq!(get(Some(10), PLAIN, 3, 1, same, "d"), "c", "another version with the same page");
        assert_eq!(get(Some(10), PLAIN, 3, 1, other, "d"), "c", "which was noted");
        assert_eq!(get(Some(10), PLAIN, 3, 2, same, "d"), "d", "another date");
        assert_eq!(get(None, PLAIN, 2, 2, other, "all"), "all");
        assert_eq!(get(None, Coding::Gzip, 2, 2, other, "all zipped"), "all zipped");
        assert_eq!(get(None, PLAIN, 2, 2, other, "e"), "all", "each for its own");
        assert_eq!(get(None, Coding::Gzip, 3, 2, same, "made for this version"), "made for this version");
        lists.forget(None, Coding::Gzip);
        let mut get = |coding, new: &str| text(lists.get(None, coding, 3, 2, same, |_| list(new))).to_vec();
        assert_eq!(get(PLAIN, "e"), b"all");
        assert_eq!(get(Coding::Gzip, "better"), b"better");
    }

    #[test]
    fn many_limits_do_not_grow_it() {
        let mut lists = PreparedLists::default();
        for limit in 0..1000 {
            lists.get(Some(7), Coding::Identity, 1, 1, other, |_| list("hot"));
            lists.get(Some(1000 + limit), Coding::Gzip, 1, 1, other, |_| list("cold"));
        }
        assert!(lists.entries.len() <= LISTS_MAX);
        let hot = lists.get(Some(7), Coding::Identity, 1, 1, other, |_| list("made again"));
        assert_eq!(text(hot), b"hot", "what is used stays");
        lists.retain_version(2);
        assert_eq!(lists.entries.len(), 1, "what needs no snapshot stays");
    }

    #[test]
    fn pieces_are_so_many_copies() {
        for (answer_bytes, counts) in [(3, [1, 2, 5, 64, 1000]), (100_000, [1, 2, 3, 4, 9]), (300_000, [1, 2, 1, 3, 1])]
        {
            let bytes: Vec<u8> = (0..answer_bytes).map(|at| (at % 251) as u8).collect();
            let mut answer = PreparedAnswer::new(bytes.clone());
            for count in counts {
                let mut sent = Vec::new();
                answer.push_pieces(count, |piece, length| sent.extend_from_slice(&piece[..length]));
                assert!(sent == bytes.repeat(count), "{count} of {answer_bytes} bytes");
                assert!(answer.copies.len() <= COPIES_MAX_BYTES.max(answer_bytes));
            }
        }
    }

    #[test]
    fn a_list_is_shared_as_one_piece_or_not_at_all() {
        let mut list = list("head");
        for count in [1, 2, 5] {
            let (bytes, length) = list.share(None, count).expect("its body is copied");
            assert_eq!(bytes[..length], b"head[]".repeat(count));
        }
        assert!(list.share(None, COPIES_MAX_BYTES).is_none(), "more than the copies of an answer may be");
        assert!(list.share(Some(Coding::Identity), 1).is_none(), "nobody has asked for it before");
        let mut output = Output::default();
        list.push_unchanged(Coding::Identity, |_, text| text.extend_from_slice(b"304"), |_| 1, &mut output);
        let (bytes, length) = list.share(Some(Coding::Identity), 2).expect("it is ready");
        assert_eq!(&bytes[..length], b"304304");
        assert!(list.share(Some(Coding::Gzip), 1).is_none());
    }
}
