//! The deployment of several machines under faults: real processes, real PostgreSQL, Kafka and Redis, each killed,
//! frozen, cut off or emptied while clients write, and a network between them that is slow, cut or silent.
//!
//! Every test ends with the same account ([`verdict`]): what the clients were promised against what stands in the command
//! log, in the store and in the list of every API process. `make test` starts the servers and sets DATABASE_URL,
//! REDIS_URL, KAFKA_BROKERS and SERVICES_DIR (for stopping them). Tests that stop what all share run one after the other,
//! those that stop their own processes and harm their own links alone side by side; each has a database and a topic of its
//! own. One line for each fault goes to stderr.

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "other suites use the rest of it")]
mod harness;
#[path = "../harness/proxy.rs"]
#[allow(dead_code, reason = "the other suite uses the rest of it")]
mod proxy;

mod deployment;
mod history;
mod log;
mod network;
mod outage;
mod partitions;
mod readers;
mod rolling;
#[cfg(feature = "fault-injection")]
mod threads;
mod verdict;
mod waiting;
mod writers;

mod absent;
mod another_log;
mod api;
mod away;
mod broker;
mod events;
mod fleet;
mod handover;
mod idempotency;
mod java;
mod later_leader;
mod life;
mod links;
mod measured;
mod older_store;
mod original;
mod poison;
mod pooled;
#[path = "../services/pooler.rs"]
mod pooler;
mod port;
mod postgres;
mod read_your_writes;
mod redis;
mod redis_limits;
mod replay;
mod rest;
mod second_writer;
mod site;
mod takeover;
mod worker;

use std::time::Duration;

use crate::harness::healing::{say_past_the_runner, within_time};

/// How long anything may take to heal before a test gives up. No test measures time more tightly than its meaning asks.
const HEALING_MAX: Duration = Duration::from_secs(60);

/// Looks again and again, for [`HEALING_MAX`] at most.
#[track_caller]
fn within<T>(what: &str, look: impl FnMut() -> Option<T>) -> (T, Duration) {
    within_time(HEALING_MAX, what, look)
}

/// Writes one line past the test runner.
fn say(line: &str) {
    say_past_the_runner("fault", line);
}
