//! Which driver serves, and what is said about it.

use std::os::unix::process::CommandExt;

use crate::harness::process::Process;
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

/// One ring can be had, and is tried before the start; each shard takes another one.
#[test]
fn shards_that_find_no_descriptors_left_say_what_to_do() {
    const SHARDS: u64 = 64;
    // A listener for each shard fits, and two more descriptors for each do not.
    let limit = libc::rlimit { rlim_cur: 2 * SHARDS + 30, rlim_max: 2 * SHARDS + 30 };
    for driver in [Driver::Epoll, Driver::IoUring].into_iter().filter(|driver| driver.is_available()) {
        let setup = Setup::new().driver(driver).set("SHARDS", &SHARDS.to_string());
        let mut command = setup.command(&[]);
        // SAFETY: between fork and exec the closure only makes one async-signal-safe system call.
        unsafe {
            command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let finished = Process::start(command).finish();
        assert!(!finished.status.success(), "{finished:?}");
        let told = finished.stderr.lines().find(|line| line.contains("a shard failed")).expect("a line of the log");
        assert!(told.contains(driver.name()) && told.contains("ulimit -n") && told.contains("SHARDS"), "{told}");
    }
}
