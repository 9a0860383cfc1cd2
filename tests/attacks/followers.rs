//! Followers of the list in a crowd that comes all at once, and behind a proxy that would rather keep what it has.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use crate::bystander::Bystander;
use crate::harness::client::Client;
use crate::harness::request::{Request, get, post, put};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;
use crate::harness::{PATIENCE, eventually};
use crate::proxy::proxy_of;
use crate::vitals::{Vitals, raise_own_file_limit};

on_both_drivers!(std::convert::identity =>
    a_proxy_passes_each_event_on_at_once,
    ten_thousand_come_back_at_once_and_miss_nothing,
);

/// Followers, where the limit of open files allows so many.
const CROWD: usize = 10_000;
/// Connections besides.
const OTHERS: usize = 10;

/// One crowd at a time: both would be more than the limit of open files of this process may be.
static CROWDED: Mutex<()> = Mutex::new(());

fn write(client: &mut Client, request: Request) -> serde_json::Value {
    client.call(&request.field("Prefer", "wait=30")).expect(202).json()
}

fn create(client: &mut Client, title: &str) -> String {
    write(client, post(&token("me"), json!({ "title": title }).to_string()))["id"].as_str().expect("an id").to_owned()
}

/// Reads until this text has come.
fn read_until(stream: &mut impl Read, text: &str, has_come: &mut String) {
    while !has_come.contains(text) {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).unwrap_or_else(|error| panic!("{text:?}: {error}, after {has_come:?}"));
        assert!(length > 0, "{text:?} does not come, but the end: {has_come:?}");
        has_come.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
}

/// nginx asks with HTTP/1.0 where nothing is said, and keeps what it is given until a buffer is full, unless the answer forbids
/// that (`X-Accel-Buffering: no`).
fn a_proxy_passes_each_event_on_at_once(driver: &Driver) {
    for of_location in ["", "proxy_http_version 1.1; proxy_set_header Connection '';"] {
        let setup = Setup::new().driver(*driver);
        let server = setup.start();
        let mut client = server.connect();
        let (_proxy, socket) = proxy_of(&setup, &[server.address], of_location);
        let mut follower = UnixStream::connect(&socket).expect("the proxy listens");
        follower.set_read_timeout(Some(PATIENCE)).expect("a deadline can be set");
        follower.write_all(&get("/todos/events").bytes()).expect("the proxy takes the request");
        let mut has_come = String::new();
        read_until(&mut follower, "\r\n\r\n", &mut has_come);
        read_until(&mut follower, "\nid:", &mut has_come);
        // Each comes before the next one is made.
        for n in 0..5 {
            let id = create(&mut client, &format!("{n}"));
            read_until(&mut follower, &id, &mut has_come);
        }
        let events = has_come.matches("event: put").count();
        assert_eq!(events, 5, "{of_location:?}: {has_come}");
    }
}

fn follow(address: SocketAddr, position: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the connection is taken");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline can be set");
    let request = get("/todos/events").field("Last-Event-ID", position);
    stream.write_all(&request.bytes()).expect("the request is taken");
    stream
}

fn position(server: &Server) -> String {
    server.connect().call(&get("/todos?limit=1")).expect(200).required("Event-Position").to_owned()
}

fn ten_thousand_come_back_at_once_and_miss_nothing(driver: &Driver) {
    let _alone = CROWDED.lock().unwrap_or_else(PoisonError::into_inner);
    let crowd = CROWD.min(raise_own_file_limit() * 3 / 4 - OTHERS);
    let connections_max = (crowd + OTHERS).to_string();
    let setup = Setup::new()
        .driver(*driver)
        .set("MAX_CONNECTIONS", &connections_max)
        .set("EVENTS_FOLLOWERS_MAX", &crowd.to_string());
    let server = setup.start();
    let mut client = server.connect();
    let id = create(&mut client, "there from the beginning");
    server.connect().call(&get("/todos?limit=10")).expect(200);
    let before = Vitals::at_rest(&server);
    let bystander = Bystander::of(&server);
    let begun = position(&server);
    let mut followers: Vec<(TcpStream, String)> =
        (0..crowd).map(|_| (follow(server.address, &begun), String::new())).collect();
    let told = |followers: &mut [(TcpStream, String)], title: &str| {
        followers.iter_mut().for_each(|(stream, has_come)| read_until(stream, title, has_come));
    };
    write(&mut client, put(&token("me"), &id, r#"{"title":"told to all"}"#));
    told(&mut followers, "told to all");

    // All of them are cut off, and what changes meanwhile is what they come back for.
    followers.clear();
    eventually("nobody to follow", || (count(&server) == 0.0).then_some(()));
    let last = position(&server);
    write(&mut client, put(&token("me"), &id, r#"{"title":"while all were away"}"#));
    std::thread::scope(|scope| {
        let threads = (0..4).map(|part| {
            let (last, address) = (&last, server.address);
            let count = crowd / 4 + usize::from(part < crowd % 4);
            scope.spawn(move || (0..count).map(|_| (follow(address, last), String::new())).collect::<Vec<_>>())
        });
        let threads: Vec<_> = threads.collect();
        followers = threads.into_iter().flat_map(|thread| thread.join().expect("all connect")).collect();
    });
    told(&mut followers, "while all were away");
    write(&mut client, put(&token("me"), &id, r#"{"title":"and all are told again"}"#));
    told(&mut followers, "and all are told again");
    for (_, has_come) in &followers {
        assert!(has_come.starts_with("HTTP/1.1 200 OK\r\n"), "{has_come}");
        assert_eq!(has_come.matches("event: put").count(), 2, "nothing is told twice: {has_come}");
        assert!(!has_come.contains("event: reset"), "{has_come}");
    }
    bystander.assert_served();
    drop(followers);
    before.assert_back(&server);
}

/// Those that follow.
fn count(server: &Server) -> f64 {
    let answer = server.connect().call(&get("/metrics")).expect(200);
    let lines = answer.text().lines().filter_map(|line| line.strip_prefix("million_rps_followers{"));
    lines.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
