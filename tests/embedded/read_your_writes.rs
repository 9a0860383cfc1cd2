//! `Prefer: wait` (RFC 7240): the answer to a write comes when the shard that gives it shows the write.

use std::collections::HashSet;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::harness::client::{Answer, Client};
use crate::harness::eventually;
use crate::harness::request::{Request, delete, get, post, put};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

mod shared {
    use super::*;

    on_both_drivers!(crate::plain =>
        each_write_shows_when_it_is_answered,
        what_is_pipelined_behind_a_write_that_waits_shows_it,
        the_last_write_that_waits_stands_for_those_before_it,
        writes_that_change_nothing_are_waited_for_too,
        what_is_no_wait_is_no_error,
        many_connections_wait_at_the_same_time,
    );
}

mod alone {
    use super::*;

    on_both_drivers!(std::convert::identity =>
        a_wait_that_runs_out_ends_in_a_plain_202,
        a_drain_does_not_wait_for_the_waiting,
        clients_that_leave_while_they_wait_are_forgotten,
    );
}

fn waiting(request: Request) -> Request {
    request.field("Prefer", "wait=30")
}

fn create(client: &mut Client, token: &str, title: &str) -> String {
    let answer = client.call(&waiting(post(token, json!({ "title": title }).to_string()))).expect(202);
    assert_eq!(answer.required("Preference-Applied"), "wait");
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.json(), json!({ "id": id, "message": "Todo creation queued" }), "the same body as without");
    assert_eq!(answer.required("Location"), format!("/todos/{id}"));
    id
}

/// The todo as the shard of this connection shows it.
fn shown(client: &mut Client, id: &str) -> Value {
    client.call(&get(format!("/todos/{id}"))).expect(200).json()
}

