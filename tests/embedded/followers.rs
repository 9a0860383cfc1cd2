//! The change feed: its clients, their number, their pace, and how they are left.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::events::{StopAtEnd, create, metric, position, small};
use crate::harness::client::Client;
use crate::harness::events::{EventStream, Look, Recorder, list_at};
use crate::harness::request::{Request, get, post, put};
use crate::harness::server::Driver;
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;
use crate::harness::{PATIENCE, eventually};
use crate::plain;

on_both_drivers!(std::convert::identity =>
    a_silent_stream_gives_signs_of_life,
    who_waits_for_a_position_over_a_heartbeat_holds_up_nobody,
    who_does_not_keep_up_is_cut_off_and_goes_on,
    who_takes_nothing_holds_up_nobody,
    as_many_follow_as_may,
    a_process_that_leaves_says_when_to_come_back,
    who_waits_for_a_position_is_sent_to_the_process_that_has_it,
    a_large_change_is_copied_for_nobody,
    who_has_gone_gives_their_place_back,
    what_is_sent_behind_the_request_is_not_answered,
    a_stream_stands_behind_the_answers_before_it,
    old_clients_get_the_bare_stream,
    what_is_no_stream_is_refused,
);

fn a_silent_stream_gives_signs_of_life(driver: &Driver) {
    let server = small(*driver).set("EVENTS_HEARTBEAT_SEC", "1").set("IDLE_TIMEOUT_MS", "500").start();
    let targets = ["/todos/events", "/todos/events?user_id=me", "/todos/events?limit=1"];
    let mut streams = targets.map(|target| EventStream::open(server.address, target));
    streams[2].next();
    for stream in &mut streams {
        eventually("three heartbeats", || {
            assert_eq!(stream.look(Duration::from_millis(50)), Look::Nothing, "an idle timeout is not for it");
            (stream.comments >= 3).then_some(())
        });
    }
    let id = create(&mut server.connect(), "me", "still there");
    for stream in &mut streams {
        assert_eq!(stream.next().data["id"], json!(id));
    }
}

/// A position that is still to come is waited for, for as long as three heartbeats here.
fn who_waits_for_a_position_over_a_heartbeat_holds_up_nobody(driver: &Driver) {
    let server = small(*driver).set("SHARDS", "1").set("EVENTS_HEARTBEAT_SEC", "1").start();
    let mut client = server.connect();
    create(&mut client, "me", "there");
    let present = position(&mut client);
    let (sum, hash) = present.split_once('-').expect("a position");
    let ahead = format!("{}-{hash}", sum.parse::<u64>().expect("a number") + 1_000);
    let targets = ["/todos/events?limit=1", "/todos/events?user_id=me", "/todos/events"];
    let open = |target| EventStream::ask(server.address, &get(target).field("Last-Event-ID", &ahead));
    for stream in &mut targets.map(open) {
        // As long as nothing is told, others are answered.
        let told = eventually("the end of the wait", || {
            client.call(&get("/todos?limit=1")).expect(200);
            match stream.look(Duration::from_millis(50)) {
                Look::Event(event) => Some(event),
                other => (other != Look::Nothing).then(|| panic!("{other:?}")),
            }
        });
        assert_eq!(told.kind, "reset");
    }
}

fn flood(client: &mut Client, ids: &[String], round: usize) {
    let text = "\u{1f980}".repeat(9_000);
    for id in ids {
        client.call(&put(&token("me"), id, json!({ "description": format!("{round}{text}") }).to_string())).expect(202);
    }
}

fn who_does_not_keep_up_is_cut_off_and_goes_on(driver: &Driver) {
    let server = small(*driver).set("EVENTS_UNSENT_MAX_BYTES", "65536").set("WRITE_TIMEOUT_MS", "600000").start();
    let mut client = server.connect();
    let mut recorder = Recorder::start(server.address);
    recorder.take();
    let ids: Vec<String> = (0..8).map(|n| create(&mut client, "me", &format!("{n}"))).collect();
    recorder.await_list_of(server.address);
    let mut rounds = 0..;
    eventually("the cut", || {
        flood(&mut client, &ids, rounds.next()?);
        (metric(&server, "million_rps_followers_too_slow_total") > 0.0).then_some(())
    });
    eventually("nobody follows", || (metric(&server, "million_rps_followers") == 0.0).then_some(()));
    // What was on its way to it is lost with the connection, and told again on the next one, or the loss is.
    recorder.await_list_of(server.address);
    assert!(recorder.connects > 1);
}

