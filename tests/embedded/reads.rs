//! The list: all of it, pages of it, single todos, and what a client has already.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use crate::harness::client::{Answer, Client};
use crate::harness::request::{Request, get};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::{Shared, on_both_drivers};

on_both_drivers!(crate::reads::seeded =>
    the_whole_list_is_sorted_and_complete,
    limits_cut_the_list,
    pages_joined_are_the_list,
    limits_that_are_none_are_refused,
    cursors_that_are_none_are_refused,
    single_todos_are_those_of_the_list,
    entity_tags_stand_for_content,
    what_a_client_has_is_304,
    head_has_the_fields_of_get,
    many_readers_get_the_same,
    a_slow_reader_gets_all_of_it,
    state_documents_are_json,
);

const SEEDED: usize = 1234;

static READ_ONLY: Shared = Shared::new(|| {
    let setup = Setup::new();
    setup.run_successfully(&["seed", "--count", &SEEDED.to_string()]);
    setup
});

/// A server with todos that nobody changes.
fn seeded(driver: Driver) -> Arc<Server> {
    let server = READ_ONLY.with(driver);
    // Ready means loaded: nothing of the seed may come later.
    assert_eq!(list(&mut server.connect(), "/todos").len(), SEEDED);
    server
}

fn list(client: &mut Client, target: &str) -> Vec<Value> {
    let answer = client.call(&get(target)).expect(200);
    assert_eq!(answer.required("Content-Type"), "application/json");
    assert_eq!(answer.required("Cache-Control"), "no-cache");
    assert_eq!(answer.required("Vary"), "Accept-Encoding");
    assert_tag(&answer);
    let Value::Array(todos) = answer.json() else { panic!("{target} is no list: {answer:?}") };
    todos
}

fn assert_tag(answer: &Answer) -> String {
    let tag = answer.required("ETag").to_owned();
    assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "a strong tag: {answer:?}");
    tag
}

fn text<'a>(todo: &'a Value, member: &str) -> &'a str {
    todo[member].as_str().unwrap_or_else(|| panic!("{member} is no text: {todo}"))
}

fn the_whole_list_is_sorted_and_complete(server: &Server) {
    let mut client = server.connect();
    let answer = client.call(&get("/todos")).expect(200);
    let members = ["id", "title", "description", "completed", "user_id", "created_at", "updated_at"];
    let places: Vec<_> = members.iter().map(|member| answer.text().find(&format!("\"{member}\":"))).collect();
    assert!(places.is_sorted() && places[0].is_some(), "members stand in the order of the original: {places:?}");

    let todos = list(&mut client, "/todos");
    let ids: HashSet<_> = todos.iter().map(|todo| text(todo, "id")).collect();
    assert_eq!(ids.len(), SEEDED, "each todo once");
    for todo in &todos {
        assert_eq!(todo.as_object().expect("an object").len(), members.len(), "{todo}");
        assert!(!text(todo, "title").is_empty());
        assert!(todo["completed"].is_boolean() && todo["description"].is_string() && todo["user_id"].is_string());
        for moment in [text(todo, "created_at"), text(todo, "updated_at")] {
            assert!(moment.len() == 27 && moment.ends_with('Z') && moment.as_bytes()[19] == b'.', "{todo}");
        }
    }
    let newest_first = |pair: &[Value]| {
        (text(&pair[0], "created_at"), text(&pair[0], "id")) > (text(&pair[1], "created_at"), text(&pair[1], "id"))
    };
    assert!(todos.windows(2).all(newest_first));
}

fn limits_cut_the_list(server: &Server) {
    let mut client = server.connect();
    let all = list(&mut client, "/todos");
    for limit in [1, 2, 7, 10, 63, 64, 65, 1000, SEEDED - 1, SEEDED, SEEDED + 1, 10_000] {
        let page = list(&mut client, &format!("/todos?limit={limit}"));
        assert_eq!(page, all[..limit.min(SEEDED)], "limit={limit}");
    }
    let seven = list(&mut client, "/todos?limit=7");
    for spelling in [
        "/todos?limit=007",
        "/todos?limit=%37",
        "/todos?_=1700000000000&limit=7&_",
        "/todos?%6cimit=7",
        "http://localhost/todos?limit=7",
    ] {
        assert_eq!(list(&mut client, spelling), seven, "{spelling}");
    }
}

/// The target of the next page.
fn next_page(answer: &Answer) -> Option<String> {
    let link = answer.field("Link")?;
    let target = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
    Some(target.unwrap_or_else(|| panic!("{link:?} is no link to a next page")).to_owned())
}

