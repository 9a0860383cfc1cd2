//! The process runs out of file descriptors.

use std::net::TcpStream;

use crate::bystander::Bystander;
use crate::harness::eventually;
use crate::harness::request::get;
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::vitals::{Vitals, assert_nothing_spins};

/// Descriptors that are left when the clients come.
const LEFT: usize = 20;
/// Clients that come.
const CLIENTS: usize = 100;

on_both_drivers!(std::convert::identity => without_descriptors_those_who_are_in_are_served_and_the_others_wait);

fn without_descriptors_those_who_are_in_are_served_and_the_others_wait(driver: &Driver) {
    let server = Setup::new().driver(*driver).set("SHARDS", "1").start();
    let before = Vitals::at_rest(&server);
    let mut client = server.connect();
    client.call(&get("/health")).expect(200);
    let bystander = Bystander::of(&server);
    limit_open_files(&server, before.descriptors + LEFT);
    // The kernel completes their handshakes; the server cannot accept all of them.
    let mut waiting: Vec<TcpStream> =
        (0..CLIENTS).map(|_| TcpStream::connect(server.address).expect("the backlog takes it")).collect();
    eventually("the limit to be reached", || {
        let metrics = client.call(&get("/metrics")).expect(200);
        let errors = metrics.text().lines().filter(|line| line.starts_with("million_rps_accept_errors_total"));
        errors.map(|line| line.rsplit(' ').next()).any(|count| count != Some("0")).then_some(())
    });
    assert_nothing_spins(&server);
    client.assert_goes_on();
    // Room again: whoever has waited is served, without having to connect again.
    let mut last = crate::harness::client::Client::new(waiting.pop().expect("there are some"));
    drop(waiting);
    last.assert_goes_on();
    bystander.assert_served();
    drop((client, last));
    limit_open_files(&server, before.descriptors + 10 * CLIENTS);
    before.assert_back(&server);
}

/// Lets the server have so many descriptors open from now on (prlimit(2)); those that are open stay open.
fn limit_open_files(server: &Server, most: usize) {
    let pid = libc::pid_t::try_from(server.process.pid()).expect("process ids are positive and small");
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain system calls; the limits outlive them.
    let done = unsafe {
        libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) == 0 && {
            limit.rlim_cur = most as libc::rlim_t;
            libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) == 0
        }
    };
    assert!(done, "{}", std::io::Error::last_os_error());
}
