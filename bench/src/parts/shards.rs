//! Part `shards`: how throughput grows with the number of shards.

use std::io;
use std::time::Duration;

use clap::Args;

use super::live::while_writing;
use super::read::Load;
use super::{Bench, PartError, USER, setting};
use crate::cpu;
use crate::measurement::Measurement;
use crate::report::{ChartForm, Report, Row, Table};
use crate::server::Product;
use crate::wrk::{ReadLoad, ReadResult};

/// Connections are opened, caches and clock speed come up.
const WARM_UP: Duration = Duration::from_secs(1);
/// Fewer connections than this many for each shard would not be spread evenly by the kernel.
const CONNECTIONS_PER_SHARD: usize = 64;

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct ShardsArguments {
    /// Requests that a connection sends together
    #[arg(long, value_name = "REQUESTS", value_delimiter = ',', default_value = "1,16")]
    pub depths: Vec<usize>,
    /// Seconds of each run
    #[arg(long, value_name = "S", default_value_t = 2)]
    pub seconds: u64,
    /// Length of our list
    #[arg(long, value_name = "TODOS", default_value_t = 10_000)]
    pub todos: u64,
    /// Writes per second meanwhile; none when 0
    #[arg(long, value_name = "WRITES_PER_S", default_value_t = 20.0)]
    pub write_rate: f64,
}

#[derive(Default, Clone)]
struct Figures {
    rate: Vec<f64>,
    cpu_us: Vec<f64>,
    load_share: Vec<f64>,
}

/// Runs the part.
///
/// # Errors
/// The server does not start, or wrk does not run.
pub fn run(bench: &Bench, arguments: &ShardsArguments) -> Result<Report, PartError> {
    let mut report = bench.report(
        "shards",
        "`GET /todos?limit=10` from ours with 1 to as many shards as there are CPUs, one CPU for each shard. The load has \
         the other CPUs; where none is left, server and load share all of them.",
        vec![
            setting("seconds of each run", arguments.seconds),
            setting("connections for each shard", CONNECTIONS_PER_SHARD),
            setting("todos", arguments.todos),
            setting("writes meanwhile", format!("{} writes/s", arguments.write_rate)),
        ],
    );
    let cpus = bench.all_cpus.clone();
    let counts = shard_counts(cpus.len());
    if cpus.len() < 4 {
        report.remarks.push(format!(
            "There are {} CPUs: the table says what a request costs with more shards, not how far the rate grows. For that, \
             run it on a machine with more.",
            cpus.len()
        ));
    }
    report.remarks.push("With as many shards as CPUs, server and load share them.".to_owned());
    eprintln!("shards: seeding {} todos", arguments.todos);
    let product = Product::new(&bench.product, &bench.scratch)?;
    product.seed_for_reading(arguments.todos, USER, bench.server_cpu)?;
    // The first start makes the key of the tokens.
    drop(product.start(bench.server_cpu)?);
    let token = product.token(USER)?;
    let mut figures = vec![vec![Figures::default(); counts.len()]; arguments.depths.len()];
    let begin = report.clone();
    for run in 0..bench.runs {
        for (depth, figures) in arguments.depths.iter().zip(&mut figures) {
            for (shards, figures) in counts.iter().zip(figures) {
                eprintln!("shards: run {} of {}: depth {depth}, {shards} shards", run + 1, bench.runs);
                let (server_cpus, rest) = cpus.split_at(*shards);
                let load_cpus = if rest.is_empty() { &cpus[..] } else { rest };
                cpu::pin_current_thread_to(load_cpus)?;
                let server = product.start_on(server_cpus)?;
                let load = |duration| ReadLoad {
                    address: server.address(),
                    target: Load::Ten.target(),
                    if_none_match: None,
                    writes: None,
                    unlike: None,
                    depth: *depth,
                    connections: CONNECTIONS_PER_SHARD * shards,
                    threads: load_cpus.len(),
                    duration,
                };
                let read = || -> io::Result<(ReadResult, Duration)> {
                    load(WARM_UP).run()?;
                    let before = server.cpu_time()?;
                    let result = load(Duration::from_secs(arguments.seconds)).run()?;
                    Ok((result, server.cpu_time()?.saturating_sub(before)))
                };
                let (result, cpu_time) = if arguments.write_rate > 0.0 {
                    while_writing(&server, &token, arguments.write_rate, 0, read)?
                } else {
                    read()?
                };
                figures.rate.push(result.requests as f64 / result.elapsed.as_secs_f64());
                figures.cpu_us.push(cpu_time.as_secs_f64() * 1e6 / result.requests as f64);
                figures.load_share.push(result.load_cpu_share * 100.0);
            }
        }
        report = begin.clone();
        report.tables.extend(arguments.depths.iter().zip(&figures).map(|(depth, of)| table(*depth, &counts, of)));
        // What there is so far: an interrupted run loses nothing.
        report.save(&bench.output)?;
    }
    cpu::pin_current_thread(bench.load_cpu)?;
    Ok(report)
}

/// 1, 2, 4 and so on, and all CPUs.
fn shard_counts(cpus: usize) -> Vec<usize> {
    let mut counts: Vec<usize> =
        std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|c| *c < cpus).collect();
    counts.push(cpus);
    counts
}

fn table(depth: usize, counts: &[usize], figures: &[Figures]) -> Table {
    let rows = counts.iter().zip(figures).map(|(shards, figures)| Row {
        label: format!("{shards} {}", if *shards == 1 { "shard" } else { "shards" }),
        measurements: vec![
            Measurement::new("rate", "requests/s", figures.rate.clone()),
            Measurement::new("CPU per request", "µs", figures.cpu_us.clone()),
            Measurement::new("wrk's CPU, each thread", "%", figures.load_share.clone()),
        ],
    });
    Table::new(format!("Shards, depth {depth}"), rows.collect()).drawn(
        ChartForm::Line,
        "rate",
        &format!("shards-depth-{depth}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_doubled_up_to_all_cpus() {
        assert_eq!(shard_counts(1), [1]);
        assert_eq!(shard_counts(2), [1, 2]);
        assert_eq!(shard_counts(6), [1, 2, 4, 6]);
        assert_eq!(shard_counts(8), [1, 2, 4, 8]);
    }
}