fn who_takes_nothing_holds_up_nobody(driver: &Driver) {
    let server = small(*driver)
        .set("WRITE_TIMEOUT_MS", "1000")
        .set("WRITE_RATE_GRACE_MS", "1000")
        .set("EVENTS_HISTORY_MAX_BYTES", "268435456")
        .set("EVENTS_UNSENT_MAX_BYTES", "268435456")
        .start();
    let mut client = server.connect();
    let ids: Vec<String> = (0..8).map(|n| create(&mut client, "me", &format!("{n}"))).collect();
    let mut recorder = Recorder::start(server.address);
    let mut silent = EventStream::open(server.address, "/todos/events");
    let slow = EventStream::open(server.address, "/todos/events");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stops = StopAtEnd(&stop);
        let mut socket = slow.socket().try_clone().expect("a descriptor");
        let stop = &stop;
        scope.spawn(move || {
            // A byte now and then.
            while !stop.load(Ordering::Relaxed) && socket.read(&mut [0]).is_ok_and(|length| length > 0) {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let mut rounds = 0..;
        eventually("both are cut off", || {
            if metric(&server, "million_rps_followers") > 1.0 {
                flood(&mut client, &ids, rounds.next()?);
            }
            recorder.take();
            let cut = |reason: &str| {
                let name = "million_rps_deadlines_expired_total";
                let answer = server.connect().call(&get("/metrics")).expect(200);
                let lines = answer.text().lines().filter(|line| line.starts_with(name) && line.contains(reason));
                lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
            };
            (cut("write_stalled") + cut("write_slow") >= 2.0).then_some(())
        });
    });
    recorder.await_list_of(server.address);
    assert_eq!((recorder.resets.as_slice(), recorder.connects), (&[][..], 1));
    while silent.look(PATIENCE) != Look::Ended {}
    assert!(!silent.ended_whole, "a stream that was cut off does not look like a whole one");
}

fn as_many_follow_as_may(driver: &Driver) {
    let server = small(*driver).set("EVENTS_FOLLOWERS_MAX", "3").start();
    let streams: Vec<EventStream> = (0..3).map(|_| EventStream::open(server.address, "/todos/events")).collect();
    assert!(streams.iter().all(|stream| stream.status() == 200));
    let mut client = server.connect();
    let refused = client.call(&get("/todos/events"));
    assert!(refused.problem(503).contains("EVENTS_FOLLOWERS_MAX"), "{refused:?}");
    let retry_after_s: u64 = refused.required("Retry-After").parse().expect("seconds");
    assert!((1..=10).contains(&retry_after_s));
    client.assert_goes_on();
    assert_eq!(metric(&server, "million_rps_followers_refused_total"), 1.0);
    drop(streams);
    eventually("a place", || (EventStream::open(server.address, "/todos/events").status() == 200).then_some(()));
}

fn a_process_that_leaves_says_when_to_come_back(driver: &Driver) {
    let server = small(*driver).set("DRAIN_TIMEOUT_MS", "600000").start();
    let mut streams: Vec<EventStream> = (0..40)
        .map(|n| EventStream::open(server.address, ["/todos/events", "/todos/events?user_id=me"][n % 2]))
        .collect();
    let id = create(&mut server.connect(), "me", "the last");
    eventually("all follow", || (metric(&server, "million_rps_followers") == 40.0).then_some(()));
    server.process.signal(libc::SIGTERM);
    let mut retries: Vec<u64> = Vec::new();
    for stream in &mut streams {
        assert_eq!(stream.next().data["id"], json!(id));
        stream.assert_ended();
        assert!(stream.ended_whole);
        retries.push(stream.retry_ms.expect("a time"));
    }
    assert!(server.process.finish().status.success());
    retries.sort_unstable();
    assert!(retries[0] >= 200 && retries[39] < 5_200, "{retries:?}");
    retries.dedup();
    assert!(retries.len() >= 20, "two shards, each spreads its own: {retries:?}");
    assert!(retries[retries.len() - 1] - retries[0] > 3_000, "{retries:?}");
}

fn who_waits_for_a_position_is_sent_to_the_process_that_has_it(driver: &Driver) {
    let server = small(*driver).set("SHARDS", "1").set("DRAIN_TIMEOUT_MS", "600000").start();
    let mut client = server.connect();
    create(&mut client, "me", "there");
    let present = position(&mut client);
    let (sum, hash) = present.split_once('-').expect("a position");
    let ahead = format!("{}-{hash}", sum.parse::<u64>().expect("a number") + 1_000);
    let request = get("/todos/events").field("Last-Event-ID", &ahead);
    let mut streams: Vec<EventStream> = (0..20).map(|_| EventStream::ask(server.address, &request)).collect();
    eventually("all follow", || (metric(&server, "million_rps_followers") == 20.0).then_some(()));
    server.process.signal(libc::SIGTERM);
    let mut retries = Vec::new();
    for stream in &mut streams {
        // No reset: the position is good elsewhere.
        stream.assert_ended();
        assert!(stream.ended_whole);
        retries.push(stream.retry_ms.expect("a time"));
    }
    assert!(server.process.finish().status.success());
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() >= 10, "it is spread: {retries:?}");
}

