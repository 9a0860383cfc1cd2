//! The change feed: `GET /todos/events`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::harness::client::{Answer, Client};
use crate::harness::events::{Event, EventStream, Look, Recorder};
use crate::harness::request::{Request, delete, get, post, put};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;
use crate::harness::{PATIENCE, eventually};
use crate::plain;

on_both_drivers!(std::convert::identity =>
    a_change_is_told_as_it_is,
    who_has_the_head_of_a_stream_is_told_what_is_written_then,
    a_list_and_what_follows_it_have_no_gap_and_no_double,
    who_was_away_goes_on_where_they_stood,
    the_field_counts_for_more_than_the_query,
    a_position_that_is_none_is_told,
    a_position_that_is_too_old_is_told,
    a_position_of_another_list_is_told,
    what_is_too_much_at_once_is_told,
    a_stream_may_begin_with_a_page,
    a_list_comes_again_behind_a_reset,
    one_users_todos_alone,
    nothing_in_a_todo_breaks_the_stream,
    every_answer_with_todos_names_its_position,
    a_restart_loses_nobody_what_they_had,
);

pub fn create(client: &mut Client, user: &str, title: &str) -> String {
    let body = json!({ "title": title }).to_string();
    let request = post(&token(user), body).field("Prefer", "wait=10");
    client.call(&request).expect(202).json()["id"].as_str().expect("an id").to_owned()
}

pub fn change(client: &mut Client, request: Request) -> Answer {
    client.call(&request.field("Prefer", "wait=10")).expect(202)
}

pub fn small(driver: Driver) -> Setup {
    Setup::new().driver(driver).set("SHARDS", "2")
}

pub fn position(client: &mut Client) -> String {
    client.call(&get("/todos?limit=1")).expect(200).required("Event-Position").to_owned()
}

/// The sum of a metric's samples.
pub fn metric(server: &Server, name: &str) -> f64 {
    let answer = server.connect().call(&get("/metrics")).expect(200);
    let samples = answer.text().lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    samples.sum()
}

fn reset(reason: &str) -> Event {
    Event { kind: "reset".into(), data: json!({ "reason": reason }), id: String::new() }
}

