//! Parts of the list: the todos of a user, those that are done, and how many of them there are.

use serde_json::{Value, json};

use crate::events::{change, create, small};
use crate::harness::client::{Answer, Client};
use crate::harness::metrics::await_shards;
use crate::harness::request::{Request, delete, get, post, put};
use crate::harness::server::{Driver, Server};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(std::convert::identity =>
    parts_are_those_of_the_whole_list,
    pages_joined_are_the_part,
    numbers_are_kept,
    me_is_whoever_asks,
    tags_stand_for_the_part,
    a_part_that_changes_ends_a_wait,
    a_long_part_is_sent_whole,
    odd_names_are_found,
    queries_that_ask_for_no_part_are_refused,
);

const USERS: [&str; 3] = ["ann", "bob", "mé &+%/\u{1F600}"];

/// A list of some todos of each user, a third of them done.
fn filled(driver: Driver, todos: usize) -> Server {
    let server = small(driver).start();
    let mut client = server.connect();
    for number in 0..todos {
        let body = json!({ "title": format!("{number}"), "completed": number % 3 == 0 }).to_string();
        change(&mut client, post(&token(USERS[number % 2]), body));
    }
    await_shards(server.address);
    server
}

fn todos(answer: &Answer) -> Vec<Value> {
    let Value::Array(todos) = answer.json() else { panic!("no list: {answer:?}") };
    todos
}

fn list(client: &mut Client, target: &str) -> Vec<Value> {
    let answer = client.call(&get(target)).expect(200);
    assert_eq!(answer.required("Content-Type"), "application/json");
    assert_eq!(answer.required("Vary"), "Accept-Encoding");
    todos(&answer)
}

fn next_page(answer: &Answer) -> Option<String> {
    answer.field("Link").map(|link| link.split(['<', '>']).nth(1).expect("a target").to_owned())
}

/// The queries of all parts, with what they keep of the list.
type Part = (String, fn(&Value) -> bool);

fn parts() -> Vec<Part> {
    let of_ann: fn(&Value) -> bool = |todo| todo["user_id"] == "ann";
    vec![
        ("user_id=ann".to_owned(), of_ann),
        ("user_id=nobody".to_owned(), |_| false),
        ("completed=true".to_owned(), |todo| todo["completed"] == true),
        ("completed=false".to_owned(), |todo| todo["completed"] == false),
        ("user_id=bob&completed=true".to_owned(), |todo| todo["user_id"] == "bob" && todo["completed"] == true),
        ("completed=false&user_id=ann".to_owned(), |todo| todo["user_id"] == "ann" && todo["completed"] == false),
    ]
}

fn parts_are_those_of_the_whole_list(driver: &Driver) {
    let server = filled(*driver, 40);
    let mut client = server.connect();
    let all = list(&mut client, "/todos");
    assert_eq!(all.len(), 40);
    for (query, is_wanted) in parts() {
        let wanted: Vec<Value> = all.iter().filter(|todo| is_wanted(todo)).cloned().collect();
        assert_eq!(list(&mut client, &format!("/todos?{query}")), wanted, "{query}");
        for limit in [1, 5, 10_000] {
            let page = list(&mut client, &format!("/todos?limit={limit}&{query}"));
            assert_eq!(page, wanted[..limit.min(wanted.len())], "{query} {limit}");
        }
    }
}

fn pages_joined_are_the_part(driver: &Driver) {
    let server = filled(*driver, 40);
    let mut client = server.connect();
    for (query, _) in parts() {
        let wanted = list(&mut client, &format!("/todos?{query}"));
        for limit in [3, 7, 20] {
            let (mut target, mut joined) = (format!("/todos?{query}&limit={limit}"), Vec::new());
            loop {
                let answer = client.call(&get(&target)).expect(200);
                joined.extend(todos(&answer));
                match next_page(&answer) {
                    Some(next) => target = next,
                    None => break,
                }
            }
            assert_eq!(joined, wanted, "{query} {limit}");
        }
        // A cursor without a limit goes to the end of so short a part.
        let first = client.call(&get(format!("/todos?{query}&limit=2"))).expect(200);
        if let Some(next) = next_page(&first) {
            assert_eq!(list(&mut client, &next.replace("limit=2&", "")), wanted[2..], "{query}");
        }
    }
}

fn count(client: &mut Client, query: &str) -> u64 {
    let answer = client.call(&get(format!("/todos/count{query}"))).expect(200);
    assert_eq!(answer.required("Content-Type"), "application/json");
    let document = answer.json();
    assert_eq!(document.as_object().map(|members| members.len()), Some(1), "{document}");
    document["count"].as_u64().unwrap_or_else(|| panic!("no number: {document}"))
}

