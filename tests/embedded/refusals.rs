//! Refusals that have to arrive: most clients write all that they have, and read only then. A connection that is closed with
//! unread bytes is reset by the kernel, and the reset overtakes the answer.

use std::sync::Arc;
use std::time::Duration;

use crate::harness::client::{Answer, Client};
use crate::harness::eventually;
use crate::harness::request::{Request, get, post};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::{Shared, on_both_drivers};
use crate::harness::token::token;

on_both_drivers!(crate::plain =>
    a_body_that_is_too_long,
    a_body_in_chunks_that_is_too_long,
    a_body_that_does_not_wait_for_100_continue,
    bytes_that_are_no_request_with_more_behind_them,
    a_head_that_is_too_long,
    requests_behind_the_last_one,
    a_body_within_the_limit_without_a_token,
    many_uploads_at_once,
);

/// Far more than sockets buffer.
const UPLOAD_BYTES: usize = 20 * 1024 * 1024;

/// Sends all of it, and reads only then.
fn sent_whole(server: &Server, head: impl AsRef<[u8]>, piece: &[u8], bytes: usize) -> Client {
    let mut client = server.connect();
    let mut all = head.as_ref().to_vec();
    while all.len() < bytes {
        all.extend_from_slice(piece);
    }
    client.send(&all);
    client
}

#[track_caller]
fn assert_refused(mut client: Client, status: u16) -> Answer {
    let answer = client.answer();
    answer.problem(status);
    assert!(answer.closes(), "{answer:?}");
    client.assert_ended();
    answer
}

fn head_of_upload(fields: &str) -> String {
    format!("POST /todos HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{fields}\r\n\r\n")
}

fn a_body_that_is_too_long(server: &Server) {
    let authorized = format!("Authorization: Bearer {}\r\nContent-Length: {UPLOAD_BYTES}", token("uploader"));
    for fields in [format!("Content-Length: {UPLOAD_BYTES}"), authorized] {
        let head = head_of_upload(&fields);
        let whole = head.len() + UPLOAD_BYTES;
        assert_refused(sent_whole(server, head, &[b'x'; 65536], whole), 413);
    }
    server.connect().assert_goes_on();
}

fn a_body_in_chunks_that_is_too_long(server: &Server) {
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65536], b"\r\n"].concat();
    let head = head_of_upload("Transfer-Encoding: chunked");
    assert_refused(sent_whole(server, head, &chunk, UPLOAD_BYTES), 413);
}

fn a_body_that_does_not_wait_for_100_continue(server: &Server) {
    for (fields, status) in [
        (format!("Expect: 100-continue\r\nContent-Length: {UPLOAD_BYTES}"), 413),
        ("Expect: 100-continue\r\nContent-Length: 60000".to_owned(), 401),
        ("Expect: 100-continue\r\nTransfer-Encoding: chunked".to_owned(), 401),
    ] {
        let mut client = server.connect();
        client.send(head_of_upload(&fields));
        client.wait_for_bytes();
        client.send([b'x'; 65536].repeat(UPLOAD_BYTES / 65536));
        assert_refused(client, status);
    }
}

fn bytes_that_are_no_request_with_more_behind_them(server: &Server) {
    for (head, status) in [
        (head_of_upload("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
        ("no request\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/7.0\r\nHost: a\r\n\r\n".to_owned(), 505),
    ] {
        assert_refused(sent_whole(server, head, &[b'x'; 65536], UPLOAD_BYTES), status);
    }
}

fn a_head_that_is_too_long(server: &Server) {
    let head = "GET /todos HTTP/1.1\r\nHost: a\r\n";
    assert_refused(sent_whole(server, head, b"X-Field: something that makes it longer\r\n", UPLOAD_BYTES), 431);
    assert_refused(sent_whole(server, "GET /", &[b'x'; 65536], UPLOAD_BYTES), 414);
}

fn requests_behind_the_last_one(server: &Server) {
    let mut client = sent_whole(server, get("/health").close().bytes(), &get("/health").bytes(), UPLOAD_BYTES);
    assert!(client.answer().expect(200).closes());
    client.assert_ended();
}

fn a_body_within_the_limit_without_a_token(server: &Server) {
    let mut client = server.connect();
    let request = Request::new("POST", "/todos").json(vec![b'x'; 65536]);
    for _ in 0..3 {
        client.call(&request).problem(401);
    }
    client.assert_goes_on();
}

fn many_uploads_at_once(server: &Server) {
    const CLIENTS: usize = 40;
    let head = head_of_upload(&format!("Content-Length: {}", UPLOAD_BYTES / 4));
    let whole = head.len() + UPLOAD_BYTES / 4;
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| assert_refused(sent_whole(server, &head, &[b'x'; 65536], whole), 413));
        }
    });
    eventually("their connections to have gone", || {
        (server.connect().call(&get("/metrics")).text().lines())
            .all(|line| !line.starts_with("million_rps_connections_lingering{") || line.ends_with(" 0"))
            .then_some(())
    });
}

mod too_slow {
    use super::*;

    on_both_drivers!(crate::refusals::too_slow::hasty => a_body_that_goes_on, a_head_that_goes_on);

    static HASTY: Shared = Shared::new(|| Setup::new().set("HEADER_TIMEOUT_MS", "1000").set("BODY_TIMEOUT_MS", "1000"));

    fn hasty(driver: Driver) -> Arc<Server> {
        HASTY.with(driver)
    }

    /// Goes on to send for a while after 408 has come.
    fn goes_on(server: &Server, head: &str) {
        let mut client = server.connect();
        client.send(head);
        client.wait_for_bytes();
        for _ in 0..20 {
            client.send([b'x'; 65536]);
            std::thread::sleep(Duration::from_millis(20));
        }
        client.send([b'x'; 65536].repeat(UPLOAD_BYTES / 65536));
        assert_refused(client, 408);
    }

    fn a_body_that_goes_on(server: &Server) {
        goes_on(server, &(head_of_upload("Content-Length: 65536") + "{"));
        goes_on(server, &(head_of_upload("Transfer-Encoding: chunked") + "10000\r\n{"));
    }

    fn a_head_that_goes_on(server: &Server) {
        goes_on(server, "POST /todos HTTP/1.1\r\nHost: a\r\nX: y");
    }
}

mod at_the_cap {
    use super::*;

    on_both_drivers!(std::convert::identity => an_upload_over_one_connection_too_many);

    fn an_upload_over_one_connection_too_many(driver: &Driver) {
        let server = Setup::new().driver(*driver).set("MAX_CONNECTIONS", "1").start();
        let mut only = server.connect();
        eventually("the place of the one that asked for readiness", || {
            let _ = only.try_send(get("/health").bytes());
            let is_served = only.next_answer(false).is_some_and(|answer| answer.status == 200);
            if !is_served {
                only = server.connect();
            }
            is_served.then_some(())
        });
        let head = post(&token("uploader"), "").bytes();
        for _ in 0..5 {
            let mut client = sent_whole(&server, &head, &[b'x'; 65536], UPLOAD_BYTES);
            assert!(client.answer().expect(503).closes());
            client.assert_ended();
        }
        only.assert_goes_on();
    }
}
