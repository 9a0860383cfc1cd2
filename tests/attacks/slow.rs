//! The four attacks of slowhttptest at once: heads and bodies that come in drops (slowloris, R-U-Dead-Yet), overlapping
//! ranges (the Apache killer), and answers that are read in drops.

use std::process::Command;

use crate::bystander::Bystander;
use crate::harness::process::Process;
use crate::harness::server::{Driver, Setup};
use crate::harness::shared::on_both_drivers;
use crate::vitals::Vitals;

/// Connections of each attack.
const CONNECTIONS: &str = "200";
/// How long an attack lasts at most, in seconds.
const SECONDS: &str = "12";

on_both_drivers!(std::convert::identity => slow_clients_are_ended_and_others_are_served);

fn slow_clients_are_ended_and_others_are_served(driver: &Driver) {
    let setup = Setup::new()
        .driver(*driver)
        .set("SHARDS", "1")
        .set("HEADER_TIMEOUT_MS", "2000")
        .set("BODY_TIMEOUT_MS", "2000")
        .set("IDLE_TIMEOUT_MS", "3000")
        .set("WRITE_TIMEOUT_MS", "2000");
    setup.run_successfully(&["seed", "--count", "1000"]);
    let server = setup.start();
    let before = Vitals::at_rest(&server);
    let bystander = Bystander::of(&server);
    let attacks: [&[&str]; 4] = [
        &["-H", "-i", "1"],
        &["-B", "-i", "1", "-s", "8192"],
        &["-R", "-a", "5", "-b", "500"],
        &["-X", "-k", "3", "-n", "1", "-z", "32", "-w", "512", "-y", "1024"],
    ];
    let attackers = attacks.map(|attack| {
        let mut command = Command::new("slowhttptest");
        command.args(attack).args(["-c", CONNECTIONS, "-r", CONNECTIONS, "-l", SECONDS, "-p", "10"]);
        command.args(["-u", &format!("http://{}/todos", server.address)]);
        Process::start(command)
    });
    for (attack, attacker) in attacks.iter().zip(attackers) {
        let finished = attacker.finish();
        assert!(!finished.stdout.contains("service available:   NO"), "{attack:?}: {}", finished.stdout);
        assert!(finished.stdout.contains("Exit status"), "{attack:?} did not run: {finished:?}");
    }
    bystander.assert_served();
    before.assert_back(&server);
}
