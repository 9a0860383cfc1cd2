//! The broker dies, or falls silent, under writes.

use std::time::{Duration, Instant};

use crate::deployment::{ACK_TIMEOUT, Deployment};
use crate::outage::Service;
use crate::say;
use crate::verdict::{await_shown, judge};
use crate::writers::{Load, Target, Writers};

/// How much longer than its deadline an answer may take on a busy machine, before it counts as a hang.
const LENIENCY: Duration = Duration::from_secs(10);
/// Bytes of commands that may wait for the log.
const QUEUE_BYTES: u64 = 4 * 1024 * 1024;
/// How much the API may grow while the broker is away: the queue twice (here and in the broker's client, with their
/// overheads), and what the connections have in their buffers.
const GROWTH_MAX_BYTES: u64 = 64 * 1024 * 1024;

#[test]
fn the_broker_is_killed_and_started_again() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<2>();
    let api = deployment.serve();
    let writers = Writers::start(Load::default(), &[Target::new(api.address)]);
    writers.await_accepted(500);
    let outage = Service::Kafka.kill();
    writers.await_refused(50);
    api.await_trouble("command_log");
    outage.end();
    let back_at = Instant::now();
    writers.await_accepted(500);
    let history = writers.finish();
    let healed = await_shown(&[&api], &history, back_at);
    assert!(history.slowest_answer < ACK_TIMEOUT + LENIENCY, "an answer took {:?}", history.slowest_answer);
    let account = judge("broker killed (-9) and started again", &deployment, &[&api], &history, healed);
    assert_eq!(account.overtaken, 0, "a refused write came after a newer one");
    api.await_well();
}

#[test]
fn the_broker_is_frozen_under_a_flood() {
    let deployment =
        Deployment::new().set("WRITE_QUEUE_BYTES", &QUEUE_BYTES.to_string()).set("WRITE_QUEUE_COMMANDS", "4096");
    let _workers = deployment.workers::<2>();
    let api = deployment.serve();
    let calm = Writers::start(Load::default(), &[Target::new(api.address)]);
    calm.await_accepted(500);
    // More than the queue holds: 24 connections with 64 requests of 4 kB are 6 MB.
    let load = Load { connections: 24, depth: 64, todos: 64, description_bytes: 4_000, ..Load::default() };
    let flood = Writers::start(load, &[Target::new(api.address)]);
    flood.await_accepted(1_000);
    let before = api.resident_bytes();

    let outage = Service::Kafka.freeze();
    let frozen_at = Instant::now();
    let mut most = before;
    while frozen_at.elapsed() < Duration::from_secs(10) {
        most = most.max(api.resident_bytes());
        outage.last(Duration::from_millis(100));
    }
    flood.await_refused(1_000);
    outage.end();
    let thawed_at = Instant::now();
    calm.await_accepted(200);
    let mut history = flood.finish();
    history.merge(calm.finish());
    let healed = await_shown(&[&api], &history, thawed_at);
    say(&format!(
        "broker frozen: slowest answer {:.1} s, the API grew from {} to {} MiB",
        history.slowest_answer.as_secs_f64(),
        before >> 20,
        most >> 20
    ));
    assert!(history.slowest_answer < ACK_TIMEOUT + LENIENCY, "an answer took {:?}", history.slowest_answer);
    assert!(most < before + GROWTH_MAX_BYTES, "the API grew from {before} to {most} bytes");
    let account = judge("broker frozen for 10 s under a flood", &deployment, &[&api], &history, healed);
    assert_eq!(account.overtaken, 0, "a refused write came after a newer one");
    api.await_well();
}

#[test]
fn processes_that_are_told_to_stop_end_although_the_broker_is_frozen() {
    let deployment = Deployment::new();
    let [worker] = deployment.workers();
    let api = deployment.serve();
    let writers = Writers::start(Load::default(), &[Target::new(api.address)]);
    writers.await_accepted(300);
    let outage = Service::Kafka.freeze();
    writers.await_refused(10);
    let told_at = Instant::now();
    api.process.signal(libc::SIGTERM);
    worker.signal(libc::SIGTERM);
    let ended = [api.process.finish(), worker.finish()];
    let took = told_at.elapsed();
    assert!(ended.iter().all(|process| process.status.success()), "{ended:?}");
    outage.end();
    let history = writers.finish();
    let _worker = deployment.workers::<1>();
    let api = deployment.serve();
    let healed = await_shown(&[&api], &history, Instant::now());
    say(&format!("told to stop while the broker is frozen: both processes ended after {:.1} s", took.as_secs_f64()));
    judge("processes stopped while the broker is frozen", &deployment, &[&api], &history, healed);
}
