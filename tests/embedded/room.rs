//! What the list and the log may hold: each limit has its status, and below it everything goes on.

use rusqlite::Connection;
use serde_json::json;

use crate::harness::client::{Answer, Client};
use crate::harness::eventually;
use crate::harness::request::{delete, get, post, put};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(std::convert::identity =>
    a_user_has_as_many_todos_as_allowed,
    a_list_has_as_many_bytes_as_allowed,
);

fn create(client: &mut Client, user: &str, title: &str, description: &str) -> Answer {
    let body = json!({ "title": title, "description": description });
    client.call(&post(&token(user), body.to_string()))
}

fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn eventually_count(client: &mut Client, expected: usize) {
    eventually("the list", || {
        (client.call(&get("/todos")).expect(200).json().as_array()?.len() == expected).then_some(())
    });
}

fn metric(client: &mut Client, name: &str) -> u64 {
    let text = client.call(&get("/metrics")).expect(200).text().to_owned();
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

fn reason(client: &mut Client, component: &str) -> Option<String> {
    let ready = client.call(&get("/ready")).expect(200).json();
    let reasons = ready["reasons"].as_array().expect("a list").clone();
    reasons.iter().filter_map(|reason| reason.as_str()?.strip_prefix(component)).map(str::to_owned).next()
}

fn a_user_has_as_many_todos_as_allowed(driver: &Driver) {
    let setup = Setup::new().driver(*driver).set("SHARDS", "2").set("TODOS_PER_USER_MAX", "3");
    let server = setup.start();
    let mut client = server.connect();
    let ids: Vec<String> = (0..3)
        .map(|number| {
            let made = id(&create(&mut client, "me", &number.to_string(), "").expect(202));
            eventually_count(&mut client, number + 1);
            made
        })
        .collect();
    let refused = create(&mut client, "me", "too many", "");
    assert!(refused.problem(429).contains("TODOS_PER_USER_MAX"), "{refused:?}");
    assert_eq!(metric(&mut client, "million_rps_writes_over_user_todos_total{"), 1);
    // Others have room, updates go on, and one user's limit is no trouble of the server.
    create(&mut client, "other", "1", "").expect(202);
    client.call(&put(&token("me"), &ids[0], r#"{"description":"longer than before"}"#)).expect(202);
    assert_eq!(reason(&mut client, "limits: "), None);
    eventually_count(&mut client, 4);
    client.call(&delete(&token("me"), &ids[1])).expect(202);
    eventually("room for another", || (create(&mut client, "me", "again", "").status == 202).then_some(()));
    eventually_count(&mut client, 4);
    create(&mut client, "me", "too many", "").problem(429);
    server.kill();
    // Counted again from the whole list. A repeated create adds nothing, so it is taken.
    let server = setup.start();
    let mut client = server.connect();
    create(&mut client, "me", "too many", "").problem(429);
    create(&mut client, "other", "2", "").expect(202);
    let keyed = post(&token("third"), r#"{"title":"once"}"#).field("Idempotency-Key", "\"a key\"");
    client.call(&keyed).expect(202);
    eventually_count(&mut client, 6);
    for number in 0..2 {
        create(&mut client, "third", &number.to_string(), "").expect(202);
    }
    eventually_count(&mut client, 8);
    create(&mut client, "third", "too many", "").problem(429);
    client.call(&keyed).expect(202);
}

fn a_list_has_as_many_bytes_as_allowed(driver: &Driver) {
    let server = Setup::new().driver(*driver).set("SHARDS", "2").set("LIST_MAX_BYTES", "5000").start();
    let mut client = server.connect();
    let long = "x".repeat(2_000);
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(id(&create(&mut client, "me", &number.to_string(), &long).expect(202)));
        eventually_count(&mut client, number + 1);
    }
    let refused = create(&mut client, "other", "too long", "");
    assert!(refused.problem(507).contains("LIST_MAX_BYTES"), "{refused:?}");
    let update = |client: &mut Client, body: &str| client.call(&put(&token("me"), &ids[0], body));
    update(&mut client, &json!({ "description": format!("{long}y") }).to_string()).problem(507);
    assert_eq!(metric(&mut client, "million_rps_writes_over_list_bytes_total{"), 2);
    let text = reason(&mut client, "limits: ").expect("a reason");
    assert!(text.contains("LIST_MAX_BYTES") && text.contains("Delete"), "{text}");
    // What makes the list no longer is taken, and deletes always are.
    update(&mut client, r#"{"completed":true}"#).expect(202);
    update(&mut client, r#"{"description":"short"}"#).expect(202);
    client.call(&delete(&token("me"), &ids[1])).expect(202);
    eventually_count(&mut client, 2);
    eventually("no reason", || reason(&mut client, "limits: ").is_none().then_some(()));
    create(&mut client, "other", "room again", "").expect(202);
}

/// While the store fails the log grows, up to its limit; when the store works again, so do writes.
#[test]
fn the_log_has_as_many_bytes_as_allowed_while_the_store_fails() {
    const MAX_BYTES: u64 = 1024 * 1024;
    let setup = Setup::new().set("LOG_MAX_BYTES", &MAX_BYTES.to_string());
    let log_bytes = || -> u64 {
        let entries = std::fs::read_dir(setup.data_dir().join("log")).expect("readable").flatten();
        let segments = entries.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "log"));
        segments.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    };
    let server: Server = setup.start();
    let mut client = server.connect();
    let mut accepted = 0;
    // Twice: what was deleted gives its room back.
    for round in 0..2 {
        let store = Connection::open(setup.data_dir().join("todos.sqlite")).expect("opened");
        store.busy_timeout(std::time::Duration::from_secs(30)).expect("a plain setting");
        store.execute_batch("BEGIN EXCLUSIVE").expect("nobody else writes now");
        let refused = eventually("the log to be full", || {
            let answer = create(&mut client, "me", "a title", &"x".repeat(9_000));
            accepted += usize::from(answer.status == 202);
            (answer.status != 202).then_some(answer)
        });
        assert!(refused.problem(503).contains("LOG_MAX_BYTES"), "{refused:?}");
        assert!(refused.problem(503).contains("nothing was written"), "{refused:?}");
        assert!(refused.required("Retry-After").parse::<u32>().is_ok(), "{refused:?}");
        assert!(log_bytes() <= MAX_BYTES, "round {round}: {}", log_bytes());
        let text = reason(&mut client, "data_folder: ").expect("a reason");
        assert!(text.contains("LOG_MAX_BYTES") && text.contains("store"), "{text}");
        assert!(metric(&mut client, "million_rps_writes_over_log_bytes_total{") > 0);
        client.call(&get("/todos?limit=1")).expect(200);
        store.execute_batch("ROLLBACK").expect("given back");
        drop(store);
        eventually("writes to go on", || (create(&mut client, "me", "after", "").status == 202).then_some(()));
        accepted += 1;
        eventually_count(&mut client, accepted);
        eventually("no reason", || reason(&mut client, "data_folder: ").is_none().then_some(()));
    }
    server.kill();
    eventually_count(&mut setup.start().connect(), accepted);
}
