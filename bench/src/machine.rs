//! What the figures were measured on, and of which source.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine, its system, and the source that was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor, as the kernel names it.
    pub cpu_model: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Other programs that wanted a CPU when the runs began, as the load average of one minute: a figure well above 0
    /// means that the machine was not quiet.
    pub load_average: String,
    /// The commit, with `+changes` where the files differ from it.
    pub commit: String,
}

impl Machine {
    /// Looks at this machine. What cannot be found out is `unknown`.
    pub fn detect(cpus: usize) -> Machine {
        let cpu_info = read("/proc/cpuinfo");
        let memory_info = read("/proc/meminfo");
        let memory_kib = field(&memory_info, "MemTotal").and_then(|value| value.trim_end_matches(" kB").parse().ok());
        Machine {
            cpu_model: field(&cpu_info, "model name").unwrap_or("unknown").to_owned(),
            cpus,
            memory_mib: memory_kib.unwrap_or(0_u64) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            commit: commit().unwrap_or_else(|| "unknown".into()),
        }
    }
}

/// The congestion control (tcp(7)) of connections that have not chosen one.
pub fn congestion_control() -> String {
    read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|_| "unknown".into())
}

/// The value of the first line `name : value`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

fn commit() -> Option<String> {
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { commit } else { format!("{commit}+changes") })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "processor\t: 0\nmodel name\t: A CPU: fast\nMemTotal:       16 kB\n";
        assert_eq!(field(text, "model name"), Some("A CPU: fast"));
        assert_eq!(field(text, "MemTotal"), Some("16 kB"));
        assert_eq!(field(text, "model"), None);
    }
}