fn pages_joined_are_the_list(server: &Server) {
    let mut client = server.connect();
    let all = list(&mut client, "/todos");
    assert_eq!(next_page(&client.call(&get("/todos"))), None, "the whole list has no next page");
    for limit in [5, 64, 100, 617, 1233, 1234, 10_000] {
        let mut target = format!("/todos?limit={limit}");
        let mut joined = Vec::new();
        let mut pages = 0;
        loop {
            let answer = client.call(&get(&target)).expect(200);
            let Value::Array(page) = answer.json() else { panic!("no list: {answer:?}") };
            assert!(page.len() == limit || next_page(&answer).is_none(), "only the last page may be short");
            joined.extend(page);
            pages += 1;
            assert!(pages <= SEEDED / limit + 1, "limit={limit}: there are more pages than todos allow");
            match next_page(&answer) {
                Some(next) => target = next,
                None => break,
            }
        }
        assert_eq!(joined, all, "limit={limit}");
        assert_eq!(pages, SEEDED.div_ceil(limit), "limit={limit}: no page is empty");
    }
    // A cursor without a limit is the rest of the list; with another limit it goes on from the same place.
    let first = client.call(&get("/todos?limit=34")).expect(200);
    let target = next_page(&first).expect("a next page");
    let (_, cursor) = target.split_once("cursor=").expect("a cursor");
    assert_eq!(list(&mut client, &format!("/todos?cursor={cursor}")), all[34..]);
    assert_eq!(list(&mut client, &format!("/todos?cursor={cursor}&limit=3")), all[34..37]);
}

fn limits_that_are_none_are_refused(server: &Server) {
    let mut client = server.connect();
    for limit in [
        "0",
        "-1",
        "abc",
        "10001",
        "",
        "+5",
        "1.0",
        "1e3",
        "0x10",
        " 5",
        "5%20",
        "٣",
        "99999999999999999999999",
        "1,2",
        "%00",
        "null",
    ] {
        let target = format!("/todos?limit={}", limit.replace(' ', "%20").replace('٣', "%D9%A3"));
        let text = client.call(&get(target)).problem(400);
        assert!(text.contains("limit") && text.contains("10000"), "{limit:?}: {text}");
    }
    for target in ["/todos?limit", "/todos?limit=1&limit=1", "/todos?limit=1&limit=x"] {
        assert!(client.call(&get(target)).problem(400).contains("limit"), "{target}");
    }
    client.assert_goes_on();
}

fn cursors_that_are_none_are_refused(server: &Server) {
    let mut client = server.connect();
    let target = next_page(&client.call(&get("/todos?limit=5"))).expect("a next page");
    let (_, cursor) = target.split_once("cursor=").expect("a cursor");
    let swapped = |at: usize| {
        let letter = if cursor.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{}{letter}{}", &cursor[..at], &cursor[at + 1..])
    };
    let mut wrong: Vec<_> = ["", "x", "0", "%00", "AAAA"].map(str::to_owned).to_vec();
    wrong.extend((0..cursor.len()).map(swapped));
    wrong.extend([format!("{cursor}A"), cursor[..cursor.len() - 1].to_owned(), cursor.repeat(20)]);
    for wrong in wrong {
        let text = client.call(&get(format!("/todos?cursor={wrong}"))).problem(400);
        assert!(text.contains("cursor"), "{wrong:?}: {text}");
    }
    assert!(client.call(&get(format!("{target}&cursor={cursor}"))).problem(400).contains("cursor"));
    client.assert_goes_on();
}

fn single_todos_are_those_of_the_list(server: &Server) {
    let mut client = server.connect();
    let all = list(&mut client, "/todos");
    for todo in all.iter().step_by(61).chain(all.last()) {
        let answer = client.call(&get(format!("/todos/{}", text(todo, "id")))).expect(200);
        assert_eq!(answer.json(), *todo);
        assert_eq!(answer.required("Content-Type"), "application/json");
        assert_eq!(answer.required("Cache-Control"), "no-cache");
        assert_tag(&answer);
    }
}

fn some_targets(client: &mut Client) -> Vec<String> {
    let all = list(client, "/todos");
    let next = next_page(&client.call(&get("/todos?limit=9"))).expect("a next page");
    let mut targets = ["/todos", "/todos?limit=1", "/todos?limit=2", "/todos?limit=1000"].map(str::to_owned).to_vec();
    targets.extend([next, format!("/todos/{}", text(&all[0], "id")), format!("/todos/{}", text(&all[77], "id"))]);
    targets
}

