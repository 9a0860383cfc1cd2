//! Clients that read long lists slowly while the list is rewritten again and again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::harness::client::Client;
use crate::harness::metrics::{parse, total};
use crate::harness::request::{get, post, put};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;
use crate::harness::{PATIENCE, eventually};
use crate::vitals::Vitals;

/// Todos of the list; each has a piece of memory of its own.
const TODOS: usize = 700;
const DESCRIPTION_BYTES: usize = 8_000;
/// One whole old list, and a bit.
const OLD_LISTS_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// How often the list is rewritten as a whole.
const ROUNDS: usize = 10;
/// What a slow client's system keeps for it, in bytes.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024;
/// What the memory of the process may grow by, in bytes; all versions would take 60 MB.
const ADDED_MAX_BYTES: u64 = 40 * 1024 * 1024;

on_both_drivers!(std::convert::identity => slow_readers_hold_no_more_than_the_bound_and_the_slowest_go);

/// A client that reads so many bytes each 100 ms until the end, or until it is told to hurry; with all that it got.
fn read(server: &Server, request: Vec<u8>, bytes: usize, hurry: &Arc<AtomicBool>) -> JoinHandle<Vec<u8>> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).expect("a plain option");
    socket.connect(&server.address.into()).expect("the server takes the connection");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a plain option");
    stream.write_all(&request).expect("sends");
    // The answer has begun, so its version is the one of this moment.
    stream.peek(&mut [0]).expect("an answer");
    let hurry = Arc::clone(hurry);
    std::thread::spawn(move || {
        let mut answer = Vec::new();
        let mut piece = vec![0; bytes];
        while let Ok(length) = stream.read(&mut piece)
            && length > 0
        {
            answer.extend_from_slice(&piece[..length]);
            if !hurry.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        answer
    })
}

/// Gives each todo another title, and waits until that shows.
fn rewrite(client: &mut Client, token: &str, ids: &[String], round: usize) {
    for part in ids.chunks(100) {
        let requests = part.iter().map(|id| put(token, id, format!(r#"{{"title":"round {round}"}}"#)));
        client.send(requests.flat_map(|request| request.field("Prefer", "wait=20").bytes()).collect::<Vec<u8>>());
        part.iter().for_each(|_| assert!(client.answer().status < 300));
    }
}

fn slow_readers_hold_no_more_than_the_bound_and_the_slowest_go(driver: &Driver) {
    let setup = Setup::new()
        .driver(*driver)
        .set("WRITE_RATE_MIN_BYTES", "1")
        .set("WRITE_TIMEOUT_MS", "60000")
        .set("OLD_LISTS_MAX_BYTES", &OLD_LISTS_MAX_BYTES.to_string());
    let server = setup.start();
    let token = token("writer");
    let mut client = server.connect();
    for part in (0..TODOS).collect::<Vec<_>>().chunks(100) {
        let body = |number: &usize| {
            let text = format!("{number} ").repeat(DESCRIPTION_BYTES / 2);
            format!(r#"{{"title":"a todo","description":"{}"}}"#, &text[..DESCRIPTION_BYTES])
        };
        client.send(part.iter().flat_map(|number| post(&token, body(number)).bytes()).collect::<Vec<u8>>());
        part.iter().for_each(|_| drop(client.answer().expect(202)));
    }
    let list = eventually("all todos", || {
        let list = client.call(&get("/todos")).expect(200);
        (list.json().as_array().is_some_and(|todos| todos.len() == TODOS)).then_some(list)
    });
    let ids: Vec<String> =
        list.json().as_array().expect("a list").iter().map(|todo| todo["id"].as_str().expect("an id").into()).collect();
    let before = Vitals::at_rest(&server);
    let figures = |client: &mut Client| {
        let samples = parse(client.call(&get("/metrics")).expect(200).text());
        let held_bytes = total(&samples, "million_rps_old_lists_bytes", "") as u64;
        (held_bytes, total(&samples, "million_rps_deadlines_expired_total", "reason=\"old_list\"") as usize)
    };

    let hurry = Arc::new(AtomicBool::new(false));
    let request = get("/todos").close().bytes();
    // One of 200 KB/s, and the others of 11 KB/s.
    let fast = read(&server, request.clone(), 20_000, &hurry);
    let mut slow = Vec::new();
    let mut most_bytes = 0;
    for round in 0..ROUNDS {
        slow.push(read(&server, request.clone(), 1_100, &hurry));
        rewrite(&mut client, &token, &ids, round);
        eventually("the slowest to be cut off", || (figures(&mut client).0 <= OLD_LISTS_MAX_BYTES).then_some(()));
        most_bytes = most_bytes.max(Vitals::now(&server).resident_bytes);
    }
    let (_, cut_off) = figures(&mut client);
    assert!((ROUNDS - 2..=ROUNDS).contains(&cut_off), "{cut_off} of {ROUNDS}");
    assert!(most_bytes < before.resident_bytes + ADDED_MAX_BYTES, "{} MiB", (most_bytes - before.resident_bytes) >> 20);

    hurry.store(true, Ordering::Relaxed);
    let answer = fast.join().expect("it only reads");
    assert!(answer.ends_with(&list.body), "the fastest gets all: {} of {} bytes", answer.len(), list.body.len());
    let is_whole = |reader: JoinHandle<Vec<u8>>| reader.join().expect("it only reads").len() > list.body.len() / 2;
    assert_eq!(slow.into_iter().map(is_whole).filter(|is_whole| *is_whole).count(), ROUNDS - cut_off);
    eventually("all to be given back", || (figures(&mut client).0 == 0).then_some(()));
}
