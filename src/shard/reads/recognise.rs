//! What is asked: the bytes of a request become a value.
//!
//! The same bytes always mean the same, so the answer to "what do they ask?" may be remembered. Real clients send one head
//! again and again, but not the head of their neighbours: [`SeenHeads`](super::seen::SeenHeads) knows some hundred of them.

use super::{Reads, coding_of};
use crate::http::cors::{Cors, Grant};
use crate::http::query::{ListQuery, list_query};
use crate::http::route::route;
use crate::http::words::entity_tag::own_entity_tag;
use crate::http::{Coding, Connection, Head, Method, Parsed, Rejection, Route, parse_head};

/// A request for the first page of the list on a connection that stays open: what most requests are. Nothing else of the
/// request has to do with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstPage {
    /// The first so many todos; `None` for all.
    pub limit: Option<usize>,
    /// The coding that the client prefers.
    pub coding: Coding,
    /// The entity tag that the client has, and of which coding: as long as the list has this one, the answer is 304.
    pub known: Option<(u64, Coding)>,
    /// What the answer says to pages of other origins.
    pub grant: Grant,
}

/// A request that asks for a first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// What it asks for.
    pub page: FirstPage,
    /// Its bytes.
    pub request_bytes: usize,
    /// Whether its head was known, and not parsed.
    pub is_known: bool,
}

/// What stands at the start of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Recognised<'b> {
    /// The start of a head; ask again with more bytes.
    Incomplete,
    /// A request for a first page, without a body.
    FirstPage(Asked),
    /// Any other head.
    Head {
        /// The head.
        head: Head<'b>,
        /// Its bytes, with the empty line.
        head_bytes: usize,
    },
}

impl Reads {
    /// Says what the request at the start of `unread` asks for: a head that has been seen is compared, any other is parsed.
    ///
    /// # Errors
    /// [`Rejection`], after which the connection closes.
    #[inline]
    pub fn recognise<'b>(&self, unread: &'b [u8]) -> Result<Recognised<'b>, Rejection> {
        if !begins_like_first_page(unread) {
            return read_head(unread);
        }
        match self.seen.borrow_mut().find(unread) {
            Some((page, request_bytes)) => Ok(Recognised::FirstPage(Asked { page, request_bytes, is_known: true })),
            None => parse(unread, self.has_codings(), &self.cors),
        }
    }

    /// Notes that the request at the start of `unread` has been answered: a head that had to be parsed may be known from now on.
    #[inline]
    pub fn note(&self, unread: &[u8], asked: Asked) {
        if !asked.is_known {
            self.metrics.unknown_heads.add(1);
            let head = &unread[..asked.request_bytes];
            self.seen.borrow_mut().note(head, asked.page, self.clock.unix_seconds());
        }
    }
}

/// Whether the bytes begin as a request for a first page does. No other request begins so, but for those whose fields want
/// something else: who asks this first parses few heads in vain.
#[inline]
pub fn begins_like_first_page(bytes: &[u8]) -> bool {
    let Some(mut rest) = bytes.strip_prefix(b"GET /todos") else { return false };
    if let Some(limit) = rest.strip_prefix(b"?limit=") {
        let digits = limit.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest = &limit[digits..];
    }
    rest.starts_with(b" HTTP/1.1\r\n")
}

/// Reads any head.
///
/// # Errors
/// [`Rejection`]
pub fn read_head(unread: &[u8]) -> Result<Recognised<'_>, Rejection> {
    Ok(match parse_head(unread)? {
        Parsed::Incomplete => Recognised::Incomplete,
        Parsed::Complete { head, consumed } => Recognised::Head { head, head_bytes: consumed },
    })
}

/// What the bytes ask for, by parsing alone.
#[inline]
fn parse<'b>(unread: &'b [u8], has_codings: bool, cors: &Cors) -> Result<Recognised<'b>, Rejection> {
    let (head, head_bytes) = match parse_head(unread)? {
        Parsed::Incomplete => return Ok(Recognised::Incomplete),
        Parsed::Complete { head, consumed } => (head, consumed),
    };
    Ok(match first_page(&head, has_codings, cors) {
        Some(page) => Recognised::FirstPage(Asked { page, request_bytes: head_bytes, is_known: false }),
        None => Recognised::Head { head, head_bytes },
    })
}

