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
#[path = "../faults/waiting.rs"]
mod waiting;
#[path = "../faults/writers.rs"]
#[allow(dead_code, reason = "the suite `faults` uses the rest of it")]
mod writers;

mod brokers;
mod epochs;
mod leader;
mod links;
mod losses;
mod rest;

use std::time::Duration;

use crate::harness::healing::{say_past_the_runner, within_time};

/// How long anything may take to heal before a test gives up. No test measures time more tightly than its meaning asks.
const HEALING_MAX: Duration = Duration::from_secs(90);

/// Looks again and again, for [`HEALING_MAX`] at most.
#[track_caller]
fn within<T>(what: &str, look: impl FnMut() -> Option<T>) -> (T, Duration) {
    within_time(HEALING_MAX, what, look)
}

/// How often each fault comes.
fn rounds() -> usize {
    if std::env::var("MILLION_RPS_TEST").is_ok_and(|text| text == "full") { 3 } else { 1 }
}

/// Writes one line past the test runner.
fn say(line: &str) {
    say_past_the_runner("cluster", line);
}
