//! The parts of the bench: each measures one thing and ends in a [`Report`].

#[cfg(feature = "services")]
pub mod accept;
#[cfg(feature = "services")]
mod acknowledged;
#[cfg(feature = "services")]
pub mod apply;
pub mod attack;
pub mod ceiling;
pub mod events;
pub mod latency;
pub mod list_memory;
mod live;
#[cfg(feature = "services")]
pub mod overload;
pub mod read;
pub mod ready;
pub mod shards;
#[cfg(feature = "services")]
pub mod tuning;
pub mod visible;
pub mod write_cost;

use std::error::Error;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::machine::Machine;
use crate::report::{Report, Table};

/// Whatever ends a part early.
pub type PartError = Box<dyn Error>;

/// The user of the bench, who owns the seeded todos.
const USER: &str = "bench";

/// What all parts work with.
#[derive(Debug, Clone)]
pub struct Bench {
    /// The product's program.
    pub product: PathBuf,
    /// The folder of the bench's own programs.
    pub programs: PathBuf,
    /// Where data folders are made; on a disk, not in memory, as the product's would be.
    pub scratch: PathBuf,
    /// Where the figures are kept.
    pub output: PathBuf,
    /// Whether programs are built before they are measured.
    pub builds: bool,
    /// Runs of everything that is measured, interleaved.
    pub runs: usize,
    /// The server's CPU.
    pub server_cpu: usize,
    /// The load's CPU, where this thread is already.
    pub load_cpu: usize,
    /// All CPUs of this process.
    pub all_cpus: Vec<usize>,
    /// The command line, for the report.
    pub command: String,
}

impl Bench {
    /// The beginning of a part's report.
    fn report(&self, part: &str, about: &str, settings: Vec<(String, String)>) -> Report {
        let mut all = vec![("runs".to_owned(), self.runs.to_string())];
        all.push(("CPUs".to_owned(), format!("server on {}, load on {}", self.server_cpu, self.load_cpu)));
        all.extend(settings);
        let mut remarks = Vec::new();
        if self.server_cpu == self.load_cpu {
            remarks.push(
                "There is one CPU only: server and load share it, so rates and latencies mean little.".to_owned(),
            );
        }
        Report {
            part: part.to_owned(),
            about: about.to_owned(),
            started_at: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            machine: Machine::detect(self.all_cpus.len()),
            command: self.command.clone(),
            settings: all,
            tables: Vec::<Table>::new(),
            bounds: Vec::new(),
            remarks,
        }
    }
}

/// A setting for the report.
fn setting(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}
