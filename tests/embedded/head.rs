//! HEAD: whatever becomes of the request, the answer ends with its head (RFC 9110 section 9.3.2, RFC 9112 section 6.3).
//!
//! A body would be taken for the start of the next answer. So each case looks at the raw bytes: behind the head come the
//! next answer or the end of the connection, and nothing else.

use million_rps::limits::{BODY_MAX_BYTES, HEAD_MAX_BYTES, TARGET_MAX_BYTES, TRAILERS_MAX_BYTES};

use crate::harness::client::{Client, lossy};
use crate::harness::eventually;
use crate::harness::request::{Request, get};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;

on_both_drivers!(crate::plain =>
    refused_heads_have_no_body,
    refused_bodies_have_no_body,
    routed_errors_have_no_body,
    a_head_request_says_nothing_about_its_neighbours,
);

mod late {
    use super::*;

    on_both_drivers!(crate::deadlines::hasty => requests_that_do_not_end_have_no_body);
}

mod process {
    use super::*;

    on_both_drivers!(std::convert::identity => a_connection_over_the_limit_gets_no_body, a_drain_sends_no_body);
}

#[cfg(feature = "fault-injection")]
mod panics {
    use super::*;

    on_both_drivers!(crate::plain => a_panic_has_no_body);
}

/// Takes the answer to HEAD and expects this status, a length where one belongs, and then the end.
#[track_caller]
fn assert_bare_and_ended(client: &mut Client, status: u16, sent: &[u8]) {
    let answer = client.next_answer(true).unwrap_or_else(|| panic!("no answer to {:?}", lossy(sent)));
    assert_eq!(answer.status, status, "{:?}: {answer:?}", lossy(sent));
    assert!(answer.closes(), "{:?}: {answer:?}", lossy(sent));
    assert_eq!(client.read_to_end(), 0, "bytes behind the head of the answer to {:?}", lossy(sent));
}

#[track_caller]
fn assert_refused(server: &Server, bytes: &[u8], status: u16) {
    let mut client = server.connect();
    // The server may have refused and closed before it has read all of this.
    let _ = client.try_send(bytes);
    assert_bare_and_ended(&mut client, status, bytes);
}

