//! Long polling: reads with `If-None-Match` and `Prefer: wait` that wait for a change.

use serde_json::json;

use crate::events::{change, create, metric, small};
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::metrics::await_shards;
use crate::harness::request::{Request, delete, get, put};
use crate::harness::server::{Driver, Server};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(std::convert::identity =>
    each_kind_of_read_waits_for_its_change,
    a_page_that_stays_as_it_is_keeps_waiting,
    a_wait_ends_with_its_time,
    what_names_no_version_is_answered_at_once,
    every_version_that_the_client_has_is_waited_out,
    a_repeated_poll_waits_each_time,
    what_stands_behind_a_waiting_read_keeps_its_order,
    a_read_waits_behind_a_write_for_what_comes_then,
    old_clients_and_closing_ones_wait_too,
    who_leaves_while_waiting_gives_the_place_back,
    as_many_wait_as_may,
    a_drain_answers_who_waits,
    a_crowd_that_waits_is_told_of_one_change,
    what_waits_costs_nothing,
);

/// This request, of a client that has this version and waits for another.
fn poll(request: Request, tag: &str, wait_s: u64) -> Request {
    request.field("If-None-Match", tag).field("Prefer", &format!("wait={wait_s}"))
}

/// The tag of the newest version, which each connection has by then.
fn tag_of(server: &Server, client: &mut Client, target: &str) -> String {
    await_shards(server.address);
    client.call(&get(target)).expect(200).required("ETag").to_owned()
}

fn await_waiting(server: &Server, count: usize) {
    eventually(&format!("{count} reads that wait"), || {
        (metric(server, "million_rps_reads_waiting") == count as f64).then_some(())
    });
}

/// Sends these polls, each on a connection of its own, and waits until all of them wait.
fn begin(server: &Server, polls: &[Request]) -> Vec<Client> {
    let clients = polls.iter().map(|poll| {
        let mut client = server.connect();
        client.send(poll.bytes());
        client
    });
    let clients = clients.collect();
    await_waiting(server, polls.len());
    clients
}

