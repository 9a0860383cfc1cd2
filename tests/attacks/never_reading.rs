//! Clients that ask for long lists and read none of them.

use crate::bystander::Bystander;
use crate::harness::eventually;
use crate::harness::request::get;
use crate::harness::server::{Driver, Setup};
use crate::harness::shared::on_both_drivers;
use crate::vitals::Vitals;

/// How many of them.
const CLIENTS: usize = 100;
/// Requests that each sends, for lists of half a megabyte: 10 GB in all, if anybody kept them.
const REQUESTS: usize = 200;
/// What they may add to the memory, in bytes: `UNSENT_MAX_BYTES` and a receive buffer each, and as much again.
const ADDED_MAX_BYTES: u64 = 64 * 1024 * 1024;

on_both_drivers!(std::convert::identity => clients_that_never_read_cost_little_and_are_closed);

fn clients_that_never_read_cost_little_and_are_closed(driver: &Driver) {
    let setup = Setup::new().driver(*driver).set("SHARDS", "1").set("WRITE_TIMEOUT_MS", "3000");
    setup.run_successfully(&["seed", "--count", "2000"]);
    let server = setup.start();
    server.connect().call(&get("/todos")).expect(200);
    let before = Vitals::at_rest(&server);
    let bystander = Bystander::of(&server);
    let requests = get("/todos").bytes().repeat(REQUESTS);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = server.connect();
            client.send(&requests);
            client
        })
        .collect();
    // Handshakes and requests fit into the kernel's queues: that they are sent does not say that the server has begun.
    eventually("the connections to be accepted", || {
        (Vitals::now(&server).descriptors >= before.descriptors + CLIENTS).then_some(())
    });
    let mut most_bytes = 0;
    eventually("the connections to be closed", || {
        let now = Vitals::now(&server);
        most_bytes = most_bytes.max(now.resident_bytes);
        (now.descriptors <= before.descriptors + 1).then_some(())
    });
    assert!(most_bytes < before.resident_bytes + ADDED_MAX_BYTES, "{} MiB", most_bytes >> 20);
    bystander.assert_served();
    drop(clients);
    before.assert_back(&server);
}
