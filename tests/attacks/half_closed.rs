//! Clients that ask for much, end their side, and read nothing.

use crate::bystander::Bystander;
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::request::get;
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::vitals::{Vitals, assert_nothing_spins, await_quiet};

/// Clients of each kind.
const CLIENTS: usize = 25;
/// Longer than the test watches them.
const WRITE_TIMEOUT_MS: &str = "30000";

on_both_drivers!(std::convert::identity =>
    clients_that_end_their_side_and_read_nothing_cost_nothing,
    those_that_go_on_to_reset_leave_nothing_behind,
);

/// The server, with a list of 900 KB.
fn server(driver: Driver) -> Server {
    let setup = Setup::new().driver(driver).set("SHARDS", "1").set("WRITE_TIMEOUT_MS", WRITE_TIMEOUT_MS);
    setup.run_successfully(&["seed", "--count", "4000"]);
    setup.start()
}

/// Clients of each kind, all of which have more to read than all buffers on the way hold.
fn attack(server: &Server) -> Vec<Client> {
    let list = get("/todos").bytes();
    let kinds: [(Vec<u8>, bool); 4] = [
        // Long lists, of many pieces each.
        (list.repeat(8), false),
        // Answers that are written for the request, which are sent as one piece.
        (get("/metrics").bytes().repeat(400), false),
        // The end stands behind requests that the server does not read before answers have left.
        (list.repeat(1_500), false),
        // The end comes when the server waits already.
        (list.repeat(8), true),
    ];
    let mut clients: Vec<(Client, bool)> = Vec::new();
    for (requests, ends_late) in kinds {
        clients.extend((0..CLIENTS).map(|_| {
            let mut client = server.connect();
            client.send(&requests);
            if !ends_late {
                client.finish_sending();
            }
            (client, ends_late)
        }));
    }
    eventually("the connections to be accepted", || (Vitals::now(server).descriptors > 4 * CLIENTS).then_some(()));
    // Their sockets are full, and the shard waits.
    await_quiet(server);
    let end_late = |(mut client, ends_late): (Client, bool)| {
        if ends_late {
            client.finish_sending();
        }
        client
    };
    clients.into_iter().map(end_late).collect()
}

fn clients_that_end_their_side_and_read_nothing_cost_nothing(driver: &Driver) {
    let server = server(*driver);
    server.connect().call(&get("/todos")).expect(200);
    let before = Vitals::at_rest(&server);
    let bystander = Bystander::of(&server);
    let clients = attack(&server);
    await_quiet(&server);
    for _ in 0..3 {
        assert_nothing_spins(&server);
        assert_eq!(Vitals::now(&server).threads, before.threads, "the kernel works for none of them");
    }
    bystander.assert_served();
    drop(clients);
    before.assert_back(&server);
}

fn those_that_go_on_to_reset_leave_nothing_behind(driver: &Driver) {
    let server = server(*driver);
    let before = Vitals::at_rest(&server);
    let bystander = Bystander::of(&server);
    for _ in 0..3 {
        let clients = attack(&server);
        clients.iter().for_each(Client::reset_when_dropped);
    }
    bystander.assert_served();
    before.assert_back(&server);
    assert_eq!(Vitals::now(&server).threads, before.threads);
}
