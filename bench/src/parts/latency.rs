//! Part `latency`: how long a response takes at fixed rates, ours, the floor's and nginx's.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use clap::Args;

use super::live::while_writing;
use super::read::{Load, Responses};
use super::{Bench, PartError, USER, setting};
use crate::candidate::{Candidate, Kind, Setting};
use crate::measurement::Measurement;
use crate::oha::{self, FixedRateLoad, FixedRateResult};
use crate::report::{ChartForm, Report, Row, Table};
use crate::server::{Product, Server};

/// Who is measured: ours, the floor that is cheaper for one request at a time, and the best known server.
const MEASURED: [&str; 3] = ["million-rps", "floor-epoll", "nginx"];
/// Connections are opened, caches and clock speed come up.
const WARM_UP: Duration = Duration::from_secs(1);
/// A rate counts as held when so much of it came.
const HELD_SHARE: f64 = 0.98;

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct LatencyArguments {
    /// Rates, in percent of the lowest of the candidates' highest rates, so that all get the same
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_value = "10,50,80")]
    pub percents: Vec<u32>,
    /// Connections
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 64)]
    pub connections: usize,
    /// Seconds of each run
    #[arg(long, value_name = "S", default_value_t = 4)]
    pub seconds: u64,
    /// Length of our list
    #[arg(long, value_name = "TODOS", default_value_t = 10_000)]
    pub todos: u64,
    /// Writes per second to ours meanwhile; none when 0
    #[arg(long, value_name = "WRITES_PER_S", default_value_t = 20.0)]
    pub write_rate: f64,
}

struct Context<'c> {
    bench: &'c Bench,
    arguments: &'c LatencyArguments,
    oha: OsString,
    product: &'c Product,
    token: String,
    responses: Responses,
}

