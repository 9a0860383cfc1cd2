//! Servers that are stopped, and come back: by themselves when a test fails.

use std::process::Command;
use std::time::Duration;

use crate::deployment::required;
use crate::within;

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The store.
    Postgres,
    /// The command log.
    Kafka,
    /// The feed.
    Redis,
    /// The broker of this number, of a cluster.
    #[allow(dead_code, reason = "the suite `cluster` has some")]
    Broker(i32),
}

impl Service {
    fn name(self) -> String {
        match self {
            Service::Postgres => "postgres".into(),
            Service::Kafka => "kafka".into(),
            Service::Redis => "redis".into(),
            Service::Broker(number) => format!("kafka-{number}"),
        }
    }

    /// Has it end in order.
    #[allow(dead_code, reason = "the suite `cluster` does")]
    pub fn stop(self) -> Outage {
        self.end(libc::SIGTERM)
    }

    /// Kills it (-9), as a crash does.
    pub fn kill(self) -> Outage {
        self.end(libc::SIGKILL)
    }

    /// Ends PostgreSQL in immediate mode: without a checkpoint, so that it has to recover.
    pub fn end_immediately(self) -> Outage {
        assert_eq!(self, Service::Postgres, "only PostgreSQL has this mode");
        self.end(libc::SIGQUIT)
    }

    fn end(self, with: i32) -> Outage {
        let pid = self.pid().expect("it runs");
        signal(pid, with);
        within("the end of a server", || self.pid().is_none().then_some(()));
        Outage { service: self, frozen: Vec::new() }
    }

    /// Freezes it (SIGSTOP): its connections stay open, and nobody answers.
    pub fn freeze(self) -> Outage {
        let pid = self.pid().expect("it runs");
        let mut outage = Outage { service: self, frozen: Vec::new() };
        outage.freeze(pid);
        // It starts no more of them, and buries none: their ids stay theirs.
        children(pid).into_iter().for_each(|child| outage.freeze(child));
        outage
    }

    fn pid(self) -> Option<i32> {
        let output = services(&["pid", &required("SERVICES_DIR"), &self.name()]).output().expect("sh runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number"))
    }
}

/// A server that is away. It comes back when this is dropped.
#[derive(Debug)]
pub struct Outage {
    service: Service,
    /// Its processes, when it is frozen: PostgreSQL has one for each connection.
    frozen: Vec<i32>,
}

impl Outage {
    fn freeze(&mut self, pid: i32) {
        signal(pid, libc::SIGSTOP);
        self.frozen.push(pid);
    }

    /// Brings it back, and waits until it answers.
    pub fn end(self) {
        drop(self);
    }

    /// Lets it be away for a while.
    pub fn last(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        if !self.frozen.is_empty() {
            self.frozen.iter().rev().for_each(|pid| signal(*pid, libc::SIGCONT));
            return;
        }
        let output = services(&["restart", &required("SERVICES_DIR"), &self.service.name()]).output();
        let is_back = output.as_ref().is_ok_and(|output| output.status.success());
        if !is_back && !std::thread::panicking() {
            panic!("{:?} does not come back: {output:?}", self.service);
        }
    }
}

/// The processes whose parent this one is.
fn children(of: i32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").expect("Linux tells").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // Field 4; the name in field 2 may hold spaces.
    let parent = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<i32>().ok()
    };
    pids.filter(|pid| parent(*pid) == Some(of)).collect()
}

/// Sends a signal.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: plain system call; the id was read from the servers' folder, which checks that it is theirs.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "signal {signal}: {}", std::io::Error::last_os_error());
}

fn services(arguments: &[&str]) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/services.sh"));
    command.args(arguments);
    command
}
