//! Which driver serves, and what is said about it.

use crate::harness::request::get;
use crate::harness::server::{Driver, Setup};

#[test]
fn auto_takes_io_uring_where_the_kernel_has_it() {
    if !Driver::IoUring.is_available() {
        eprintln!("not run: this machine has no io_uring");
        return;
    }
    let server = Setup::new().set("IO_DRIVER", "auto").start();
    server.connect().call(&get("/todos")).expect(200);
    assert!(server.has_ring(), "io_uring is there, so auto takes it: {}", server.log());
}

#[test]
fn epoll_is_taken_when_asked_for() {
    let server = Setup::new().driver(Driver::Epoll).start();
    server.connect().call(&get("/todos")).expect(200);
    assert!(!server.has_ring(), "{}", server.log());
}

#[test]
fn without_io_uring_auto_says_why_and_serves_with_epoll() {
    for (error, named) in [(libc::EPERM, "seccomp"), (libc::ENOSYS, "kernel")] {
        let server = Setup::new().without_io_uring(error).start();
        server.connect().call(&get("/todos")).expect(200);
        assert!(!server.has_ring());
        let log = server.log();
        assert!(log.contains("epoll") && log.contains(named), "the reason and the remedy are told: {log}");
    }
}

#[test]
fn without_io_uring_asking_for_it_is_an_error() {
    for error in [libc::EPERM, libc::ENOSYS] {
        let finished = Setup::new().without_io_uring(error).driver(Driver::IoUring).run(&[]);
        assert!(!finished.status.success(), "{finished:?}");
        assert!(finished.stderr.contains("io_uring") && finished.stderr.contains("IO_DRIVER"), "{}", finished.stderr);
        assert!(!finished.stdout.contains("listens on"), "{finished:?}");
    }
}
