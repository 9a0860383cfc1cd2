//! Whole heads: what is read from them, what is refused, and that splits change nothing.

use proptest::prelude::*;

use super::*;
use crate::limits::{HEAD_MAX_BYTES, HEADERS_MAX, LEADING_EMPTY_LINES_MAX, TARGET_MAX_BYTES};

fn head(input: &[u8]) -> Head<'_> {
    match parse_head(input) {
        Ok(Parsed::Complete { head, consumed }) => {
            assert_eq!(consumed, input.len(), "{:?}", String::from_utf8_lossy(input));
            head
        }
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(input)),
    }
}

fn status(input: &[u8]) -> u16 {
    match parse_head(input) {
        Err(rejection) => rejection.status().code(),
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(input)),
    }
}

fn with_fields(fields: &str) -> String {
    format!("POST /todos HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn a_plain_get() {
    let head = head(b"GET /todos?limit=10 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n");
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.version, Version::Http11);
    assert_eq!((head.path, head.query), (&b"/todos"[..], Some(&b"limit=10"[..])));
    assert_eq!(head.authority, b"127.0.0.1:8080");
    assert_eq!(head.framing, Framing::None);
    assert!(head.keep_alive && !head.expect_continue);
    assert_eq!(head.connection(), Connection::KeepAlive);
    assert_eq!(head.authorization(), None);
    assert_eq!(head.if_none_match().count(), 0);
}

#[test]
fn every_field_that_is_used() {
    let request = b"PUT /todos/1 HTTP/1.1\r\nHOST:\t[::1]:80 \r\nAuthorization: Bearer a.b.c\r\nContent-type:application/json\r\n\
        Content-Encoding: identity\r\nAccept-Encoding: gzip\r\nIf-Match: \"a\"\r\nIf-None-Match: \"b\"\r\nPrefer: return=minimal\r\n\
        Idempotency-Key: \"k\"\r\nExpect: 100-Continue\r\nContent-Length: 5\r\nConnection: Keep-Alive, Close\r\nX-Other: \xc3\xa9\r\n\r\n";
    let head = head(request);
    assert_eq!(head.authority, b"[::1]:80");
    assert_eq!(head.authorization(), Some(&b"Bearer a.b.c"[..]));
    assert_eq!(head.content_type(), Some(&b"application/json"[..]));
    assert_eq!(head.idempotency_key(), Some(&b"\"k\""[..]));
    assert_eq!(head.content_encoding().collect::<Vec<_>>(), [b"identity"]);
    assert_eq!(head.accept_encoding().collect::<Vec<_>>(), [b"gzip"]);
    assert_eq!(head.if_match().collect::<Vec<_>>(), [b"\"a\""]);
    assert_eq!(head.if_none_match().collect::<Vec<_>>(), [b"\"b\""]);
    assert_eq!(head.prefer().collect::<Vec<_>>(), [b"return=minimal"]);
    assert_eq!(head.framing, Framing::Length(5));
    assert!(head.expect_continue && !head.keep_alive);
    assert_eq!(head.connection(), Connection::Close);
}

#[test]
fn several_lines_of_one_field() {
    let request =
        with_fields("Prefer: a\r\nAccept: b\r\nPREFER:\r\nPreferred: c\r\nprefer: \td:e \r\nX: prefer: f\r\n");
    let head = head(request.as_bytes());
    assert_eq!(head.prefer().collect::<Vec<_>>(), [&b"a"[..], b"", b"d:e"]);
}

#[test]
fn only_the_head_is_consumed() {
    let input = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n";
    match parse_head(input) {
        Ok(Parsed::Complete { consumed, .. }) => assert_eq!(consumed, 27),
        other => panic!("{other:?}"),
    }
}

