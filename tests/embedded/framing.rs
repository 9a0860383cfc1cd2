//! Where a request ends: lengths, chunks, expectations, and the attempts to make two readers disagree about it
//! (RFC 9112 sections 6 and 7).

use million_rps::limits::{BODY_MAX_BYTES, CHUNK_LINE_MAX_BYTES, TRAILERS_MAX_BYTES};

use crate::harness::client::{Client, lossy};
use crate::harness::eventually;
use crate::harness::request::{Request, chunked, get, post};
use crate::harness::server::Server;
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(crate::plain =>
    chunked_bodies_are_read_however_they_are_split,
    chunk_extensions_and_trailers_are_ignored,
    smuggled_requests_are_not_answered,
    malformed_chunks_are_refused_and_the_connection_ends,
    bodies_up_to_the_limit_are_read,
    longer_bodies_are_413,
    early_answers_keep_the_framing,
    a_body_where_none_is_expected_is_skipped,
    continue_is_said_to_those_who_wait,
    expectations_are_settled_by_the_head_where_it_is_enough,
);

fn head(token: &str, framing: &str) -> String {
    format!(
        "POST /todos HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    )
}

/// Sends `bytes` in two parts, and makes sure that the server has the first one before the second leaves: a whole request
/// goes before it, in the same segment, and its answer is awaited.
fn send_split(client: &mut Client, bytes: &[u8], at: usize) {
    let mut first = get("/health").bytes();
    first.extend_from_slice(&bytes[..at]);
    client.send(first);
    client.answer().expect(200);
    client.send(&bytes[at..]);
}

fn chunked_bodies_are_read_however_they_are_split(server: &Server) {
    let token = token("chunks");
    let body = r#"{"title":"in chunks","description":"gr\u00fc\u00dfe, 😀"}"#.as_bytes();
    let mut bytes = head(&token, "Transfer-Encoding: chunked").into_bytes();
    let head_length = bytes.len();
    bytes.extend(chunked(body, &[1, 9, 2, 30]));
    let mut client = server.connect();
    let mut ids = Vec::new();
    for at in head_length - 5..bytes.len() {
        send_split(&mut client, &bytes, at);
        ids.push(client.answer().expect(202).json()["id"].as_str().expect("an id").to_owned());
    }
    for byte in &bytes {
        client.send([*byte]);
    }
    ids.push(client.answer().expect(202).json()["id"].as_str().expect("an id").to_owned());
    for id in ids {
        let todo = eventually("the todo to show", || {
            let answer = client.call(&get(format!("/todos/{id}")));
            (answer.status == 200).then(|| answer.json())
        });
        assert_eq!(todo["title"], "in chunks");
        assert_eq!(todo["description"], "grüße, 😀");
    }
}

fn chunk_extensions_and_trailers_are_ignored(server: &Server) {
    let token = token("chunks");
    let mut client = server.connect();
    for body in [
        "A;name=value;flag;q=\"a \\\" b\"\r\n{\"title\":\"\r\n00003 ; x = y\r\nx\"}\r\n0;last\r\nX-Trailer: a\r\nContent-Length: 5\r\n\r\n",
        "0D\r\n{\"title\":\"x\"}\r\n000\r\n\r\n",
    ] {
        client.send(head(&token, "Transfer-Encoding: Chunked") + body);
        client.answer().expect(202);
    }
    // Empty elements of lists that decide no length are ignored (RFC 9110 section 5.6.1.2).
    let framing = "Connection: , ,\r\nConnection:\r\nExpect: , 100-continue ,\r\nExpect:\r\nTransfer-Encoding: chunked";
    client.send(head(&token, framing) + "2\r\n{}\r\n0\r\n\r\n");
    client.answer().problem(400);
    client.assert_goes_on();
    let line = "x".repeat(CHUNK_LINE_MAX_BYTES);
    refuse(server, &(head(&token, "Transfer-Encoding: chunked") + &format!("2;{line}\r\n{{}}\r\n0\r\n\r\n")), 400);
    let trailers = format!("X: {}\r\n", "y".repeat(900)).repeat(TRAILERS_MAX_BYTES / 900 + 1);
    refuse(server, &(head(&token, "Transfer-Encoding: chunked") + &format!("2\r\n{{}}\r\n0\r\n{trailers}\r\n")), 431);
}

/// Sends a request that is to be refused, with another one smuggled behind it that must not be answered.
fn refuse(server: &Server, request: &str, status: u16) {
    let mut client = server.connect();
    // The server may have refused and closed before it has read all of this.
    let _ = client.try_send(request).and_then(|()| client.try_send(get("/health").bytes()));
    let answer = client.next_answer(false).unwrap_or_else(|| panic!("no answer to {:?}", lossy(request.as_bytes())));
    assert_eq!(answer.status, status, "{:?}: {answer:?}", lossy(request.as_bytes()));
    answer.problem(status);
    assert!(answer.closes(), "{:?}: {answer:?}", lossy(request.as_bytes()));
    client.assert_ended();
}

fn smuggled_requests_are_not_answered(server: &Server) {
    let token = token("smuggler");
    for (framing, status) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", 400),
        ("Content-Length: 5\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nContent-Length: 6", 400),
        ("Content-Length: 5, 5", 400),
        ("Content-Length: 5,6", 400),
        ("Content-Length: +5", 400),
        ("Content-Length: -5", 400),
        ("Content-Length: 0x5", 400),
        ("Content-Length: 5 5", 400),
        ("Content-Length: 5.0", 400),
        ("Content-Length:", 400),
        ("Content-Length: five", 400),
        ("Content-Length: \u{665}", 400),
        ("Content-Length: 18446744073709551616", 400),
        ("Content-Length: 18446744073709551621", 400),
        ("Content-Length : 5", 400),
        ("Content-Length: 5\r\n folded", 400),
        ("Transfer-Encoding : chunked", 400),
        ("Transfer-Encoding: xchunked", 400),
        ("Transfer-Encoding: chunkedx", 400),
        ("Transfer-Encoding: chunked;q=1", 400),
        ("Transfer-Encoding: \"chunked\"", 400),
        ("Transfer-Encoding: \u{b}chunked", 400),
        ("Transfer-Encoding: chunked\u{0}", 400),
        ("Transfer-Encoding: chunked, identity", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: identity", 400),
        ("Transfer-Encoding: gzip", 400),
        ("Transfer-Encoding:", 400),
        ("Transfer-Encoding: , chunked ,", 400),
        ("Transfer-Encoding: ,chunked", 400),
        ("Transfer-Encoding: chunked,", 400),
        ("Transfer-Encoding: chunked, ,", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding:", 400),
        ("Transfer-Encoding:\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: ,", 400),
        ("Transfer-Encoding: chunked\r\nX: y\r\nTransfer-Encoding: \t", 400),
        ("Content-Length: ,5", 400),
        ("Content-Length: 5,", 400),
        ("Content-Length: 5\r\nContent-Length:", 400),
        ("Content-Length:\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nTransfer-Encoding:", 400),
        ("Content-Length:\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding\r\n : chunked", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", 501),
    ] {
        refuse(server, &(head(&token, framing) + "0\r\n\r\n"), status);
    }
    let old = head(&token, "Transfer-Encoding: chunked").replace("HTTP/1.1", "HTTP/1.0");
    refuse(server, &(old + "0\r\n\r\n"), 400);
    // The framing is decided before the request is routed: a path or a token that is no good does not change it.
    for request in ["GET /health", "POST /nowhere", "DELETE /todos", "BREW /todos"] {
        let fields = "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked";
        refuse(server, &format!("{request} HTTP/1.1\r\n{fields}\r\n\r\n0\r\n\r\n"), 400);
    }
    // Optional whitespace around a length is allowed.
    let mut client = server.connect();
    client.send(head(&token, "Content-Length: \t 2 \t") + "{}");
    client.answer().problem(400);
    client.assert_goes_on();
}

fn malformed_chunks_are_refused_and_the_connection_ends(server: &Server) {
    let token = token("smuggler");
    for (body, status) in [
        ("\r\n", 400),
        ("g\r\n", 400),
        ("0x2\r\n{}\r\n0\r\n\r\n", 400),
        ("-2\r\n{}\r\n0\r\n\r\n", 400),
        ("+2\r\n{}\r\n0\r\n\r\n", 400),
        (" 2\r\n{}\r\n0\r\n\r\n", 400),
        (";x\r\n{}\r\n0\r\n\r\n", 400),
        ("2\n{}\n0\n\n", 400),
        ("2\r{}\r\n0\r\n\r\n", 400),
        ("2\r\n{}0\r\n\r\n", 400),
        ("2\r\n{}\n0\r\n\r\n", 400),
        ("1\r\n{}\r\n0\r\n\r\n", 400),
        ("2\r\n{}\r\n0\r\nno colon\r\n\r\n", 400),
        ("2\r\n{}\r\n0\r\n folded: x\r\n\r\n", 400),
        ("2\r\n{}\r\n0\r\nX: a\nb\r\n\r\n", 400),
        ("2;a=\"\u{0}\"\r\n{}\r\n0\r\n\r\n", 400),
        ("2;=\r\n{}\r\n0\r\n\r\n", 400),
        ("FFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n", 413),
        ("FFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n", 413),
        ("10000000000000002\r\n{}\r\n0\r\n\r\n", 413),
    ] {
        refuse(server, &(head(&token, "Transfer-Encoding: chunked") + body), status);
    }
}

/// A valid body of exactly so many bytes: whitespace is free in JSON.
fn padded(bytes: usize) -> Vec<u8> {
    let mut body = br#"{"title":"padded"}"#.to_vec();
    body.resize(bytes, b' ');
    body
}

fn bodies_up_to_the_limit_are_read(server: &Server) {
    let token = token("long");
    let mut client = server.connect();
    client.call(&post(&token, padded(BODY_MAX_BYTES))).expect(202);
    let mut bytes = head(&token, "Transfer-Encoding: chunked").into_bytes();
    bytes.extend(chunked(&padded(BODY_MAX_BYTES), &[1, 1000, 30_000, 7]));
    client.send(bytes);
    client.answer().expect(202);
    // One chunk for each byte is the most that a body can cost.
    let mut bytes = head(&token, "Transfer-Encoding: chunked").into_bytes();
    bytes.extend(chunked(&padded(20_000), &[1; 20_000]));
    client.send(bytes);
    client.answer().expect(202);
    client.assert_goes_on();
}

fn longer_bodies_are_413(server: &Server) {
    let token = token("long");
    for length in ["65537", "1000000000", "18446744073709551615"] {
        refuse(server, &head(&token, &format!("Content-Length: {length}")), 413);
    }
    let mut client = server.connect();
    let request = post(&token, padded(BODY_MAX_BYTES + 1)).bytes();
    let _ = client.try_send(&request);
    client.answer().problem(413);
    client.assert_ended();
    // Chunks announce no length: the limit counts as they come.
    for chunk in [1, 1000, BODY_MAX_BYTES] {
        let mut request = head(&token, "Transfer-Encoding: chunked").into_bytes();
        request.extend(chunked(&padded(BODY_MAX_BYTES + 1), &vec![chunk; BODY_MAX_BYTES / chunk]));
        let mut client = server.connect();
        let _ = client.try_send(&request);
        client.answer().problem(413);
        client.assert_ended();
    }
}

fn early_answers_keep_the_framing(server: &Server) {
    let good = token("framing");
    // The bodies look like requests: whoever does not skip them answers once too often.
    let inner = get("/metrics").bytes();
    let requests = [
        (Request::new("POST", "/todos").json(inner.clone()), 401),
        (Request::new("PUT", "/todos/01900000-0000-7000-8000-000000000000").token("x").json(inner.clone()), 401),
        (Request::new("POST", "/nowhere").json(inner.clone()), 404),
        (Request::new("POST", "/health").body(inner.clone()), 405),
        (Request::new("PATCH", "/todos").body(inner.clone()), 405),
        (Request::new("BREW", "/todos").body(inner.clone()), 501),
        (Request::new("POST", "/todos").token(&good).field("Content-Type", "application/xml").body(inner.clone()), 415),
        (Request::new("PUT", "/todos/nonsense").token(&good).json(inner.clone()), 400),
        (post(&good, inner.clone()), 400),
    ];
    let mut client = server.connect();
    for (request, status) in &requests {
        let answer = client.call(request);
        answer.problem(*status);
        assert!(!answer.closes(), "the body was read, so the connection can go on: {answer:?}");
        client.assert_goes_on();
    }
    // The same with chunks, all at once.
    let mut bytes = Vec::new();
    for (request, _) in &requests {
        let plain = String::from_utf8(request.bytes()).expect("ASCII");
        let (head, _) = plain.split_once("Content-Length:").expect("a length");
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        bytes.extend(chunked(&inner, &[3, 10]));
    }
    client.send(bytes);
    for (_, status) in &requests {
        client.answer().problem(*status);
    }
    client.assert_goes_on();
}

fn a_body_where_none_is_expected_is_skipped(server: &Server) {
    let mut client = server.connect();
    let inner = get("/metrics").bytes();
    for method in ["GET", "HEAD", "OPTIONS"] {
        let answer = client.call(&Request::new(method, "/health").body(inner.clone()));
        assert!(answer.status < 300, "{answer:?}");
        client.assert_goes_on();
    }
    client.call(&get("/todos?limit=1").body(inner.clone())).expect(200);
    client.call(&get("/health").body("")).expect(200);
    client.call(&Request::new("DELETE", "/todos/nonsense").token(&token("framing")).body(inner)).problem(400);
    client.assert_goes_on();
}

fn continue_is_said_to_those_who_wait(server: &Server) {
    let token = token("patient");
    let body = r#"{"title":"worth the wait"}"#;
    let mut client = server.connect();
    for value in ["100-continue", "100-Continue"] {
        client.send(head(&token, &format!("Expect: {value}\r\nContent-Length: {}", body.len())));
        assert_eq!(client.answer().status, 100);
        client.send(body);
        client.answer().expect(202);
    }
    client.send(head(&token, "Expect: 100-continue\r\nTransfer-Encoding: chunked"));
    assert_eq!(client.answer().status, 100);
    client.send(chunked(body.as_bytes(), &[4]));
    client.answer().expect(202);
    // Behind pipelined requests the 100 has its place in the order.
    let mut bytes = post(&token, body).bytes();
    bytes.extend(get("/health").bytes());
    bytes.extend(head(&token, &format!("Expect: 100-continue\r\nContent-Length: {}", body.len())).bytes());
    client.send(bytes);
    client.answer().expect(202);
    client.answer().expect(200);
    assert_eq!(client.answer().status, 100);
    client.send(body);
    client.answer().expect(202);
    // Without a body there is nothing to wait for.
    client.call(&get("/health").field("Expect", "100-continue")).expect(200);
    // HTTP/1.0 knows no interim answers.
    client.send(
        head(&token, &format!("Expect: 100-continue\r\nContent-Length: {}", body.len()))
            .replace("HTTP/1.1", "HTTP/1.0")
            + body,
    );
    client.answer().expect(202);
    client.assert_ended();
}

fn expectations_are_settled_by_the_head_where_it_is_enough(server: &Server) {
    let good = token("patient");
    let request = |start: &str, fields: &str| {
        format!("{start} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n{fields}\r\n")
    };
    let bearer = format!("Authorization: Bearer {good}\r\n");
    for (start, fields, status) in [
        ("POST /todos", "Authorization: Bearer x\r\n", 401),
        ("POST /nowhere", bearer.as_str(), 404),
        ("POST /health", bearer.as_str(), 405),
        ("PUT /todos/nonsense", bearer.as_str(), 400),
        ("POST /todos", &format!("{bearer}Content-Type: application/xml\r\n"), 415),
    ] {
        let mut client = server.connect();
        client.send(request(start, fields));
        let answer = client.answer();
        answer.problem(status);
        // Whether the body still comes cannot be known, so the connection cannot go on (RFC 9110 section 10.1.1).
        assert!(answer.closes(), "{answer:?}");
        client.assert_ended();
    }
    refuse(server, &head(&good, "Expect: 100-continue\r\nContent-Length: 65537"), 413);
    refuse(server, &head(&good, "Expect: something-else\r\nContent-Length: 10"), 417);
}
