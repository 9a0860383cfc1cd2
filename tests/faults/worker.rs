//! Workers that end, or fall silent, under writes.

use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;

use crate::deployment::Deployment;
use crate::harness::process::Process;
use crate::outage::Service;
use crate::verdict::{await_shown, judge};
use crate::within;
use crate::writers::{Load, Target, Writers};

/// How long a worker may be silent before its partitions go to others (`SESSION_TIMEOUT_MS` of the program).
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

#[test]
fn a_worker_is_killed_while_it_applies() {
    kill_while_it_applies(&Deployment::beside_others(), "worker killed (-9), another takes over");
}

#[test]
#[ignore = "long: a part of `make test-full`"]
fn a_worker_of_two_lanes_is_killed_while_it_applies() {
    kill_while_it_applies(
        &Deployment::beside_others().with_lanes(2),
        "worker of two lanes killed (-9), another takes over",
    );
}

fn kill_while_it_applies(deployment: &Deployment, fault: &str) {
    let [first, _second] = deployment.workers();
    let api = deployment.serve();
    let writers = Writers::start(Load::default(), &[Target::new(api.address)]);
    writers.await_accepted(2_000);
    first.signal(libc::SIGKILL);
    let killed_at = Instant::now();
    writers.await_accepted(500);
    let history = writers.finish();
    let healed = await_shown(&[&api], &history, killed_at);
    judge(fault, deployment, &[&api], &history, healed);
}

#[test]
fn a_worker_is_killed_while_the_group_divides_its_partitions() {
    let deployment = Deployment::beside_others();
    let [first] = deployment.workers();
    let api = deployment.serve();
    let writers = Writers::start(Load::default(), &[Target::new(api.address)]);
    writers.await_accepted(500);
    let onlooker: BaseConsumer = deployment.client_config().create().expect("a client");
    let second = deployment.worker();
    within("the group's new division", || deployment.is_rebalancing(&onlooker).then_some(()));
    first.signal(libc::SIGKILL);
    let killed_at = Instant::now();
    writers.await_accepted(500);
    let history = writers.finish();
    let healed = await_shown(&[&api], &history, killed_at);
    judge("worker killed (-9) while the group divides its partitions", &deployment, &[&api], &history, healed);
    drop(second);
}

#[test]
fn a_worker_is_killed_between_its_commit_and_its_publishing() {
    let deployment = Deployment::new();
    let [first] = deployment.workers();
    let api = deployment.serve();
    let load = Load { connections: 1, ..Load::default() };
    let before = Writers::start(Load { goal: 50, ..load }, &[Target::new(api.address)]).until_goal();
    await_shown(&[&api], &before, Instant::now());
    let rows = || deployment.query("SELECT count(*) FROM todos")[0][0].clone();
    let rows_before = rows();

    // The worker commits, and finds nobody who takes its changes.
    let outage = Service::Redis.freeze();
    let mut history = Writers::start(Load { goal: 60, ..load }, &[Target::new(api.address)]).until_goal();
    within("a commit", || (rows() != rows_before).then_some(()));
    first.signal(libc::SIGKILL);
    outage.end();
    let _second = deployment.worker();
    let started_at = Instant::now();
    history.merge(before);
    let healed = await_shown(&[&api], &history, started_at);
    judge("worker killed (-9) between commit and publish", &deployment, &[&api], &history, healed);
}

#[test]
fn a_worker_is_told_to_stop() {
    let deployment = Deployment::new();
    let [first, _second] = deployment.workers();
    let api = deployment.serve();
    let writers = Writers::start(Load::default(), &[Target::new(api.address)]);
    writers.await_accepted(1_000);
    let told_at = Instant::now();
    first.signal(libc::SIGTERM);
    let ended = first.finish();
    assert!(ended.status.success(), "{ended:?}");
    let history = writers.finish();
    let healed = await_shown(&[&api], &history, told_at);
    // It said goodbye: nobody waits for its session to run out.
    assert!(healed < SESSION_TIMEOUT, "the partitions were handed over after {healed:?}");
    judge("worker told to stop (SIGTERM)", &deployment, &[&api], &history, healed);
}

#[test]
fn a_worker_that_was_stopped_in_mid_transaction_wakes_when_its_partitions_have_moved() {
    stop_until_its_partitions_have_moved(&Deployment::beside_others(), "worker");
}

#[test]
#[ignore = "long: a part of `make test-full`"]
fn a_worker_of_two_lanes_that_was_stopped_in_mid_transaction_wakes_when_its_partitions_have_moved() {
    stop_until_its_partitions_have_moved(&Deployment::beside_others().with_lanes(2), "worker of two lanes");
}

fn stop_until_its_partitions_have_moved(deployment: &Deployment, who: &str) {
    let [first, _second] = deployment.workers();
    let api = deployment.serve();
    let writers = Writers::start(Load::default(), &[Target::new(api.address)]);
    writers.await_accepted(500);
    stop_in_mid_transaction(deployment, &first);
    let stopped_at = Instant::now();
    deployment.await_members(1);
    // The other one has everything now, and moves on. The first wakes with a transaction in its hands, and believes that
    // it is the owner.
    writers.await_accepted(500);
    first.signal(libc::SIGCONT);
    let away = stopped_at.elapsed();
    let woken_at = Instant::now();
    deployment.await_members(2);
    writers.await_accepted(500);
    let history = writers.finish();
    await_shown(&[&api], &history, Instant::now());
    let fault = format!("{who} stopped (SIGSTOP) in mid transaction for {:.1} s", away.as_secs_f64());
    judge(&fault, deployment, &[&api], &history, woken_at.elapsed());
}

/// Stops a worker and looks where that has caught it, until it has left a transaction open.
fn stop_in_mid_transaction(deployment: &Deployment, worker: &Process) {
    let open = || {
        deployment.query(
            "SELECT pid, xact_start FROM pg_stat_activity \
             WHERE datname = current_database() AND state = 'idle in transaction'",
        )
    };
    within("a worker caught in mid transaction", || {
        worker.signal(libc::SIGSTOP);
        let before = open();
        std::thread::sleep(Duration::from_millis(50));
        // The same one: those of the other worker come and go.
        if open().iter().any(|transaction| before.contains(transaction)) {
            return Some(());
        }
        worker.signal(libc::SIGCONT);
        None
    });
}