#[test]
fn hosts() {
    let valid = ["Host: a\r\n", "host:a:80\r\n", "Host:\r\n", "Host: \t[::1]:1\t \r\n"];
    for field in valid {
        head(format!("GET / HTTP/1.1\r\n{field}\r\n").as_bytes());
        head(format!("GET / HTTP/1.0\r\n{field}\r\n").as_bytes());
    }
    let invalid = [
        "Host: a b\r\n",
        "Host: a,b:x\r\n",
        "Host: http://a\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: a\r\nHost: a\r\n",
    ];
    for field in invalid {
        for line in ["GET / HTTP/1.1", "GET / HTTP/1.0", "GET http://a/ HTTP/1.1"] {
            assert_eq!(status(format!("{line}\r\n{field}\r\n").as_bytes()), 400, "{line} {field}");
        }
    }
    assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"GET / HTTP/1.1\r\nHosts: a\r\n\r\n"), 400);
    assert_eq!(status(b"GET http://a/ HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(head(b"GET / HTTP/1.0\r\n\r\n").authority, b"");
    // The authority of an absolute target replaces Host.
    assert_eq!(head(b"GET http://b:80/ HTTP/1.1\r\nHost: a\r\n\r\n").authority, b"b:80");
}

#[test]
fn persistence() {
    let cases = [
        ("1.1", "", Connection::KeepAlive),
        ("1.1", "Connection: keep-alive\r\n", Connection::KeepAlive),
        ("1.1", "Connection: close\r\n", Connection::Close),
        ("1.1", "Connection: CLOSE\r\n", Connection::Close),
        ("1.1", "Connection: x,\tclose ,y\r\n", Connection::Close),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", Connection::Close),
        ("1.1", "Connection: closed\r\n", Connection::KeepAlive),
        ("1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\n", Connection::KeepAlive),
        ("1.1", "Keep-Alive: timeout=5\r\n", Connection::KeepAlive),
        ("1.0", "", Connection::Close),
        ("1.0", "Connection: Keep-Alive\r\n", Connection::KeepAliveStated),
        ("1.0", "Connection: keep-alive, close\r\n", Connection::Close),
    ];
    for (version, fields, expected) in cases {
        let request = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(head(request.as_bytes()).connection(), expected, "{version} {fields}");
    }
}

#[test]
fn expectations() {
    let asks = |request: &str| head(request.as_bytes()).expect_continue;
    assert!(asks(&with_fields("Expect: 100-continue\r\nContent-Length: 1\r\n")));
    assert!(asks(&with_fields("Expect: ,100-CONTINUE\r\nTransfer-Encoding: chunked\r\n")));
    // Nothing follows that could be waited for.
    assert!(!asks(&with_fields("Expect: 100-continue\r\n")));
    assert!(!asks(&with_fields("Expect: 100-continue\r\nContent-Length: 0\r\n")));
    assert!(!asks(&with_fields("Expect:\r\nContent-Length: 1\r\n")));
    assert_eq!(status(with_fields("Expect: 100-continue, x\r\n").as_bytes()), 417);
    assert_eq!(status(with_fields("Expect: 200-ok\r\n").as_bytes()), 417);
    // HTTP/1.0 has no expectations.
    assert!(!asks("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"));
    assert!(!asks("POST / HTTP/1.0\r\nExpect: x\r\n\r\n"));
}

#[test]
fn malformed_fields() {
    let fields = [
        "A : b\r\n",
        "A\t: b\r\n",
        " A: b\r\n",
        "\tA: b\r\n",
        ": b\r\n",
        "A\r\n",
        "A b: c\r\n",
        "A(: b\r\n",
        "Ä: b\r\n",
        "A\0: b\r\n",
        "A\u{7f}: b\r\n",
        "A: b\r\n c\r\n",
        "A: b\r\n\tc\r\n",
        "A:\r\n b\r\n",
        "A: b\0\r\n",
        "A: b\u{1}c\r\n",
        "A: b\u{7f}\r\n",
        "A: b\rc\r\n",
        "A: b\r\r\n",
        "A: \r\r\n",
        "A: b\nC: d\r\n",
        "A: b\n",
        "A:\n",
        "A:\nB: c\r\n",
        "\rA: b\r\n",
        "Authorization: a\r\nauthorization: a\r\n",
        "Content-Type: a\r\nContent-Type: a\r\n",
        "Idempotency-Key: a\r\nIdempotency-Key: a\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Content-Length: 1\u{b}\r\n",
        "Content-Length : 1\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\r\n: chunked\r\n",
    ];
    for field in fields {
        assert_eq!(status(with_fields(field).as_bytes()), 400, "{field:?}");
        let first = format!("GET / HTTP/1.1\r\n{field}Host: a\r\n\r\n");
        assert_eq!(status(first.as_bytes()), 400, "{field:?}");
    }
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a\n\r\n"), 400);
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a\r\n\n"), 400);
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a\n\n"), 400);
    assert_eq!(status(b"GET / HTTP/1.0\r\n\n"), 400);
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n"), 400);
}

#[test]
fn empty_lines_before_the_request() {
    let request = "GET / HTTP/1.0\r\n\r\n";
    let after = |count| format!("{}{request}", "\r\n".repeat(count));
    for count in 0..=LEADING_EMPTY_LINES_MAX {
        head(after(count).as_bytes());
    }
    assert_eq!(status(after(LEADING_EMPTY_LINES_MAX + 1).as_bytes()), 400);
    assert_eq!(parse_head(b""), Ok(Parsed::Incomplete));
    assert_eq!(parse_head(b"\r\n"), Ok(Parsed::Incomplete));
    assert_eq!(parse_head(b"\r"), Ok(Parsed::Incomplete));
    assert_eq!(status(b"\r\r"), 400);
    assert_eq!(status(b"\rG"), 400);
    assert_eq!(status(b"\n"), 400);
    assert_eq!(status(b"\r\n\n"), 400);
}

#[test]
fn limits_hold_to_the_byte_and_do_not_wait_for_the_end() {
    let line = "GET / HTTP/1.0\r\n";
    let padded = |length: usize| format!("{line}A: {}\r\n\r\n", "b".repeat(length - line.len() - 7));
    head(padded(HEAD_MAX_BYTES).as_bytes());
    assert_eq!(status(padded(HEAD_MAX_BYTES + 1).as_bytes()), 431);
    let endless_value = format!("{line}A: {}", "b".repeat(HEAD_MAX_BYTES));
    assert_eq!(parse_head(&endless_value.as_bytes()[..HEAD_MAX_BYTES - 1]), Ok(Parsed::Incomplete));
    assert_eq!(status(&endless_value.as_bytes()[..HEAD_MAX_BYTES]), 431);
    let endless_name = format!("{line}{}: b\r\n\r\n", "A".repeat(70_000));
    assert_eq!(status(endless_name.as_bytes()), 431);

    let many = |count| format!("{line}{}\r\n", "A: b\r\n".repeat(count));
    for count in [0, 1, 15, 16, 17, HEADERS_MAX] {
        head(many(count).as_bytes());
    }
    assert_eq!(status(many(HEADERS_MAX + 1).as_bytes()), 431);

    let target = format!("GET /{}", "a".repeat(TARGET_MAX_BYTES));
    assert_eq!(status(target.as_bytes()), 414);
}

#[test]
fn head_is_known_by_its_first_bytes() {
    for input in
        ["H", "HE", "HEAD", "HEAD ", "HEAD / HTTP/1.1\r\n\r\n", "\r\nHEAD / HTTP/3.0\r\n", "\r\n\r\nH", "HEAD \0"]
    {
        assert!(asks_for_head(input.as_bytes()), "{input:?}");
    }
    for input in ["", "\r", "\r\n", "\r\n\r", "GET / HTTP/1.1\r\n\r\n", "HEAD\r", "HEADER", "HEAP", "head ", " HEAD "] {
        assert!(!asks_for_head(input.as_bytes()), "{input:?}");
    }
}

/// One of `usual`, or now and then one of `odd`.
fn mostly(usual: &[&'static str], odd: &[&'static str]) -> impl Strategy<Value = &'static str> + Clone + use<> {
    prop_oneof![9 => prop::sample::select(usual.to_vec()), 1 => prop::sample::select(odd.to_vec())]
}

