//! Crowds that hold memory: clients that never read what they ask for, and requests that never end. All together they get what
//! `CONNECTION_MEMORY_MAX_BYTES` says, whatever they do, and others are served.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::request::{get, post};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;
use crate::vitals::Vitals;

/// `CONNECTION_MEMORY_MAX_BYTES`, far less than they would take: 40 MB as bodies, hundreds as answers.
const BUDGET_BYTES: u64 = 4 * 1024 * 1024;
/// What each may take besides: 16 KiB without asking, as much that the shard received before it stopped to read, and itself.
const EACH_BYTES: u64 = 36 * 1024;
/// What the process may take besides, in bytes: buffers that allocators keep, and those of one turn, whose answers the sockets
/// may take at once.
const SLACK_BYTES: u64 = 24 * 1024 * 1024;

on_both_drivers!(std::convert::identity =>
    pipelined_refusals_that_nobody_reads,
    documents_that_nobody_reads,
    bodies_that_do_not_end,
    chunks_that_do_not_end,
);

fn pipelined_refusals_that_nobody_reads(driver: &Driver) {
    crowd(*driver, 300, &get("/nothing/here").bytes().repeat(20_000));
}

fn documents_that_nobody_reads(driver: &Driver) {
    crowd(*driver, 150, &get("/metrics").bytes().repeat(2_000));
}

fn bodies_that_do_not_end(driver: &Driver) {
    let head = "POST /todos HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 65536\r\n\r\n";
    crowd(*driver, 600, &[head.as_bytes(), &[b'x'; 65_000]].concat());
}

fn chunks_that_do_not_end(driver: &Driver) {
    let head =
        "POST /todos HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    crowd(*driver, 600, &[head.as_bytes(), b"ffff\r\n", &[b'x'; 65_000]].concat());
}

/// Sends what the socket takes, and never reads.
fn attacker(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = server.connect().sender();
    stream.set_nonblocking(true).expect("a flag can be set");
    let mut sent = 0;
    while let Ok(length) = stream.write(&bytes[sent..])
        && length > 0
    {
        sent += length;
    }
    stream
}

/// The sum of a metric over all shards.
fn sum(client: &mut Client, name: &str) -> u64 {
    let text = client.call(&get("/metrics")).expect(200).text().to_owned();
    let start = format!("{name}{{");
    let values = text.lines().filter(|line| line.starts_with(&start)).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<u64>().expect("a whole number")).sum()
}

fn crowd(driver: Driver, clients: usize, bytes: &[u8]) {
    let setup = Setup::new()
        .driver(driver)
        .set("CONNECTION_MEMORY_MAX_BYTES", &BUDGET_BYTES.to_string())
        // Deadlines are not what keeps it.
        .set("WRITE_TIMEOUT_MS", "60000")
        .set("BODY_TIMEOUT_MS", "60000");
    let server = setup.start();
    let token = token("honest");
    let mut honest = server.connect();
    honest.call(&post(&token, r#"{"title":"before"}"#)).expect(202);
    let before = Vitals::at_rest(&server);
    let mut most_bytes = 0;
    let mut attackers = Vec::with_capacity(clients);
    for _ in 0..clients {
        attackers.push(attacker(&server, bytes));
        most_bytes = most_bytes.max(Vitals::now(&server).resident_bytes);
    }
    eventually("attackers to be refused", || {
        (sum(&mut honest, "million_rps_connection_memory_refused_total") > 0).then_some(())
    });
    // Those that hold most without getting on are closed, again and again.
    for _ in 0..20 {
        most_bytes = most_bytes.max(Vitals::now(&server).resident_bytes);
        honest.call(&post(&token, r#"{"title":"meanwhile"}"#)).expect(202);
        std::thread::sleep(Duration::from_millis(100));
    }
    let large = format!(r#"{{"title":"large","description":"{}"}}"#, "\\u0061".repeat(10_000));
    eventually("room for a large request", || {
        let mut client = server.connect();
        let answer = client.call(&post(&token, large.clone()));
        assert!(matches!(answer.status, 202 | 503), "{answer:?}");
        (answer.status == 202).then_some(())
    });
    // Each shard says what it uses at its own tick: what one has given back and another taken since then counts twice.
    eventually("a sum within the budget", || {
        (sum(&mut honest, "million_rps_connection_memory_bytes") <= BUDGET_BYTES).then_some(())
    });
    let allowed = BUDGET_BYTES + clients as u64 * EACH_BYTES + SLACK_BYTES;
    let added = most_bytes.saturating_sub(before.resident_bytes);
    eprintln!("{}: {} KiB added, {} allowed", driver.name(), added / 1024, allowed / 1024);
    assert!(added < allowed, "{} KiB added, {} allowed", added / 1024, allowed / 1024);
    drop(attackers);
    drop(honest);
    eventually("all of it to be given back", || {
        let mut client = server.connect();
        let is_well = !client.call(&get("/ready")).text().contains("connection_memory");
        (is_well && sum(&mut client, "million_rps_connection_memory_bytes") == 0).then_some(())
    });
    let log = server.log();
    assert!(log.contains("connection_memory") && log.contains("CONNECTION_MEMORY_MAX_BYTES"), "{log}");
    server.connect().assert_goes_on();
    eventually("about as much memory as before", || {
        (Vitals::now(&server).resident_bytes < before.resident_bytes + SLACK_BYTES).then_some(())
    });
}
