//! An API process that ends under writes.

use std::time::Instant;

use crate::deployment::Deployment;
use crate::verdict::{await_shown, judge};
use crate::writers::{Load, Target, Writers};

#[test]
fn an_api_process_is_killed() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<1>();
    let (mut first, second) = (deployment.serve(), deployment.serve());
    let targets = [Target::new(first.address), Target::new(second.address)];
    let writers = Writers::start(Load::default(), &targets);
    let mut killed_at = Instant::now();
    for _ in 0..3 {
        writers.await_accepted(500);
        first.process.signal(libc::SIGKILL);
        killed_at = Instant::now();
        first = deployment.serve();
        targets[0].move_to(first.address);
    }
    writers.await_accepted(500);
    let history = writers.finish();
    let healed = await_shown(&[&first, &second], &history, killed_at);
    judge("API killed (-9) three times", &deployment, &[&first, &second], &history, healed);
}

#[test]
fn an_api_process_is_told_to_stop() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<1>();
    let first = deployment.serve();
    let target = Target::new(first.address);
    let writers = Writers::start(Load::default(), std::slice::from_ref(&target));
    writers.await_accepted(1_000);
    first.process.signal(libc::SIGTERM);
    let told_at = Instant::now();
    let ended = first.process.finish();
    assert!(ended.status.success(), "{ended:?}");
    let second = deployment.serve();
    target.move_to(second.address);
    writers.await_accepted(500);
    let history = writers.finish();
    let healed = await_shown(&[&second], &history, told_at);
    let account = judge("API told to stop (SIGTERM)", &deployment, &[&second], &history, healed);
    assert_eq!(account.found_unpromised, 0, "what was taken was also acknowledged");
}
