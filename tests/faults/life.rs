//! What an operator sees of a worker's life, and how long a write waits for one: the first of a fresh deployment, and the
//! first after a worker was stopped or killed. The times are told, not judged: they are mostly the broker's.

use std::time::{Duration, Instant};

use crate::deployment::{Api, Deployment};
use crate::harness::client::Client;
use crate::harness::is_well;
use crate::harness::process::Process;
use crate::harness::request::{get, post};
use crate::harness::token::token;
use crate::outage::Service;
use crate::worker::SESSION_TIMEOUT;
use crate::{say, within};

/// Writes one todo and says how long after `since` the list shows it.
fn shown_after(api: &Api, title: &str, since: Instant) -> Duration {
    api.connect().call(&post(&token("anna"), format!(r#"{{"title":"{title}"}}"#))).expect(202);
    within(&format!("the todo {title:?} in the list"), || api.list().text().contains(title).then_some(()));
    since.elapsed()
}

fn tell(what: &str, took: Duration) {
    say(&format!("{what}: a write was shown after {:.1} s", took.as_secs_f64()));
}

fn stop(worker: Process, signal: i32) {
    worker.signal(signal);
    worker.finish();
}

#[test]
fn writes_wait_for_the_first_worker_and_for_its_successors() {
    let deployment = Deployment::new();
    let started_at = Instant::now();
    let first = deployment.worker();
    let api = deployment.serve();
    say(&format!("fresh deployment: /ready after {:.1} s", started_at.elapsed().as_secs_f64()));
    tell("fresh deployment", shown_after(&api, "first", started_at));
    tell("a worker that runs", shown_after(&api, "second", Instant::now()));
    stop(first, libc::SIGTERM);
    let restarted_at = Instant::now();
    let second = deployment.worker();
    tell("worker stopped (SIGTERM) and started", shown_after(&api, "third", restarted_at));
    stop(second, libc::SIGKILL);
    let restarted_at = Instant::now();
    let third = deployment.worker();
    tell("worker killed (-9) and started", shown_after(&api, "fourth", restarted_at));
    if std::env::var_os("SHOW").is_some() {
        println!("API\n{}\nWORKER\n{}", api.process.stderr.text(), third.stderr.text());
    }
}

/// Waits until a process has logged this, and returns the rest of the line.
#[track_caller]
fn logged(process: &Process, text: &str) -> String {
    let line =
        || process.stderr.text().split_once(text).and_then(|(_, rest)| Some(rest.split_once('\n')?.0.to_owned()));
    within(&format!("the log's line {text:?}"), line).0
}

fn write(api: &Api, count: usize) {
    let mut client = api.connect();
    for number in 0..count {
        client.call(&post(&token("anna"), format!(r#"{{"title":"todo {number}"}}"#))).expect(202);
    }
}

#[test]
fn a_worker_logs_its_life() {
    let deployment = Deployment::beside_others();
    let first = deployment.worker();
    logged(&first, &format!("the worker looks for Kafka's topic {} at ", deployment.topic));
    logged(
        &first,
        &format!("the worker joins the group {} and waits for its share of the 8 partitions", deployment.group),
    );
    logged(&first, "the worker was given partitions 0 to 7; it has 8 partitions of the log now");
    logged(&first, "the worker has no backlog");
    let api = deployment.serve();
    write(&api, 1);
    logged(&first, "the worker has applied its first batch: 1 command");
    // Half of them go to another.
    let second = deployment.worker();
    let lost = logged(&first, "the worker has lost ");
    assert!(lost.ends_with("it has 4 partitions of the log now"), "{lost}");
    logged(&second, "it has 4 partitions of the log now");
    for worker in [first, second] {
        stop(worker, libc::SIGTERM);
    }
    write(&api, 300);
    let third = deployment.worker();
    let backlog = logged(&third, "the worker begins with a backlog: ");
    assert!(backlog.contains("commands not applied yet, the oldest "), "{backlog}");
    logged(&third, "the worker has worked off its backlog: ");
    let lines = third.stderr.text().lines().filter(|line| line.contains("the worker ")).count();
    assert!(lines <= 8, "one line each: {}", third.stderr.text());
}

#[test]
fn an_api_says_when_no_worker_is_there() {
    let deployment = Deployment::beside_others();
    let api = deployment.serve_unready("serve");
    let missing = format!("no worker is there: Kafka's group {} has no members", deployment.group);
    within("the greeting's line", || api.process.stdout.text().contains(&format!("For now, {missing}")).then_some(()));
    // The schema is a worker's to make, or migrate's.
    assert!(deployment.command(&["migrate"]).status.success());
    within("readiness", || (api.ready().0 == 200).then_some(()));
    write(&api, 3);
    api.await_trouble(&format!("workers: {missing}. Writes are kept and do not show, 3 so far"));
    let worker = deployment.worker();
    within("the writes", || (api.list().json().as_array().map(Vec::len) == Some(3)).then_some(()));
    api.await_well();
    let beside = deployment.serve();
    beside.await_well();
    assert!(!beside.process.stdout.text().contains("For now"), "{}", beside.process.stdout.text());
    stop(worker, libc::SIGKILL);
    api.await_trouble(&missing);
    assert_eq!(api.metric("million_rps_component_up{component=\"workers\"}"), 0.0);
}

#[test]
fn a_backlog_shows_at_the_worker_and_at_the_api() {
    let deployment = Deployment::new().set("WORKER_HTTP_PORT", "0");
    let [worker] = deployment.workers();
    let line = within("the worker's address", || worker.stdout.text().lines().next().map(str::to_owned)).0;
    let address = line.strip_prefix("million-rps worker listens on http://").expect("an address").parse().expect("one");
    let api = deployment.serve();
    write(&api, 1);
    logged(&worker, "the worker has applied its first batch");
    let outage = Service::Postgres.end_immediately();
    let late = deployment.worker();
    logged(&late, "the worker waits for the database");
    write(&api, 5);
    api.await_trouble("workers: the workers are behind by 5 writes: the oldest has waited for more than 1");
    within("the worker's own trouble", || {
        let document = Client::connect(address).call(&get("/ready")).expect(200).json();
        document["reasons"].to_string().contains("workers: 5 commands not applied yet, the oldest ").then_some(())
    });
    outage.end();
    logged(&late, "the worker has the database, and goes on");
    api.await_well();
    within("a worker that is well", || is_well(&Client::connect(address).call(&get("/ready")).json()).then_some(()));
    logged(&worker, "the worker has worked off its backlog: ");
}

#[test]
fn a_worker_takes_the_place_of_one_that_was_killed_on_its_machine_and_leaves_it_to_others_when_it_is_told_to_stop() {
    let deployment = Deployment::beside_others().set("KAFKA_GROUP_INSTANCE_ID", "auto");
    let [first] = deployment.workers();
    let api = deployment.serve();
    shown_after(&api, "first", Instant::now());
    stop(first, libc::SIGKILL);
    let killed_at = Instant::now();
    let second = deployment.worker();
    let took = shown_after(&api, "second", killed_at);
    tell("worker of a kept name killed (-9) and started", took);
    assert!(took < SESSION_TIMEOUT, "nobody waited for the session of the one that was killed: {took:?}");
    // Two that live have two names; one that says goodbye is waited for by nobody.
    let third = deployment.worker();
    deployment.await_members(2);
    stop(second, libc::SIGTERM);
    let stopped_at = Instant::now();
    let took = (0..8).map(|number| shown_after(&api, &format!("third {number}"), stopped_at)).max().expect("some");
    tell("worker of a kept name stopped (SIGTERM), another takes over", took);
    assert!(took < SESSION_TIMEOUT, "it has left the group: {took:?}");
    stop(third, libc::SIGTERM);
}
