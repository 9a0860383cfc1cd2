//! The store crashes under the workers, and their connections are cut.

use std::time::Instant;

use crate::deployment::Deployment;
use crate::outage::Service;
use crate::verdict::{await_shown, judge};
use crate::writers::{Load, Target, Writers};

#[test]
fn postgres_is_restarted_in_immediate_mode_while_batches_are_applied() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<2>();
    let api = deployment.serve();
    let writers = Writers::start(Load::default(), &[Target::new(api.address)]);
    let mut back_at = Instant::now();
    for _ in 0..2 {
        writers.await_accepted(500);
        let outage = Service::Postgres.end_immediately();
        // The log takes writes all the same.
        writers.await_accepted(300);
        outage.end();
        back_at = Instant::now();
    }
    writers.await_accepted(300);
    let history = writers.finish();
    let healed = await_shown(&[&api], &history, back_at);
    judge("PostgreSQL restarted in immediate mode twice", &deployment, &[&api], &history, healed);
}

#[test]
fn connections_to_postgres_are_cut_while_batches_are_applied() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<2>();
    let api = deployment.serve();
    let writers = Writers::start(Load::default(), &[Target::new(api.address)]);
    let mut ended = 0;
    for _ in 0..30 {
        writers.await_accepted(50);
        ended += deployment
            .query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .len();
    }
    let cut_at = Instant::now();
    assert!(ended > 0, "there was no connection to cut");
    let history = writers.finish();
    let healed = await_shown(&[&api], &history, cut_at);
    judge(&format!("{ended} connections to PostgreSQL cut"), &deployment, &[&api], &history, healed);
}
