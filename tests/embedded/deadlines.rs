//! Clients that take their time: each kind of waiting has a deadline, and none of them touches anybody else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::client::Client;
use crate::harness::request::{get, post};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::{Shared, on_both_drivers};
use crate::harness::token::token;

on_both_drivers!(crate::deadlines::hasty =>
    a_head_that_does_not_end_is_408,
    a_body_that_does_not_end_is_408,
    drops_of_bytes_do_not_move_a_deadline,
    a_request_behind_an_answered_one_has_a_deadline_too,
    an_idle_connection_is_closed_without_a_word,
    a_connection_without_a_request_is_closed,
    a_connection_is_idle_from_its_last_request_on,
);

static HASTY: Shared = Shared::new(|| {
    Setup::new()
        .set("HEADER_TIMEOUT_MS", "1000")
        .set("BODY_TIMEOUT_MS", "1000")
        .set("IDLE_TIMEOUT_MS", "1500")
        .set("WRITE_TIMEOUT_MS", "2000")
});

/// A server that does not wait long.
pub fn hasty(driver: Driver) -> Arc<Server> {
    HASTY.with(driver)
}

/// Expects 408, and the end.
fn assert_timeout(client: &mut Client, named: &str) {
    let answer = client.answer();
    let text = answer.problem(408);
    assert!(text.contains(named), "{text}");
    assert!(answer.closes(), "{answer:?}");
    client.assert_ended();
}

fn a_head_that_does_not_end_is_408(server: &Server) {
    for part in ["G", "GET /health HTTP/1.1\r\n", "GET /health HTTP/1.1\r\nHost: a\r\n\r"] {
        let mut client = server.connect();
        client.send(part);
        assert_timeout(&mut client, "head");
    }
    server.connect().assert_goes_on();
}

fn a_body_that_does_not_end_is_408(server: &Server) {
    let token = token("slow");
    let head = |framing: &str| {
        format!("POST /todos HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{framing}\r\n\r\n")
    };
    for part in [
        head("Content-Length: 20"),
        head("Content-Length: 20") + "{\"title\":",
        head("Transfer-Encoding: chunked"),
        head("Transfer-Encoding: chunked") + "9\r\n{\"title\":",
        head("Transfer-Encoding: chunked") + "d\r\n{\"title\":\"x\"}\r\n",
        head("Transfer-Encoding: chunked") + "d\r\n{\"title\":\"x\"}\r\n0\r\n",
    ] {
        let mut client = server.connect();
        client.send(&part);
        assert_timeout(&mut client, "body");
    }
    let mut client = server.connect();
    client.send(head("Expect: 100-continue\r\nContent-Length: 20"));
    assert_eq!(client.answer().status, 100);
    assert_timeout(&mut client, "body");
    server.connect().assert_goes_on();
}

/// Sends one byte after the other until the server has had enough.
fn drip(client: &mut Client, bytes: impl IntoIterator<Item = u8>) {
    for byte in bytes {
        if client.try_send([byte]).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn drops_of_bytes_do_not_move_a_deadline(server: &Server) {
    let head = format!("GET /health HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(100));
    let mut client = server.connect();
    drip(&mut client, head.into_bytes());
    assert_timeout(&mut client, "head");
    let mut client = server.connect();
    client.send("POST /todos HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    drip(&mut client, [b' '; 100]);
    assert_timeout(&mut client, "body");
}

fn a_request_behind_an_answered_one_has_a_deadline_too(server: &Server) {
    let mut client = server.connect();
    let mut bytes = get("/health").bytes();
    bytes.extend(b"GET /hea");
    client.send(bytes);
    client.answer().expect(200);
    assert_timeout(&mut client, "head");
    let mut client = server.connect();
    let mut bytes = post(&token("slow"), r#"{"title":"answered"}"#).bytes();
    bytes.extend(b"POST /todos HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{");
    client.send(bytes);
    client.answer().expect(202);
    assert_timeout(&mut client, "body");
}

fn an_idle_connection_is_closed_without_a_word(server: &Server) {
    let mut client = server.connect();
    for _ in 0..3 {
        client.call(&get("/health")).expect(200);
    }
    client.assert_ended();
}

fn a_connection_without_a_request_is_closed(server: &Server) {
    server.connect().assert_ended();
}

fn a_connection_is_idle_from_its_last_request_on(server: &Server) {
    let (idle_timeout, pause) = (Duration::from_millis(1500), Duration::from_millis(400));
    let mut client = server.connect();
    // The same request again and again has a way of its own.
    for request in ["/todos?limit=10", "/todos?limit=7", "/health"] {
        let begun = Instant::now();
        while begun.elapsed() < 2 * idle_timeout {
            client.call(&get(request)).expect(200);
            std::thread::sleep(pause);
        }
    }
    for request in ["/health", "/todos?limit=10"] {
        let mut client = server.connect();
        for _ in 0..3 {
            client.call(&get(request)).expect(200);
            std::thread::sleep(pause);
        }
        let last = Instant::now();
        client.call(&get(request)).expect(200);
        client.assert_ended();
        assert!(last.elapsed() >= idle_timeout - pause, "{request}: {:?}", last.elapsed());
    }
}