fn each_kind_of_read_waits_for_its_change(driver: &Driver) {
    let server = small(*driver).start();
    let mut writer = server.connect();
    let ids: Vec<String> = (0..5).map(|n| create(&mut writer, "me", &format!("{n}"))).collect();
    let next = writer.call(&get("/todos?limit=2")).expect(200).required("Link").to_owned();
    let next = next.split(['<', '>']).nth(1).expect("a link").to_owned();
    let one = format!("/todos/{}", ids[2]);
    let targets = ["/todos", "/todos?limit=100", &next, &one];
    let polls: Vec<Request> = targets.iter().map(|at| poll(get(*at), &tag_of(&server, &mut writer, at), 30)).collect();
    let mut clients = begin(&server, &polls);
    let to_head = poll(Request::new("HEAD", &one), &tag_of(&server, &mut writer, &one), 30);
    let coded = poll(get("/todos").field("Accept-Encoding", "gzip"), &tag_of(&server, &mut writer, "/todos"), 30);
    let mut others = [server.connect(), server.connect()];
    others[0].send(to_head.bytes());
    others[1].send(coded.bytes());
    await_waiting(&server, 6);

    change(&mut writer, put(&token("me"), &ids[2], r#"{"title":"changed"}"#));
    for (client, target) in clients.iter_mut().zip(targets) {
        let answer = client.answer().expect(200);
        assert!(answer.text().contains("changed"), "{target}: {answer:?}");
        assert_eq!(answer.field("Preference-Applied"), None, "{target}");
        assert_eq!(answer.required("ETag"), tag_of(&server, &mut writer, target));
        client.assert_goes_on();
    }
    let answer = others[0].answer_to_head();
    assert_eq!((answer.status, answer.required("ETag")), (200, &*tag_of(&server, &mut writer, &one)));
    others[0].assert_goes_on();
    others[1].answer().expect(200);
    await_waiting(&server, 0);

    // A todo that goes away is another answer, too.
    let mut gone = begin(&server, &[poll(get(&one), &tag_of(&server, &mut writer, &one), 30)]);
    change(&mut writer, delete(&token("me"), &ids[2]));
    gone[0].answer().problem(404);
}

fn a_page_that_stays_as_it_is_keeps_waiting(driver: &Driver) {
    let server = small(*driver).start();
    let mut writer = server.connect();
    let ids: Vec<String> = (0..6).map(|n| create(&mut writer, "me", &format!("{n}"))).collect();
    let one = format!("/todos/{}", ids[5]);
    let polls = ["/todos?limit=2", &one].map(|at| poll(get(at), &tag_of(&server, &mut writer, at), 30));
    let mut clients = begin(&server, &polls);
    for n in 0..10 {
        change(&mut writer, put(&token("me"), &ids[n % 4], json!({ "title": format!("{n}!") }).to_string()));
    }
    await_waiting(&server, 2);
    change(&mut writer, put(&token("me"), &ids[5], r#"{"completed":true}"#));
    for client in &mut clients {
        let answer = client.answer().expect(200);
        assert!(answer.text().contains("\"completed\":true"), "{answer:?}");
    }
}

fn a_wait_ends_with_its_time(driver: &Driver) {
    let server = small(*driver).set("IDLE_TIMEOUT_MS", "1500").set("HEADER_TIMEOUT_MS", "1500").start();
    let mut client = server.connect();
    let id = create(&mut client, "me", "stays");
    for target in ["/todos", "/todos?limit=1", &format!("/todos/{id}")] {
        let tag = tag_of(&server, &mut client, target);
        let answer = client.call(&poll(get(target), &tag, 2)).expect(304);
        assert_eq!((answer.required("Preference-Applied"), answer.required("ETag")), ("wait=2", &*tag));
        assert!(answer.field("Event-Position").is_some());
        client.assert_goes_on();
        let answer = client.call(&poll(Request::new("HEAD", target), &tag, 1));
        assert_eq!((answer.status, answer.required("Preference-Applied")), (304, "wait=1"));
    }
    assert_eq!(metric(&server, "million_rps_read_waits_refused_total"), 0.0);
}

fn what_names_no_version_is_answered_at_once(driver: &Driver) {
    let server = small(*driver).start();
    let mut client = server.connect();
    let id = create(&mut client, "me", "stays");
    let one = format!("/todos/{id}");
    let waiting = |target: &str| get(target).field("Prefer", "wait=30");
    for target in ["/todos", "/todos?limit=1", &one] {
        client.call(&waiting(target)).expect(200);
        client.call(&waiting(target).field("If-None-Match", "\"0000000000000000\"")).expect(200);
        let answer = client.call(&waiting(target).field("If-None-Match", "*")).expect(304);
        assert_eq!(answer.field("Preference-Applied"), None, "it was not waited for");
        let tag = tag_of(&server, &mut client, target);
        for preference in ["wait", "wait=0", "wait=soon", "respond-async", "x; wait=9"] {
            let request = get(target).field("If-None-Match", &tag).field("Prefer", preference);
            assert_eq!(client.call(&request).expect(304).field("Preference-Applied"), None, "{preference}");
        }
        client.call(&waiting(target).field("If-None-Match", &tag).field("If-Match", "\"x\"")).problem(412);
    }
    let unknown = "/todos/01900000-0000-7000-8000-00000000abcd";
    client.call(&poll(get(unknown), "\"0000000000000000\"", 30)).problem(404);
    client.call(&poll(get("/todos?limit=x"), "\"0000000000000000\"", 30)).problem(400);
    client.call(&poll(get("/health"), "\"0000000000000000\"", 30)).expect(200);
}

fn every_version_that_the_client_has_is_waited_out(driver: &Driver) {
    let server = small(*driver).start();
    let mut writer = server.connect();
    let id = create(&mut writer, "me", "first");
    let target = format!("/todos/{id}");
    let tag = tag_of(&server, &mut writer, &target);
    let list = tag_of(&server, &mut writer, "/todos");
    // What is in a weak tag, in the tag of another coding, and among others, is known.
    let weak = format!("\"a\", W/{list} , \"b\"");
    let coded = format!("\"{}-gzip\"", list.trim_matches('"'));
    let mut clients = begin(
        &server,
        &[
            poll(get(&target), &format!("\"x\",{tag}"), 30),
            poll(get("/todos"), &weak, 30),
            poll(get("/todos"), &coded, 30),
        ],
    );
    change(&mut writer, put(&token("me"), &id, r#"{"title":"second"}"#));
    for client in &mut clients {
        assert!(client.answer().expect(200).text().contains("second"));
    }
}

/// The same bytes again are no reason to answer at once: a list that was asked for before is kept ready with its meaning.
fn a_repeated_poll_waits_each_time(driver: &Driver) {
    let server = small(*driver).set("SHARDS", "1").start();
    let mut writer = server.connect();
    create(&mut writer, "me", "stays");
    for target in ["/todos", "/todos?limit=3"] {
        let tag = tag_of(&server, &mut writer, target);
        let known = get(target).field("If-None-Match", &tag);
        let mut client = server.connect();
        client.call(&known).expect(304);
        client.call(&known).expect(304);
        for _ in 0..2 {
            let answer = client.call(&poll(get(target), &tag, 1)).expect(304);
            assert_eq!(answer.required("Preference-Applied"), "wait=1", "{target}");
        }
        // Neither do others get the wait of this one.
        assert_eq!(client.call(&known).expect(304).field("Preference-Applied"), None);
    }
}

fn what_stands_behind_a_waiting_read_keeps_its_order(driver: &Driver) {
    let server = small(*driver).start();
    let mut writer = server.connect();
    let id = create(&mut writer, "me", "first");
    let target = format!("/todos/{id}");
    let mut client = server.connect();
    let tag = tag_of(&server, &mut writer, &target);
    // What comes with it, what comes in two pieces, and another wait.
    client.send([get("/todos?limit=1").bytes(), poll(get(&target), &tag, 30).bytes(), get("/health").bytes()].concat());
    client.answer().expect(200);
    await_waiting(&server, 1);
    let late = get(&target).bytes();
    client.send(&late[..10]);
    client.send([&late[10..], &poll(get("/todos"), "*", 30).bytes()].concat());
    await_waiting(&server, 1);
    change(&mut writer, put(&token("me"), &id, r#"{"title":"second"}"#));
    assert!(client.answer().expect(200).text().contains("second"));
    assert_eq!(client.answer().expect(200).text(), "{\"status\":\"ok\"}");
    assert!(client.answer().expect(200).text().contains("second"));
    client.answer().expect(304);
    // A client may send more than anybody reads ahead.
    let tag = tag_of(&server, &mut writer, &target);
    client.send(poll(get(&target), &tag, 30).bytes());
    await_waiting(&server, 1);
    let mut sender = client.sender();
    std::thread::scope(|scope| {
        let many = get("/todos?limit=1").bytes().repeat(100_000);
        scope.spawn(move || std::io::Write::write_all(&mut sender, &many).expect("it is taken in the end"));
        await_waiting(&server, 1);
        change(&mut writer, put(&token("me"), &id, r#"{"title":"third"}"#));
        assert!(client.answer().expect(200).text().contains("third"));
        (0..100_000).for_each(|_| drop(client.answer().expect(200)));
    });
    client.assert_goes_on();
}

fn a_read_waits_behind_a_write_for_what_comes_then(driver: &Driver) {
    let server = small(*driver).start();
    let mut writer = server.connect();
    let id = create(&mut writer, "me", "first");
    let target = format!("/todos/{id}");
    let old = tag_of(&server, &mut writer, &target);
    let mut client = server.connect();
    // The write shows before the read is looked at: the read is answered with it.
    let write = put(&token("me"), &id, r#"{"title":"second"}"#).field("Prefer", "wait=30");
    client.send([write.bytes(), poll(get(&target), &old, 30).bytes()].concat());
    client.answer().expect(202);
    assert!(client.answer().expect(200).text().contains("second"));
    // A read that waits for the very write behind it would wait in vain: it gets its time, and no more.
    let tag = tag_of(&server, &mut writer, &target);
    client.send([poll(get(&target), &tag, 1).bytes(), put(&token("me"), &id, r#"{"title":"third"}"#).bytes()].concat());
    assert_eq!(client.answer().expect(304).required("Preference-Applied"), "wait=1");
    client.answer().expect(202);
}

fn old_clients_and_closing_ones_wait_too(driver: &Driver) {
    let server = small(*driver).start();
    let mut writer = server.connect();
    create(&mut writer, "me", "first");
    let tag = tag_of(&server, &mut writer, "/todos");
    let mut old = server.connect();
    old.send(format!("GET /todos HTTP/1.0\r\nIf-None-Match: {tag}\r\nPrefer: wait=30\r\n\r\n"));
    let mut closing = server.connect();
    closing.send(poll(get("/todos"), &tag, 30).field("Connection", "close").bytes());
    let with_body = format!(
        "GET /todos HTTP/1.1\r\nHost: h\r\nIf-None-Match: {tag}\r\nPrefer: wait=30\r\nContent-Length: 3\r\n\r\nabc"
    );
    let mut odd = server.connect();
    odd.send(with_body);
    let in_chunks = format!(
        "GET /todos HTTP/1.1\r\nHost: h\r\nIf-None-Match: {tag}\r\nPrefer: wait=30\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\n\r\n"
    );
    let mut chunked = server.connect();
    chunked.send(in_chunks);
    await_waiting(&server, 4);
    create(&mut writer, "me", "second");
    for client in [&mut old, &mut closing] {
        let answer = client.answer().expect(200);
        assert!(answer.closes() && answer.text().contains("second"));
        client.assert_ended();
    }
    for client in [&mut odd, &mut chunked] {
        assert!(client.answer().expect(200).text().contains("second"));
        client.assert_goes_on();
    }
}

fn who_leaves_while_waiting_gives_the_place_back(driver: &Driver) {
    let server = small(*driver).start();
    let mut writer = server.connect();
    create(&mut writer, "me", "first");
    let request = poll(get("/todos"), &tag_of(&server, &mut writer, "/todos"), 30);
    let mut clients = begin(&server, &[request.clone(), request.clone(), request.clone()]);
    clients[0].reset_when_dropped();
    // One that only ends what it sends is answered.
    clients[2].finish_sending();
    assert_eq!(clients[2].answer().expect(304).field("Preference-Applied"), None);
    clients[2].assert_ended();
    drop(clients);
    await_waiting(&server, 0);
    // The end may come together with the request.
    let mut client = server.connect();
    client.send(request.bytes());
    client.finish_sending();
    client.answer().expect(304);
    client.assert_ended();
    eventually("no connection but those that write and ask", || {
        (metric(&server, "million_rps_connections_open") == 2.0).then_some(())
    });
}

fn as_many_wait_as_may(driver: &Driver) {
    let server = small(*driver).set("EVENTS_FOLLOWERS_MAX", "3").start();
    let mut client = server.connect();
    create(&mut client, "me", "first");
    let request = poll(get("/todos"), &tag_of(&server, &mut client, "/todos"), 30);
    let waiting = begin(&server, &[request.clone(), request.clone(), request.clone()]);
    let answer = client.call(&request).expect(304);
    assert_eq!(answer.field("Preference-Applied"), None);
    assert_eq!(metric(&server, "million_rps_read_waits_refused_total"), 1.0);
    client.call(&get("/todos/events")).problem(503);
    drop(waiting);
    await_waiting(&server, 0);
    begin(&server, &[request]);
}

fn a_drain_answers_who_waits(driver: &Driver) {
    let server = small(*driver).set("DRAIN_TIMEOUT_MS", "600000").start();
    let mut writer = server.connect();
    create(&mut writer, "me", "first");
    let request = poll(get("/todos"), &tag_of(&server, &mut writer, "/todos"), 30);
    let mut clients = begin(&server, &vec![request; 20]);
    clients[0].send(get("/health").bytes());
    server.process.signal(libc::SIGTERM);
    for (at, client) in clients.iter_mut().enumerate() {
        let answer = client.answer().expect(304);
        assert_eq!(answer.field("Preference-Applied"), None);
        if at == 0 && !answer.closes() {
            client.answer().expect(200);
        }
        client.assert_ended();
    }
    drop(writer);
    assert!(server.process.finish().status.success());
}

fn a_crowd_that_waits_is_told_of_one_change(driver: &Driver) {
    let server = small(*driver).start();
    let mut writer = server.connect();
    let id = create(&mut writer, "me", "first");
    let one = format!("/todos/{id}");
    let targets = ["/todos", "/todos?limit=1", &one];
    let tags = targets.map(|target| tag_of(&server, &mut writer, target));
    let polls: Vec<Request> = (0..600).map(|n| poll(get(targets[n % 3]), &tags[n % 3], 30)).collect();
    let mut clients = begin(&server, &polls);
    change(&mut writer, put(&token("me"), &id, r#"{"title":"told to all"}"#));
    for client in &mut clients {
        assert!(client.answer().expect(200).text().contains("told to all"));
    }
}

/// Ten waits for one change each, of a list that changes otherwise: the wait is not a look again and again.
fn what_waits_costs_nothing(driver: &Driver) {
    let server = small(*driver).start();
    let mut writer = server.connect();
    let id = create(&mut writer, "me", "first");
    let target = format!("/todos/{id}");
    let request = poll(get(&target), &tag_of(&server, &mut writer, &target), 30);
    let waiting = begin(&server, &vec![request; 10]);
    let answered = |server: &Server| metric(server, "million_rps_responses_total");
    let before = answered(&server);
    for n in 0..20 {
        create(&mut writer, "me", &format!("{n}"));
    }
    // Twenty writes, and the first look at the metrics.
    assert_eq!(answered(&server) - before, 21.0);
    await_waiting(&server, 10);
    drop(waiting);
}
