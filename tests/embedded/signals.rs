//! The signals that stop a process: each drains it, also the one of a terminal that closes, with a terminal that has closed. SIGHUP
//! without such a terminal has keys read again (`keys.rs`).

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::harness::client::Client;
use crate::harness::eventually;
#[cfg(feature = "services")]
use crate::harness::process::Process;
use crate::harness::request::{get, post};
use crate::harness::server::{Driver, Server, Setup};
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(std::convert::identity => each_signal_lets_pipelined_writes_be_answered);

const STOPPING: [(&str, i32); 5] = [
    ("SIGTERM", libc::SIGTERM),
    ("SIGINT", libc::SIGINT),
    ("SIGQUIT", libc::SIGQUIT),
    ("SIGPWR", libc::SIGPWR),
    ("SIGXCPU", libc::SIGXCPU),
];
/// Writes that each of the clients has sent when the signal comes.
const WRITES: usize = 200;
/// Longer than the time within which a second signal is taken for an echo of the first.
const SECOND_THOUGHT: Duration = Duration::from_millis(500);

/// Clients that have each sent [`WRITES`] writes, the first of which are answered.
fn writers(server: &Server) -> Vec<Client> {
    let writes = post(&token("writer"), r#"{"title":"before the signal"}"#).bytes().repeat(WRITES);
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&writes));
    for client in &mut clients {
        client.answer().expect(202);
    }
    clients
}

/// Takes the answers to all but the first write of each, and returns how many writes were accepted.
fn answered(clients: Vec<Client>) -> usize {
    let writes = clients.len() * WRITES;
    for mut client in clients {
        for _ in 1..WRITES {
            client.answer().expect(202);
        }
    }
    writes
}

fn todos(setup: &Setup) -> usize {
    let server = setup.start();
    let list = server.connect().call(&get("/todos")).expect(200).json();
    list.as_array().expect("a list").len()
}

fn each_signal_lets_pipelined_writes_be_answered(driver: &Driver) {
    let setup = Setup::new().driver(*driver);
    let mut accepted = 0;
    for (name, signal) in STOPPING {
        let server = setup.start();
        let clients = writers(&server);
        server.process.signal(signal);
        accepted += answered(clients);
        let finished = server.process.finish();
        assert_eq!(finished.status.code(), Some(0), "{name}: {finished:?}");
        assert!(finished.stderr.contains(name), "{name} is named: {}", finished.stderr);
    }
    eventually("all that was accepted", || (todos(&setup) == accepted).then_some(()));
}

/// Sends half a request, for which a drain waits as long as it may.
fn stuck(server: &Server) -> Client {
    let mut client = server.connect();
    let mut bytes = get("/health").bytes();
    bytes.extend(b"POST /todos HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{");
    client.send(bytes);
    client.answer().expect(200);
    client
}

fn patient() -> Setup {
    Setup::new().set("DRAIN_TIMEOUT_MS", "600000").set("BODY_TIMEOUT_MS", "600000")
}

#[test]
fn a_second_signal_ends_the_wait_but_another_hang_up_or_an_echo_does_not() {
    for (name, second) in STOPPING.into_iter().chain([("SIGHUP", libc::SIGHUP)]) {
        let mut server = patient().start();
        let _stuck = stuck(&server);
        server.process.signal(libc::SIGTERM);
        // As timeout(1) does it: once more, to the whole group.
        server.process.signal(libc::SIGTERM);
        eventually("the drain", || server.log().contains("draining").then_some(()));
        std::thread::sleep(SECOND_THOUGHT);
        assert_eq!(server.process.status(), None, "{name}: the echo ended it");
        server.process.signal(second);
        if second == libc::SIGHUP {
            std::thread::sleep(SECOND_THOUGHT);
            assert_eq!(server.process.status(), None, "the second hang-up ended it");
            server.process.signal(libc::SIGTERM);
        }
        let finished = server.process.finish();
        assert!(finished.status.signal().is_none(), "{name}: it leaves by itself: {finished:?}");
    }
}

#[test]
fn a_process_under_nohup_outlives_the_terminal() {
    let setup = Setup::new();
    let (mut child, address, controlling) = start_in_terminal(&setup, libc::SIG_IGN);
    // The kernel sends SIGHUP, as it does without nohup.
    drop(controlling);
    std::thread::sleep(SECOND_THOUGHT);
    Client::connect(address).assert_goes_on();
    assert_eq!(child.0.try_wait().expect("it is a child"), None);
    let pid = libc::pid_t::try_from(child.0.id()).expect("a small number");
    // SAFETY: a plain system call; the child has not been waited for.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    child.assert_ends_well();
}

#[test]
fn signals_that_mean_nothing_here_change_nothing() {
    let setup = Setup::new();
    let mut server = setup.start();
    for signal in [
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGSTKFLT,
        libc::SIGXFSZ,
    ] {
        server.process.signal(signal);
        server.connect().call(&get("/health")).expect(200);
        assert_eq!(server.process.status(), None, "signal {signal} ended it");
    }
}

