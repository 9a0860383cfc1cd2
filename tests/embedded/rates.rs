//! `WRITE_RATE_PER_USER`: who writes too fast is told so, and nobody else.

use std::time::{Duration, Instant};

use crate::harness::client::Client;
use crate::harness::metrics::{parse, total};
use crate::harness::request::{Request, delete, get, post, put};
use crate::harness::server::{Driver, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(crate::rates::limited =>
    a_burst_passes_and_the_rest_is_refused,
    after_the_wait_that_is_named_there_is_room_again,
    all_writes_of_a_user_count_together_on_all_shards,
    others_and_reads_are_not_affected,
    a_body_that_would_be_refused_is_not_asked_for,
);

/// Writes a second.
const RATE: usize = 20;

fn limited(driver: Driver) -> Setup {
    Setup::new().driver(driver).set("SHARDS", "2").set("WRITE_RATE_PER_USER", &RATE.to_string())
}

/// Sends these in one pipeline; returns how many were accepted and how many refused.
fn send(client: &mut Client, requests: &[Request]) -> (usize, usize) {
    client.send(requests.iter().flat_map(Request::bytes).collect::<Vec<_>>());
    let (mut accepted, mut refused) = (0, 0);
    for _ in requests {
        let answer = client.answer();
        match answer.status {
            202 => accepted += 1,
            429 => {
                assert_eq!(answer.required("Content-Type"), "application/problem+json");
                assert_eq!(answer.required("Retry-After"), "1");
                assert!(answer.json()["detail"].as_str().expect("a text").contains("WRITE_RATE_PER_USER"));
                assert!(!answer.closes());
                refused += 1;
            }
            _ => panic!("{answer:?}"),
        }
    }
    (accepted, refused)
}

fn creates(user: &str, count: usize) -> Vec<Request> {
    vec![post(&token(user), r#"{"title":"fast"}"#); count]
}

/// No fewer than one second's worth, and no more than came in besides.
fn assert_limited(accepted: usize, started_at: Instant) {
    let most = RATE + (started_at.elapsed().as_secs_f64() * RATE as f64).ceil() as usize;
    assert!((RATE..=most).contains(&accepted), "{accepted} of {RATE} to {most}");
}

fn a_burst_passes_and_the_rest_is_refused(setup: &Setup) {
    let server = setup.start();
    let started_at = Instant::now();
    let (accepted, refused) = send(&mut server.connect(), &creates("fast", 200));
    assert_limited(accepted, started_at);
    let answer = server.connect().call(&get("/metrics")).expect(200);
    assert_eq!(total(&parse(answer.text()), "million_rps_writes_limited_total", ""), refused as f64);
}

fn after_the_wait_that_is_named_there_is_room_again(setup: &Setup) {
    let server = setup.start();
    let mut client = server.connect();
    for _ in 0..2 {
        while send(&mut client, &creates("fast", 50)).1 == 0 {}
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(send(&mut client, &creates("fast", RATE)), (RATE, 0), "the bucket is full again");
    }
}

fn all_writes_of_a_user_count_together_on_all_shards(setup: &Setup) {
    let server = setup.start();
    let token = token("fast");
    let unknown = "01900000-0000-7000-8000-00000000abcd";
    let kinds =
        [post(&token, r#"{"title":"fast"}"#), put(&token, unknown, r#"{"completed":true}"#), delete(&token, unknown)];
    let started_at = Instant::now();
    let accepted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let requests = vec![kinds[number % 3].clone(); 40];
                let server = &server;
                scope.spawn(move || send(&mut server.connect(), &requests).0)
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("all answered")).sum()
    });
    assert_limited(accepted, started_at);
}

fn others_and_reads_are_not_affected(setup: &Setup) {
    let server = setup.start();
    let mut client = server.connect();
    while send(&mut client, &creates("fast", 100)).1 == 0 {}
    for user in ["one", "two", "three"] {
        assert_eq!(send(&mut client, &creates(user, RATE)), (RATE, 0), "{user}");
    }
    for _ in 0..10 * RATE {
        client.call(&get("/todos?limit=1").token(&token("fast"))).expect(200);
    }
    // Who is nobody is told that, however often.
    for _ in 0..2 * RATE {
        client.call(&Request::new("POST", "/todos").json("{}")).expect(401);
    }
}

fn a_body_that_would_be_refused_is_not_asked_for(setup: &Setup) {
    let server = setup.start();
    let token = token("fast");
    let request = post(&token, r#"{"title":"asked"}"#).field("Expect", "100-continue").bytes();
    let end = request.windows(4).position(|part| part == b"\r\n\r\n").expect("an end of the head") + 4;
    let mut refused = 0;
    let started_at = Instant::now();
    while refused == 0 {
        while send(&mut server.connect(), &creates("fast", 50)).1 == 0 {}
        let mut client = server.connect();
        client.send(&request[..end]);
        match client.answer() {
            // A token has come in since.
            answer if answer.status == 100 => {
                client.send(&request[end..]);
                assert!(matches!(client.answer().status, 202 | 429));
            }
            answer => {
                assert!(answer.expect(429).closes(), "the body may come all the same");
                refused += 1;
            }
        }
        assert!(started_at.elapsed() < crate::harness::PATIENCE, "it is asked for each time");
    }
}

#[test]
fn without_the_setting_there_is_no_limit() {
    let server = Setup::new().driver(Driver::Epoll).start();
    assert_eq!(send(&mut server.connect(), &creates("fast", 1_000)), (1_000, 0));
}
