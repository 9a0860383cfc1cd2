//! Part `write-cost`: the CPU time of one write, beside lists of different lengths.
//!
//! All servers run at the same time and are measured in turn, so that whatever else happens on the machine meets all of
//! them. Creates are deleted again between the measurements: a list keeps its length.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;

use super::{Bench, PartError, USER, setting};
use crate::client::Client;
use crate::cpu;
use crate::measurement::Measurement;
use crate::report::{Bound, Report, Row, Table};
use crate::server::{Product, Server};
use crate::writes::{Mix, Progress, WriteLoad, Written, delete_all, list_ids, wait_until_applied};

/// A write beside a long list may cost so much more than beside the shortest one.
const RATIO_MAX: f64 = 1.2;

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct WriteCostArguments {
    /// Lengths of the lists, the shortest first
    #[arg(long, value_name = "TODOS", value_delimiter = ',', default_value = "1000,100000,1000000")]
    pub todos: Vec<u64>,
    /// Writes of each measurement, half of them creates, half updates of todos anywhere in the list
    #[arg(long, value_name = "WRITES", default_value_t = 4000)]
    pub writes: usize,
    /// Bursts of so many writes in each measurement at full rate; what a burst has created is deleted before the next
    #[arg(long, value_name = "BURSTS", default_value_t = 5)]
    pub bursts: usize,
    /// Connections that write at the same time
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 64)]
    pub connections: usize,
    /// Writes per second where the rate is held; batches are then small, and each write costs the most
    #[arg(long, value_name = "WRITES_PER_S", default_value_t = 500.0)]
    pub rate: f64,
}

/// One list and its server.
struct Subject {
    todos: u64,
    server: Server,
    // Removed with its files after the server has stopped.
    _product: Product,
    token: String,
    ids: Vec<String>,
}

/// How the writes come.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pace {
    AsFastAsAcknowledged,
    Rate(f64),
}

#[derive(Default)]
struct Figures {
    cpu_us: Vec<f64>,
    rate: Vec<f64>,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    threads_us: BTreeMap<String, Vec<f64>>,
}

/// Runs the part.
///
/// # Errors
/// A server does not start, or a write is refused or never applied.
pub fn run(bench: &Bench, arguments: &WriteCostArguments) -> Result<Report, PartError> {
    let mut report = bench.report(
        "write-cost",
        "CPU time of the whole server process for one write: from the request until it is acknowledged, applied to the \
         store and in the list that every shard answers from. The store is the embedded one.",
        vec![
            setting("writes of each burst", arguments.writes),
            setting("bursts of each measurement at full rate", arguments.bursts),
            setting("connections", arguments.connections),
            setting("held rate", format!("{} writes/s", arguments.rate)),
        ],
    );
    let mut subjects = Vec::new();
    for todos in &arguments.todos {
        eprintln!("write-cost: seeding {todos} todos");
        subjects.push(Subject::start(bench, *todos)?);
    }
    for (title, pace) in [
        ("Next write as soon as the last is acknowledged", Pace::AsFastAsAcknowledged),
        ("Writes at a held rate", Pace::Rate(arguments.rate)),
    ] {
        let mut figures: Vec<Figures> = subjects.iter().map(|_| Figures::default()).collect();
        // The first round warms caches and allocators up and is not counted.
        for run in 0..=bench.runs {
            for turn in 0..subjects.len() {
                // Forwards and backwards in turn: who comes first in a round has no lasting advantage.
                let turn = if run.is_multiple_of(2) { turn } else { subjects.len() - 1 - turn };
                let (subject, figures) = (&subjects[turn], &mut figures[turn]);
                eprintln!("write-cost: {title}, {} todos, run {run} of {}", subject.todos, bench.runs);
                let measured = subject.measure(arguments, pace, run as u64)?;
                if run > 0 {
                    figures.append(measured);
                }
            }
        }
        report.bounds.extend(bounds(title, &subjects, &figures));
        let rows = subjects.iter().zip(&figures).map(|(subject, figures)| figures.row(subject.todos)).collect();
        report.tables.push(Table::new(title, rows));
    }
    Ok(report)
}

