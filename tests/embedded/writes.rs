//! Writes: what 202 promises, what shows afterwards, and whose todos they are.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::request::{delete, get, post, put};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(crate::plain =>
    a_created_todo_shows_everywhere,
    an_update_changes_what_it_names,
    a_deleted_todo_is_gone,
    a_strangers_write_changes_nothing,
    commands_for_nothing_are_taken_and_change_nothing,
    a_write_changes_the_entity_tags,
    conditional_writes_are_checked,
    concurrent_writers_lose_nothing,
);

/// Creates a todo and returns its id.
fn create(client: &mut Client, token: &str, body: &Value) -> String {
    let answer = client.call(&post(token, body.to_string())).expect(202);
    assert_eq!(answer.required("Content-Type"), "application/json");
    assert_eq!(answer.required("Cache-Control"), "no-store");
    let accepted = answer.json();
    let id = accepted["id"].as_str().expect("an id").to_owned();
    assert_eq!(accepted, json!({ "id": id, "message": "Todo creation queued" }));
    assert_eq!(answer.required("Location"), format!("/todos/{id}"));
    assert_eq!(&id[14..15], "7", "the id is a UUIDv7: {id}");
    id
}

/// Waits until the todo shows and satisfies `wanted`.
fn shown(client: &mut Client, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually("the write to show", || {
        let answer = client.call(&get(format!("/todos/{id}")));
        (answer.status == 200).then(|| answer.json()).filter(&wanted)
    })
}

fn a_created_todo_shows_everywhere(server: &Server) {
    let token = token("writer");
    let mut client = server.connect();
    let id = create(&mut client, &token, &json!({ "title": "new", "description": "and described" }));
    let todo = shown(&mut client, &id, |_| true);
    let created_at = todo["created_at"].clone();
    assert_eq!(
        todo,
        json!({
            "id": id, "title": "new", "description": "and described", "completed": false, "user_id": "writer",
            "created_at": created_at, "updated_at": created_at,
        })
    );
    // On every shard, in the whole list and in pages that were asked for before. Others write too: the page has room.
    for _ in 0..8 {
        let mut client = server.connect();
        for target in ["/todos", "/todos?limit=5000", "/todos?limit=4999"] {
            eventually("the todo in the list", || {
                client.call(&get(target)).expect(200).text().contains(&id).then_some(())
            });
        }
    }
    let id = create(&mut client, &token, &json!({ "title": "without" }));
    assert_eq!(shown(&mut client, &id, |_| true)["description"], "");
    let id = create(&mut client, &token, &json!({ "title": "null", "description": null }));
    assert_eq!(shown(&mut client, &id, |_| true)["description"], "");
}

fn an_update_changes_what_it_names(server: &Server) {
    let token = token("writer");
    let mut client = server.connect();
    let id = create(&mut client, &token, &json!({ "title": "one", "description": "first" }));
    let before = shown(&mut client, &id, |_| true);
    let mut expected = before.clone();
    for change in [
        json!({ "title": "two" }),
        json!({ "description": "second" }),
        json!({ "completed": true }),
        json!({ "title": "three", "description": null, "completed": null }),
        json!({ "description": "" }),
        json!({ "title": null, "completed": false }),
        json!({ "title": "four", "description": "fourth", "completed": true }),
        json!({}),
        json!({ "title": "five", "user_id": "thief", "id": "x", "created_at": "x", "unknown": [] }),
    ] {
        let answer = client.call(&put(&token, &id, change.to_string())).expect(202);
        assert_eq!(answer.json(), json!({ "id": id, "message": "Todo update queued" }));
        assert_eq!(answer.field("Location"), None);
        for member in ["title", "description", "completed"] {
            if !change[member].is_null() {
                expected[member] = change[member].clone();
            }
        }
        let wanted =
            |todo: &Value| ["title", "description", "completed"].iter().all(|name| todo[name] == expected[name]);
        let todo = shown(&mut client, &id, wanted);
        assert_eq!(todo["user_id"], "writer");
        assert_eq!(todo["created_at"], before["created_at"]);
        let moment = |todo: &Value| todo["updated_at"].as_str().map(str::to_owned);
        assert!(moment(&todo) >= moment(&expected), "{todo} {expected}");
        expected["updated_at"] = todo["updated_at"].clone();
    }
    assert_ne!(expected["updated_at"], before["updated_at"]);
}

fn a_deleted_todo_is_gone(server: &Server) {
    let token = token("writer");
    let mut client = server.connect();
    let id = create(&mut client, &token, &json!({ "title": "short-lived" }));
    shown(&mut client, &id, |_| true);
    let answer = client.call(&delete(&token, &id)).expect(202);
    assert_eq!(answer.json(), json!({ "id": id, "message": "Todo deletion queued" }));
    eventually("the todo to go", || (client.call(&get(format!("/todos/{id}"))).status == 404).then_some(()));
    for _ in 0..4 {
        let mut client = server.connect();
        eventually("the todo to go from the list", || {
            (!client.call(&get("/todos")).expect(200).text().contains(&id)).then_some(())
        });
    }
}

