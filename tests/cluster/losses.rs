//! Two of three brokers are lost, and come back.

use std::time::{Duration, Instant};

use crate::brokers::{BROKERS, deployment};
use crate::leader::{LOAD, account};
use crate::outage::Service;
use crate::rounds;
use crate::writers::{Target, Writers};

/// Longest until the last write that two brokers still had is answered.
const LAST_ANSWERS: Duration = Duration::from_secs(4);
/// How long they are away then.
const AWAY: Duration = Duration::from_secs(10);

#[test]
fn two_of_three_brokers_are_lost_and_come_back() {
    for round in 0..rounds() {
        let deployment = deployment();
        let _workers = deployment.workers::<2>();
        let api = deployment.serve();
        let writers = Writers::start(LOAD, &[Target::new(api.address)]);
        writers.await_accepted(500);
        let lost = [BROKERS[round % 3], BROKERS[(round + 1) % 3]].map(|broker| Service::Broker(broker).kill());
        std::thread::sleep(LAST_ANSWERS);
        let before = writers.accepted();
        writers.await_refused(100);
        std::thread::sleep(AWAY);
        assert_eq!(writers.accepted(), before, "one replica is not two");
        writers.await_refused(100);
        // Reading goes on, and the API says what is wrong.
        api.await_trouble("command_log");
        lost.into_iter().for_each(|outage| outage.end());
        let back_at = Instant::now();
        writers.await_accepted(500);
        account("two of three brokers lost (-9)", &deployment, &api, writers, back_at);
    }
}