fn refused_heads_have_no_body(server: &Server) {
    let long_target = format!("HEAD /{} HTTP/1.1\r\n", "x".repeat(TARGET_MAX_BYTES));
    let long_head = format!("HEAD / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(HEAD_MAX_BYTES));
    let heads = [
        ("HEAD /todos HTTP/1.1\r\n\r\n", 400),
        ("\r\n\r\nHEAD /todos HTTP/1.1\r\n\r\n", 400),
        ("HEAD /todos HTTP/1.1\nHost: a\n\n", 400),
        ("HEAD  /todos HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("HEAD * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("HEAD /todos HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
        ("HEAD /todos HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("HEAD /todos HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("HEAD /todos HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n", 413),
        ("HEAD /todos HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\n\r\n", 417),
        ("HEAD https://a/todos HTTP/1.1\r\nHost: a\r\n\r\n", 421),
        ("HEAD /todos HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (&long_target, 414),
        (&long_head, 431),
        // Refused by the head alone, before the body is sent.
        ("HEAD /nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 404),
        ("HEAD /nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n", 404),
    ];
    for (head, status) in heads {
        assert_refused(server, head.as_bytes(), status);
    }
}

fn refused_bodies_have_no_body(server: &Server) {
    let head = "HEAD /todos HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let trailers = format!("0\r\n{}", "A: b\r\n".repeat(TRAILERS_MAX_BYTES));
    let bodies = [
        ("x\r\n", 400),
        ("1\r\nabc\r\n", 400),
        ("1;\r\n", 400),
        ("0\r\nno trailer\r\n\r\n", 400),
        ("FFFFFFFFFFFFFFFF\r\n", 413),
        (&trailers, 431),
    ];
    for (body, status) in bodies {
        assert_refused(server, format!("{head}{body}").as_bytes(), status);
        // The same when the head came long before.
        let mut client = server.connect();
        let mut bytes = get("/health").bytes();
        bytes.extend_from_slice(head.as_bytes());
        client.send(&bytes);
        client.answer().expect(200);
        let _ = client.try_send(body);
        assert_bare_and_ended(&mut client, status, body.as_bytes());
    }
    let many = format!("{head}{}", "400\r\n".to_owned() + &"x".repeat(0x400) + "\r\n");
    let mut client = server.connect();
    let _ = client.try_send(&many);
    for _ in 0..BODY_MAX_BYTES / 0x400 {
        let _ = client.try_send(&many[head.len()..]);
    }
    assert_bare_and_ended(&mut client, 413, many.as_bytes());
}

fn routed_errors_have_no_body(server: &Server) {
    let mut client = server.connect();
    let requests = [
        (Request::new("HEAD", "/nowhere"), 404),
        (Request::new("HEAD", "/todos/no-id"), 400),
        (Request::new("HEAD", "/todos?limit=none"), 400),
        (Request::new("HEAD", "/todos?cursor=none"), 400),
        (Request::new("HEAD", "/todos").field("If-Match", "\"another\""), 412),
        (Request::new("HEAD", "/nowhere").body("with a body of its own"), 404),
    ];
    for (request, status) in requests {
        client.send(request.bytes());
        client.answer_to_head().expect(status);
        client.assert_goes_on();
    }
}

/// What is known of one request is forgotten with it.
fn a_head_request_says_nothing_about_its_neighbours(server: &Server) {
    let bare = Request::new("HEAD", "/todos?limit=3").bytes();
    let chunked = b"HEAD /todos HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let list = get("/todos?limit=3").bytes();
    let mut client = server.connect();
    client.send([&list[..], &bare, &list, chunked, &list, &bare, &list].concat());
    for is_head in [false, true, false, true, false, true, false] {
        client.next_answer(is_head).expect("an answer").expect(200);
    }
    client.send([&bare[..], b"GET /todos HTTP/1.1\r\n\r\n"].concat());
    client.answer_to_head().expect(200);
    client.answer().problem(400);
    client.assert_ended();
    let mut client = server.connect();
    client.send([&list[..], b"HEAD /todos HTTP/1.1\r\n\r\n"].concat());
    client.answer().expect(200);
    assert_bare_and_ended(&mut client, 400, b"HEAD behind GET");
}

fn requests_that_do_not_end_have_no_body(server: &Server) {
    let length = "HEAD /todos HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n";
    let chunked = "HEAD /todos HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let parts = [
        // Nothing else that is known begins so.
        "H".to_owned(),
        "HEAD".to_owned(),
        "HEAD /tod".to_owned(),
        "\r\nHEAD /todos HTTP/1.1\r\nHost: a\r\n".to_owned(),
        length.to_owned(),
        format!("{length}half a body"),
        chunked.to_owned(),
        format!("{chunked}9\r\n{{\"ti"),
        format!("{chunked}1\r\nx\r\n0\r\n"),
    ];
    // All at once: each waits for its deadline.
    let mut clients = Vec::new();
    for part in &parts {
        for first in [Vec::new(), get("/todos?limit=3").bytes(), get("/nowhere").bytes()] {
            let mut client = server.connect();
            client.send([&first, part.as_bytes()].concat());
            clients.push((client, !first.is_empty(), part));
        }
    }
    for (client, is_second, part) in &mut clients {
        if *is_second {
            client.answer();
        }
        assert_bare_and_ended(client, 408, part.as_bytes());
    }
    // And what is no HEAD is told why.
    let mut client = server.connect();
    client.send([&Request::new("HEAD", "/health").bytes()[..], b"GET /hea"].concat());
    client.answer_to_head().expect(200);
    client.answer().problem(408);
    client.assert_ended();
}

fn a_connection_over_the_limit_gets_no_body(driver: &Driver) {
    let server = Setup::new().driver(*driver).set("SHARDS", "1").set("MAX_CONNECTIONS", "1").start();
    let mut first = eventually("the only connection", || {
        let mut client = server.connect();
        let _ = client.try_send(get("/health").bytes());
        client.next_answer(false).is_some_and(|answer| answer.status == 200).then_some(client)
    });
    // It is refused before its request has been read, which may be HEAD.
    for _ in 0..5 {
        let mut client = server.connect();
        assert_bare_and_ended(&mut client, 503, b"");
    }
    first.assert_goes_on();
}

fn a_drain_sends_no_body(driver: &Driver) {
    let server = Setup::new().driver(*driver).start();
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(Client::assert_goes_on);
    server.process.signal(libc::SIGTERM);
    eventually("the drain in the log", || server.log().contains("SIGTERM").then_some(()));
    for (client, target) in clients.iter_mut().zip(["/todos", "/nowhere", "/ready"]) {
        let request = Request::new("HEAD", target).bytes();
        let _ = client.try_send(&request);
        // It may have been too late.
        if let Some(answer) = client.next_answer(true) {
            assert!(answer.closes(), "{answer:?}");
            assert_eq!(client.read_to_end(), 0, "{target}");
        }
    }
    assert_eq!(server.process.finish().status.code(), Some(0));
}

#[cfg(feature = "fault-injection")]
fn a_panic_has_no_body(server: &Server) {
    for first in ["", "GET /todos?limit=3 HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let chunked = "HEAD /fault/panic HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        for request in ["HEAD /fault/panic HTTP/1.1\r\nHost: a\r\n\r\n", chunked] {
            let mut client = server.connect();
            client.send(format!("{first}{request}"));
            if !first.is_empty() {
                client.answer().expect(200);
            }
            assert_bare_and_ended(&mut client, 500, request.as_bytes());
        }
    }
}
