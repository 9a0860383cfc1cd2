//! A worker takes over a topic of many partitions: how long a write waits for it, and what Kafka's own tools show then.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::deployment::{Api, Deployment};
use crate::harness::request::post;
use crate::harness::token::token;
use crate::worker::SESSION_TIMEOUT;
use crate::{HEALING_MAX, say, within};

/// Partitions of a topic for many workers.
const PARTITIONS: usize = 64;
/// Longest that a takeover may take, beside what the group waits for a member that says nothing. It takes less than 2 s on a
/// machine that does nothing else; one that asks for each partition in turn takes half a minute.
const TAKEOVER_MAX: Duration = Duration::from_secs(12);

/// Writes todos until each partition has some, and waits until they are stored.
fn fill(deployment: &Deployment, api: &Api) {
    let mut client = api.connect();
    for number in 0..2 * PARTITIONS {
        client.call(&create(number)).expect(202);
    }
    await_stored(deployment, 2 * PARTITIONS);
}

fn create(number: usize) -> crate::harness::request::Request {
    post(&token("anna"), format!(r#"{{"title":"todo {number}"}}"#))
}

fn await_stored(deployment: &Deployment, todos: usize) {
    within("the store to have what was acknowledged", || {
        let rows = deployment.query("SELECT count(*) FROM todos")[0][0].clone();
        (rows == Some(todos.to_string())).then_some(())
    });
}

/// Writes one todo and says how long after `since` it was stored.
fn stored_after(deployment: &Deployment, api: &Api, since: Instant) -> Duration {
    let before: usize =
        deployment.query("SELECT count(*) FROM todos")[0][0].as_ref().expect("a count").parse().expect("a number");
    api.connect().call(&create(before)).expect(202);
    await_stored(deployment, before + 1);
    since.elapsed()
}

fn assert_quick(what: &str, took: Duration, waited_for: Duration) {
    say(&format!("{what}, {PARTITIONS} partitions: a write was stored after {:.1} s", took.as_secs_f64()));
    assert!(took < waited_for + TAKEOVER_MAX, "{what}: a write was stored after {took:?}");
}

/// Waits until the group's offsets, as Kafka's own tools show them, are at the ends of all partitions: their lag is 0.
fn await_no_lag(deployment: &Deployment) {
    let consumer: BaseConsumer = deployment
        .client_config()
        .set("group.id", &deployment.group)
        .set("enable.auto.commit", "false")
        .create()
        .expect("a client");
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(&deployment.topic, 0, PARTITIONS as i32 - 1);
    let lags = || {
        let committed = consumer.committed_offsets(asked.clone(), Duration::from_secs(10)).ok()?;
        let lag = |partition: i32, committed: Option<i64>| {
            let (_, end) = consumer.fetch_watermarks(&deployment.topic, partition, Duration::from_secs(10)).ok()?;
            Some((partition, end - committed.unwrap_or(0).max(0)))
        };
        let lags = committed.elements().into_iter().map(|element| lag(element.partition(), element.offset().to_raw()));
        Some(lags.collect::<Option<Vec<_>>>()?.into_iter().filter(|(_, lag)| *lag != 0).collect::<Vec<_>>())
    };
    let give_up_at = Instant::now() + HEALING_MAX;
    let mut behind = lags();
    while behind.as_ref().is_none_or(|behind| !behind.is_empty()) {
        assert!(
            Instant::now() < give_up_at,
            "by partition, the lag that Kafka's tools show does not end at 0: {behind:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
        behind = lags();
    }
}

#[test]
fn a_worker_is_restarted_on_a_quiet_topic_of_many_partitions() {
    restart(&Deployment::beside_others().with_partitions(PARTITIONS), "worker");
}

#[test]
fn a_worker_of_four_lanes_is_restarted_on_a_quiet_topic_of_many_partitions() {
    restart(&Deployment::beside_others().with_partitions(PARTITIONS).with_lanes(4), "worker of four lanes");
}

fn restart(deployment: &Deployment, who: &str) {
    let [first] = deployment.workers();
    let api = deployment.serve();
    fill(deployment, &api);
    first.signal(libc::SIGTERM);
    assert!(first.finish().status.success());
    let started_at = Instant::now();
    let second = deployment.worker();
    assert_quick(&format!("{who} restarted (SIGTERM)"), stored_after(deployment, &api, started_at), Duration::ZERO);
    // What it has applied and not committed is its successor's to commit, also when nothing more comes.
    deployment.await_members(1);
    fill_once_more_and_kill(deployment, &api, &second);
    let started_at = Instant::now();
    let _third = deployment.worker();
    assert_quick(
        &format!("{who} killed (-9) and restarted"),
        stored_after(deployment, &api, started_at),
        SESSION_TIMEOUT,
    );
    await_no_lag(deployment);
}

/// Kills the worker in the moment in which the last write is stored: before it has told Kafka of it.
fn fill_once_more_and_kill(deployment: &Deployment, api: &Api, worker: &crate::harness::process::Process) {
    stored_after(deployment, api, Instant::now());
    worker.signal(libc::SIGKILL);
}

#[test]
fn a_worker_takes_over_from_another_on_a_quiet_topic_of_many_partitions() {
    let deployment = Deployment::beside_others().with_partitions(PARTITIONS);
    let [first, second] = deployment.workers();
    let api = deployment.serve();
    fill(&deployment, &api);
    first.signal(libc::SIGTERM);
    let told_at = Instant::now();
    assert!(first.finish().status.success());
    // Into the partitions of both.
    let took = (0..4).map(|_| stored_after(&deployment, &api, told_at)).max().expect("four");
    assert_quick("worker stopped (SIGTERM), another takes over", took, Duration::ZERO);
    let third = deployment.worker();
    deployment.await_members(2);
    stored_after(&deployment, &api, Instant::now());
    second.signal(libc::SIGKILL);
    let killed_at = Instant::now();
    let took = (0..PARTITIONS / 4).map(|_| stored_after(&deployment, &api, killed_at)).max().expect("some");
    assert_quick("worker killed (-9), another takes over", took, SESSION_TIMEOUT);
    await_no_lag(&deployment);
    drop(third);
}
