//! `POST /todos` with an array: several todos that are checked, refused and answered together.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::request::{Request, get, post};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(crate::plain =>
    an_array_is_made_as_a_whole_in_its_order,
    one_that_is_wrong_has_all_refused,
    the_same_key_completes_it_without_doubles,
    a_pipeline_of_arrays_and_todos_is_answered_in_order,
    an_array_may_be_longer_than_a_todo,
);

mod limited {
    use super::*;

    on_both_drivers!(std::convert::identity =>
        each_todo_counts_for_the_rate,
        each_todo_counts_for_the_room,
        more_than_the_settings_allow_is_refused,
    );
}

fn array(user: &str, todos: &Value) -> Request {
    post(&token(user), todos.to_string()).field("Prefer", "wait=30")
}

fn ids(client: &mut Client, request: &Request) -> Vec<String> {
    let answer = client.call(request).expect(202);
    assert_eq!(answer.field("Location"), None);
    assert_eq!(answer.required("Preference-Applied"), "wait");
    let document = answer.json();
    assert_eq!(document["message"], "Todo creation queued");
    let ids = document["ids"].as_array().expect("ids");
    ids.iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
}

/// A user whom no other test has.
fn somebody() -> String {
    format!("arrays {}", million_rps::todo::TodoId::new())
}

fn todos_of(client: &mut Client, user: &str) -> Vec<Value> {
    let target = format!("/todos?user_id={}", user.replace(' ', "%20"));
    client.call(&get(target)).expect(200).json().as_array().expect("a list").clone()
}

fn titles(number: usize) -> Value {
    (0..number).map(|number| json!({ "title": format!("{number}") })).collect()
}

fn an_array_is_made_as_a_whole_in_its_order(server: &Server) {
    let (mut client, user) = (server.connect(), somebody());
    let todos = json!([
        { "title": "first", "description": "d", "completed": true },
        { "Title": "second", "unknown": [{ "title": 1 }, [], {}] },
        { "title": "third", "id": "ignored", "description": null },
    ]);
    let made = ids(&mut client, &array(&user, &todos));
    let shown = todos_of(&mut client, &user);
    assert_eq!(shown.iter().rev().map(|todo| todo["id"].as_str().expect("an id")).collect::<Vec<_>>(), made);
    let members: Vec<_> =
        shown.iter().rev().map(|todo| (&todo["title"], &todo["description"], &todo["completed"])).collect();
    assert_eq!(members[0], (&json!("first"), &json!("d"), &json!(true)));
    assert_eq!(members[1], (&json!("second"), &json!(""), &json!(false)));
    assert_eq!(members[2], (&json!("third"), &json!(""), &json!(false)));

    let thousand = ids(&mut client, &array(&user, &titles(1000)));
    assert_eq!(thousand.iter().collect::<HashSet<_>>().len(), 1000);
    assert_eq!(todos_of(&mut client, &user).len(), 1003);
}

