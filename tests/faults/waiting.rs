//! What processes use while they can only wait: CPU time, and attempts to connect to a server that is away.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::process::Process;
use crate::say;

/// Attempts to connect to one server that an API process and a worker together may make in a second while it is away: what
/// notices its return soon enough, and loads nobody.
const ATTEMPTS_MAX_PER_SECOND: f64 = 20.0;
/// Part of a core that a process may use while there is nothing to do but wait; a loop without a pause would use all of one.
const WAITING_CPU_MAX: f64 = 0.3;
/// How long it is looked.
const LOOK: Duration = Duration::from_secs(3);

/// Looks for some seconds at what processes do that can only wait. `attempts` says how many times each server has been
/// connected to so far.
pub fn assert_at_rest<const SERVERS: usize>(
    fault: &str,
    processes: &[(&str, &Process)],
    attempts: [(&str, &dyn Fn() -> u64); SERVERS],
) {
    let counts = || attempts.map(|(_, count)| count());
    let cpu = || processes.iter().map(|(_, process)| cpu_time(process)).collect::<Vec<_>>();
    let (attempts_before, cpu_before, start) = (counts(), cpu(), Instant::now());
    std::thread::sleep(LOOK);
    let seconds = start.elapsed().as_secs_f64();
    let (attempts_after, cpu_after) = (counts(), cpu());
    let used = processes.iter().zip(cpu_after).zip(cpu_before);
    let cores: Vec<_> =
        used.map(|(((name, _), after), before)| (*name, (after - before).as_secs_f64() / seconds)).collect();
    let rates: Vec<_> =
        (0..SERVERS).map(|at| (attempts[at].0, (attempts_after[at] - attempts_before[at]) as f64 / seconds)).collect();
    let text = |of: &[(&str, f64)], digits: usize| -> String {
        of.iter().map(|(name, value)| format!("{name} {value:.digits$}")).collect::<Vec<_>>().join(", ")
    };
    say(&format!("{fault}: parts of a core: {}; attempts a second: {}", text(&cores, 3), text(&rates, 1)));
    assert!(cores.iter().all(|(_, used)| *used < WAITING_CPU_MAX), "{fault}: {cores:?} of a core");
    assert!(rates.iter().all(|(_, rate)| *rate < ATTEMPTS_MAX_PER_SECOND), "{fault}: {rates:?} a second");
}

/// CPU time that all threads of a process together have used so far, to the hundredth of a second.
fn cpu_time(process: &Process) -> Duration {
    let line = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).expect("it runs");
    // Behind the name, which may hold spaces: utime and stime are fields 14 and 15 of proc_pid_stat(5), in ticks.
    let (_, fields) = line.rsplit_once(") ").expect("the name ends");
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    // SAFETY: plain call of the C library that only returns a number.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64(ticks as f64 / ticks_per_second as f64)
}

/// The port of a server that is dead, with a counter of those who connect to it. It closes each connection at once, as a load
/// balancer does whose server is gone; a port without it refuses them, and nobody can count.
pub struct DeadPort {
    connections: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DeadPort {
    /// At this address (`host:port`), whose server has ended.
    pub fn at(address: &str) -> DeadPort {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        listener.set_nonblocking(true).expect("a socket can be told not to block");
        let (connections, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, is_over) = (connections.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        drop(stream);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) => panic!("accept: {error}"),
                }
            }
        });
        DeadPort { connections, ended, thread: Some(thread) }
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for DeadPort {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The server that comes back takes the port.
            let _ = thread.join();
        }
    }
}