fn numbers_are_kept(driver: &Driver) {
    let server = filled(*driver, 12);
    let mut client = server.connect();
    let check = |client: &mut Client| {
        let all = list(client, "/todos");
        assert_eq!(count(client, ""), all.len() as u64);
        for (query, is_wanted) in parts() {
            let wanted = all.iter().filter(|todo| is_wanted(todo)).count() as u64;
            assert_eq!(count(client, &format!("?{query}")), wanted, "{query}");
        }
    };
    check(&mut client);
    let id = create(&mut client, "ann", "one more");
    check(&mut client);
    change(&mut client, put(&token("ann"), &id, r#"{"completed":true}"#));
    check(&mut client);
    change(&mut client, put(&token("ann"), &id, r#"{"title":"another"}"#));
    check(&mut client);
    change(&mut client, delete(&token("ann"), &id));
    check(&mut client);

    let answer = client.call(&get("/todos/count")).expect(200);
    let known = get("/todos/count").field("If-None-Match", answer.required("ETag"));
    let unchanged = client.call(&known);
    assert_eq!((unchanged.status, unchanged.field("Content-Length")), (304, None));
    let head = client.call(&Request::new("HEAD", "/todos/count"));
    assert_eq!((head.status, head.required("ETag")), (200, answer.required("ETag")));
    assert_eq!(head.required("Content-Length"), answer.required("Content-Length"));
    client.assert_goes_on();
    client.call(&Request::new("DELETE", "/todos/count")).problem(405);
}

fn me_is_whoever_asks(driver: &Driver) {
    let server = filled(*driver, 10);
    let mut client = server.connect();
    for target in ["/todos?user_id=me", "/todos/count?user_id=me", "/todos?user_id=%6De&limit=2"] {
        client.call(&get(target)).problem(401);
        let stranger = get(target).field("Authorization", "Bearer nonsense");
        client.call(&stranger).problem(401);
    }
    for user in ["ann", "bob"] {
        let as_me = |target: &str| get(target).field("Authorization", &format!("Bearer {}", token(user)));
        let mine = client.call(&as_me("/todos?user_id=me")).expect(200);
        assert_eq!(mine.required("Cache-Control"), "private, no-cache");
        assert_eq!(todos(&mine), list(&mut client, &format!("/todos?user_id={user}")));
        let unchanged = client.call(&as_me("/todos?user_id=me").field("If-None-Match", mine.required("ETag")));
        assert_eq!((unchanged.status, unchanged.required("Cache-Control")), (304, "private, no-cache"));
        let page = client.call(&as_me("/todos?user_id=me&limit=2")).expect(200);
        assert!(page.required("Link").contains("user_id=me&"), "{page:?}");
        let number = client.call(&as_me("/todos/count?user_id=me")).expect(200);
        assert_eq!((number.json(), number.required("Cache-Control")), (json!({ "count": 5 }), "private, no-cache"));
    }
    let public = client.call(&get("/todos?user_id=ann")).expect(200);
    assert_eq!(public.required("Cache-Control"), "no-cache");
}

fn tags_stand_for_the_part(driver: &Driver) {
    let server = filled(*driver, 10);
    let mut client = server.connect();
    let mut tag = |target: &str| {
        await_shards(server.address);
        client.call(&get(target)).expect(200).required("ETag").to_owned()
    };
    let targets = ["/todos?user_id=ann", "/todos?user_id=ann&limit=2", "/todos?completed=true"];
    let before = targets.map(&mut tag);
    create(&mut server.connect(), "bob", "of another");
    assert_eq!(targets.map(&mut tag), before, "nothing of theirs has changed");
    let id = create(&mut server.connect(), "ann", "of hers");
    let after = targets.map(&mut tag);
    assert!(after[0] != before[0] && after[1] != before[1] && after[2] == before[2]);
    change(&mut server.connect(), put(&token("ann"), &id, r#"{"completed":true}"#));
    assert_ne!(tag("/todos?completed=true"), after[2]);

    for target in targets {
        let whole = client.call(&get(target)).expect(200);
        let unchanged = client.call(&get(target).field("If-None-Match", whole.required("ETag")));
        assert_eq!(unchanged.status, 304, "{target}");
        for field in ["ETag", "Event-Position", "Cache-Control", "Vary"] {
            assert_eq!(unchanged.required(field), whole.required(field), "{target}");
        }
        client.call(&get(target).field("If-Match", "\"0123456789abcdef\"")).problem(412);
        let head = client.call(&Request::new("HEAD", target));
        for field in ["ETag", "Event-Position", "Content-Length"] {
            assert_eq!(head.required(field), whole.required(field), "{target}");
        }
        assert_eq!(head.field("Link"), whole.field("Link"), "{target}");
        client.assert_goes_on();
    }
}

fn a_part_that_changes_ends_a_wait(driver: &Driver) {
    let server = filled(*driver, 10);
    let mut writer = server.connect();
    let targets = [
        "/todos?user_id=ann",
        "/todos?user_id=ann&limit=2",
        "/todos?completed=false&limit=70",
        "/todos/count?user_id=ann",
    ];
    let mut clients: Vec<Client> = targets
        .iter()
        .map(|target| {
            let tag = writer.call(&get(*target)).expect(200).required("ETag").to_owned();
            let mut client = server.connect();
            client.send(get(*target).field("If-None-Match", &tag).field("Prefer", "wait=30").bytes());
            client
        })
        .collect();
    crate::harness::eventually("reads that wait", || {
        (crate::events::metric(&server, "million_rps_reads_waiting") == targets.len() as f64).then_some(())
    });
    // Another's todo that is done is in none of them.
    change(&mut writer, post(&token("bob"), r#"{"title":"b","completed":true}"#));
    create(&mut writer, "ann", "what they wait for");
    for (client, target) in clients.iter_mut().zip(targets) {
        let answer = client.answer().expect(200);
        let is_it = answer.text().contains("what they wait for") || answer.json() == json!({ "count": 6 });
        assert!(is_it, "{target}: {answer:?}");
    }
    let tag = writer.call(&get("/todos?user_id=ann&limit=3")).expect(200).required("ETag").to_owned();
    let short = get("/todos?user_id=ann&limit=3").field("If-None-Match", &tag).field("Prefer", "wait=1");
    let over = writer.call(&short);
    assert_eq!((over.status, over.required("Preference-Applied")), (304, "wait=1"));
}

/// More than a socket takes at once, in pieces that lie far from each other.
fn a_long_part_is_sent_whole(driver: &Driver) {
    let setup = small(*driver);
    setup.run_successfully(&["seed", "--count", "5000"]);
    let server = setup.start();
    let mut client = server.connect();
    let all = list(&mut client, "/todos");
    let user = all[0]["user_id"].as_str().expect("a user").to_owned();
    for (query, is_wanted) in [
        ("completed=true".to_owned(), (|todo, _| todo["completed"] == true) as fn(&Value, &str) -> bool),
        ("completed=false".to_owned(), |todo, _| todo["completed"] == false),
        (format!("user_id={user}"), |todo, user| todo["user_id"] == user),
    ] {
        let wanted: Vec<&Value> = all.iter().filter(|todo| is_wanted(todo, &user)).collect();
        let shown = list(&mut client, &format!("/todos?{query}"));
        assert!(shown.iter().eq(wanted.iter().copied()), "{query}: {} of {}", shown.len(), wanted.len());
        let page = list(&mut client, &format!("/todos?{query}&limit=1000"));
        assert!(page.iter().eq(wanted.iter().copied().take(1000)), "{query}");
    }
}

fn odd_names_are_found(driver: &Driver) {
    let server = small(*driver).start();
    let mut client = server.connect();
    for user in [USERS[2], "ME", "a=b&completed=true", "\"><"] {
        let ids: Vec<String> = (0..3).map(|number| create(&mut client, user, &format!("{number}"))).collect();
        let encoded: String = user.bytes().map(|byte| format!("%{byte:02x}")).collect();
        await_shards(server.address);
        let first = client.call(&get(format!("/todos?user_id={encoded}&limit=2"))).expect(200);
        let second = list(&mut client, &next_page(&first).expect("a next page"));
        let shown: Vec<Value> = todos(&first).into_iter().chain(second).map(|todo| todo["id"].clone()).collect();
        assert_eq!(shown, ids.iter().rev().map(|id| json!(id)).collect::<Vec<_>>(), "{user}");
    }
}

fn queries_that_ask_for_no_part_are_refused(driver: &Driver) {
    let server = small(*driver).start();
    let mut client = server.connect();
    for query in [
        "completed=1",
        "completed=",
        "completed=true&completed=true",
        "user_id=",
        "user_id=%ff",
        "user_id=a&user_id=a",
        "complete=true",
        "userid=a",
        "user=a",
    ] {
        for path in ["/todos", "/todos/count"] {
            client.call(&get(format!("{path}?{query}"))).problem(400);
        }
    }
    client.call(&get("/todos/count?limit=1")).problem(400);
    client.call(&get("/todos/count/")).problem(404);
}
