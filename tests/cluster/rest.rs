//! Processes some of whose brokers are killed wait at rest for them.

use std::time::Instant;

use crate::brokers::{await_in_sync, heal};
use crate::deployment::{Deployment, required};
use crate::outage::{Outage, Service};
use crate::say;
use crate::verdict::await_shown;
use crate::waiting::{DeadPort, assert_at_rest};
use crate::writers::{Load, Target, Writers};

/// A dead broker whose port counts who connects to it.
struct Dead {
    port: DeadPort,
    outage: Outage,
}

#[test]
fn processes_whose_brokers_are_killed_wait_at_rest() {
    heal();
    // Straight to the brokers: a proxy would take the connections to a dead one.
    let deployment = Deployment::new().with_lanes(2);
    await_in_sync(&deployment);
    let [worker] = deployment.workers();
    let api = deployment.serve();
    let mut history = Writers::start(Load { goal: 300, ..Load::default() }, &[Target::new(api.address)]).until_goal();
    await_shown(&[&api], &history, Instant::now());
    let processes = [("the API", &api.process), ("the worker", &worker)];
    let brokers = required("KAFKA_BROKERS");
    let addresses: Vec<&str> = brokers.split(',').collect();
    let mut dead: Vec<Dead> = Vec::new();
    for broker in [1, 2] {
        let outage = Service::Broker(broker).kill();
        let fault = format!("{broker} of 3 brokers killed");
        assert_at_rest(&format!("{fault} a moment ago"), &processes, []);
        dead.push(Dead { port: DeadPort::at(addresses[broker as usize - 1]), outage });
        let attempts = || dead.iter().map(|dead| dead.port.connections()).sum();
        assert_at_rest(&format!("{fault}, their ports close each connection"), &processes, [("attempts", &attempts)]);
    }
    std::thread::scope(|both| {
        for Dead { port, outage } in dead {
            drop(port);
            both.spawn(|| outage.end());
        }
    });
    let healed_at = Instant::now();
    history.merge(Writers::start(Load { goal: 300, ..Load::default() }, &[Target::new(api.address)]).until_goal());
    let healed = await_shown(&[&api], &history, healed_at);
    say(&format!("2 of 3 brokers killed, at rest: shown {:.1} s after their return", healed.as_secs_f64()));
    api.await_well();
}
