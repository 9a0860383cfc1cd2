//! Many requests in flight on one connection: whatever the bytes' way through the network, answers come in order, and
//! there is one for each.

use std::io::Write;

use million_rps::limits::{BODY_MAX_BYTES, HEAD_MAX_BYTES};

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::random::Random;
use crate::harness::request::{Request, chunked, delete, get, post, put};
use crate::harness::server::Server;
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(crate::plain =>
    a_mixture_is_answered_in_order_from_one_write,
    a_mixture_is_answered_in_order_byte_by_byte,
    a_mixture_is_answered_in_order_in_random_pieces,
    a_thousand_gets,
    a_thousand_creates_keep_their_order,
    writes_of_one_todo_keep_their_order,
    what_follows_a_close_is_neither_answered_nor_done,
    what_follows_a_malformed_request_is_not_answered,
    a_client_that_reads_late_gets_everything,
    the_longest_requests_stand_back_to_back,
);

/// Random requests, with the status that each must get.
fn mixture(seed: u64, count: usize) -> (Vec<u8>, Vec<(Request, u16)>) {
    let mut random = Random::new(seed);
    let token = token("pipeline");
    let mut bytes = Vec::new();
    let requests = (0..count)
        .map(|_| {
            let unknown = "/todos/01900000-0000-7000-8000-000000000000";
            let (request, status) = match random.below(14) {
                0 => (get("/health"), 200),
                1 => (get("/todos?limit=2"), 200),
                2 => (Request::new("HEAD", "/todos?limit=3"), 200),
                3 => (Request::new("HEAD", unknown), 404),
                4 => (get(unknown), 404),
                5 => (get("/todos?limit=0"), 400),
                6 => (Request::new("OPTIONS", "/todos"), 204),
                7 => (Request::new("DELETE", "/todos"), 405),
                8 => (Request::new("POST", "/todos").json(r#"{"title":"no token"}"#), 401),
                9 => (post(&token, r#"{"title":""}"#), 400),
                10 => (get("/todos?limit=2").field("If-None-Match", "*"), 304),
                11 => (Request::new("DELETE", unknown).token(&token), 202),
                12 => (put(&token, &unknown[7..], r#"{"completed":true}"#), 202),
                _ => (post(&token, r#"{"title":"in the pipeline"}"#), 202),
            };
            let encoded = request.bytes();
            if random.below(3) == 0 && status == 202 && encoded.windows(15).any(|part| part == b"Content-Length:") {
                bytes.extend(as_chunks(&encoded, &mut random));
            } else {
                bytes.extend(encoded);
            }
            (request, status)
        })
        .collect();
    (bytes, requests)
}

/// The same request with its body in random chunks.
fn as_chunks(request: &[u8], random: &mut Random) -> Vec<u8> {
    let text = std::str::from_utf8(request).expect("ASCII");
    let (head, rest) = text.split_once("Content-Length:").expect("a length");
    let (_, body) = rest.split_once("\r\n\r\n").expect("an end of the head");
    let sizes: Vec<_> = (0..4).map(|_| 1 + random.below(9)).collect();
    let mut encoded = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    encoded.extend(chunked(body.as_bytes(), &sizes));
    encoded
}

fn assert_answers(client: &mut Client, requests: &[(Request, u16)]) {
    for (at, (request, status)) in requests.iter().enumerate() {
        let answer = client.answer_to(request);
        assert_eq!(answer.status, *status, "request {at}, {request:?}: {answer:?}");
        assert!(!answer.closes(), "request {at}: {answer:?}");
    }
    client.assert_goes_on();
}

fn a_mixture_is_answered_in_order_from_one_write(server: &Server) {
    // A todo, so that If-None-Match: * has something to meet.
    for seed in 0..5 {
        let (bytes, requests) = mixture(seed, 120);
        let mut client = server.connect();
        client.send(bytes);
        assert_answers(&mut client, &requests);
    }
}

fn a_mixture_is_answered_in_order_byte_by_byte(server: &Server) {
    let (bytes, requests) = mixture(100, 40);
    let mut client = server.connect();
    for byte in bytes {
        client.send([byte]);
    }
    assert_answers(&mut client, &requests);
}

fn a_mixture_is_answered_in_order_in_random_pieces(server: &Server) {
    for seed in 200..220 {
        let (bytes, requests) = mixture(seed, 40);
        let mut random = Random::new(seed);
        let longest = [3, 40, 400, 5000][random.below(4)];
        let mut client = server.connect();
        for piece in random.cut(&bytes, longest) {
            client.send(piece);
            if random.below(8) == 0 {
                std::thread::yield_now();
            }
        }
        assert_answers(&mut client, &requests);
    }
}

fn a_thousand_gets(server: &Server) {
    let mut client = server.connect();
    for target in ["/todos?limit=1", "/health", "/todos?limit=20"] {
        let bytes = get(target).bytes().repeat(1000);
        let mut sender = client.sender();
        let sending = std::thread::spawn(move || sender.write_all(&bytes));
        for _ in 0..1000 {
            client.answer().expect(200);
        }
        sending.join().expect("no panic").expect("all was taken");
    }
    client.assert_goes_on();
}

fn id_of(answer: &crate::harness::client::Answer) -> String {
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn a_thousand_creates_keep_their_order(server: &Server) {
    let token = token("pipeline");
    let mut client = server.connect();
    let bytes: Vec<u8> = (0..1000).flat_map(|n| post(&token, format!(r#"{{"title":"number {n}"}}"#)).bytes()).collect();
    let mut sender = client.sender();
    let sending = std::thread::spawn(move || sender.write_all(&bytes));
    let ids: Vec<_> = (0..1000).map(|_| id_of(&client.answer().expect(202))).collect();
    sending.join().expect("no panic").expect("all was taken");
    for (n, id) in ids.iter().enumerate() {
        let todo = eventually("the todo to show", || {
            let answer = client.call(&get(format!("/todos/{id}")));
            (answer.status == 200).then(|| answer.json())
        });
        assert_eq!(todo["title"], format!("number {n}"));
    }
}

fn writes_of_one_todo_keep_their_order(server: &Server) {
    let token = token("pipeline");
    let mut client = server.connect();
    let kept = id_of(&client.call(&post(&token, r#"{"title":"kept"}"#)).expect(202));
    let removed = id_of(&client.call(&post(&token, r#"{"title":"removed"}"#)).expect(202));
    let mut bytes = Vec::new();
    for n in 0..100 {
        bytes.extend(put(&token, &kept, format!(r#"{{"title":"version {n}"}}"#)).bytes());
        bytes.extend(put(&token, &removed, format!(r#"{{"title":"version {n}"}}"#)).bytes());
    }
    bytes.extend(delete(&token, &removed).bytes());
    bytes.extend(put(&token, &removed, r#"{"title":"resurrected"}"#).bytes());
    bytes.extend(put(&token, &kept, r#"{"completed":true}"#).bytes());
    client.send(bytes);
    for _ in 0..203 {
        client.answer().expect(202);
    }
    let todo = eventually("the last write to show", || {
        let todo = client.call(&get(format!("/todos/{kept}")));
        (todo.status == 200).then(|| todo.json()).filter(|todo| todo["completed"] == true)
    });
    assert_eq!(todo["title"], "version 99");
    client.call(&get(format!("/todos/{removed}"))).problem(404);
}

fn what_follows_a_close_is_neither_answered_nor_done(server: &Server) {
    let token = token("pipeline");
    for last in [get("/health").close(), post(&token, r#"{"title":"the last"}"#).close(), get("/nowhere").close()] {
        let mut bytes = get("/health").bytes();
        bytes.extend(last.bytes());
        bytes.extend(post(&token, r#"{"title":"behind the close"}"#).bytes());
        bytes.extend(get("/health").bytes());
        let mut client = server.connect();
        client.send(bytes);
        client.answer().expect(200);
        let answer = client.answer();
        assert!(answer.closes(), "{answer:?}");
        client.assert_ended();
    }
    // The log keeps its order: when this later write shows, an earlier one would have to show too.
    let mut client = server.connect();
    let id = id_of(&client.call(&post(&token, r#"{"title":"later"}"#)).expect(202));
    let list = eventually("the write to show", || {
        Some(client.call(&get("/todos")).expect(200)).filter(|list| list.text().contains(&id))
    });
    assert!(!list.text().contains("behind the close"));
}

fn what_follows_a_malformed_request_is_not_answered(server: &Server) {
    let token = token("pipeline");
    let mut bytes = get("/health").bytes();
    bytes.extend(post(&token, r#"{"title":"before"}"#).bytes());
    bytes.extend(b"GET /health HTTP/1.1\r\nno colon\r\n\r\n");
    bytes.extend(get("/health").bytes().repeat(100));
    let mut client = server.connect();
    client.send(bytes);
    client.answer().expect(200);
    client.answer().expect(202);
    let answer = client.answer();
    answer.problem(400);
    assert!(answer.closes(), "{answer:?}");
    client.assert_ended();
}

fn a_client_that_reads_late_gets_everything(server: &Server) {
    let token = token("pipeline");
    let long = "x".repeat(10_000);
    let mut client = server.connect();
    client.call(&post(&token, format!(r#"{{"title":"long","description":"{long}"}}"#))).expect(202);
    let bytes: Vec<u8> = (0..400)
        .flat_map(|n| match n % 4 {
            0 => post(&token, r#"{"title":"between"}"#).bytes(),
            _ => get("/todos?limit=30").bytes(),
        })
        .collect();
    // Everything is sent before anything is read, so that the answers fill every buffer on the way.
    let mut sender = client.sender();
    sender.write_all(&bytes).expect("so little fits into the socket's buffers");
    for n in 0..400 {
        client.answer().expect(if n % 4 == 0 { 202 } else { 200 });
    }
    client.assert_goes_on();
}

fn the_longest_requests_stand_back_to_back(server: &Server) {
    let token = token("pipeline");
    let bare = get("/health").field("X", "").bytes().len();
    let mut bytes = Vec::new();
    for n in 0..12 {
        bytes.extend(get("/health").field("X", &"y".repeat(HEAD_MAX_BYTES - bare - n)).bytes());
        let mut body = br#"{"title":"long"}"#.to_vec();
        body.resize(BODY_MAX_BYTES - n, b' ');
        bytes.extend(post(&token, body).bytes());
        bytes.extend(get("/todos?limit=1").bytes());
    }
    let mut random = Random::new(7);
    for longest in [bytes.len(), 50_000, 3_000] {
        let mut client = server.connect();
        let mut sender = client.sender();
        std::thread::scope(|scope| {
            let pieces = random.cut(&bytes, longest);
            scope
                .spawn(move || pieces.into_iter().try_for_each(|piece| sender.write_all(piece)).expect("all is taken"));
            for _ in 0..12 {
                client.answer().expect(200);
                client.answer().expect(202);
                client.answer().expect(200);
            }
        });
        client.assert_goes_on();
    }
}