/// Clients of HTTP/1.0, and those that want the events of one user, read nothing here, so what is held for them is seen.
fn a_large_change_is_copied_for_nobody(driver: &Driver) {
    const BYTES: usize = 900_000;
    let server = small(*driver)
        .set("SHARDS", "1")
        .set("BODY_MAX_BYTES", "1032192")
        .set("DESCRIPTION_MAX_CHARS", "1000000")
        .set("EVENTS_HISTORY_MAX_BYTES", "268435456")
        .set("EVENTS_UNSENT_MAX_BYTES", "268435456")
        .start();
    let requests = ["/todos/events HTTP/1.0", "/todos/events?user_id=me HTTP/1.0", "/todos/events?user_id=me HTTP/1.1"];
    let streams: Vec<TcpStream> = (0..24)
        .map(|n| {
            let mut stream = TcpStream::connect(server.address).expect("it listens");
            write!(stream, "GET {}\r\nHost: a\r\n\r\n", requests[n % 3]).expect("it is sent");
            stream
        })
        .collect();
    eventually("all follow", || (metric(&server, "million_rps_followers") == 24.0).then_some(()));
    let body = json!({ "title": "large", "description": "x".repeat(BYTES) }).to_string();
    server.connect().call(&post(&token("me"), body).field("Prefer", "wait=10")).expect(202);
    eventually("it is sent to all", || (metric(&server, "million_rps_events_sent_total") == 24.0).then_some(()));
    let held = metric(&server, "million_rps_connection_memory_bytes");
    assert!(held < BYTES as f64, "{held} bytes are held for 24 followers");
    drop(streams);
}

fn who_has_gone_gives_their_place_back(driver: &Driver) {
    let server = small(*driver).start();
    let streams: Vec<EventStream> = (0..9).map(|_| EventStream::open(server.address, "/todos/events")).collect();
    eventually("all follow", || (metric(&server, "million_rps_followers") == 9.0).then_some(()));
    for (at, stream) in streams.iter().enumerate() {
        match at % 3 {
            0 => stream.socket().shutdown(std::net::Shutdown::Write).expect("it is open"),
            1 => stream.socket().shutdown(std::net::Shutdown::Both).expect("it is open"),
            _ => {
                let socket = socket2::SockRef::from(stream.socket());
                socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER can be set");
            }
        }
    }
    drop(streams.into_iter().skip(2).step_by(3).collect::<Vec<_>>());
    eventually("nobody follows", || (metric(&server, "million_rps_followers") == 0.0).then_some(()));
    eventually("no connection but that which asks", || {
        (metric(&server, "million_rps_connections_open") == 1.0).then_some(())
    });
    create(&mut server.connect(), "me", "goes on");
}