/// The first page that the head asks for, if it asks for nothing else. A condition may name one entity tag of ours: what else
/// it may say is rare.
#[inline]
fn first_page(head: &Head<'_>, has_codings: bool, cors: &Cors) -> Option<FirstPage> {
    let is_plain = head.method == Method::Get
        && head.connection() == Connection::KeepAlive
        && !head.framing.has_body()
        && route(head.path) == Route::Todos;
    if !is_plain {
        return None;
    }
    let Ok(ListQuery { limit, cursor: None, filter }) = list_query(head.query) else { return None };
    if !filter.is_none() {
        return None;
    }
    let known = if head.has_condition() { Some(only_known_tag(head)?) } else { None };
    Some(FirstPage { limit, coding: coding_of(head, has_codings), known, grant: cors.grant(head) })
}

fn only_known_tag(head: &Head<'_>) -> Option<(u64, Coding)> {
    let mut lines = head.if_none_match();
    let tag = own_entity_tag(lines.next()?)?;
    // A client that has the list may prefer to wait for another.
    let is_all = lines.next().is_none() && head.if_match().next().is_none() && head.prefer().next().is_none();
    is_all.then_some(tag)
}

/// How often `unread`, which begins with a request of this length, repeats it: `max` at most, and once at least.
#[inline]
pub fn repetitions(unread: &[u8], request_bytes: usize, max: usize) -> usize {
    let (request, others) = unread.split_at(request_bytes);
    let others = others.chunks_exact(request_bytes).take(max.saturating_sub(1));
    1 + others.take_while(|other| *other == request).count()
}