fn entity_tags_stand_for_content(server: &Server) {
    let mut client = server.connect();
    let targets = some_targets(&mut client);
    let mut tags = HashSet::new();
    for target in &targets {
        let tag = assert_tag(&client.call(&get(target)).expect(200));
        let again = assert_tag(&server.connect().call(&get(target)).expect(200));
        assert_eq!(tag, again, "{target}: all shards say the same");
        tags.insert(tag);
    }
    // A list of one todo is other content than the todo: each target here shows something else.
    assert_eq!(tags.len(), targets.len(), "{tags:?}");
}

fn what_a_client_has_is_304(server: &Server) {
    let mut client = server.connect();
    for target in some_targets(&mut client) {
        let full = client.call(&get(&target)).expect(200);
        let tag = full.required("ETag").to_owned();
        for condition in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"other\", {tag}"),
            format!("W/\"a,b\",{tag},\"c\""),
            format!(",, {tag} ,"),
            "*".to_owned(),
        ] {
            for method in ["GET", "HEAD"] {
                let answer = client.call(&Request::new(method, &target).field("If-None-Match", &condition)).expect(304);
                assert_eq!(answer.required("ETag"), tag, "{condition}");
                assert_eq!(answer.field("Cache-Control"), full.field("Cache-Control"), "RFC 9110 section 15.4.5");
                assert_eq!(answer.field("Vary"), full.field("Vary"), "RFC 9110 section 15.4.5");
                assert!(answer.body.is_empty());
            }
        }
        let two_lines = get(&target).field("If-None-Match", "\"other\"").field("if-none-match", &tag);
        client.call(&two_lines).expect(304);
        let inside = &tag[1..tag.len() - 1];
        for condition in ["\"other\"", inside, "", "W/\"other\", \"x\"", &format!("\"{inside}x\""), &format!("w/{tag}")]
        {
            let answer = client.call(&get(&target).field("If-None-Match", condition)).expect(200);
            assert_eq!(answer.body, full.body, "{condition:?}");
        }
        client.call(&get(&target).field("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT")).expect(200);
    }
    // What is not there cannot be unchanged.
    client.call(&get("/nowhere").field("If-None-Match", "*")).problem(404);
    client.call(&get("/todos/01900000-0000-7000-8000-000000000000").field("If-None-Match", "*")).problem(404);
    client.call(&get("/todos?limit=0").field("If-None-Match", "*")).problem(400);
}

fn head_has_the_fields_of_get(server: &Server) {
    let mut client = server.connect();
    for target in some_targets(&mut client) {
        let full = client.call(&get(&target)).expect(200);
        let bare = client.call(&Request::new("HEAD", &target)).expect(200);
        let lasting =
            |answer: &Answer| -> Vec<_> { answer.fields.iter().filter(|(name, _)| name != "Date").cloned().collect() };
        assert_eq!(lasting(&bare), lasting(&full), "{target}");
        assert_eq!(full.content_length(), full.body.len());
    }
    client.assert_goes_on();
}

fn many_readers_get_the_same(server: &Server) {
    let expected = server.connect().call(&get("/todos")).expect(200).body;
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = server.connect();
                client.send(get("/todos").bytes().repeat(8));
                for _ in 0..8 {
                    assert!(client.answer().expect(200).body == expected, "all readers get the same list");
                }
            });
        }
    });
}

fn a_slow_reader_gets_all_of_it(server: &Server) {
    let expected = server.connect().call(&get("/todos")).expect(200).body;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    // So little room that the server has to send in many small pieces.
    socket.set_recv_buffer_size(2048).expect("a small buffer");
    socket.connect(&server.address.into()).expect("the server takes the connection");
    let mut client = Client::new(socket.into());
    let mut bytes = get("/todos").bytes();
    bytes.extend(get("/todos?limit=3").bytes());
    bytes.extend(get("/todos").bytes());
    client.send(bytes);
    assert!(client.answer().expect(200).body == expected);
    client.answer().expect(200);
    assert!(client.answer().expect(200).body == expected);
    client.assert_goes_on();
}

fn state_documents_are_json(server: &Server) {
    let mut client = server.connect();
    for target in ["/health", "/ready"] {
        let answer = client.call(&get(target)).expect(200);
        assert_eq!(answer.required("Content-Type"), "application/json");
        assert_eq!(answer.required("Cache-Control"), "no-store");
        assert!(answer.json().is_object(), "{answer:?}");
    }
    let ready = client.call(&get("/ready")).json().to_string();
    assert!(ready.contains("age"), "the snapshot's age is told: {ready}");
}
