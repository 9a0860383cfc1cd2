//! `Idempotency-Key` through two APIs and two workers, one of which is killed.

use std::collections::HashSet;

use serde_json::json;

use crate::deployment::{Api, Deployment};
use crate::harness::request::post;
use crate::harness::token::token;

/// Different keys.
const KEYS: usize = 50;
/// How often each connection sends all of them.
const ROUNDS: usize = 5;

/// Sends a create for each key, several times; returns the ids that the keys stand for.
fn repeat(api: &Api, user: &str) -> Vec<String> {
    let token = token(user);
    let mut client = api.connect();
    let mut ids = vec![String::new(); KEYS];
    for round in 0..ROUNDS {
        for (number, id) in ids.iter_mut().enumerate() {
            let body = json!({ "title": format!("{number} in round {round}") }).to_string();
            let request = post(&token, body).field("Idempotency-Key", &format!("\"key {number}\""));
            // The last round is answered when it shows.
            let request = if round + 1 == ROUNDS { request.field("Prefer", "wait=30") } else { request };
            let accepted = client.call(&request).expect(202).json()["id"].as_str().expect("an id").to_owned();
            assert!(id.is_empty() || *id == accepted, "key {number} is {id} and {accepted}");
            *id = accepted;
        }
    }
    ids
}

#[test]
fn repeated_creates_are_one_todo_each_whoever_takes_them() {
    let deployment = Deployment::new();
    let [first, _second] = deployment.workers();
    let apis = [deployment.serve(), deployment.serve()];
    let ids: Vec<Vec<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = [(0, "a"), (1, "a"), (0, "b"), (1, "b")]
            .map(|(api, user)| {
                let api = &apis[api];
                scope.spawn(move || repeat(api, user))
            })
            .into();
        first.signal(libc::SIGKILL);
        threads.into_iter().map(|thread| thread.join().expect("all were accepted")).collect()
    });
    assert_eq!((&ids[0], &ids[2]), (&ids[1], &ids[3]), "both APIs give the same ids");
    let all: HashSet<&String> = ids.iter().flatten().collect();
    assert_eq!(all.len(), 2 * KEYS, "each user has ids of its own");
    let shown = |api: &Api| api.list().json().as_array().expect("a list").len();
    let stored = deployment.query("SELECT count(*) FROM todos");
    assert_eq!((shown(&apis[0]), shown(&apis[1])), (2 * KEYS, 2 * KEYS));
    assert_eq!(stored, [[Some((2 * KEYS).to_string())]]);
}
