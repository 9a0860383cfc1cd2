//! A crowd connects at once, while a client waits for answers.

use std::net::TcpStream;

use crate::harness::metrics;
use crate::harness::request::get;
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::vitals::raise_own_file_limit;

/// Connections that wait to be accepted. The kernel's default for the most of a listener is 4,096.
const CROWD: usize = 2_000;
/// What the client asks for: a long list, and behind it the count of connections. Each long list is a turn of its own, and all
/// of them fit into the buffers on the way, so that the client need not read for the shard to go on.
const PAIRS: usize = 4;

on_both_drivers!(std::convert::identity =>
    connections_are_served_while_a_crowd_is_accepted,
    connections_are_served_while_a_crowd_leaves,
);

fn accepted(text: &str) -> usize {
    metrics::total(&metrics::parse(text), "million_rps_connections_accepted_total", "") as usize
}

fn connections_are_served_while_a_crowd_is_accepted(driver: &Driver) {
    raise_own_file_limit();
    let setup = Setup::new().driver(*driver).set("SHARDS", "1");
    setup.run_successfully(&["seed", "--count", "1500"]);
    let server = setup.start();
    let mut client = server.connect();
    client.call(&get("/todos")).expect(200);
    let before = accepted(client.call(&get("/metrics")).expect(200).text());

    // The kernel completes the handshakes of a process that does not run.
    server.process.signal(libc::SIGSTOP);
    let crowd: Vec<TcpStream> =
        (0..CROWD).map(|_| TcpStream::connect(server.address).expect("the backlog takes it")).collect();
    let mut requests = get("/todos").bytes();
    requests.extend(get("/metrics").bytes());
    client.send(requests.repeat(PAIRS));
    server.process.signal(libc::SIGCONT);

    let counts: Vec<usize> = (0..PAIRS)
        .map(|_| {
            client.answer().expect(200);
            accepted(client.answer().expect(200).text())
        })
        .collect();
    let is_between = |count: &usize| *count > before && *count < before + CROWD;
    assert!(counts.iter().any(is_between), "{before} before, then {counts:?}: all of the crowd came first, or last");
    assert_accepted(&server, before + CROWD);
    drop(crowd);
}

fn connections_are_served_while_a_crowd_leaves(driver: &Driver) {
    const LEAVING: usize = CROWD / 4;
    raise_own_file_limit();
    let server = Setup::new().driver(*driver).set("SHARDS", "1").start();
    let mut crowd: Vec<_> = (0..LEAVING).map(|_| server.connect()).collect();
    let mut client = server.connect();
    // All have been accepted.
    crowd.iter_mut().chain([&mut client]).for_each(|client| drop(client.call(&get("/health")).expect(200)));
    let open = |text: &str| metrics::total(&metrics::parse(text), "million_rps_connections_open", "") as usize;
    server.process.signal(libc::SIGSTOP);
    drop(crowd);
    client.send(get("/metrics").bytes());
    server.process.signal(libc::SIGCONT);
    let still_open = open(client.answer().expect(200).text());
    assert!(still_open > LEAVING / 4, "all but {still_open} of {LEAVING} were closed first");
    crate::harness::eventually("all of the crowd to be closed", || {
        (open(client.call(&get("/metrics")).expect(200).text()) == 1).then_some(())
    });
}

/// Waits until all have been accepted: a crowd that waits is not forgotten.
fn assert_accepted(server: &Server, count: usize) {
    let mut client = server.connect();
    crate::harness::eventually("all of the crowd to be accepted", || {
        (accepted(client.call(&get("/metrics")).expect(200).text()) > count).then_some(())
    });
}