fn a_strangers_write_changes_nothing(server: &Server) {
    let (owner, stranger) = (token("owner"), token("stranger"));
    let mut client = server.connect();
    let id = create(&mut client, &owner, &json!({ "title": "mine" }));
    let before = shown(&mut client, &id, |_| true);
    // Each shard has to have the snapshot with the todo before it can know the owner.
    for _ in 0..8 {
        let mut other = server.connect();
        shown(&mut other, &id, |_| true);
        for request in [put(&stranger, &id, r#"{"title":"stolen"}"#), delete(&stranger, &id), put(&stranger, &id, "{}")]
        {
            other.call(&request).problem(403);
        }
        other.call(&put(&stranger, &id, r#"{"title":""}"#)).problem(400);
    }
    // A stranger who is faster than the snapshot is stopped by the worker.
    let fast = create(&mut client, &owner, &json!({ "title": "mine too" }));
    let early = client.call(&delete(&stranger, &fast));
    assert!(matches!(early.status, 202 | 403), "{early:?}");
    client.call(&put(&owner, &id, r#"{"completed":true}"#)).expect(202);
    let after = shown(&mut client, &id, |todo| todo["completed"] == true);
    assert_eq!(after["title"], before["title"]);
    assert_eq!(after["user_id"], "owner");
    assert_eq!(shown(&mut client, &fast, |_| true)["user_id"], "owner");
}

fn commands_for_nothing_are_taken_and_change_nothing(server: &Server) {
    let token = token("writer");
    let mut client = server.connect();
    let nothing = "01900000-0000-7000-8000-00000000dead";
    client.call(&put(&token, nothing, r#"{"title":"from nothing"}"#)).expect(202);
    client.call(&delete(&token, nothing)).expect(202);
    let id = create(&mut client, &token, &json!({ "title": "later" }));
    shown(&mut client, &id, |_| true);
    client.call(&get(format!("/todos/{nothing}"))).problem(404);
}

fn a_write_changes_the_entity_tags(server: &Server) {
    let token = token("writer");
    let mut client = server.connect();
    let id = create(&mut client, &token, &json!({ "title": "tagged" }));
    shown(&mut client, &id, |_| true);
    let target = format!("/todos/{id}");
    for (target, change) in [(target.as_str(), r#"{"completed":true}"#), ("/todos?limit=5000", r#"{"title":"other"}"#)]
    {
        let old = client.call(&get(target)).expect(200).required("ETag").to_owned();
        client.call(&put(&token, &id, change)).expect(202);
        let answer = eventually("new content", || {
            Some(client.call(&get(target).field("If-None-Match", &old))).filter(|answer| answer.status != 304)
        });
        assert_ne!(answer.expect(200).required("ETag"), old);
    }
}

fn conditional_writes_are_checked(server: &Server) {
    let token = token("writer");
    let mut client = server.connect();
    let id = create(&mut client, &token, &json!({ "title": "first" }));
    shown(&mut client, &id, |_| true);
    let tag = client.call(&get(format!("/todos/{id}"))).expect(200).required("ETag").to_owned();
    client.call(&put(&token, &id, r#"{"title":"lost"}"#).field("If-Match", "\"other\"")).problem(412);
    client.call(&put(&token, &id, r#"{"title":"lost"}"#).field("If-Match", &format!("W/{tag}"))).problem(412);
    client.call(&delete(&token, &id).field("If-None-Match", "*")).problem(412);
    client.call(&put(&token, &id, r#"{"title":"second"}"#).field("If-Match", &tag)).expect(202);
    shown(&mut client, &id, |todo| todo["title"] == "second");
    client.call(&put(&token, &id, r#"{"title":"lost"}"#).field("If-Match", &tag)).problem(412);
    client.call(&delete(&token, &id).field("If-Match", "*")).expect(202);
}

fn concurrent_writers_lose_nothing(server: &Server) {
    let ids: Vec<String> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|writer| {
                scope.spawn(move || {
                    let token = token(&format!("writer {writer}"));
                    let mut client = server.connect();
                    (0..40)
                        .map(|n| create(&mut client, &token, &json!({ "title": format!("{writer}/{n}") })))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("no panic")).collect()
    });
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 240, "each id once");
    let mut client = server.connect();
    eventually("all of them in the list", || {
        let list = client.call(&get("/todos")).expect(200).json();
        let todos = list.as_array().expect("a list");
        let seen: Vec<_> = todos.iter().map(|todo| todo["id"].as_str().expect("an id")).collect();
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "no todo twice");
        let seen: HashSet<_> = seen.into_iter().collect();
        ids.iter().all(|id| seen.contains(id.as_str())).then_some(())
    });
}

/// A full queue is an answer, not a wait: whoever got 202 is in, whoever got 503 is not.
#[test]
fn a_full_write_queue_is_503() {
    let setup = Setup::new().set("SHARDS", "1").set("WRITE_QUEUE_COMMANDS", "1").driver(Driver::Epoll);
    let server = setup.start();
    let token = token("crowd");
    let mut client = server.connect();
    let bytes: Vec<u8> = (0..100).flat_map(|n| post(&token, format!(r#"{{"title":"{n}"}}"#)).bytes()).collect();
    client.send(bytes);
    let mut accepted = HashSet::new();
    let mut refused = 0;
    for _ in 0..100 {
        let answer = client.answer();
        if answer.status == 202 {
            accepted.insert(answer.json()["id"].as_str().expect("an id").to_owned());
        } else {
            answer.problem(503);
            assert_eq!(answer.json()["error"], "Request queued failed", "the original's text");
            assert!(answer.required("Retry-After").parse::<u32>().is_ok(), "{answer:?}");
            refused += 1;
        }
    }
    assert!(!accepted.is_empty() && refused > 0, "{} accepted, {refused} refused", accepted.len());
    let last = create(&mut client, &token, &json!({ "title": "room again" }));
    shown(&mut client, &last, |_| true);
    accepted.insert(last);
    let list = client.call(&get("/todos")).expect(200).json();
    let shown: HashSet<_> =
        list.as_array().expect("a list").iter().map(|todo| todo["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(shown, accepted, "what was refused was not written");
}
