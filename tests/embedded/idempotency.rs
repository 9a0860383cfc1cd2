//! `Idempotency-Key`: a create that is sent again is the same todo.

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::metrics::await_shards;
use crate::harness::request::{Request, delete, get, post, put};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(crate::plain =>
    the_same_key_is_the_same_todo_and_the_first_counts,
    a_pipeline_of_repetitions_is_one_todo,
    repetitions_at_the_same_time_are_one_todo,
    a_key_belongs_to_its_user,
    a_repetition_undoes_no_later_change,
    after_a_delete_the_key_makes_the_todo_anew,
    what_is_no_key_is_refused,
    other_methods_know_no_key,
);

mod alone {
    use super::*;

    on_both_drivers!(std::convert::identity => a_restart_forgets_no_key);
}

/// A create with this key, which is answered when it shows.
fn create(token: &str, key: &str, title: &str) -> Request {
    let body = json!({ "title": title }).to_string();
    post(token, body).field("Idempotency-Key", key).field("Prefer", "wait=30")
}

fn accepted(client: &mut Client, request: &Request) -> String {
    let answer = client.call(request).expect(202);
    assert_eq!(answer.required("Preference-Applied"), "wait");
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.required("Location"), format!("/todos/{id}"));
    assert_eq!(answer.json()["message"], "Todo creation queued", "the same answer each time");
    id
}

fn shown(client: &mut Client, id: &str) -> Value {
    client.call(&get(format!("/todos/{id}"))).expect(200).json()
}

/// A key that no other test uses.
fn unique(what: &str) -> String {
    format!("\"{what} {}\"", million_rps::todo::TodoId::new())
}

/// How many todos of the list have this title.
fn count(client: &mut Client, title: &str) -> usize {
    let list = client.call(&get("/todos")).expect(200).json();
    list.as_array().expect("a list").iter().filter(|todo| todo["title"] == title).count()
}

fn the_same_key_is_the_same_todo_and_the_first_counts(server: &Server) {
    let (token, key) = (token("repeater"), unique("same"));
    let mut client = server.connect();
    let id = accepted(&mut client, &create(&token, &key, "first"));
    assert_eq!(&id[14..15], "8", "a UUIDv8: {id}");
    let first = shown(&mut client, &id);
    for title in ["first", "second", "third"] {
        assert_eq!(accepted(&mut server.connect(), &create(&token, &key, title)), id);
    }
    // With and without quotes, and with parameters.
    let bare = unique("bare").replace([' ', '"'], "");
    let id_of_bare = accepted(&mut client, &create(&token, &bare, "bare"));
    for same in [format!("\"{bare}\""), format!("\"{bare}\";again=?1")] {
        assert_eq!(accepted(&mut client, &create(&token, &same, "bare")), id_of_bare);
    }
    assert_eq!(shown(&mut client, &id), first);
    let other = accepted(&mut client, &create(&token, &unique("other"), "first"));
    assert_ne!(other, id);
}