/// The kernel signals the write that reaches a limit of file sizes, and then refuses it: as a full disk does.
#[test]
fn a_limit_of_file_sizes_refuses_writes_and_ends_nothing() {
    const LIMIT: libc::rlim_t = 2 << 20;
    let setup = Setup::new();
    let mut server = setup.start_changed(|command| {
        let limit = || {
            let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: between fork and exec, one async-signal-safe call with a pointer that is valid for it.
            match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure is async-signal-safe.
        unsafe { command.pre_exec(limit) };
    });
    let mut client = server.connect();
    let large = post(&token("writer"), format!(r#"{{"title":"large","description":"{}"}}"#, "x".repeat(9000)));
    let mut accepted = 0;
    let refused = eventually("a write that is refused", || {
        let answer = client.call(&large);
        accepted += usize::from(answer.status == 202);
        (answer.status != 202).then_some(answer)
    });
    refused.expect(503);
    assert!(accepted > 0, "the limit leaves room for some");
    assert_eq!(server.process.status(), None);
    drop(server);
    assert_eq!(todos(&setup), accepted);
}

#[test]
fn a_pipe_that_nobody_reads_ends_nothing() {
    let setup = Setup::new().set("LOG_LEVEL", "debug");
    let mut command = setup.command(&[]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Killed(command.spawn().expect("it starts"));
    let address = address_in(child.0.stdout.take().expect("stdout is piped"));
    drop(child.0.stderr.take());
    let pid = libc::pid_t::try_from(child.0.id()).expect("a small number");
    // SAFETY: a plain system call; the child has not been waited for.
    unsafe { libc::kill(pid, libc::SIGPIPE) };
    std::thread::sleep(SECOND_THOUGHT);
    let mut client = Client::connect(address);
    client.assert_goes_on();
    // SAFETY: as above. It logs its way out into the pipe.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    child.assert_ends_well();
}

/// A child that does not outlive the test.
struct Killed(Child);

impl Killed {
    fn assert_ends_well(&mut self) {
        let status = eventually("the end of the process", || self.0.try_wait().expect("it is ours"));
        assert_eq!(status.code(), Some(0), "{status:?}");
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads up to the end of the line that names the address.
fn address_in(mut output: impl Read) -> SocketAddr {
    const BEFORE: &str = "million-rps listens on http://";
    let (mut text, mut byte) = (String::new(), [0]);
    loop {
        assert_eq!(output.read(&mut byte).expect("it says where it listens"), 1, "{text}");
        text.push(char::from(byte[0]));
        if let Some((_, line)) = text.split_once(BEFORE)
            && let Some((address, _)) = line.split_once(['\r', '\n'])
        {
            return address.parse().expect("an address");
        }
    }
}

#[test]
fn writes_are_answered_when_the_terminal_closes() {
    const CLIENTS: usize = 3;
    let setup = Setup::new();
    let (mut child, address, controlling) = start_in_terminal(&setup, libc::SIG_DFL);
    let writes = post(&token("writer"), r#"{"title":"before the hang-up"}"#).bytes().repeat(WRITES);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send(&writes);
        client.answer().expect(202);
    }
    // The kernel sends SIGHUP, and every line that is logged from here on fails with EIO.
    drop(controlling);
    assert_eq!(answered(clients), CLIENTS * WRITES);
    child.assert_ends_well();
    eventually("all that was accepted", || (todos(&setup) == CLIENTS * WRITES).then_some(()));
}

/// A server in a session of its own, whose terminal is a new one, and what controls that. `hang_up` is what it does at first when it
/// is told that the terminal has closed.
fn start_in_terminal(setup: &Setup, hang_up: libc::sighandler_t) -> (Killed, SocketAddr, File) {
    let (mut controlling, terminal) = terminal();
    let mut command = setup.command(&[]);
    let side = || Stdio::from(terminal.try_clone().expect("a descriptor is free"));
    command.stdin(side()).stdout(side()).stderr(side());
    // SAFETY: between fork and exec, async-signal-safe calls: the child leads a session whose terminal this is.
    unsafe {
        command.pre_exec(move || {
            libc::signal(libc::SIGHUP, hang_up);
            match libc::setsid() > 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0 {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let child = Killed(command.spawn().expect("it starts"));
    drop((terminal, command));
    let address = address_in(&mut controlling);
    (child, address, controlling)
}

/// The controlling end of a new terminal, and the terminal.
fn terminal() -> (File, OwnedFd) {
    let (mut controlling, mut terminal) = (-1, -1);
    let (no_name, no_settings, no_size) = (std::ptr::null_mut(), std::ptr::null(), std::ptr::null());
    // SAFETY: the descriptors are written into two integers that outlive the call; nothing else is asked for.
    let opened = unsafe { libc::openpty(&raw mut controlling, &raw mut terminal, no_name, no_settings, no_size) };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both have just been made, and nobody else knows them. No child is to inherit them but by `Stdio`.
    unsafe {
        libc::fcntl(controlling, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(terminal, libc::F_SETFD, libc::FD_CLOEXEC);
        (File::from_raw_fd(controlling), OwnedFd::from_raw_fd(terminal))
    }
}

/// It never gets to its work, because nobody listens where its settings point; it has to leave as soon all the same.
#[cfg(feature = "services")]
#[test]
fn each_signal_ends_a_worker_that_waits_for_its_servers() {
    let setup = Setup::bare()
        .set("HTTP_HOST", "127.0.0.1")
        .set("WORKER_HTTP_PORT", "0")
        .set("JWT_SECRET", crate::harness::token::SECRET)
        .set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
        .set("KAFKA_BROKERS", "127.0.0.1:1")
        .set("REDIS_URL", "redis://127.0.0.1:1/0");
    for (name, signal) in STOPPING {
        let process = Process::start(setup.command(&["worker"]));
        eventually("the worker's start", || process.stdout.text().contains("worker listens").then_some(()));
        process.signal(signal);
        let finished = process.finish();
        assert_eq!(finished.status.code(), Some(0), "{name}: {finished:?}");
        assert!(finished.stderr.contains(name), "{name} is named: {}", finished.stderr);
    }
}