/// Runs the part. Without oha the report says that it is missing, and has no figures.
///
/// # Errors
/// A server does not start, or oha fails.
pub fn run(bench: &Bench, arguments: &LatencyArguments) -> Result<Report, PartError> {
    let mut report = bench.report(
        "latency",
        "Time from when a request for `GET /todos?limit=10` was due until its response was there, at fixed rates, one \
         request at a time on each connection. The rates are parts of what oha and the slowest of these servers do \
         together without a fixed rate, so all get the same.",
        vec![
            setting("percent", arguments.percents.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
            setting("connections", arguments.connections),
            setting("seconds of each run", arguments.seconds),
            setting("todos", arguments.todos),
            setting("writes to ours meanwhile", format!("{} writes/s", arguments.write_rate)),
        ],
    );
    let oha = match oha::find() {
        Ok(oha) => oha,
        Err(reason) => {
            report.remarks.push(format!("Not measured: {reason}."));
            return Ok(report);
        }
    };
    eprintln!("latency: seeding {} todos", arguments.todos);
    let product = Product::new(&bench.product, &bench.scratch)?;
    product.seed_for_reading(arguments.todos, USER, bench.server_cpu)?;
    let responses = Responses::capture(&product.start(bench.server_cpu)?, &[Load::Ten])?;
    let token = product.token(USER)?;
    let context = Context { bench, arguments, oha, product: &product, token, responses };
    let mut candidates = Vec::new();
    for candidate in MEASURED.iter().filter_map(|name| Candidate::named(name)) {
        match candidate.prepare(&bench.programs, bench.builds) {
            Ok(()) => candidates.push(candidate),
            Err(reason) => report.remarks.push(format!("{} is missing: {reason}.", candidate.name)),
        }
    }

    let mut highest = f64::INFINITY;
    for candidate in &candidates {
        eprintln!("latency: highest rate of {}", candidate.name);
        let result = context.measure(candidate, None)?;
        report.remarks.push(format!("{}: {:.0} requests/s with oha and no fixed rate.", candidate.name, result.rate));
        highest = highest.min(result.rate);
    }
    let mut results: Vec<Vec<Vec<FixedRateResult>>> =
        vec![vec![Vec::new(); candidates.len()]; arguments.percents.len()];
    let begin = report.clone();
    for run in 0..bench.runs {
        for (percent, results) in arguments.percents.iter().zip(&mut results) {
            for turn in 0..candidates.len() {
                // Forwards and backwards in turn: who comes first in a round has no lasting advantage.
                let turn = if run.is_multiple_of(2) { turn } else { candidates.len() - 1 - turn };
                let rate = highest * f64::from(*percent) / 100.0;
                eprintln!("latency: run {} of {}: {percent} %: {}", run + 1, bench.runs, candidates[turn].name);
                results[turn].push(context.measure(candidates[turn], Some(rate))?);
            }
        }
        report = begin.clone();
        for (percent, results) in arguments.percents.iter().zip(&results) {
            let rate = highest * f64::from(*percent) / 100.0;
            report.remarks.extend(remarks(*percent, rate, &candidates, results));
            report.tables.push(table(*percent, rate, &candidates, results));
        }
        // What there is so far: an interrupted run loses nothing.
        report.save(&bench.output)?;
    }
    Ok(report)
}

impl Context<'_> {
    fn measure(&self, candidate: &Candidate, rate: Option<f64>) -> Result<FixedRateResult, PartError> {
        let Context { bench, arguments, product, .. } = self;
        let folder = tempfile::tempdir_in(&bench.scratch)?;
        let response = self.responses.to(Load::Ten);
        let server = candidate.start(&Setting {
            product,
            programs: &bench.programs,
            target: Load::Ten.target(),
            response,
            unconditional: response,
            in_turn: &[],
            folder: folder.path(),
            server_cpu: bench.server_cpu,
            kafka_brokers: None,
        })?;
        let read = || self.read(&server, rate);
        let has_live_writes = candidate.kind == Kind::Ours && arguments.write_rate > 0.0;
        let result =
            if has_live_writes { while_writing(&server, &self.token, arguments.write_rate, 0, read)? } else { read()? };
        Ok(result)
    }

    fn read(&self, server: &Server, rate: Option<f64>) -> io::Result<FixedRateResult> {
        let load = |duration| FixedRateLoad {
            address: server.address(),
            target: Load::Ten.target(),
            connections: self.arguments.connections,
            rate,
            duration,
        };
        load(WARM_UP).run(&self.oha)?;
        load(Duration::from_secs(self.arguments.seconds)).run(&self.oha)
    }
}

fn table(percent: u32, rate: f64, candidates: &[&Candidate], results: &[Vec<FixedRateResult>]) -> Table {
    let rows = candidates.iter().zip(results).map(|(candidate, results)| {
        let figure = |of: fn(&FixedRateResult) -> f64| results.iter().map(of).collect::<Vec<f64>>();
        let measurements = vec![
            Measurement::new("p99", "ms", figure(|result| result.p99_ms)),
            Measurement::new("p50", "ms", figure(|result| result.p50_ms)),
            Measurement::new("p99.9", "ms", figure(|result| result.p999_ms)),
            Measurement::new("rate", "requests/s", figure(|result| result.rate)),
        ];
        Row { label: candidate.label(), measurements }
    });
    Table::new(format!("{percent} %: {rate:.0} requests/s"), rows.collect()).drawn(
        ChartForm::Bars,
        "p99",
        &format!("latency-{percent}-percent"),
    )
}

fn remarks(percent: u32, rate: f64, candidates: &[&Candidate], results: &[Vec<FixedRateResult>]) -> Vec<String> {
    let mut remarks = Vec::new();
    for (candidate, results) in candidates.iter().zip(results) {
        let came = Measurement::new("", "", results.iter().map(|result| result.rate).collect()).median();
        if came < HELD_SHARE * rate {
            remarks.push(format!("{percent} %: the rate was not held for {}.", candidate.name));
        }
        let errors: u64 = results.iter().map(|result| result.errors).sum();
        if errors > 0 {
            remarks.push(format!("{percent} %: {} had {errors} errors.", candidate.name));
        }
    }
    remarks
}