impl Subject {
    fn start(bench: &Bench, todos: u64) -> Result<Subject, PartError> {
        let product = Product::new(&bench.product, &bench.scratch)?;
        product.seed(todos, USER)?;
        let server = product.start(bench.server_cpu)?;
        let token = product.token(USER)?;
        let ids = list_ids(server.address())?;
        if ids.len() as u64 != todos {
            return Err(format!("{todos} todos were seeded, and the list has {}", ids.len()).into());
        }
        Ok(Subject { todos, server, _product: product, token, ids })
    }

    fn measure(&self, arguments: &WriteCostArguments, pace: Pace, variety: u64) -> Result<Figures, PartError> {
        let (address, process) = (self.server.address(), self.server.process());
        let load = WriteLoad {
            address,
            token: &self.token,
            todo_ids: &self.ids,
            mix: Mix::CreatesAndUpdates,
            connections: arguments.connections,
            rate: match pace {
                Pace::AsFastAsAcknowledged => None,
                Pace::Rate(rate) => Some(rate),
            },
            writes: arguments.writes,
            variety,
        };
        let bursts = if pace == Pace::AsFastAsAcknowledged { arguments.bursts } else { 1 };
        let (mut cpu, mut threads) = (Duration::ZERO, BTreeMap::<String, Duration>::new());
        let mut all = Written::default();
        for burst in 0..bursts {
            let before = Progress::ask(&mut Client::connect(address)?)?;
            let (cpu_before, threads_before) = (cpu::process_cpu_time(process)?, cpu::thread_cpu_times(process)?);
            let load = WriteLoad { variety: variety * bursts as u64 + burst as u64, ..load };
            let written = load.run(&AtomicBool::new(false))?;
            wait_until_applied(address, before, arguments.writes, &written.created)?;
            cpu += cpu::process_cpu_time(process)?.saturating_sub(cpu_before);
            for (name, after) in cpu::thread_cpu_times(process)? {
                let before = threads_before.get(&name).copied().unwrap_or_default();
                *threads.entry(name).or_default() += after.saturating_sub(before);
            }
            delete_all(address, &self.token, &written.created)?;
            all.latencies_us.extend(written.latencies_us);
            all.elapsed += written.elapsed;
        }

        let writes = (bursts * arguments.writes) as f64;
        let per_write_us = |time: Duration| time.as_secs_f64() * 1e6 / writes;
        Ok(Figures {
            cpu_us: vec![per_write_us(cpu)],
            rate: vec![writes / all.elapsed.as_secs_f64()],
            p50_ms: vec![all.latency_us(50.0) / 1e3],
            p99_ms: vec![all.latency_us(99.0) / 1e3],
            threads_us: threads.into_iter().map(|(name, time)| (name, vec![per_write_us(time)])).collect(),
        })
    }
}

impl Figures {
    fn append(&mut self, other: Figures) {
        self.cpu_us.extend(other.cpu_us);
        self.rate.extend(other.rate);
        self.p50_ms.extend(other.p50_ms);
        self.p99_ms.extend(other.p99_ms);
        for (thread, runs) in other.threads_us {
            self.threads_us.entry(thread).or_default().extend(runs);
        }
    }

    fn row(&self, todos: u64) -> Row {
        let mut measurements = vec![
            Measurement::new("CPU per write", "µs", self.cpu_us.clone()),
            Measurement::new("acknowledged", "writes/s", self.rate.clone()),
            Measurement::new("acknowledgement p50", "ms", self.p50_ms.clone()),
            Measurement::new("acknowledgement p99", "ms", self.p99_ms.clone()),
        ];
        let threads = self.threads_us.iter();
        measurements
            .extend(threads.map(|(name, runs)| Measurement::new(&format!("thread {name}"), "µs", runs.clone())));
        Row { label: format!("{todos} todos"), measurements }
    }

    fn cpu(&self) -> f64 {
        Measurement::new("", "", self.cpu_us.clone()).median()
    }
}

/// Every longer list against the first.
fn bounds(title: &str, subjects: &[Subject], figures: &[Figures]) -> Vec<Bound> {
    let (Some(base), Some(base_figures)) = (subjects.first(), figures.first()) else { return Vec::new() };
    let longer = subjects.iter().zip(figures).skip(1);
    longer
        .map(|(subject, figures)| {
            let claim = format!("{title}: CPU per write, {} todos over {}", subject.todos, base.todos);
            Bound::at_most(claim, figures.cpu() / base_figures.cpu(), RATIO_MAX)
        })
        .collect()
}
