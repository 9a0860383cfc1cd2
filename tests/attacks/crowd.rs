//! Ten thousand keep-alive connections that have had their answer and stay.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};

use crate::bystander::Bystander;
use crate::harness::eventually;
use crate::harness::request::get;
use crate::harness::server::{Driver, Setup};
use crate::harness::shared::on_both_drivers;
use crate::vitals::{Vitals, assert_nothing_spins, raise_own_file_limit};

/// Connections, where the limit of open files allows so many.
const CROWD: usize = 10_000;
/// Connections besides.
const OTHERS: usize = 10;
/// What they may add to the memory of the process, in bytes: about a kilobyte each.
const CROWD_MAX_BYTES: u64 = 10 * 1024 * 1024;

on_both_drivers!(std::convert::identity => ten_thousand_idle_connections_take_ten_mebibytes);

/// One crowd at a time: both would be more than the limit of open files of this process may be.
static CROWDED: Mutex<()> = Mutex::new(());

fn ten_thousand_idle_connections_take_ten_mebibytes(driver: &Driver) {
    let _alone = CROWDED.lock().unwrap_or_else(PoisonError::into_inner);
    // The server wants a third more descriptors than connections.
    // The limit fits exactly, but for the bystander and those who ask whether it is ready.
    let crowd = CROWD.min(raise_own_file_limit() * 3 / 4 - OTHERS);
    let connections_max = crowd + OTHERS;
    let setup = Setup::new().driver(*driver).set("MAX_CONNECTIONS", &connections_max.to_string());
    let server = setup.start();
    server.connect().call(&get("/todos?limit=10")).expect(200);
    let before = Vitals::at_rest(&server);
    let bystander = Bystander::of(&server);
    let request = get("/todos?limit=10").bytes();
    let connections: Vec<TcpStream> = (0..crowd)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).expect("the connection is taken");
            stream.write_all(&request).expect("the request is taken");
            let mut answer = [0; 4096];
            let length = stream.read(&mut answer).expect("an answer comes");
            assert!(answer[..length].starts_with(b"HTTP/1.1 200 "), "all are served");
            stream
        })
        .collect();
    let allowed = CROWD_MAX_BYTES * crowd as u64 / CROWD as u64;
    let mut added = 0;
    eventually("the memory of the crowd's buffers to be given back", || {
        added = Vitals::now(&server).resident_bytes.saturating_sub(before.resident_bytes);
        (added <= allowed).then_some(())
    });
    eprintln!("{}: {crowd} idle connections add {} KiB", driver.name(), added / 1024);
    assert_eq!(Vitals::now(&server).descriptors, before.descriptors + crowd + 1, "none was closed");
    assert_nothing_spins(&server);
    bystander.assert_served();
    drop(connections);
    before.assert_back(&server);
}
