//! Clients that connect, perhaps send something, and reset the connection.

use crate::bystander::Bystander;
use crate::harness::request::get;
use crate::harness::server::{Driver, Setup};
use crate::harness::shared::on_both_drivers;
use crate::vitals::Vitals;

/// Connections of one storm.
const STORM: usize = 6_000;
/// How many there are at the same time.
const STORMERS: usize = 3;

on_both_drivers!(std::convert::identity => a_storm_of_resets_leaves_nothing_behind);

fn a_storm_of_resets_leaves_nothing_behind(driver: &Driver) {
    let setup = Setup::new().driver(*driver).set("SHARDS", "1");
    setup.run_successfully(&["seed", "--count", "1000"]);
    let server = setup.start();
    let before = Vitals::at_rest(&server);
    let bystander = Bystander::of(&server);
    let lists = get("/todos").bytes().repeat(20);
    std::thread::scope(|scope| {
        for stormer in 0..STORMERS {
            let (server, lists) = (&server, &lists);
            scope.spawn(move || {
                for round in 0..STORM / STORMERS {
                    let mut client = server.connect();
                    client.reset_when_dropped();
                    let bytes: &[u8] = match (round + stormer) % 4 {
                        0 => b"",
                        1 => b"GET /todos HTT",
                        2 => lists,
                        _ => b"no request\r\n\r\n",
                    };
                    // The server may have refused it already.
                    let _ = client.try_send(bytes);
                }
            });
        }
    });
    bystander.assert_served();
    before.assert_back(&server);
}