/// How often `received`, which begins with a request of this length, is that request; `None` if something else stands behind it.
#[inline]
pub fn whole_repetitions(received: &[u8], request_bytes: usize) -> Option<usize> {
    if received.len() == request_bytes {
        return Some(1);
    }
    // What is the same again from one request later on is nothing else: one comparison, and not one for each.
    let is_repeated = received.len().is_multiple_of(request_bytes)
        && received[request_bytes..] == received[..received.len() - request_bytes];
    is_repeated.then(|| received.len() / request_bytes)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::HASH_KEY_BYTES;
    use super::*;
    use crate::http::words::entity_tag::encoded_entity_tag;

    const HAS_CODINGS: bool = true;

    fn reads() -> Reads {
        let (wishes, _) = crossbeam_channel::bounded(1);
        Reads::new(Some(wishes), Rc::default(), Arc::default(), [0; HASH_KEY_BYTES], Arc::default())
    }

    fn page(request: &str) -> Option<FirstPage> {
        match reads().recognise(request.as_bytes()) {
            Ok(Recognised::FirstPage(asked)) => {
                assert!(asked.request_bytes == request.len() && !asked.is_known, "{request:?}");
                Some(asked.page)
            }
            _ => None,
        }
    }

    #[test]
    fn first_pages() {
        let plain = FirstPage { limit: None, coding: Coding::Identity, known: None, grant: Grant::NONE };
        let gzip = FirstPage { coding: Coding::Gzip, ..plain };
        let ten = FirstPage { limit: Some(10), ..plain };
        let known = |coding| FirstPage { known: Some((0x0123_4567_89ab_cdef, coding)), ..ten };
        for (target, fields, expected) in [
            ("/todos", "", Some(plain)),
            ("/todos?limit=10", "", Some(ten)),
            ("/todos?limit=0010", "", Some(ten)),
            ("/todos?limit=", "", None),
            ("/todos?limit=0", "", None),
            ("/todos?limit=10001", "", None),
            ("/todos?limit=10&limit=10", "", None),
            ("/todos?cursor=AWWr", "", None),
            ("/todos?completed=true", "", None),
            ("/todos?limit=10&user_id=a", "", None),
            ("/todos?limit=10#", "", None),
            ("/todos/", "", None),
            ("/todos/events", "", None),
            ("/health", "", None),
            ("/todos", "Accept-Encoding: gzip, br;q=0.5\r\n", Some(gzip)),
            ("/todos", "Accept-Encoding: zstd;q=0.1\r\nX: y\r\naccept-encoding: gzip\r\n", Some(gzip)),
            ("/todos", "Accept: */*\r\nCookie: a=b\r\nPrefer: wait=1\r\nAuthorization: Bearer x\r\n", Some(plain)),
            ("/todos", "Connection: keep-alive\r\nContent-Length: 0\r\n", Some(plain)),
            ("/todos", "Connection: close\r\n", None),
            ("/todos", "Content-Length: 1\r\n", None),
            ("/todos", "Transfer-Encoding: chunked\r\n", None),
            ("/todos", "If-Match: *\r\n", None),
            ("/todos", "If-None-Match: *\r\n", None),
            ("/todos?limit=10", "If-None-Match: \"0123456789abcdef\"\r\n", Some(known(Coding::Identity))),
            ("/todos?limit=10", "If-None-Match: W/\"0123456789abcdef-br\"\r\n", Some(known(Coding::Brotli))),
            ("/todos?limit=10", "If-None-Match: \"0123456789abcdef\", \"a\"\r\n", None),
            ("/todos?limit=10", "If-None-Match: \"0123456789abcdef\"\r\nIf-None-Match: \"a\"\r\n", None),
            ("/todos?limit=10", "If-None-Match: \"0123456789abcdef\"\r\nIf-Match: *\r\n", None),
            ("/todos?limit=10", "If-None-Match: \"abc\"\r\n", None),
            ("/todos?limit=10", "If-None-Match: \"0123456789abcdef\"\r\nPrefer: wait=1\r\n", None),
        ] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            assert_eq!(page(&request), expected, "{request:?}");
        }
        for request in [
            "HEAD /todos HTTP/1.1\r\nHost: h\r\n\r\n",
            "POST /todos HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /todos HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "GET /todos HTTP/1.1\r\n\r\n",
            "GET /todos HTTP/1.1\r\nHost: h\r\n",
            "GET /todos HTTP/1.1\nHost: h\n\n",
            "GET /todos?limit=10",
            "",
        ] {
            assert_eq!(page(request), None, "{request:?}");
        }
    }

    #[test]
    fn without_codings_all_is_identity() {
        let reads = Reads::new(None, Rc::default(), Arc::default(), [0; HASH_KEY_BYTES], Arc::default());
        let request = b"GET /todos HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n";
        for _ in 0..4 {
            let Ok(Recognised::FirstPage(asked)) = reads.recognise(request) else { panic!("it is one") };
            assert_eq!(asked.page.coding, Coding::Identity);
            reads.note(request, asked);
        }
    }

    #[test]
    fn a_known_head_says_the_same_to_its_origin() {
        let cors = Arc::new(Cors::new(&["https://a".to_owned(), "https://b".to_owned()]));
        let reads = Reads::new(None, Rc::default(), Arc::default(), [0; HASH_KEY_BYTES], Arc::clone(&cors));
        let request = |origin: &str| format!("GET /todos HTTP/1.1\r\nHost: h\r\nOrigin: {origin}\r\n\r\n").into_bytes();
        for _ in 0..4 {
            for origin in ["https://a", "https://b", "https://c"] {
                let Ok(Recognised::FirstPage(asked)) = reads.recognise(&request(origin)) else { panic!("it is one") };
                let lines = String::from_utf8_lossy(cors.lines(asked.page.grant)).into_owned();
                assert_eq!(lines.contains(&format!("Allow-Origin: {origin}\r\n")), origin != "https://c", "{lines}");
                reads.note(&request(origin), asked);
            }
        }
    }

    #[test]
    fn repetitions_are_counted() {
        assert_eq!(repetitions(b"abab", 2, 9), 2);
        assert_eq!(repetitions(b"ababa", 2, 9), 2, "the last has not arrived completely");
        assert_eq!(repetitions(b"abacab", 2, 9), 1);
        assert_eq!(repetitions(b"ababab", 2, 2), 2);
        assert_eq!(repetitions(b"ababab", 2, 0), 1, "one at least");
        assert_eq!(whole_repetitions(b"ab", 2), Some(1));
        assert_eq!(whole_repetitions(b"ababab", 2), Some(3));
        for other in [&b"aba"[..], b"abac", b"abab a"] {
            assert_eq!(whole_repetitions(other, 2), None, "{other:?}");
        }
    }

    /// Heads that clients send: few values for each part, so that the same ones come again, beside some that differ in a byte.
    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let tag = String::from_utf8(encoded_entity_tag(7, Coding::Gzip).to_vec()).expect("ASCII");
        let target = prop::sample::select(vec![
            "/todos",
            "/todos?limit=1",
            "/todos?limit=10",
            "/todos?limit=x",
            "/",
            "/todos/1",
        ]);
        let fields = vec![
            "Host: h\r\n".to_owned(),
            "host: h\r\n".to_owned(),
            "Accept-Encoding: gzip\r\n".to_owned(),
            "Accept-Encoding: br;q=0.1, identity\r\n".to_owned(),
            "Connection: close\r\n".to_owned(),
            "Content-Length: 0\r\n".to_owned(),
            "Content-Length: 2\r\n".to_owned(),
            format!("If-None-Match: {tag}\r\n"),
            "If-None-Match: *\r\n".to_owned(),
            "If-Match: *\r\n".to_owned(),
            "Cookie: a\r\n".to_owned(),
            "Bare: lf\n".to_owned(),
            "no colon\r\n".to_owned(),
        ];
        let fields = prop::sample::subsequence(fields, 0..4);
        let method = prop::sample::select(vec!["GET", "GET", "GET", "HEAD", "POST"]);
        let version = prop::sample::select(vec!["1.1", "1.1", "1.1", "1.0"]);
        let start = prop::sample::select(vec!["", "", "", "\r\n"]);
        (start, method, target, version, fields, any::<Option<(prop::sample::Index, u8)>>()).prop_map(
            |(start, method, target, version, fields, flipped)| {
                let fields = fields.concat();
                let host = if fields.to_lowercase().contains("host") { "" } else { "Host: h\r\n" };
                let mut head = format!("{start}{method} {target} HTTP/{version}\r\n{host}{fields}\r\n").into_bytes();
                if let Some((at, bit)) = flipped.filter(|(_, bit)| *bit < 64) {
                    let at = at.index(head.len());
                    head[at] ^= 1 << (bit % 8);
                }
                head
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever has come before, in whatever order: a head means what it means when it is parsed.
        #[test]
        fn what_is_known_is_what_parsing_says(
            heads in prop::collection::vec(heads(), 1..12),
            order in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..40usize), 1..120),
        ) {
            let reads = reads();
            for (first, second, cut) in order {
                let first = first.get(&heads);
                // With the start of another request behind it, or without its own end.
                let second = second.get(&heads);
                let mut unread = [&first[..], second].concat();
                unread.truncate(first.len() + 20 - cut.min(first.len() + 20));
                let expected = match begins_like_first_page(&unread) {
                    true => parse(&unread, HAS_CODINGS, &Cors::default()),
                    false => read_head(&unread),
                };
                match (reads.recognise(&unread), expected) {
                    (Ok(Recognised::FirstPage(asked)), Ok(Recognised::FirstPage(parsed))) => {
                        prop_assert_eq!((asked.page, asked.request_bytes), (parsed.page, parsed.request_bytes));
                        reads.note(&unread, asked);
                    }
                    (recognised, expected) => prop_assert_eq!(recognised, expected),
                }
                // What is not asked for as a first page, is none by parsing either: but for its spelling.
                if let Ok(Recognised::FirstPage(asked)) = parse(&unread, HAS_CODINGS, &Cors::default()) {
                    let again = reads.recognise(&unread);
                    let is_one = matches!(again, Ok(Recognised::FirstPage(again)) if again.page == asked.page);
                    prop_assert!(is_one || !begins_like_first_page(&unread));
                }
            }
        }
    }
}
