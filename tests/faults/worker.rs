//! Workers that end, or fall silent, under writes.

use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;

use crate::deployment::Deployment;
use crate::outage::Service;
use crate::verdict::{await_shown, judge};
use crate::writers::{Load, Target, Writers};
use crate::{say, within};

/// How long a worker may be silent before its partitions go to others (`SESSION_TIMEOUT_MS` of the program).
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

#[test]
fn a_worker_is_killed_while_it_applies() {
    let deployment = Deployment::new();
    let [first, _second] = deployment.workers();
    let api = deployment.serve();
    let writers = Writers::start(Load::default(), &[Target::new(api.address)]);
    writers.await_accepted(2_000);
    first.signal(libc::SIGKILL);
    let killed_at = Instant::now();
    writers.await_accepted(500);
    let history = writers.finish();
    let healed = await_shown(&[&api], &history, killed_at);
    judge("worker killed (-9), another takes over", &deployment, &[&api], &history, healed);
}

#[test]
fn a_worker_is_killed_while_the_group_divides_its_partitions() {
    let deployment = Deployment::new();
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
fn a_stopped_worker_wakes_when_its_partitions_have_moved() {
    let deployment = Deployment::new();
    let [first, _second] = deployment.workers();
    let api = deployment.serve();
    let writers = Writers::start(Load::default(), &[Target::new(api.address)]);
    writers.await_accepted(1_000);
    first.signal(libc::SIGSTOP);
    let stopped_at = Instant::now();
    deployment.await_members(1);
    // The other one has everything now. The first wakes with what it held in its hands, and believes it is the owner.
    writers.await_accepted(200);
    first.signal(libc::SIGCONT);
    deployment.await_members(2);
    writers.await_accepted(1_000);
    let history = writers.finish();
    let healed = await_shown(&[&api], &history, Instant::now());
    say(&format!("the stopped worker was away for {:.1} s", stopped_at.elapsed().as_secs_f64()));
    judge("worker stopped (SIGSTOP) until its partitions had moved", &deployment, &[&api], &history, healed);
}