fn a_change_is_told_as_it_is(driver: &Driver) {
    let server = small(*driver).start();
    let mut client = server.connect();
    let mut stream = EventStream::open(server.address, "/todos/events");
    assert_eq!(stream.status(), 200);
    for field in [
        "Content-Type: text/event-stream",
        "Cache-Control: no-store",
        "X-Accel-Buffering: no",
        "Transfer-Encoding: chunked",
        "Connection: close",
    ] {
        assert!(stream.head.contains(&format!("\r\n{field}\r\n")), "{field}: {}", stream.head);
    }
    assert!(!stream.head.contains("Content-Length") && !stream.head.contains("Content-Encoding"), "{}", stream.head);
    let id = create(&mut client, "me", "first");
    let shown = client.call(&get(format!("/todos/{id}"))).expect(200);
    let event = stream.next();
    assert_eq!((event.kind.as_str(), &event.data), ("put", &shown.json()));
    assert_eq!(event.id, shown.required("Event-Position"));
    change(&mut client, put(&token("me"), &id, r#"{"completed":true}"#));
    let event = stream.next();
    assert_eq!((event.kind.as_str(), &event.data["completed"]), ("put", &json!(true)));
    change(&mut client, delete(&token("me"), &id));
    let event = stream.next();
    assert_eq!((event.kind.as_str(), event.data), ("delete", json!({ "id": id })));
    // What changes nothing is not told.
    change(&mut client, delete(&token("me"), &id));
    let second = create(&mut client, "me", "second");
    assert_eq!(stream.next().data["id"], json!(second));
    assert_eq!(stream.retry_ms, Some(2_000));
    assert_eq!(metric(&server, "million_rps_events_sent_total"), 4.0);
    assert_eq!(metric(&server, "million_rps_followers"), 1.0);
}

/// The head of the answer says that the client follows. Nobody is told so before it is true.
fn who_has_the_head_of_a_stream_is_told_what_is_written_then(driver: &Driver) {
    let server = small(*driver).start();
    let mut client = server.connect();
    for round in 0..40 {
        let target = ["/todos/events", "/todos/events?limit=1", "/todos/events?user_id=me"][round % 3];
        let mut stream = EventStream::open(server.address, target);
        // No wait: the write is acknowledged after the head, and may show before the first event is read, or later.
        let answer = client.call(&post(&token("me"), json!({ "title": format!("{round}") }).to_string())).expect(202);
        let id = answer.json()["id"].clone();
        eventually("the todo, in the page or behind it", || {
            let event = stream.next();
            let in_page = event.data["todos"].as_array().is_some_and(|todos| todos.iter().any(|todo| todo["id"] == id));
            (event.data["id"] == id || in_page).then_some(())
        });
    }
}

/// Creates, changes and deletes todos until it is told to stop.
pub fn write_until(server: &Server, user: &str, stop: &AtomicBool) {
    let (mut client, token) = (server.connect(), token(user));
    let mut mine: Vec<String> = Vec::new();
    for n in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        match n % 5 {
            0 | 1 | 3 => {
                let answer = client.call(&post(&token, format!(r#"{{"title":"{user} {n}"}}"#))).expect(202);
                mine.push(answer.json()["id"].as_str().expect("an id").to_owned());
            }
            2 => {
                let id = &mine[n * 7 % mine.len()];
                client.call(&put(&token, id, format!(r#"{{"description":"{n}"}}"#))).expect(202);
            }
            _ => {
                let id = mine.swap_remove(n * 13 % mine.len());
                client.call(&delete(&token, &id)).expect(202);
            }
        }
    }
}

fn a_list_and_what_follows_it_have_no_gap_and_no_double(driver: &Driver) {
    let server = small(*driver).start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stops = StopAtEnd(&stop);
        for user in ["a", "b", "c"] {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || write_until(server, user, stop));
        }
        let mut recorders = Vec::new();
        for _ in 0..8 {
            // Each begins in the middle of the writes.
            recorders.push(Recorder::start(server.address));
            recorders.iter_mut().for_each(Recorder::take);
        }
        eventually("changes for the last one", || {
            recorders.iter_mut().for_each(Recorder::take);
            (recorders.last()?.changes > 100).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        for recorder in &mut recorders {
            recorder.await_list_of(server.address);
            assert_eq!((recorder.resets.as_slice(), recorder.connects, recorder.repeats), (&[][..], 1, 0));
        }
    });
}

pub struct StopAtEnd<'s>(pub &'s AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn who_was_away_goes_on_where_they_stood(driver: &Driver) {
    let server = small(*driver).start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stops = StopAtEnd(&stop);
        scope.spawn(|| write_until(&server, "a", &stop));
        let mut recorder = Recorder::start(server.address);
        for round in 1..=10 {
            eventually("changes", || {
                recorder.take();
                (recorder.changes >= round * 20).then_some(())
            });
            recorder.disconnect();
        }
        stop.store(true, Ordering::Relaxed);
        recorder.await_list_of(server.address);
        assert_eq!((recorder.resets.as_slice(), recorder.repeats), (&[][..], 0));
        assert!(recorder.connects > 10);
    });
}

fn the_field_counts_for_more_than_the_query(driver: &Driver) {
    let server = small(*driver).start();
    let mut client = server.connect();
    let first = position(&mut client);
    let ids: Vec<String> = (0..3).map(|n| create(&mut client, "me", &format!("{n}"))).collect();
    let target = format!("/todos/events?last_event_id={first}");
    let mut stream = EventStream::open(server.address, &target);
    let events: Vec<Event> = (0..3).map(|_| stream.next()).collect();
    assert_eq!(events.iter().map(|event| event.data["id"].as_str().expect("an id")).collect::<Vec<_>>(), ids);
    // A browser that connects again asks for the same target, and has come further.
    let request = get(target).field("Last-Event-ID", &events[1].id);
    let mut stream = EventStream::ask(server.address, &request);
    assert_eq!(stream.next(), events[2]);
}

fn a_position_that_is_none_is_told(driver: &Driver) {
    let server = plain(*driver);
    let resets = || metric(&server, "million_rps_event_resets_total");
    let before = resets();
    for (count, position) in (1..).zip(["x", "0", "1-2-3", "00-0000000000000000", "-1", &"9".repeat(3_000)]) {
        let mut stream = EventStream::open_behind(server.address, position);
        assert_eq!((stream.status(), stream.next()), (200, reset("unknown_position")), "{position}");
        stream.assert_ended();
        assert!(stream.ended_whole, "it is said that the stream ends");
        assert_eq!(resets() - before, f64::from(count));
    }
    let mut stream = EventStream::open(server.address, "/todos/events?last_event_id=%00%0A");
    assert_eq!(stream.next(), reset("unknown_position"));
    // No position is none that is wrong.
    let stream = EventStream::open(server.address, "/todos/events?last_event_id=");
    assert_eq!((stream.status(), resets() - before), (200, 7.0));
}

fn a_position_that_is_too_old_is_told(driver: &Driver) {
    let server =
        small(*driver).set("EVENTS_HISTORY_MAX_BYTES", "65536").set("EVENTS_UNSENT_MAX_BYTES", "65536").start();
    let mut client = server.connect();
    let old = position(&mut client);
    let text = "x".repeat(10_000);
    let ids: Vec<String> = (0..12).map(|n| create(&mut client, &format!("{n}"), &text[..499])).collect();
    for (n, id) in ids.iter().enumerate() {
        change(&mut client, put(&token(&n.to_string()), id, json!({ "description": text }).to_string()));
    }
    let mut stream = EventStream::open_behind(server.address, &old);
    assert_eq!(stream.next(), reset("too_old"));
    stream.assert_ended();
    Recorder::start(server.address).await_list_of(server.address);
}

fn a_position_of_another_list_is_told(driver: &Driver) {
    let (server, other) = (small(*driver).start(), small(*driver).start());
    let (mut client, mut elsewhere) = (server.connect(), other.connect());
    create(&mut client, "me", "here");
    for _ in 0..3 {
        create(&mut elsewhere, "me", "there");
    }
    // It is further than this list, and may come: it is waited for a moment.
    let position = position(&mut elsewhere);
    let mut stream = EventStream::open_behind(server.address, &position);
    assert_eq!(stream.next(), reset("unknown_position"));
    let mut stream = EventStream::open_behind(server.address, &position);
    for _ in 0..5 {
        create(&mut client, "me", "and on");
    }
    assert_eq!(stream.next(), reset("unknown_position"));
    stream.assert_ended();
}

fn what_is_too_much_at_once_is_told(driver: &Driver) {
    let server =
        small(*driver).set("EVENTS_HISTORY_MAX_BYTES", "65536").set("EVENTS_UNSENT_MAX_BYTES", "65536").start();
    let mut bare = EventStream::open(server.address, "/todos/events");
    let mut with_list = EventStream::open(server.address, "/todos/events?limit=2");
    assert_eq!(with_list.next().kind, "list");
    let (mut client, token) = (server.connect(), token("me"));
    let id = create(&mut client, "me", "long");
    assert_eq!((bare.next().data["id"].clone(), with_list.next().data["id"].clone()), (json!(id), json!(id)));
    // A todo of 40,000 bytes is half of what may be kept, and more.
    let text = "\u{1f980}".repeat(10_000);
    change(&mut client, put(&token, &id, json!({ "description": text }).to_string()));
    assert_eq!(bare.next(), reset("too_many_changes"));
    bare.assert_ended();
    assert_eq!(with_list.next(), reset("too_many_changes"));
    let event = with_list.next();
    assert_eq!((event.kind.as_str(), &event.data["todos"][0]["description"]), ("list", &json!(text)));
    change(&mut client, delete(&token, &id));
    assert_eq!(with_list.next().data, json!({ "id": id }));
}

fn a_stream_may_begin_with_a_page(driver: &Driver) {
    let server = small(*driver).start();
    let mut client = server.connect();
    let mut empty = EventStream::open(server.address, "/todos/events?limit=2");
    let event = empty.next();
    assert_eq!((event.kind.as_str(), event.data), ("list", json!({ "todos": [], "next": null })));
    assert_eq!(event.id, position(&mut client));
    let ids: Vec<String> = (0..3).map(|n| create(&mut client, "me", &format!("{n}"))).collect();
    let mut stream = EventStream::open(server.address, "/todos/events?limit=2");
    let event = stream.next();
    let page = client.call(&get("/todos?limit=2")).expect(200);
    assert_eq!((event.kind.as_str(), &event.data["todos"]), ("list", &page.json()));
    let next = event.data["next"].as_str().expect("where the next page is");
    assert_eq!(page.required("Link"), format!("<{next}>; rel=\"next\""));
    assert_eq!(client.call(&get(next)).expect(200).json()[0]["id"], json!(ids[0]));
    let id = create(&mut client, "me", "new");
    assert_eq!(stream.next().data["id"], json!(id));
    // Who knows where they stand gets what they have missed, and no page.
    let request = get("/todos/events?limit=2").field("Last-Event-ID", &event.id);
    let mut stream = EventStream::ask(server.address, &request);
    assert_eq!(stream.next().data["id"], json!(id));
}

fn a_list_comes_again_behind_a_reset(driver: &Driver) {
    let server = small(*driver).start();
    let mut client = server.connect();
    let id = create(&mut client, "me", "there");
    let request = get("/todos/events?limit=10").field("Last-Event-ID", "unknown");
    let mut stream = EventStream::ask(server.address, &request);
    assert_eq!(stream.next(), reset("unknown_position"));
    let event = stream.next();
    assert_eq!((event.kind.as_str(), &event.data["todos"][0]["id"]), ("list", &json!(id)));
    change(&mut client, delete(&token("me"), &id));
    assert_eq!(stream.next().data, json!({ "id": id }));
}

fn one_users_todos_alone(driver: &Driver) {
    let server = small(*driver).set("EVENTS_HEARTBEAT_SEC", "1").start();
    let mut client = server.connect();
    let user = "m\u{e9} & you+1";
    let mut stream = EventStream::open(server.address, "/todos/events?user_id=m%C3%A9%20%26%20you+1");
    let others = create(&mut client, "somebody", "not mine");
    let mine = create(&mut client, user, "mine");
    let event = stream.next();
    assert_eq!((event.kind.as_str(), &event.data["id"]), ("put", &json!(mine)));
    // Its position moves also where nothing of theirs does.
    change(&mut client, delete(&token("somebody"), &others));
    let now = position(&mut client);
    eventually("a heartbeat with the present position", || {
        assert_eq!(stream.look(Duration::from_millis(50)), Look::Nothing);
        (stream.id == now).then_some(())
    });
    stream.socket().shutdown(std::net::Shutdown::Both).expect("it is open");
    create(&mut client, "somebody", "not mine either");
    change(&mut client, delete(&token(user), &mine));
    let request = get("/todos/events?user_id=m%C3%A9%20%26%20you%2B1").field("Last-Event-ID", &now);
    let mut stream = EventStream::ask(server.address, &request);
    let event = stream.next();
    assert_eq!((event.kind.as_str(), event.data), ("delete", json!({ "id": mine })));
}

fn nothing_in_a_todo_breaks_the_stream(driver: &Driver) {
    let server = small(*driver).start();
    let mut client = server.connect();
    let mut streams =
        ["/todos/events", "/todos/events?limit=100"].map(|target| EventStream::open(server.address, target));
    streams[1].next();
    for title in [
        "\n\ndata: {}\nevent: delete\nid: 5-0000000000000000\n\n",
        "\r\n\r\nevent: reset\r\ndata: {}\r\n\r\n",
        "0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "\u{2028}\u{2029}\u{85}\u{b}\u{c}",
        "<script>alert(1)</script> </title> --> ]]>",
        ":comment",
        "\u{feff}retry: 1",
        "\u{202e}\u{5d0}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    ] {
        let id = create(&mut client, "a\u{2028}b", title);
        for stream in &mut streams {
            let event = stream.next();
            assert_eq!((&event.data["title"], &event.data["id"]), (&json!(title), &json!(id)), "{title:?}");
        }
    }
    let mut again = EventStream::open(server.address, "/todos/events?limit=100");
    assert_eq!(again.next().data["todos"], client.call(&get("/todos")).expect(200).json());
    let text = String::from_utf8_lossy(&again_bytes(server.address)).into_owned();
    let lines = text.lines().filter(|line| line.starts_with("event: ") || line.starts_with("id: "));
    assert_eq!(lines.count(), 2, "{text}");
}

/// The bytes of a stream with a page, as far as they come at once.
fn again_bytes(address: SocketAddr) -> Vec<u8> {
    let mut client = TcpStream::connect(address).expect("connected");
    client.write_all(&get("/todos/events?limit=100").bytes()).expect("sent");
    client.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let mut bytes = Vec::new();
    while !bytes.windows(6).any(|window| window == b"\n\n\r\n" || window.starts_with(b"\nid: ")) {
        let mut piece = [0; 65_536];
        let length = client.read(&mut piece).expect("it comes");
        bytes.extend_from_slice(&piece[..length]);
    }
    bytes
}

/// Fills the list and every buffer between a follower and the server.
fn every_answer_with_todos_names_its_position(driver: &Driver) {
    let server = small(*driver).start();
    let mut client = server.connect();
    let ids: Vec<String> = (0..3).map(|n| create(&mut client, "me", &format!("{n}"))).collect();
    let whole = client.call(&get("/todos")).expect(200);
    let position = whole.required("Event-Position").to_owned();
    let next = client.call(&get("/todos?limit=1")).expect(200).required("Link").to_owned();
    let next = next.split(['<', '>']).nth(1).expect("a link").to_owned();
    let one = format!("/todos/{}", ids[0]);
    for target in ["/todos", "/todos?limit=2", &next, &one] {
        let answer = client.call(&get(target)).expect(200);
        assert_eq!(answer.required("Event-Position"), position, "{target}");
        let head = client.call(&Request::new("HEAD", target)).expect(200);
        assert_eq!(head.required("Event-Position"), position, "HEAD {target}");
        let known = get(target).field("If-None-Match", answer.required("ETag"));
        // Cached answers get the fields of the 304, so a position does not grow old with them.
        assert_eq!(client.call(&known).expect(304).required("Event-Position"), position, "{target}");
        assert_eq!(client.call(&known).expect(304).required("Event-Position"), position, "{target}");
    }
    let coded = get("/todos?limit=3").field("Accept-Encoding", "gzip");
    assert_eq!(client.call(&coded).expect(200).required("Event-Position"), position);
}

fn a_restart_loses_nobody_what_they_had(driver: &Driver) {
    let setup = small(*driver);
    let server = setup.start();
    let mut recorder = Recorder::start(server.address);
    let ids: Vec<String> = (0..5).map(|n| create(&mut server.connect(), "me", &format!("{n}"))).collect();
    recorder.await_list_of(server.address);
    // Nothing has changed meanwhile, so the list of the new process has the same position.
    server.stop();
    let server = setup.start();
    recorder.move_to(server.address);
    change(&mut server.connect(), delete(&token("me"), &ids[2]));
    recorder.await_list_of(server.address);
    assert_eq!(recorder.resets, Vec::<String>::new());
    // What a process did before the next one began is not kept, and that is told.
    recorder.disconnect();
    create(&mut server.connect(), "me", "unseen");
    server.kill();
    let server = setup.start();
    recorder.move_to(server.address);
    recorder.await_list_of(server.address);
    assert_eq!((recorder.resets.as_slice(), recorder.len()), (&["too_old".to_owned()][..], 5));
}
