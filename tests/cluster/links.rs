//! The network between brokers, and to one of them.

use std::time::{Duration, Instant};

use crate::brokers::{BROKERS, CutOff, askers_of, clients_of, deployment, heal};
use crate::leader::{LOAD, account};
use crate::rounds;
use crate::writers::{Target, Writers};

/// How long a broker is cut off: longer than the others wait for a replica.
const AWAY: Duration = Duration::from_secs(12);
/// What a slow broker takes longer for each answer.
const SLOWNESS: Duration = Duration::from_millis(200);
/// A rate that is no bound.
const ANY_RATE: u32 = u32::MAX;

#[test]
fn a_broker_is_cut_off_from_the_others() {
    for broker in BROKERS.into_iter().take(rounds()) {
        let deployment = deployment();
        let _workers = deployment.workers::<2>();
        let api = deployment.serve();
        let writers = Writers::start(LOAD, &[Target::new(api.address)]);
        writers.await_accepted(500);
        let cut = CutOff::new(broker);
        std::thread::sleep(AWAY);
        // Those of the other two brokers.
        writers.await_accepted(100);
        writers.await_refused(1);
        drop(cut);
        let healed_at = Instant::now();
        writers.await_accepted(500);
        account(&format!("broker {broker} cut off from the others"), &deployment, &api, writers, healed_at);
    }
}

#[test]
#[ignore = "long: a part of `make test-full`"]
fn a_broker_is_slow() {
    for broker in BROKERS.into_iter().rev().take(rounds()) {
        let deployment = deployment();
        let _workers = deployment.workers::<2>();
        let api = deployment.serve();
        let writers = Writers::start(LOAD, &[Target::new(api.address)]);
        writers.await_accepted(500);
        // Half each way.
        for proxy in [clients_of(broker), askers_of(broker)] {
            proxy.slow(SLOWNESS / 2, ANY_RATE);
        }
        std::thread::sleep(Duration::from_secs(5));
        writers.await_accepted(500);
        heal();
        let healed_at = Instant::now();
        writers.await_accepted(200);
        account(&format!("broker {broker} slow by 200 ms"), &deployment, &api, writers, healed_at);
    }
}
