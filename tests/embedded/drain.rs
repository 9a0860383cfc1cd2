//! SIGTERM: what has been accepted is answered, and then the process leaves.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::request::{Request, get, post};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(std::convert::identity =>
    a_drain_under_load_loses_nothing,
    idle_connections_do_not_hold_up_a_drain,
    a_client_that_never_ends_is_left_behind,
);

/// Sends batches of so many requests, each batch in one write, until the server says that it closes. A batch fits into
/// one segment of the loopback interface, so the server has all of it or nothing. Returns the ids that were accepted.
fn send_until_told_to_stop(mut client: Client, batch: usize, answered: &AtomicUsize) -> Vec<String> {
    let token = token("load");
    let mut accepted = Vec::new();
    loop {
        let requests: Vec<Request> = (0..batch)
            .map(|n| match n % 3 {
                0 => get("/todos?limit=3"),
                1 => post(&token, r#"{"title":"under load"}"#),
                _ => get("/health"),
            })
            .collect();
        client.send(requests.iter().flat_map(Request::bytes).collect::<Vec<_>>());
        for (n, request) in requests.iter().enumerate() {
            let answer = client.answer_to(request);
            assert!(matches!(answer.status, 200 | 202), "{answer:?}");
            answered.fetch_add(1, Ordering::Relaxed);
            if answer.status == 202 {
                accepted.push(answer.json()["id"].as_str().expect("an id").to_owned());
            }
            if answer.closes() {
                assert_eq!(n, batch - 1, "all that was sent before the close was said is answered");
                client.assert_ended();
                return accepted;
            }
        }
    }
}

fn ids(server: &Server) -> HashSet<String> {
    let list = server.connect().call(&get("/todos")).expect(200).json();
    let Value::Array(todos) = list else { panic!("no list: {list}") };
    let ids: HashSet<_> = todos.iter().map(|todo| todo["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids.len(), todos.len(), "no todo twice");
    ids
}

fn a_drain_under_load_loses_nothing(driver: &Driver) {
    let setup = Setup::new().driver(*driver);
    let mut expected = HashSet::new();
    for round in 1..=3 {
        let server = setup.start();
        let answered = AtomicUsize::new(0);
        let accepted: Vec<String> = std::thread::scope(|scope| {
            let (server, answered) = (&server, &answered);
            // One at a time; some in one read of the server; more than one read takes.
            let senders: Vec<_> = [1, 1, 8, 8, 100, 100]
                .map(|batch| scope.spawn(move || send_until_told_to_stop(server.connect(), batch, answered)))
                .into_iter()
                .collect();
            eventually("load", || (answered.load(Ordering::Relaxed) > 300 * round).then_some(()));
            server.process.signal(libc::SIGTERM);
            senders.into_iter().flat_map(|sender| sender.join().expect("no request is lost")).collect()
        });
        let finished = server.process.finish();
        assert_eq!(finished.status.code(), Some(0), "{finished:?}");
        assert!(!accepted.is_empty());
        expected.extend(accepted);
        let server = setup.start();
        // The list is loaded before the server is ready, and what the log still holds follows at once.
        eventually("all that was accepted", || (ids(&server) == expected).then_some(()));
        assert_eq!(server.stop().status.code(), Some(0));
    }
}

fn idle_connections_do_not_hold_up_a_drain(driver: &Driver) {
    // Were the idle ones waited for, the test would run into its own patience first.
    let setup = Setup::new().driver(*driver).set("DRAIN_TIMEOUT_MS", "600000").set("HEADER_TIMEOUT_MS", "2000");
    let server = setup.start();
    let mut idle: Vec<_> = (0..8).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(Client::assert_goes_on);
    let mut silent = server.connect();
    let finished = server.stop();
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    idle.iter_mut().for_each(Client::assert_ended);
    silent.assert_ended();
}

fn a_client_that_never_ends_is_left_behind(driver: &Driver) {
    let setup = Setup::new()
        .driver(*driver)
        .set("DRAIN_TIMEOUT_MS", "1000")
        .set("BODY_TIMEOUT_MS", "600000")
        .set("WRITE_TIMEOUT_MS", "600000");
    let server = setup.start();
    let token = token("slow");
    let mut client = server.connect();
    let id = client.call(&post(&token, r#"{"title":"kept"}"#)).expect(202).json()["id"].clone();
    let mut stuck = server.connect();
    let mut bytes = get("/health").bytes();
    bytes.extend(b"POST /todos HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{");
    stuck.send(bytes);
    stuck.answer().expect(200);
    let finished = server.stop();
    assert!(finished.status.code().is_some(), "it leaves by itself, within DRAIN_TIMEOUT_MS: {finished:?}");
    let server = setup.start();
    eventually("what was accepted", || (ids(&server) == HashSet::from([id.as_str()?.to_owned()])).then_some(()));
}
