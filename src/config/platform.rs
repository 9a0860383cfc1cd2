//! What the machine and the build offer: defaults and upper bounds of some settings depend on it.

/// What the machine and the build offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    /// CPUs that this process may use (`taskset` and cgroup quota respected).
    pub allowed_cpus: usize,
    /// Files that this process may open after it has raised its soft limit: the hard limit of `RLIMIT_NOFILE`.
    pub open_files_max: u64,
    /// Whether PostgreSQL, Kafka and Redis are built in (Cargo feature `services`).
    pub has_services: bool,
}

impl Platform {
    /// Asks the system.
    pub fn detect() -> Platform {
        Platform {
            allowed_cpus: std::thread::available_parallelism().map_or(1, usize::from),
            open_files_max: hard_limit_of_open_files(),
            has_services: cfg!(feature = "services"),
        }
    }

    /// Connections that fit under the file limit: a quarter of it stays for listeners, the log, the store, and the
    /// pools.
    pub fn connections_max(&self) -> u64 {
        self.open_files_max - self.open_files_max / 4
    }
}

fn hard_limit_of_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes into `limit`, which is a valid, exclusively borrowed struct of the type it expects.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    // It fails only for a wrong argument; 1024 is the kernel's own default soft limit.
    if result == 0 { limit.rlim_max } else { 1024 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_cpu_and_files() {
        let platform = Platform::detect();
        assert!(platform.allowed_cpus >= 1);
        assert!(platform.open_files_max > 64);
        assert!(platform.connections_max() < platform.open_files_max);
    }

    #[test]
    fn an_unlimited_file_limit_does_not_overflow() {
        let platform = Platform { allowed_cpus: 1, open_files_max: u64::MAX, has_services: true };
        assert!(platform.connections_max() > 1 << 62);
    }
}