fn a_pipeline_of_repetitions_is_one_todo(server: &Server) {
    let (token, key) = (token("repeater"), unique("pipeline"));
    let mut client = server.connect();
    let repetition = |number: usize| {
        post(&token, json!({ "title": format!("{key} {number}") }).to_string()).field("Idempotency-Key", &key)
    };
    client.send((0..50).flat_map(|number| repetition(number).bytes()).collect::<Vec<_>>());
    let ids: Vec<Value> = (0..50).map(|_| client.answer().expect(202).json()["id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let last = accepted(&mut client, &create(&token, &key, "the last"));
    assert_eq!(last, ids[0]);
    assert_eq!(shown(&mut client, &last)["title"], format!("{key} 0"), "the first of them");
}

fn repetitions_at_the_same_time_are_one_todo(server: &Server) {
    let (token, key, title) = (token("repeater"), unique("parallel"), unique("title"));
    let ids: Vec<String> = std::thread::scope(|scope| {
        let repeat =
            || (0..10).map(|_| accepted(&mut server.connect(), &create(&token, &key, &title))).collect::<Vec<_>>();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(repeat)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("all accepted")).collect()
    });
    assert_eq!(ids.len(), 80);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    await_shards(server.address);
    assert_eq!(count(&mut server.connect(), &title), 1);
}

fn a_key_belongs_to_its_user(server: &Server) {
    let key = unique("shared");
    let mut client = server.connect();
    let ids = ["one", "two", "three"].map(|user| {
        let id = accepted(&mut client, &create(&token(user), &key, user));
        assert_eq!(shown(&mut client, &id)["user_id"], user);
        id
    });
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
}

fn a_repetition_undoes_no_later_change(server: &Server) {
    let (token, key) = (token("repeater"), unique("changed"));
    let mut client = server.connect();
    let id = accepted(&mut client, &create(&token, &key, "first"));
    let change = put(&token, &id, r#"{"title":"changed","completed":true}"#).field("Prefer", "wait=30");
    assert_eq!(client.call(&change).expect(202).required("Preference-Applied"), "wait");
    let changed = shown(&mut client, &id);
    assert_eq!(accepted(&mut client, &create(&token, &key, "first")), id);
    assert_eq!(shown(&mut client, &id), changed);
    assert_eq!((&changed["title"], &changed["completed"]), (&json!("changed"), &json!(true)));
}

fn after_a_delete_the_key_makes_the_todo_anew(server: &Server) {
    let (token, key) = (token("repeater"), unique("deleted"));
    let mut client = server.connect();
    let id = accepted(&mut client, &create(&token, &key, "first"));
    let before = shown(&mut client, &id);
    let gone = delete(&token, &id).field("Prefer", "wait=30");
    assert_eq!(client.call(&gone).expect(202).required("Preference-Applied"), "wait");
    client.call(&get(format!("/todos/{id}"))).expect(404);
    assert_eq!(accepted(&mut client, &create(&token, &key, "second")), id);
    let again = shown(&mut client, &id);
    assert_eq!(again["title"], "second");
    assert!(again["created_at"].as_str() > before["created_at"].as_str(), "it stands where new todos stand");
    assert_eq!(count(&mut client, "second"), 1);
    client.call(&gone).expect(202);
    eventually("the todo to go", || (client.call(&get(format!("/todos/{id}"))).status == 404).then_some(()));
}

fn what_is_no_key_is_refused(server: &Server) {
    let token = token("repeater");
    let mut client = server.connect();
    let long = "k".repeat(256);
    for key in ["", "\"\"", "\"open", "two words", "a,b", "\"tab\there\"", "\"a\", \"b\"", "\"ä\"", &long] {
        let answer = client.call(&create(&token, key, "refused")).expect(400);
        assert_eq!(answer.required("Content-Type"), "application/problem+json");
        assert!(answer.json()["detail"].as_str().expect("a text").contains("Idempotency-Key"), "{answer:?}");
        assert!(!answer.closes(), "the body was read, the connection goes on");
    }
    accepted(&mut client, &create(&token, &long[..255], "the longest"));
    // Decided by the head alone, where the client asks before it sends the body.
    let mut asking = server.connect();
    let head = create(&token, "no key", "refused").field("Expect", "100-continue").bytes();
    let end = head.windows(4).position(|part| part == b"\r\n\r\n").expect("an end of the head") + 4;
    asking.send(&head[..end]);
    asking.answer().expect(400);
    // A second line could be another key.
    let twice = create(&token, "a", "refused").field("Idempotency-Key", "a");
    assert!(server.connect().call(&twice).expect(400).closes());
    // Who may not write learns nothing else.
    server.connect().call(&Request::new("POST", "/todos").field("Idempotency-Key", "").json("{}")).expect(401);
    assert_eq!(count(&mut client, "refused"), 0);
}

fn other_methods_know_no_key(server: &Server) {
    let token = token("repeater");
    let mut client = server.connect();
    let id = accepted(&mut client, &create(&token, &unique("any"), "any"));
    client.call(&put(&token, &id, "{}").field("Idempotency-Key", "no key")).expect(202);
    client.call(&get("/todos?limit=1").field("Idempotency-Key", "no key")).expect(200);
    client.call(&delete(&token, &id).field("Idempotency-Key", "no key")).expect(202);
}

fn a_restart_forgets_no_key(driver: &Driver) {
    let setup = Setup::new().driver(*driver);
    let token = token("repeater");
    let server = setup.start();
    let request = create(&token, "\"over the restart\"", "first");
    let id = accepted(&mut server.connect(), &request);
    await_shards(server.address);
    let first = shown(&mut server.connect(), &id);
    let tag = |path: &str, server: &Server| server.connect().call(&get(path)).expect(200).required("ETag").to_owned();
    let paths = ["/todos".to_owned(), "/todos?limit=1".to_owned(), format!("/todos/{id}")];
    let tags = paths.each_ref().map(|path| tag(path, &server));
    server.kill();
    let server = setup.start();
    assert_eq!(paths.each_ref().map(|path| tag(path, &server)), tags, "the secret of the deployment is kept");
    let mut client = server.connect();
    assert_eq!(accepted(&mut client, &create(&token, "\"over the restart\"", "second")), id);
    assert_eq!(shown(&mut client, &id), first);
    assert_eq!(client.call(&get("/todos")).expect(200).json().as_array().map(Vec::len), Some(1));
    // Another folder is another deployment: its ids cannot be told from here.
    let other = Setup::new().driver(*driver).start();
    assert_ne!(accepted(&mut other.connect(), &request), id);
}