/// Messages that come close to the edges of the grammar; about half of those that are not mutated are whole heads.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let start = mostly(&["", "\r\n", "\r\n\r\n"], &["\r", "\n", "\r\n\r\n\r\n\r\n", "\r\n\r\n\r\n\r\n\r\n"]);
    let line = mostly(
        &[
            "GET /todos?limit=10 HTTP/1.1\r\n",
            "HEAD /%41%4f HTTP/1.0\r\n",
            "POST http://a:80/b?c HTTP/1.1\r\n",
            "PATCH / HTTP/1.2\r\n",
        ],
        &[
            "HEAD /%41%4 HTTP/1.1\r\n",
            "OPTIONS * HTTP/1.1\r\n",
            "CONNECT a:1 HTTP/1.1\r\n",
            "BREW https://a/ HTTP/1.0\r\n",
            "GET / HTTP/1.1\n",
            "GET / HTTP/2.0\r\n",
        ],
    );
    let host = mostly(&["Host: a\r\n", "host:[::1]:80 \r\n"], &["", "Host: a b\r\n", "Host: a\r\nHost: a\r\n"]);
    let framing = mostly(
        &["", "Content-Length: 5\r\n"],
        &[
            "Content-Length: 5x\r\n",
            "Content-Length: 99999\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: gzip\r\n",
        ],
    );
    let field = mostly(
        &[
            "Expect: 100-continue\r\n",
            "Connection: close\r\n",
            "If-None-Match: \"a\"\r\n",
            "Prefer:\r\n",
            "A:\t\u{e9} \r\n",
            "B: c\r\nB: c\r\nB: c\r\nB: c\r\nB: c\r\nB: c\r\nB: c\r\nB: c\r\nB: c\r\nB: c\r\nB: c\r\nB: c\r\nB: c\r\nB: c\r\n",
        ],
        &["Expect: x\r\n", "A: b\n", "A: b\r\n c\r\n", "A : b\r\n", "A: b\0\r\n", "A: b\rc\r\n"],
    );
    let end = mostly(&["\r\n", "\r\nGET / HTTP/1.1\r\n"], &["\n", "\r", ""]);
    let assembled = (start, line, host, framing, prop::collection::vec(field, 0..6), end).prop_map(
        |(start, line, host, framing, fields, end)| {
            format!("{start}{line}{host}{framing}{}{end}", fields.concat()).into_bytes()
        },
    );
    let mutated = (assembled.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut message, at, byte)| {
        let at = at.index(message.len());
        message[at] = byte;
        message
    });
    prop_oneof![3 => assembled, 3 => mutated, 1 => prop::collection::vec(any::<u8>(), 0..100)]
}

