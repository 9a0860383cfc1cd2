//! Two API processes, and workers that come and go.

use std::time::{Duration, Instant};

use crate::deployment::Deployment;
use crate::verdict::{await_shown, judge};
use crate::writers::{Load, Target, Writers};

/// Writes of a usual run; FAULTS_WRITES overrides it.
const WRITES: usize = 20_000;
/// The writes are spread over at least so long: a killed worker's partitions are then taken over before the last one.
const SPREAD: Duration = Duration::from_secs(10);

#[test]
fn a_worker_is_killed_under_writes_through_two_apis() {
    let writes = std::env::var("FAULTS_WRITES").map_or(WRITES, |text| text.parse().expect("FAULTS_WRITES is a number"));
    let deployment = Deployment::beside_others();
    let [first, _second] = deployment.workers();
    let apis = [deployment.serve(), deployment.serve()];
    let both = [&apis[0], &apis[1]];
    let load = Load { connections: 8, goal: writes, ..Load::default() };
    let groups = writes / (load.connections * load.depth);
    let load = Load { pause: SPREAD / u32::try_from(groups).expect("not that many"), ..load };
    let writers = Writers::start(load, &both.map(|api| Target::new(api.address)));
    writers.await_accepted(writes / 10);
    first.signal(libc::SIGKILL);
    let history = writers.until_goal();
    let healed = await_shown(&both, &history, history.last_accepted_at.expect("there were some"));
    judge("two APIs, one of two workers killed; healed counts from the last 202", &deployment, &both, &history, healed);
}

#[test]
fn workers_come_and_go_under_writes() {
    replace_workers(&Deployment::beside_others(), "workers replaced three times");
}

#[test]
#[ignore = "long: a part of `make test-full`"]
fn workers_of_two_lanes_come_and_go_under_writes() {
    replace_workers(&Deployment::beside_others().with_lanes(2), "workers of two lanes replaced three times");
}

fn replace_workers(deployment: &Deployment, fault: &str) {
    let [mut oldest] = deployment.workers();
    let apis = [deployment.serve(), deployment.serve()];
    let both = [&apis[0], &apis[1]];
    let writers = Writers::start(Load::default(), &both.map(|api| Target::new(api.address)));
    for _ in 0..3 {
        let next = deployment.worker();
        deployment.await_members(2);
        writers.await_accepted(300);
        oldest.signal(libc::SIGTERM);
        assert!(std::mem::replace(&mut oldest, next).finish().status.success());
        writers.await_accepted(300);
    }
    let history = writers.finish();
    let healed = await_shown(&both, &history, Instant::now());
    judge(fault, deployment, &both, &history, healed);
}
