//! Answers that a shard has ready: the first page for the limits that clients use, and the last request's bytes.
//!
//! A prepared answer belongs to one snapshot and one second (its `Date`). It is never changed, because it may be in
//! flight; when either has moved on, a new one is made.

use std::rc::Rc;

use crate::snapshot::Page;

/// Limits that are kept ready at the same time; the one used longest ago makes room.
const LISTS_MAX: usize = 16;
/// Largest body that is copied behind its head into one piece: one plain send then beats a vectored write. Larger ones
/// are sent from the snapshot.
pub const WHOLE_BODY_MAX_BYTES: u64 = 16 * 1024;
/// Longest request that is remembered, in bytes.
const MEMO_MAX_BYTES: usize = 1024;

/// A first page, ready to be sent on a connection that stays open.
pub struct PreparedList {
    /// The head, and behind it the body where it is small.
    pub bytes: Rc<[u8]>,
    /// Where the body is.
    pub body: PreparedBody,
    /// The page, of the snapshot that the list was made from.
    pub page: Page,
}

/// Where the body of a prepared list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreparedBody {
    /// In `bytes`, behind the head.
    Copied,
    /// In the snapshot.
    Shared,
}

struct Entry {
    limit: Option<usize>,
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
}

impl PreparedLists {
    /// The list for this limit, made by `make` unless the one at hand is of this snapshot and this second.
    #[inline]
    pub fn get(
        &mut self,
        limit: Option<usize>,
        snapshot_version: u64,
        unix_seconds: i64,
        make: impl FnOnce() -> PreparedList,
    ) -> &PreparedList {
        self.uses += 1;
        let found = self.entries.iter().position(|entry| entry.limit == limit);
        let at = match found {
            Some(at) => {
                let entry = &mut self.entries[at];
                if entry.snapshot_version != snapshot_version || entry.unix_seconds != unix_seconds {
                    entry.list = make();
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
                self.entries.push(Entry { limit, snapshot_version, unix_seconds, used_at: 0, list: make() });
                self.entries.len() - 1
            }
        };
        self.entries[at].used_at = self.uses;
        &self.entries[at].list
    }

    /// Lets go of answers of other snapshots, so that an unused limit does not keep an old list alive.
    pub fn retain_version(&mut self, snapshot_version: u64) {
        self.entries.retain(|entry| entry.snapshot_version == snapshot_version);
    }
}

/// The exact bytes of the last plain list request. Parsing is a function of the bytes alone: the same bytes, up to and
/// with the empty line, mean the same request, so comparing them replaces parsing them.
#[derive(Default)]
pub struct Memo {
    request: Vec<u8>,
    limit: Option<usize>,
}

impl Memo {
    /// If `unread` starts with the remembered request: its length and its limit.
    #[inline]
    pub fn recall(&self, unread: &[u8]) -> Option<(usize, Option<usize>)> {
        let length = self.request.len();
        (length > 0 && unread.len() >= length && unread[..length] == self.request[..]).then_some((length, self.limit))
    }

    /// Remembers the bytes of a request that asked for the first `limit` todos, with no condition and nothing else that
    /// an answer could depend on.
    pub fn remember(&mut self, request: &[u8], limit: Option<usize>) {
        if request.len() <= MEMO_MAX_BYTES {
            self.request.clear();
            self.request.extend_from_slice(request);
            self.limit = limit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Snapshot;

    fn whole(text: &str) -> PreparedList {
        let page = Snapshot::empty().page(None, None);
        PreparedList { bytes: Rc::from(text.as_bytes()), body: PreparedBody::Copied, page }
    }

    fn text(list: &PreparedList) -> &[u8] {
        &list.bytes
    }

    #[test]
    fn a_list_is_made_anew_for_each_version_and_second() {
        let mut lists = PreparedLists::default();
        assert_eq!(text(lists.get(Some(10), 1, 1, || whole("a"))), b"a");
        assert_eq!(text(lists.get(Some(10), 1, 1, || whole("b"))), b"a", "still good");
        assert_eq!(text(lists.get(Some(10), 2, 1, || whole("c"))), b"c");
        assert_eq!(text(lists.get(Some(10), 2, 2, || whole("d"))), b"d");
        assert_eq!(text(lists.get(None, 2, 2, || whole("all"))), b"all");
    }

    #[test]
    fn many_limits_do_not_grow_it() {
        let mut lists = PreparedLists::default();
        for limit in 0..1000 {
            lists.get(Some(7), 1, 1, || whole("hot"));
            lists.get(Some(1000 + limit), 1, 1, || whole("cold"));
        }
        assert!(lists.entries.len() <= LISTS_MAX);
        assert_eq!(text(lists.get(Some(7), 1, 1, || whole("made again"))), b"hot", "what is used stays");
        lists.retain_version(2);
        assert!(lists.entries.is_empty());
    }

    #[test]
    fn the_memo_needs_the_whole_request() {
        let mut memo = Memo::default();
        assert_eq!(memo.recall(b"GET"), None);
        memo.remember(b"GET / HTTP/1.1\r\n\r\n", Some(3));
        assert_eq!(memo.recall(b"GET / HTTP/1.1\r\n\r\nGET"), Some((18, Some(3))));
        assert_eq!(memo.recall(b"GET / HTTP/1.1\r\n\r"), None);
        assert_eq!(memo.recall(b"GET / HTTP/1.0\r\n\r\n"), None);
    }
}
