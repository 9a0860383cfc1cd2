//! Workers that end, or fall silent, under writes.

use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;

use crate::deployment::Deployment;
use crate::outage::Service;
use crate::verdict::{await_shown, judge};
use crate::within;
use crate::writers::{Load, Target, Writers};

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