/// What the message comes to, however long its prefix is: every prefix is incomplete, or already has the outcome of the
/// whole.
fn check_prefixes(message: &[u8]) -> Result<(), TestCaseError> {
    let whole = parse_head(message);
    for length in 0..message.len() {
        let part = parse_head(&message[..length]);
        if part != Ok(Parsed::Incomplete) {
            prop_assert_eq!(&part, &whole, "{} of {}", length, message.len());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn splits_do_not_change_the_outcome(message in messages()) {
        check_prefixes(&message)?;
    }

    #[test]
    fn what_is_read_stays_within_the_head(message in messages()) {
        if let Ok(Parsed::Complete { head, consumed }) = parse_head(&message) {
            prop_assert!(consumed <= message.len());
            prop_assert!(message[..consumed].ends_with(b"\r\n\r\n"));
            prop_assert_eq!(asks_for_head(&message), head.method == Method::Head);
            // Strict line ends: no CR without LF, no LF without CR.
            let text = &message[..consumed];
            let pairs = text.windows(2).filter(|pair| pair == b"\r\n").count();
            prop_assert_eq!(text.iter().filter(|&&byte| byte == b'\r').count(), pairs);
            prop_assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), pairs);
            // Neither routing nor the readers of fields panic on anything that was accepted.
            let _ = (route::route(head.path), query::list_query(head.query), content::check_json(&head));
            let _ = conditional::evaluate(&head, Some(1));
        }
    }
}

#[test]
fn splits_of_long_messages_do_not_change_the_outcome() {
    let line = "GET / HTTP/1.0\r\n";
    let messages = [
        format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(TARGET_MAX_BYTES)),
        format!("GET /{} HTTP/9.0\r\n\0", "a".repeat(TARGET_MAX_BYTES + 10)),
        format!("{line}{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1)),
        format!("{line}{}A\0\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1)),
        format!("{line}{}A\0\r\n", "A: b\r\n".repeat(17)),
        format!("{line}A: {}\0\r\n\r\n", "b".repeat(HEAD_MAX_BYTES)),
        format!("{}{line}A: {}\r\n\r\n", "\r\n".repeat(3), "b".repeat(HEAD_MAX_BYTES - 26)),
    ];
    for message in messages {
        let message = message.as_bytes();
        let whole = parse_head(message);
        // Every length would take too long: those around each limit, and some between.
        for length in (0..message.len()).filter(|length| length % 97 == 0 || length % 4096 < 40 || length % 4096 > 4060)
        {
            let part = parse_head(&message[..length]);
            assert!(part == Ok(Parsed::Incomplete) || part == whole, "{length}: {part:?} {whole:?}");
        }
    }
}
