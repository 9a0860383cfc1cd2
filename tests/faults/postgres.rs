//! The store crashes under the workers, and their connections are cut.

use std::time::{Duration, Instant};

use crate::deployment::Deployment;
use crate::outage::Service;
use crate::say;
use crate::verdict::{await_shown, judge};
use crate::writers::{Load, Target, Writers};

#[test]
fn postgres_is_restarted_in_immediate_mode_while_batches_are_applied() {
    restart_while_batches_are_applied(&Deployment::new(), "PostgreSQL restarted in immediate mode twice");
}

#[test]
#[ignore = "long: a part of `make test-full`"]
fn postgres_is_restarted_in_immediate_mode_while_two_lanes_apply_batches() {
    restart_while_batches_are_applied(
        &Deployment::new().with_lanes(2),
        "PostgreSQL restarted in immediate mode twice under two lanes",
    );
}

fn restart_while_batches_are_applied(deployment: &Deployment, fault: &str) {
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
    judge(fault, deployment, &[&api], &history, healed);
}

#[test]
fn postgres_is_frozen_while_a_worker_of_two_lanes_is_killed() {
    let deployment = Deployment::new().with_lanes(2);
    let [first, _second] = deployment.workers();
    let api = deployment.serve();
    let writers = Writers::start(Load::default(), &[Target::new(api.address)]);
    writers.await_accepted(500);
    let outage = Service::Postgres.freeze();
    // The log takes writes all the same. The lanes of the other worker get partitions whose last batch may still be
    // committed, while they wait for batches of their own.
    writers.await_accepted(300);
    first.signal(libc::SIGKILL);
    deployment.await_members(1);
    writers.await_accepted(300);
    outage.end();
    let thawed_at = Instant::now();
    writers.await_accepted(300);
    let history = writers.finish();
    let healed = await_shown(&[&api], &history, thawed_at);
    let fault = "PostgreSQL frozen while one of two workers of two lanes is killed (-9)";
    judge(fault, &deployment, &[&api], &history, healed);
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

/// Longest that processes may take to end which have nothing to answer: THREADS_STOP_TIMEOUT_MS of the program, and what a
/// busy machine takes. Far less than the 20 s for which PostgreSQL's answer is waited for.
const STOP_MAX: Duration = Duration::from_secs(12);

#[test]
fn processes_that_are_told_to_stop_end_although_postgres_is_silent() {
    // The list expires at once, so that the refresher waits for PostgreSQL too.
    let deployment = Deployment::new().set("CACHE_TTL_SEC", "1").behind_network(&["DATABASE_URL"]);
    let [worker] = deployment.workers();
    let both = deployment.run();
    deployment.await_members(2);
    let writers = Writers::start(Load::default(), &[Target::new(both.address)]);
    writers.await_accepted(300);
    let open = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'";
    crate::within("workers in mid transaction", || {
        deployment.network().postgres.black_hole();
        std::thread::sleep(Duration::from_millis(100));
        let is_caught = deployment.query(open).len() == 2;
        if !is_caught {
            deployment.network().postgres.heal();
            std::thread::sleep(Duration::from_millis(20));
        }
        is_caught.then_some(())
    });
    writers.await_accepted(300);
    let told_at = Instant::now();
    both.process.signal(libc::SIGTERM);
    worker.signal(libc::SIGTERM);
    let ended = [both.process.finish(), worker.finish()];
    let took = told_at.elapsed();
    assert!(ended.iter().all(|process| process.status.success()), "{ended:?}");
    assert!(took < STOP_MAX, "the processes ended after {took:?}");
    deployment.network().postgres.heal();
    let history = writers.finish();
    let _worker = deployment.workers::<1>();
    let api = deployment.serve();
    let healed = await_shown(&[&api], &history, Instant::now());
    say(&format!("told to stop while PostgreSQL is silent: both processes ended after {:.1} s", took.as_secs_f64()));
    judge("processes stopped while PostgreSQL is silent", &deployment, &[&api], &history, healed);
}