fn each_write_shows_when_it_is_answered(server: &Server) {
    let token = token("reader");
    for round in 0..30 {
        let mut client = server.connect();
        let id = create(&mut client, &token, &format!("mine {round}"));
        assert_eq!(shown(&mut client, &id)["title"], format!("mine {round}"));
        assert!(client.call(&get("/todos?limit=10000")).expect(200).text().contains(&id));
        let answer = client.call(&waiting(put(&token, &id, r#"{"completed":true}"#))).expect(202);
        assert_eq!(answer.required("Preference-Applied"), "wait");
        assert_eq!(shown(&mut client, &id)["completed"], true);
        let answer = client.call(&waiting(delete(&token, &id))).expect(202);
        assert_eq!(answer.required("Preference-Applied"), "wait");
        client.call(&get(format!("/todos/{id}"))).expect(404);
    }
}

fn what_is_pipelined_behind_a_write_that_waits_shows_it(server: &Server) {
    let token = token("pipeliner");
    let mut client = server.connect();
    let id = create(&mut client, &token, "0");
    let target = format!("/todos/{id}");
    let mut requests = Vec::new();
    for number in 1..20 {
        requests.push(waiting(put(&token, &id, json!({ "title": number.to_string() }).to_string())));
        requests.push(get(&target));
    }
    requests.push(waiting(delete(&token, &id)));
    requests.push(get(&target));
    client.send(requests.iter().flat_map(Request::bytes).collect::<Vec<_>>());
    for number in 1..20 {
        assert_eq!(client.answer().expect(202).required("Preference-Applied"), "wait");
        assert_eq!(client.answer().expect(200).json()["title"], number.to_string());
    }
    assert_eq!(client.answer().expect(202).required("Preference-Applied"), "wait");
    client.answer().expect(404);
    client.assert_goes_on();
}

fn the_last_write_that_waits_stands_for_those_before_it(server: &Server) {
    let token = token("batcher");
    let mut client = server.connect();
    let mut bytes = Vec::new();
    for number in 0..50 {
        bytes.extend(post(&token, json!({ "title": format!("batch {number}") }).to_string()).bytes());
    }
    bytes.extend(waiting(post(&token, r#"{"title":"the last"}"#)).bytes());
    client.send(bytes);
    let mut ids: Vec<String> = Vec::new();
    for _ in 0..50 {
        let answer = client.answer().expect(202);
        assert_eq!(answer.field("Preference-Applied"), None, "it was not asked to wait");
        ids.push(answer.json()["id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(client.answer().expect(202).required("Preference-Applied"), "wait");
    for id in ids {
        shown(&mut client, &id);
    }
}

fn writes_that_change_nothing_are_waited_for_too(server: &Server) {
    let token = token("nobody");
    let mut client = server.connect();
    let unknown = "01900000-0000-7000-8000-00000000abcd";
    for request in [put(&token, unknown, r#"{"title":"x"}"#), delete(&token, unknown)] {
        assert_eq!(client.call(&waiting(request)).expect(202).required("Preference-Applied"), "wait");
    }
    let id = create(&mut client, &token, "same");
    let same = put(&token, &id, "{}");
    assert_eq!(client.call(&waiting(same)).expect(202).required("Preference-Applied"), "wait");
}

fn what_is_no_wait_is_no_error(server: &Server) {
    let token = token("reader");
    let mut client = server.connect();
    for preference in ["wait", "wait=x", "wait=-1", "wait=0", "respond-async", "handling=strict; wait=9", ",", ""] {
        let request = post(&token, r#"{"title":"any"}"#).field("Prefer", preference);
        let answer = client.call(&request).expect(202);
        assert_eq!(answer.field("Preference-Applied"), None, "{preference:?}");
    }
    for preference in ["WAIT=5", "respond-async, wait=\"5\"", "wait=5, wait=x", "wait=99999999999999999999"] {
        let request = post(&token, r#"{"title":"any"}"#).field("Prefer", preference);
        assert_eq!(client.call(&request).expect(202).required("Preference-Applied"), "wait", "{preference:?}");
    }
    // A read has nothing to wait for.
    assert_eq!(client.call(&waiting(get("/todos?limit=1"))).expect(200).field("Preference-Applied"), None);
    let refused = client.call(&waiting(post(&token, r#"{"title":""}"#))).expect(400);
    assert_eq!(refused.field("Preference-Applied"), None);
}

fn many_connections_wait_at_the_same_time(server: &Server) {
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let token = token(&format!("parallel {number}"));
                let mut client = server.connect();
                let ids: HashSet<_> = (0..20).map(|_| create(&mut client, &token, "mine")).collect();
                ids.iter().for_each(|id| drop(shown(&mut client, id)));
            });
        }
    });
}

/// Holds SQLite's write lock, so that nothing can be applied; reads and the command log go on.
pub fn hold_the_store(setup: &Setup) -> Connection {
    let store = Connection::open(setup.data_dir().join("todos.sqlite")).expect("the store is there");
    eventually("the lock", || store.execute_batch("BEGIN IMMEDIATE").ok());
    store
}

fn send_waiting(server: &Server, token: &str, wait: &str, title: &str) -> Client {
    let mut client = server.connect();
    client.send(post(token, json!({ "title": title }).to_string()).field("Prefer", wait).bytes());
    client
}

fn id_of(answer: &Answer) -> String {
    assert_eq!(answer.field("Preference-Applied"), None, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn a_wait_that_runs_out_ends_in_a_plain_202(driver: &Driver) {
    let server = Setup::new().driver(*driver).start();
    let token = token("patient");
    let held = hold_the_store(server.setup());
    let mut waiting_longer = send_waiting(&server, &token, "wait=30", "longer");
    let mut client = send_waiting(&server, &token, "wait=1", "one second");
    let id = id_of(&client.answer().expect(202));
    client.call(&get(format!("/todos/{id}"))).expect(404);
    // Nobody is held up: neither reads nor writes that do not wait, on any shard.
    for _ in 0..8 {
        let mut other = server.connect();
        other.call(&get("/todos")).expect(200);
        other.call(&post(&token, r#"{"title":"another"}"#)).expect(202);
    }
    held.execute_batch("ROLLBACK").expect("released");
    assert_eq!(waiting_longer.answer().expect(202).required("Preference-Applied"), "wait");
    eventually("the write to show all the same", || {
        (client.call(&get(format!("/todos/{id}"))).status == 200).then_some(())
    });
}

fn a_drain_does_not_wait_for_the_waiting(driver: &Driver) {
    let setup = Setup::new().driver(*driver);
    let server = setup.start();
    let token = token("patient");
    let held = hold_the_store(&setup);
    let mut clients: Vec<Client> = (0..8).map(|n| send_waiting(&server, &token, "wait=30", &format!("{n}"))).collect();
    let acknowledged = || {
        let text = server.connect().call(&get("/metrics")).expect(200).text().to_owned();
        let acknowledged = text.lines().filter(|line| line.starts_with("million_rps_commands_acknowledged_total{"));
        let counts =
            acknowledged.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number"));
        counts.sum::<f64>()
    };
    eventually("the log to have all", || (acknowledged() >= 8.0).then_some(()));
    server.process.signal(libc::SIGTERM);
    let ids: Vec<String> = clients.iter_mut().map(|client| id_of(&client.answer().expect(202))).collect();
    held.execute_batch("ROLLBACK").expect("released");
    let finished = server.process.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    let server = setup.start();
    for id in ids {
        eventually("the write to show", || {
            (server.connect().call(&get(format!("/todos/{id}"))).status == 200).then_some(())
        });
    }
}

fn clients_that_leave_while_they_wait_are_forgotten(driver: &Driver) {
    let server = Setup::new().driver(*driver).start();
    let token = token("hasty");
    let held = hold_the_store(server.setup());
    for number in 0..50 {
        let client = send_waiting(&server, &token, "wait=30", &format!("left {number}"));
        if number % 2 == 0 {
            client.reset_when_dropped();
        }
    }
    let mut client = server.connect();
    client.call(&get("/todos?limit=1")).expect(200);
    held.execute_batch("ROLLBACK").expect("released");
    let id = create(&mut client, &token, "mine");
    let list = client.call(&get("/todos")).expect(200);
    assert!(list.text().contains(&id));
    client.assert_goes_on();
}
