//! What a process takes of the machine, by proc(5).

use std::time::Duration;

use crate::harness::eventually;
use crate::harness::server::Server;

/// How much more memory than before a server may keep after a crowd has left, in bytes: what allocators hold back.
const MEMORY_KEPT_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How long a quiet server is watched for threads that spin.
const QUIET: Duration = Duration::from_millis(1000);

/// Memory, descriptors and threads at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Vitals {
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads, with those that the kernel has for the rings.
    pub threads: usize,
}

impl Vitals {
    /// Those of a server that has just become quiet.
    pub fn at_rest(server: &Server) -> Vitals {
        std::thread::sleep(QUIET);
        Vitals::now(server)
    }

    /// Those of this moment.
    pub fn now(server: &Server) -> Vitals {
        let pid = server.process.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there").count();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there").count();
        Vitals { resident_bytes: kilobytes * 1024, descriptors, threads }
    }

    /// Waits until the server is as it was at this moment: as many descriptors, about as much memory, and nothing to do.
    pub fn assert_back(&self, server: &Server) {
        eventually("as many descriptors as before", || {
            (Vitals::now(server).descriptors == self.descriptors).then_some(())
        });
        eventually("about as much memory as before", || {
            (Vitals::now(server).resident_bytes < self.resident_bytes + MEMORY_KEPT_MAX_BYTES).then_some(())
        });
        assert_nothing_spins(server);
        server.connect().assert_goes_on();
    }
}

/// Watches a server that has nothing to do: a thread in a loop would take all the time of a CPU.
pub fn assert_nothing_spins(server: &Server) {
    let taken = taken_while_watched(server);
    assert!(taken < QUIET / 2, "{taken:?} of CPU time within {QUIET:?}, with nothing to do");
}

/// Waits until a server has done what it had to do.
pub fn await_quiet(server: &Server) {
    eventually("a server with nothing to do", || (taken_while_watched(server) < QUIET / 2).then_some(()));
}

fn taken_while_watched(server: &Server) -> Duration {
    let before = cpu_time(server);
    std::thread::sleep(QUIET);
    cpu_time(server) - before
}

/// User and system time of all threads.
fn cpu_time(server: &Server) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.process.pid())).expect("the process is there");
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th fields behind it.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
    // SAFETY: a plain call.
    let ticks_a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64(ticks as f64 / ticks_a_second as f64)
}

/// Raises this process's own limit of open files as far as it may be, and returns it.
pub fn raise_own_file_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain system calls; the limit outlives them.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    assert!(done, "{}", std::io::Error::last_os_error());
    usize::try_from(limit.rlim_cur).expect("a small number")
}
