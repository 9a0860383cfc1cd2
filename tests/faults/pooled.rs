//! The whole deployment behind PgBouncer in transaction mode: few sessions for all, each for a transaction at a time.

use std::time::Instant;

use crate::deployment::{Deployment, required};
use crate::pooler::Pooler;
use crate::verdict::{await_shown, judge};
use crate::writers::{Load, Target, Writers};

#[test]
fn workers_and_apis_share_few_sessions_of_a_pooler() {
    let pooler = Pooler::start(&required("DATABASE_URL"), 2, "pool_mode = transaction");
    let deployment = Deployment::beside_others().with_lanes(2);
    let through = pooler.through(&deployment.setting("DATABASE_URL"));
    let deployment = deployment.set("DATABASE_URL", &through);
    let [first, second] = deployment.workers();
    let apis = [deployment.serve(), deployment.serve()];
    let targets = apis.each_ref().map(|api| Target::new(api.address));
    let load = Load { writes_of_a_todo: 3, goal: 2_000, ..Load::default() };
    let history = Writers::start(load, &targets).until_goal();
    let healed = await_shown(&[&apis[0], &apis[1]], &history, Instant::now());
    judge("behind a pooler", &deployment, &[&apis[0], &apis[1]], &history, healed);
    for worker in [&first, &second] {
        assert!(!worker.stderr.text().contains("already exists"), "{}", worker.stderr.text());
    }
}
