//! What clients of the original send, and what other programs have put onto the log.

use std::sync::Arc;

use million_rps::command_log::embedded::{self, list_dead_letters};
use million_rps::command_log::{Acknowledgement, AcknowledgementSink, CommandAppender, Submission, Ticket};
use million_rps::data_dir::DataDir;
use million_rps::limits::{COMMAND_MAX_BYTES, DESCRIPTION_MAX_CHARS, TITLE_MAX_CHARS};
use million_rps::todo::TodoId;
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::request::{Request, get, post, put};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::{now, token, token_of};

on_both_drivers!(crate::plain =>
    types_that_clients_send_by_themselves_are_taken,
    members_may_be_written_in_another_case,
);

mod alone {
    use super::*;

    on_both_drivers!(std::convert::identity =>
        what_is_on_the_log_is_applied_and_can_be_sent_back,
        longer_texts_are_taken_where_they_are_set,
        tokens_without_an_end_are_taken_where_that_is_set,
    );
}

/// Nothing is asked of it: the log is closed before it is read.
struct Unheard;

impl AcknowledgementSink for Unheard {
    fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>) {
        assert!(acknowledgements.drain(..).all(|acknowledgement| acknowledgement.result.is_ok()));
    }
}

/// Puts commands onto the log of a server that does not run, as they are.
fn append(setup: &Setup, commands: Vec<(TodoId, Value)>) {
    let data_dir = DataDir::open(setup.data_dir()).expect("opened");
    let (mut appender, _reader) = embedded::open(&data_dir, Arc::new(Unheard)).expect("opened");
    let submission =
        |(id, command): (TodoId, Value)| Submission { ticket: Ticket(0), id, payload: command.to_string().into() };
    appender.append(&mut commands.into_iter().map(submission).collect());
}

fn shown(client: &mut Client, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually("the todo to show", || {
        let answer = client.call(&get(format!("/todos/{id}")));
        Some(answer).filter(|answer| answer.status == 200).map(|answer| answer.json()).filter(|todo| is_so(todo))
    })
}

