//! A Kafka cluster of three brokers under faults: three replicas of each topic, and a write is confirmed when two have it.
//!
//! The deployment, its clients and the account at the end are those of the suite `faults`. The brokers reach each other, and
//! are reached, through proxies ([`brokers`]). `tests/run.sh` starts the servers with `deploy/services.sh start DIR --brokers 3
//! --proxied`. With MILLION_RPS_TEST=full (`make test-full`) each fault meets every broker and comes again.

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "other suites use the rest of it")]
mod harness;
#[path = "../harness/proxy.rs"]
#[allow(dead_code, reason = "other suites use the rest of it")]
mod proxy;

#[path = "../faults/deployment.rs"]
#[allow(dead_code, reason = "the suite `faults` uses the rest of it")]
mod deployment;
#[path = "../faults/history.rs"]
mod history;
#[path = "../faults/log.rs"]
mod log;
#[path = "../faults/network.rs"]
#[allow(dead_code, reason = "the suite `faults` uses the rest of it")]
mod network;
#[path = "../faults/outage.rs"]
#[allow(dead_code, reason = "the suite `faults` uses the rest of it")]
mod outage;
#[path = "../faults/verdict.rs"]
mod verdict;
#[path = "../faults/writers.rs"]
#[allow(dead_code, reason = "the suite `faults` uses the rest of it")]
mod writers;

mod brokers;
mod epochs;
mod leader;
mod links;
mod losses;

use std::time::{Duration, Instant};

/// How long anything may take to heal before a test gives up. No test measures time more tightly than its meaning asks.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often each fault comes.
fn rounds() -> usize {
    if std::env::var("MILLION_RPS_TEST").is_ok_and(|text| text == "full") { 3 } else { 1 }
}

/// Looks again and again until `look` finds something; returns it and how long it took.
///
/// # Panics
/// When it has not after [`PATIENCE`].
#[track_caller]
fn within<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return (found, start.elapsed());
        }
        assert!(start.elapsed() < PATIENCE, "waited {} s in vain for {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Writes one line past the test runner, which hides what passing tests print.
fn say(line: &str) {
    use std::io::Write as _;
    // Nobody may be reading.
    let _ = writeln!(std::io::stderr(), "cluster: {line}");
}