fn what_is_sent_behind_the_request_is_not_answered(driver: &Driver) {
    let server = small(*driver).start();
    let mut client = server.connect();
    let mut stream = TcpStream::connect(server.address).expect("connected");
    let mut bytes = get("/todos/events").bytes();
    let late = post(&token("me"), r#"{"title":"never"}"#).bytes();
    bytes.extend(&late);
    stream.write_all(&bytes).expect("sent");
    let mut events = EventStream::read_head(stream.try_clone().expect("a descriptor")).expect("a head");
    for _ in 0..50 {
        stream.write_all(&late.repeat(20)).expect("it is read and dropped");
    }
    let id = create(&mut client, "me", "the only one");
    assert_eq!(events.next().data["id"], json!(id));
    let (_, todos) = list_at(server.address).expect("a list");
    assert_eq!(todos.len(), 1, "{todos:?}");
}

fn a_stream_stands_behind_the_answers_before_it(driver: &Driver) {
    let server = small(*driver).start();
    let mut stream = TcpStream::connect(server.address).expect("connected");
    let mut bytes = get("/health").bytes();
    bytes.extend(post(&token("me"), r#"{"title":"first"}"#).field("Prefer", "wait=10").bytes());
    bytes.extend(get("/todos/events?limit=5").bytes());
    stream.write_all(&bytes).expect("sent");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let mut text = String::new();
    let mut read_until = |what: &str| {
        while !text.contains(what) {
            let mut piece = [0; 4096];
            let length = stream.read(&mut piece).expect("it comes");
            assert!(length > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        text.find(what)
    };
    let places = ["{\"status\":\"ok\"}", "Todo creation queued", "event: list", "\"first\""].map(&mut read_until);
    assert!(places.is_sorted(), "{places:?}");
    create(&mut server.connect(), "me", "second");
    assert!(read_until("\"second\"") > places[3]);
}

fn old_clients_get_the_bare_stream(driver: &Driver) {
    let server = small(*driver).set("EVENTS_HEARTBEAT_SEC", "1").start();
    let mut client = server.connect();
    let first = create(&mut client, "me", "first");
    let behind = position(&mut client);
    let mut stream = TcpStream::connect(server.address).expect("connected");
    stream.write_all(b"GET /todos/events?limit=3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").expect("sent");
    let mut events = EventStream::read_head(stream).expect("a head");
    assert!(!events.head.contains("Transfer-Encoding") && events.head.contains("\r\nConnection: close\r\n"));
    assert_eq!(events.next().data["todos"][0]["id"], json!(first));
    let second = create(&mut client, "me", "second");
    assert_eq!(events.next().data["id"], json!(second));
    eventually("a heartbeat", || {
        assert_eq!(events.look(Duration::from_millis(50)), Look::Nothing);
        (events.comments > 0).then_some(())
    });
    let mut stream = TcpStream::connect(server.address).expect("connected");
    let request = format!("GET /todos/events?user_id=me HTTP/1.0\r\nLast-Event-ID: {behind}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    assert_eq!(EventStream::read_head(stream).expect("a head").next().data["id"], json!(second));
}

fn what_is_no_stream_is_refused(driver: &Driver) {
    let server = plain(*driver);
    let mut client = server.connect();
    let accepting = |value: &str| get("/todos/events").field("Accept", value);
    client.call(&accepting("application/json")).problem(406);
    client.call(&accepting("text/event-stream;q=0, */*")).problem(406);
    for value in ["text/event-stream", "text/*", "application/json, */*;q=0.1", ""] {
        assert_eq!(EventStream::ask(server.address, &accepting(value)).status(), 200, "{value:?}");
    }
    for target in ["/todos/events?limit=0", "/todos/events?userid=me", "/todos/events?limit=1&user_id=me"] {
        client.call(&get(target)).problem(400);
    }
    client.call(&get("/todos/events").field("Last-Event-ID", "a").field("Last-Event-ID", "b")).problem(400);
    client.call(&get("/todos/events/")).problem(404);
    for method in ["POST", "PUT", "DELETE"] {
        let answer = client.call(&Request::new(method, "/todos/events").token(&token("me")).json("{}"));
        answer.problem(405);
        assert_eq!(answer.required("Allow"), "GET, HEAD, OPTIONS");
    }
    let answer = client.call(&Request::new("OPTIONS", "/todos/events")).expect(204);
    assert_eq!(answer.required("Allow"), "GET, HEAD, OPTIONS");
    client.send(Request::new("HEAD", "/todos/events").bytes());
    client.send(get("/health").bytes());
    // The harness asks every other answer for its length.
    let mut head = String::new();
    let mut stream = client.sender();
    while !head.contains("{\"status\":\"ok\"}") {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).expect("both come");
        assert!(length > 0, "{head}");
        head.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    let (of_head, of_health) = head.split_once("\r\n\r\n").expect("a head");
    assert!(of_head.starts_with("HTTP/1.1 200 OK\r\n") && of_head.contains("text/event-stream"), "{head}");
    assert!(of_health.starts_with("HTTP/1.1 200 OK\r\n"), "no body stands between: {head}");
}