fn types_that_clients_send_by_themselves_are_taken(server: &Server) {
    let token = token("curl");
    let mut client = server.connect();
    let request = |media_type: &str| Request::new("POST", "/todos").token(&token).field("Content-Type", media_type);
    for taken in ["application/x-www-form-urlencoded", "text/plain", "text/plain;charset=UTF-8", "text/json"] {
        client.call(&request(taken).body(r#"{"title":"typed"}"#)).expect(202);
        let text = client.call(&request(taken).body("title=typed")).problem(400);
        assert!(text.contains("JSON"), "{taken}: {text}");
    }
}

fn members_may_be_written_in_another_case(server: &Server) {
    let token = token("cases");
    let mut client = server.connect();
    let id = client.call(&post(&token, r#"{"Title":"a","DESCRIPTION":"b"}"#)).expect(202).json()["id"].clone();
    let id = id.as_str().expect("an id");
    let todo = shown(&mut client, id, |_| true);
    assert_eq!((&todo["title"], &todo["description"]), (&json!("a"), &json!("b")));
    client.call(&put(&token, id, r#"{"Completed":true}"#)).expect(202);
    shown(&mut client, id, |todo| todo["completed"] == true);
    for twice in [r#"{"title":"a","Title":"b"}"#, r#"{"TITLE":"a","Title":"b"}"#] {
        let text = client.call(&post(&token, twice)).problem(400);
        assert!(text.contains("title is given twice"), "{text}");
    }
}

fn what_is_on_the_log_is_applied_and_can_be_sent_back(driver: &Driver) {
    let setup = Setup::new().driver(*driver);
    let ids: Vec<TodoId> = (0..4).map(|_| TodoId::new()).collect();
    let create = |id: TodoId, title: &str, description: &str| {
        (
            id,
            json!({ "action": "create", "id": id.to_string(), "title": title, "description": description, "user_id": "me" }),
        )
    };
    let (title, description) = ("t".repeat(TITLE_MAX_CHARS + 300), "é".repeat(DESCRIPTION_MAX_CHARS + 1));
    let huge = "h".repeat(COMMAND_MAX_BYTES - 300);
    append(
        &setup,
        vec![
            create(ids[0], &title, &description),
            create(ids[1], "huge", &huge),
            create(ids[2], "too large", &"x".repeat(COMMAND_MAX_BYTES)),
            create(ids[3], "", ""),
        ],
    );
    let server = setup.start();
    let mut client = server.connect();
    let [long, large, _, empty] = [0, 1, 2, 3].map(|at: usize| ids[at].to_string());
    shown(&mut client, &empty, |todo| todo["title"] == "");
    assert_eq!(shown(&mut client, &large, |_| true)["description"], huge);
    let list = client.call(&get("/todos")).expect(200).json();
    assert_eq!(list.as_array().expect("a list").len(), 3);
    let page = client.call(&get("/todos?limit=2").field("Accept-Encoding", "gzip")).expect(200);
    assert!(!page.body.is_empty());

    // A client sends back what it has read, with a change.
    let mut todo = shown(&mut client, &long, |_| true);
    assert_eq!((&todo["title"], &todo["description"]), (&json!(title), &json!(description)));
    todo["completed"] = json!(true);
    client.call(&put(&token("me"), &long, todo.to_string())).expect(202);
    shown(&mut client, &long, |todo| todo["completed"] == true);
    // Another long text is as long as any.
    for changed in [json!({ "title": format!("{title}x") }), json!({ "description": format!("x{description}") })] {
        let text = client.call(&put(&token("me"), &long, changed.to_string())).problem(400);
        assert!(text.contains("characters; at most"), "{text}");
    }
    client.call(&put(&token("me"), &large, r#"{"description":"short"}"#)).expect(202);
    shown(&mut client, &large, |todo| todo["description"] == "short");
    drop(client);
    server.stop();
    let dead = list_dead_letters(&DataDir::open(setup.data_dir()).expect("opened")).expect("readable");
    assert_eq!(dead.len(), 1);
    assert!(dead[0].reason.contains("at most 1048576 are applied"), "{}", dead[0].reason);
}

fn longer_texts_are_taken_where_they_are_set(driver: &Driver) {
    let setup = Setup::new()
        .driver(*driver)
        .set("TITLE_MAX_CHARS", "2000")
        .set("DESCRIPTION_MAX_CHARS", "900000")
        .set("BODY_MAX_BYTES", "1000000");
    let server = setup.start();
    let mut client = server.connect();
    let token = token("me");
    let body = json!({ "title": "t".repeat(2_000), "description": "d".repeat(900_000) }).to_string();
    let id = client.call(&post(&token, body.clone())).expect(202).json()["id"].clone();
    let id = id.as_str().expect("an id");
    assert_eq!(shown(&mut client, id, |_| true)["description"].as_str().map(str::len), Some(900_000));
    let chunked = [
        b"POST /todos HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer ",
        token.as_bytes(),
        b"\r\n\r\n",
        &crate::harness::request::chunked(body.as_bytes(), &[1, 100_000, 500_000]),
    ]
    .concat();
    client.send(chunked);
    client.answer().expect(202);
    let text = client.call(&post(&token, json!({ "title": "t".repeat(2_001) }).to_string())).problem(400);
    assert!(text.contains("at most 2000 are allowed"), "{text}");
    // One that claims more than it may is answered before it has sent it, as soon as it is known to be no array.
    let head = format!(
        "POST /todos HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 1000001\r\n\r\n{{"
    );
    client.send(head);
    let text = client.answer().problem(413);
    assert!(text.contains("1000000 bytes (BODY_MAX_BYTES)"), "{text}");
}

fn tokens_without_an_end_are_taken_where_that_is_set(driver: &Driver) {
    let endless = token_of(&json!({ "sub": "me" }));
    let refused = crate::plain(*driver).connect().call(&post(&endless, r#"{"title":"t"}"#));
    assert_eq!(refused.status, 401);
    let server = Setup::new().driver(*driver).set("JWT_EXPIRY", "optional").start();
    let mut client = server.connect();
    for _ in 0..2 {
        client.call(&post(&endless, r#"{"title":"t"}"#)).expect(202);
    }
    // An exp that is there counts.
    let past = token_of(&json!({ "sub": "me", "exp": now() - 10 }));
    assert_eq!(client.call(&post(&past, r#"{"title":"t"}"#)).status, 401);
    let to_come = token_of(&json!({ "sub": "me", "nbf": now() + 1000 }));
    assert_eq!(client.call(&post(&to_come, r#"{"title":"t"}"#)).status, 401);
}