fn one_that_is_wrong_has_all_refused(server: &Server) {
    let (mut client, user) = (server.connect(), somebody());
    for (body, index, member) in [
        (r#"[{"title":"a"},{"description":"b"}]"#, "[1]", "title is required"),
        (r#"[{"title":"a"},{"title":"b"},{"title":""}]"#, "[2]", "title must not be empty"),
        (r#"[{"title":7}]"#, "[0]", "title must be a string"),
        (r#"[{"title":"a","completed":"yes"}]"#, "[0]", "completed"),
        (r#"[{"title":"a"},{"title":"a","Title":"b"}]"#, "[1]", "title is given twice"),
        (r#"[{"title":"a"},"b"]"#, "[1]", "must be a JSON object"),
        (r#"[[{"title":"a"}]]"#, "[0]", "must be a JSON object"),
        (" \r\n\t[]", "", "the array has no todos"),
        (r#"[{"title":"a"}"#, "", "JSON"),
    ] {
        let detail = client.call(&post(&token(&user), body)).problem(400);
        assert!(detail.contains(index) && detail.contains(member), "{body}: {detail}");
    }
    let more = client.call(&post(&token(&user), titles(1001).to_string())).problem(400);
    assert!(more.contains("1001") && more.contains("1000"), "{more}");
    client.call(&Request::new("POST", "/todos").body(titles(2).to_string())).problem(401);
    ids(&mut client, &array(&user, &titles(1)));
    assert_eq!(todos_of(&mut client, &user).len(), 1, "of all that was refused nothing is there");
}

fn the_same_key_completes_it_without_doubles(server: &Server) {
    let (mut client, user) = (server.connect(), somebody());
    let key = format!("\"{user}\"");
    let keyed = |todos: &Value| array(&user, todos).field("Idempotency-Key", &key);
    let first = ids(&mut client, &keyed(&titles(3)));
    assert_eq!(ids(&mut client, &keyed(&titles(3))), first);
    let longer = ids(&mut client, &keyed(&titles(5)));
    assert_eq!(longer[..3], first[..]);
    assert_eq!(todos_of(&mut client, &user).len(), 5);
    // A todo alone with this key is another one.
    let alone = client.call(&post(&token(&user), r#"{"title":"alone"}"#).field("Idempotency-Key", &key)).expect(202);
    assert!(!longer.contains(&alone.json()["id"].as_str().expect("an id").to_owned()));
}

fn a_pipeline_of_arrays_and_todos_is_answered_in_order(server: &Server) {
    let (mut client, user) = (server.connect(), somebody());
    let one = post(&token(&user), r#"{"title":"one"}"#);
    let two = post(&token(&user), titles(2).to_string());
    let bytes = [&one, &two, &one, &two].map(|request| request.bytes()).concat();
    client.send(bytes);
    for of in [None, Some(2), None, Some(2)] {
        let document = client.answer().expect(202).json();
        assert_eq!(document["ids"].as_array().map(Vec::len), of, "{document}");
        assert_eq!(document["id"].is_string(), of.is_none(), "{document}");
    }
    client.assert_goes_on();
}

fn an_array_may_be_longer_than_a_todo(server: &Server) {
    let (mut client, user) = (server.connect(), somebody());
    let long: Value = (0..20).map(|_| json!({ "title": "long", "description": "x".repeat(9_000) })).collect();
    assert_eq!(ids(&mut client, &array(&user, &long)).len(), 20);
    let mut chunked = Request::new("POST", "/todos")
        .field("Authorization", &format!("Bearer {}", token(&user)))
        .field("Transfer-Encoding", "chunked")
        .bytes();
    chunked.extend(crate::harness::request::chunked(long.to_string().as_bytes(), &[1, 70_000, 1_000]));
    client.send(chunked);
    client.answer().expect(202);
    client.assert_goes_on();
    let padded = |first: char, last: char| format!("{first}{}{last}", " ".repeat(100_000));
    server.connect().call(&post(&token(&user), padded('{', '}'))).problem(413);
    client.call(&post(&token(&user), padded('[', ']'))).problem(400);
    let detail = server.connect().call(&post(&token(&user), format!("[{}]", " ".repeat(1 << 20)))).problem(413);
    assert!(detail.contains("ARRAY_BODY_MAX_BYTES"), "{detail}");
}

fn each_todo_counts_for_the_rate(driver: &Driver) {
    let server = Setup::new().driver(*driver).set("WRITE_RATE_PER_USER", "10").start();
    let mut client = server.connect();
    let detail = client.call(&post(&token("ann"), titles(11).to_string())).problem(429);
    assert!(detail.contains("array"), "{detail}");
    client.call(&post(&token("bob"), titles(10).to_string())).expect(202);
    client.call(&post(&token("bob"), titles(10).to_string())).problem(429);
}

fn each_todo_counts_for_the_room(driver: &Driver) {
    let server = Setup::new().driver(*driver).set("SHARDS", "1").set("TODOS_PER_USER_MAX", "5").start();
    let mut client = server.connect();
    let key = |request: Request| request.field("Idempotency-Key", "\"k\"");
    client.call(&post(&token("ann"), titles(6).to_string())).problem(429);
    ids(&mut client, &key(array("ann", &titles(5))));
    client.call(&post(&token("ann"), titles(1).to_string())).problem(429);
    // What repeats an array adds nothing.
    ids(&mut client, &key(array("ann", &titles(5))));
    client.call(&key(array("ann", &titles(6)))).problem(429);
    assert_eq!(todos_of(&mut client, "ann").len(), 5);
}

fn more_than_the_settings_allow_is_refused(driver: &Driver) {
    let setup = Setup::new().driver(*driver).set("ARRAY_MAX_TODOS", "2").set("ARRAY_BODY_MAX_BYTES", "1024");
    let server = setup.start();
    let mut client = server.connect();
    ids(&mut client, &array("ann", &titles(2)));
    client.call(&post(&token("ann"), titles(3).to_string())).problem(400);
}
