//! Part `ready`: how long a process needs from its start until it serves a long list, and how much memory it then has.

use std::io;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Bench, PartError, USER, setting};
use crate::client::{Client, get};
#[cfg(feature = "services")]
use crate::deployment::AllServices;
use crate::measurement::Measurement;
use crate::memory::resident_bytes;
use crate::report::{Bound, Report, Row, Table};
use crate::server::{Product, Server};

/// Longest start where the list comes from Redis or SQLite, in seconds.
const READY_MAX_S: f64 = 5.0;
/// Resident memory after a start: so many times the list's bytes, and this much besides.
const MEMORY_LIST_FACTOR: f64 = 1.5;
const MEMORY_REST_BYTES: f64 = (64 << 20) as f64;
/// What a process frees after its start has been freed by then.
const SETTLED: Duration = Duration::from_secs(2);
const MIB: f64 = (1 << 20) as f64;

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct ReadyArguments {
    /// Length of the list
    #[arg(long, value_name = "TODOS", default_value_t = 1_000_000)]
    pub todos: u64,
}

#[derive(Default)]
struct Figures {
    seconds: Vec<f64>,
    resident_mib: Vec<f64>,
    list_mib: Vec<f64>,
}

/// Runs the part.
///
/// # Errors
/// A server or a service fails.
pub fn run(bench: &Bench, arguments: &ReadyArguments) -> Result<Report, PartError> {
    crate::cpu::unpin_current_thread()?;
    let mut report = bench.report(
        "ready",
        "From the start of a process until /ready answers with 200, with the whole list in memory, and its resident memory \
         two seconds later.",
        vec![setting("todos", arguments.todos)],
    );
    std::fs::create_dir_all(&bench.scratch)?;
    let mut rows = Vec::new();
    {
        eprintln!("ready: seeding {} todos into SQLite", arguments.todos);
        let product = Product::new(&bench.product, &bench.scratch)?;
        product.seed(arguments.todos, USER)?;
        let mut figures = Figures::default();
        for run in 1..=bench.runs {
            figures.measure(|| Ok(product.start_on(&[])?))?;
            figures.tell("SQLite", run, bench.runs);
        }
        report.bounds.extend(figures.bounds("SQLite", true));
        rows.push(figures.row("from SQLite (API and worker)"));
    }
    #[cfg(feature = "services")]
    {
        let services = AllServices::open(&bench.scratch.join("services"))?;
        let deployment = services.deployment("bench-ready")?;
        eprintln!("ready: seeding {} todos into PostgreSQL", arguments.todos);
        super::apply::fill(&deployment, arguments.todos)?;
        let (mut cold, mut warm) = (Figures::default(), Figures::default());
        for run in 1..=bench.runs {
            deployment.feed()?.clear()?;
            cold.measure(|| Ok(deployment.api(&bench.product, &bench.scratch)?))?;
            cold.tell("PostgreSQL", run, bench.runs);
            warm.measure(|| Ok(deployment.api(&bench.product, &bench.scratch)?))?;
            warm.tell("Redis", run, bench.runs);
        }
        report.bounds.extend(cold.bounds("PostgreSQL", false));
        report.bounds.extend(warm.bounds("Redis", true));
        rows.push(cold.row("from PostgreSQL, filling Redis (API)"));
        rows.push(warm.row("from Redis (API)"));
    }
    report.tables.push(Table::new("Start", rows));
    Ok(report)
}

impl Figures {
    fn measure(&mut self, start: impl FnOnce() -> Result<Server, PartError>) -> Result<(), PartError> {
        let begin = Instant::now();
        let server = start()?;
        self.seconds.push(begin.elapsed().as_secs_f64());
        std::thread::sleep(SETTLED);
        self.resident_mib.push(resident_bytes(server.process())? as f64 / MIB);
        self.list_mib.push(list_bytes(&server)? / MIB);
        Ok(())
    }

    fn tell(&self, from: &str, run: usize, runs: usize) {
        let last = |values: &[f64]| values.last().copied().unwrap_or(f64::NAN);
        eprintln!(
            "ready: from {from}, run {run} of {runs}: {:.2} s, {:.0} MiB resident for a list of {:.0} MiB",
            last(&self.seconds),
            last(&self.resident_mib),
            last(&self.list_mib)
        );
    }

    fn bounds(&self, from: &str, is_bounded_in_time: bool) -> Vec<Bound> {
        let median = |runs: &[f64]| Measurement::new("", "", runs.to_vec()).median();
        let allowed = median(&self.list_mib) * MEMORY_LIST_FACTOR + MEMORY_REST_BYTES / MIB;
        let mut bounds =
            vec![Bound::at_most(format!("from {from}: resident memory, MiB"), median(&self.resident_mib), allowed)];
        if is_bounded_in_time {
            bounds.push(Bound::at_most(format!("from {from}: start to ready, s"), median(&self.seconds), READY_MAX_S));
        }
        bounds
    }

    fn row(self, label: &str) -> Row {
        let measurements = vec![
            Measurement::new("start to ready", "s", self.seconds),
            Measurement::new("resident", "MiB", self.resident_mib),
            Measurement::new("list", "MiB", self.list_mib),
        ];
        Row { label: label.into(), measurements }
    }
}

/// Bytes of the whole list, from the metrics.
fn list_bytes(server: &Server) -> io::Result<f64> {
    let (_, text) = Client::connect(server.address())?.exchange(&get("/metrics"))?;
    let text = String::from_utf8_lossy(&text);
    let value = text.lines().find_map(|line| line.strip_prefix("million_rps_snapshot_bytes "));
    value.and_then(|value| value.parse().ok()).ok_or_else(|| io::Error::other("/metrics lacks the list's bytes"))
}
