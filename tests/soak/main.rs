//! A long run under everything at once: full load, writes, and clients that are slow, broken or never read. `make soak` runs
//! it; it is no part of `make test`.
//!
//! It passes when the memory at the end is within 5 % of that after the first minute (or the first quarter of a shorter run),
//! the descriptors are as many as before the load, and nobody who behaves has seen an error. The writers change todos and
//! make no new ones, so nothing has a reason to grow.

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "each suite uses its part of the harness")]
mod harness;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::eventually;
use harness::process::Process;
use harness::request::{get, post, put};
use harness::server::{Server, Setup};
use harness::token::token;

/// Todos of the list.
const TODOS: &str = "1000";
/// How long the run is, where the first argument does not say it.
const DEFAULT: Duration = Duration::from_secs(600);
/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// When memory has to have reached its level.
const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// What a level is the median of: a minute of samples, as clients come in waves, and which lists they keep alive changes from
/// one half minute to the next by as much as 4 % of the memory.
const LEVEL_SAMPLES: usize = 12;
/// How much more than that it may be at the end.
const GROWTH_MAX: f64 = 0.05;

/// What the process takes at one moment.
#[derive(Clone, Copy)]
struct Sample {
    at: Duration,
    resident_kib: u64,
    descriptors: usize,
}

fn sample(server: &Server, at: Duration) -> Sample {
    let pid = server.process.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    Sample {
        at,
        resident_kib: line.trim().trim_end_matches(" kB").parse().expect("a number"),
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there").count(),
    }
}

fn main() {
    let seconds = std::env::args().nth(1).map(|text| text.parse().expect("the first argument is a number of seconds"));
    let length = seconds.map_or(DEFAULT, Duration::from_secs);
    let setup = Setup::new().set("HEADER_TIMEOUT_MS", "2000").set("WRITE_TIMEOUT_MS", "2000");
    setup.run_successfully(&["seed", "--count", TODOS]);
    let server = setup.start();
    // The files of the command log are opened by the first write.
    write_once(&server);
    // Until the server has closed that client's connection.
    std::thread::sleep(Duration::from_millis(500));
    let before = sample(&server, Duration::ZERO);
    let (stop, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    let samples = std::thread::scope(|scope| {
        let (server, stop, writes) = (&server, &stop, &writes);
        scope.spawn(move || while_running(stop, || never_read(server)));
        scope.spawn(move || while_running(stop, || break_off(server)));
        scope.spawn(move || while_running(stop, || send_slowly(server)));
        scope.spawn(move || write(server, stop, writes));
        let readers = read_at_full_rate(server, length);
        let samples = watch(server, length);
        stop.store(true, Ordering::Relaxed);
        let finished = readers.finish();
        println!("{}", finished.stdout);
        assert!(finished.status.success(), "{finished:?}");
        assert!(!finished.stdout.contains("Non-2xx") && !finished.stdout.contains("Socket errors"), "wrk saw errors");
        samples
    });
    println!("{} writes", writes.load(Ordering::Relaxed));
    judge(&samples);
    eventually("the descriptors to be as many as before", || {
        (sample(&server, length).descriptors <= before.descriptors).then_some(())
    });
    assert_eq!(server.stop().status.code(), Some(0));
}

fn while_running(stop: &AtomicBool, mut act: impl FnMut()) {
    while !stop.load(Ordering::Relaxed) {
        act();
    }
}

/// Pipelined reads with all that one thread of wrk can send.
fn read_at_full_rate(server: &Server, length: Duration) -> Process {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/wrk-scripts/pipelined.lua");
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c64", &format!("-d{}s", length.as_secs()), "--timeout", "10s", "-s", script]);
    command.arg(format!("http://{}", server.address));
    Process::start(command)
}

/// Ten clients ask for long lists, take none of them, and stay until they are closed.
fn never_read(server: &Server) {
    let requests = get("/todos").bytes().repeat(100);
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let mut client = server.connect();
            let _ = client.try_send(&requests);
            client
        })
        .collect();
    std::thread::sleep(Duration::from_secs(4));
    drop(clients);
}

/// A client says half of something and resets the connection.
fn break_off(server: &Server) {
    for bytes in [&b""[..], b"GET /todos HTT", b"no request\r\n\r\n"] {
        let mut client = server.connect();
        client.reset_when_dropped();
        let _ = client.try_send(bytes);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Fifty clients send a byte a tenth of a second until they are told that it took too long.
fn send_slowly(server: &Server) {
    let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for byte in b"GET /todos HTTP/1.1\r\nHost: a\r\nX: yyyy" {
        clients.retain_mut(|client| client.try_send([*byte]).is_ok());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Creates a todo, and waits until it shows.
fn write_once(server: &Server) {
    let mut client = server.connect();
    let id = client.call(&post(&token("soak"), r#"{"title":"the first"}"#)).expect(202).json()["id"].clone();
    let path = format!("/todos/{}", id.as_str().expect("an id"));
    eventually("the first todo to show", || (client.call(&get(&path)).status == 200).then_some(()));
}

/// One client changes one todo after the other, and is answered each time.
fn write(server: &Server, stop: &AtomicBool, writes: &AtomicU64) {
    let token = token("soak");
    let mut client = server.connect();
    let ids: Vec<String> = (0..100)
        .map(|_| {
            let answer = client.call(&post(&token, r#"{"title":"to be changed"}"#)).expect(202);
            answer.json()["id"].as_str().expect("an id").to_owned()
        })
        .collect();
    eventually("the last of them to show", || {
        (client.call(&get(format!("/todos/{}", ids[99]))).status == 200).then_some(())
    });
    for id in ids.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        client.call(&put(&token, id, r#"{"description":"changed again"}"#)).expect(202);
        writes.fetch_add(1, Ordering::Relaxed);
    }
}

fn watch(server: &Server, length: Duration) -> Vec<Sample> {
    println!("seconds  memory/KiB  descriptors");
    let begin = Instant::now();
    let mut samples = Vec::new();
    while begin.elapsed() + SAMPLE_EVERY < length {
        std::thread::sleep(SAMPLE_EVERY);
        let sample = sample(server, begin.elapsed());
        println!("{:7}  {:10}  {:11}", sample.at.as_secs(), sample.resident_kib, sample.descriptors);
        samples.push(sample);
    }
    samples
}

/// Compares the level of the last minute with that of the minute after the first; of a shorter run, quarters.
fn judge(samples: &[Sample]) {
    let settled_after = SETTLED_AFTER.min(samples.last().expect("samples").at / 4);
    let settled = samples.iter().position(|sample| sample.at >= settled_after).expect("a sample");
    let level = |samples: &[Sample]| {
        let mut sizes: Vec<u64> = samples.iter().map(|sample| sample.resident_kib).collect();
        sizes.sort_unstable();
        sizes[sizes.len() / 2]
    };
    let count = LEVEL_SAMPLES.min(samples.len().div_ceil(4));
    let first = level(&samples[settled..(settled + count).min(samples.len())]);
    let last = level(&samples[samples.len() - count..]);
    let growth = last as f64 / first as f64 - 1.0;
    println!("memory: {first} KiB when settled, {last} KiB at the end: {:+.1} %", growth * 100.0);
    assert!(growth <= GROWTH_MAX, "more than {:.0} %", GROWTH_MAX * 100.0);
}
