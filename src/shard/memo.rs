//! The last request's bytes, and what they meant.

use crate::http::Coding;

/// Longest request that is remembered, in bytes.
const MEMO_MAX_BYTES: usize = 1024;

/// The exact bytes of the last request for a first page. Parsing is a function of the bytes alone: the same bytes, up to
/// and with the empty line, mean the same request, so comparing them replaces parsing them.
#[derive(Default)]
pub struct Memo {
    request: Vec<u8>,
    meaning: Meaning,
}

/// What a remembered request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meaning {
    /// The first so many todos; `None` for all.
    pub limit: Option<usize>,
    /// The coding that its client prefers.
    pub coding: Coding,
    /// The entity tag that its condition names, and in which coding: it is answered with 304 as long as the list has this
    /// one.
    pub unchanged: Option<(u64, Coding)>,
}

impl Memo {
    /// What `unread` asks for, if it starts with the remembered request.
    #[inline]
    pub fn recall(&self, unread: &[u8]) -> Option<Meaning> {
        (!self.request.is_empty() && unread.starts_with(&self.request)).then_some(self.meaning)
    }

    /// Bytes of the remembered request.
    #[inline]
    pub fn request_bytes(&self) -> usize {
        self.request.len()
    }

    /// How often `unread`, which starts with the remembered request, repeats it: `max` at most.
    #[inline]
    pub fn repetitions(&self, unread: &[u8], max: usize) -> usize {
        let requests = unread.chunks_exact(self.request.len()).take(max);
        requests.take_while(|request| *request == self.request).count().max(1)
    }

    /// How often `received` is the remembered request; `None` if it is anything else besides, or nothing.
    #[inline]
    pub fn whole_repetitions(&self, received: &[u8]) -> Option<usize> {
        let request_bytes = self.request.len();
        if request_bytes == 0 || !received.len().is_multiple_of(request_bytes) {
            return None;
        }
        // What begins with the request, and is the same again from one request later on, is nothing else: two comparisons, and
        // not one for each.
        let (first, others) = received.split_at_checked(request_bytes)?;
        (first == self.request && others == &received[..others.len()]).then(|| received.len() / request_bytes)
    }

    /// What the remembered request asks for.
    #[inline]
    pub fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// Remembers the bytes of a request that asked for the first `limit` todos, with nothing else that an answer could
    /// depend on than what `meaning` says.
    pub fn remember(&mut self, request: &[u8], meaning: Meaning) {
        if request.len() <= MEMO_MAX_BYTES {
            self.request.clear();
            self.request.extend_from_slice(request);
            self.meaning = meaning;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memo_needs_the_whole_request() {
        let meaning = Meaning { limit: Some(3), ..Meaning::default() };
        let mut memo = Memo::default();
        assert_eq!(memo.recall(b"GET"), None);
        memo.remember(b"GET / HTTP/1.1\r\n\r\n", meaning);
        assert_eq!(memo.recall(b"GET / HTTP/1.1\r\n\r\nGET"), Some(meaning));
        assert_eq!(memo.request_bytes(), 18);
        assert_eq!(memo.recall(b"GET / HTTP/1.1\r\n\r"), None);
        assert_eq!(memo.recall(b"GET / HTTP/1.0\r\n\r\n"), None);
    }

    #[test]
    fn the_memo_counts_repetitions() {
        let mut memo = Memo::default();
        memo.remember(b"ab", Meaning::default());
        assert_eq!(memo.repetitions(b"abab", 9), 2);
        assert_eq!(memo.repetitions(b"ababa", 9), 2, "the last has not arrived completely");
        assert_eq!(memo.repetitions(b"abacab", 9), 1);
        assert_eq!(memo.repetitions(b"ababab", 2), 2);
        assert_eq!(memo.repetitions(b"ababab", 0), 1, "one at least");
        assert_eq!(memo.whole_repetitions(b"ab"), Some(1));
        assert_eq!(memo.whole_repetitions(b"ababab"), Some(3));
        for other in [&b"aba"[..], b"abac", b"ac", b"a"] {
            assert_eq!(memo.whole_repetitions(other), None);
        }
        assert_eq!(Memo::default().whole_repetitions(b""), None);
    }
}
