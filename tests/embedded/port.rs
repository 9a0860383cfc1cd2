//! A port belongs to one deployment: who does not share the data does not share the port.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

use crate::harness::eventually;
use crate::harness::process::{Finished, Process};
use crate::harness::request::get;
use crate::harness::server::{Driver, Server, Setup};

fn on_port(address: SocketAddr) -> Setup {
    Setup::new().set("HTTP_HOST", &address.ip().to_string()).set("HTTP_PORT", &address.port().to_string())
}

fn assert_refused(finished: &Finished, address: SocketAddr, holder: &str) {
    assert!(!finished.status.success(), "{finished:?}");
    let text = &finished.stderr;
    assert!(text.contains("in use by") && text.contains(holder), "the holder {holder} is named: {text}");
    assert!(text.contains(&address.port().to_string()) && text.contains("HTTP_PORT"), "{text}");
    assert!(!finished.stdout.contains("listens on"), "{finished:?}");
}

fn holder_of(server: &Server) -> String {
    format!("process {} (million-rps)", server.process.pid())
}

#[test]
fn a_second_folder_does_not_share_the_port_of_the_first() {
    for driver in [Driver::Epoll, Driver::IoUring] {
        let server = Setup::new().driver(driver).start();
        let finished = on_port(server.address).driver(driver).run(&[]);
        assert_refused(&finished, server.address, &holder_of(&server));
        for _ in 0..20 {
            server.connect().call(&get("/health")).expect(200);
        }
        // The port is free once its process has gone, and also when it was killed.
        let address = server.address;
        server.kill();
        on_port(address).start().connect().assert_goes_on();
    }
}

#[test]
fn addresses_that_meet_are_one_port() {
    let server = Setup::new().set("HTTP_HOST", "0.0.0.0").start();
    let holder = holder_of(&server);
    for host in ["127.0.0.1", "0.0.0.0", "::"] {
        let address = SocketAddr::new(host.parse().expect("an address"), server.address.port());
        // Without IPv6 there is no `::` to meet.
        if TcpListener::bind((host, 0)).is_ok() {
            assert_refused(&on_port(address).run(&[]), address, &holder);
        }
    }
    drop(server);
    // Addresses that do not meet may have one port each.
    let one = Setup::new().set("HTTP_HOST", "127.0.0.1").start();
    let other = on_port(SocketAddr::new([127, 0, 0, 2].into(), one.address.port())).start();
    one.connect().assert_goes_on();
    other.connect().assert_goes_on();
}

#[test]
fn a_foreign_program_is_named_whether_it_would_share_or_not() {
    for would_share in [false, true] {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(would_share).expect("a plain flag");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
        socket.listen(8).expect("listens");
        let listener: TcpListener = socket.into();
        let address = listener.local_addr().expect("an address");
        assert_refused(&on_port(address).run(&[]), address, &format!("process {} (", std::process::id()));
        drop(listener);
        on_port(address).start().connect().assert_goes_on();
    }
}

#[test]
fn a_server_that_is_frozen_keeps_its_port() {
    let server = Setup::new().start();
    server.process.signal(libc::SIGSTOP);
    let finished = on_port(server.address).run(&[]);
    server.process.signal(libc::SIGCONT);
    assert_refused(&finished, server.address, "process");
    server.connect().assert_goes_on();
}

#[test]
fn of_newcomers_that_come_at_once_one_gets_the_port() {
    for _ in 0..5 {
        // A free port of the moment; nobody else is given it soon.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let setups: Vec<Setup> = (0..4).map(|_| on_port(address)).collect();
        let mut processes: Vec<Process> = setups.iter().map(|setup| Process::start(setup.command(&[]))).collect();
        eventually("all but one to give up", || {
            let running = processes.iter_mut().filter_map(|process| process.status().is_none().then_some(())).count();
            assert_ne!(running, 0, "one has the port");
            (running == 1).then_some(())
        });
        let holder = processes.iter_mut().position(|process| process.status().is_none()).expect("one is left");
        eventually("its address", || processes[holder].stdout.text().contains("listens on").then_some(()));
        for process in processes.drain(..).enumerate().filter(|(at, _)| *at != holder).map(|(_, process)| process) {
            let finished = process.finish();
            assert!(!finished.status.success() && finished.stderr.contains("in use by"), "{finished:?}");
        }
    }
}
