//! Part `visible`: how long after its 202 a write is in the list of every shard of every API process.
//!
//! Writes come at a held rate. Of some of them the todo is asked for, again and again, on connections of every shard, until
//! every one has answered with it; the longest of these times counts. The questions are few beside the writes.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use super::{Bench, PartError, USER, setting};
use crate::client::{Client, get};
#[cfg(feature = "services")]
use crate::deployment::AllServices;
use crate::measurement::{Measurement, percentile};
use crate::report::{Bound, Report, Row, Table};
use crate::server::{Product, Server};
use crate::writes::{Mix, WriteLoad};

/// With services, at the rate that is bounded, half of the writes are visible everywhere within it.
const SERVICES_P50_MAX_MS: f64 = 10.0;
/// And 99 of 100 within it.
const SERVICES_P99_MAX_MS: f64 = 50.0;
/// Embedded, 99 of 100 writes are visible within it.
const EMBEDDED_P99_MAX_MS: f64 = 20.0;
/// The rate at which these hold, in writes/s.
const BOUNDED_RATE: f64 = 1_000.0;
/// Connections to each API process that ask: with fewer, one of its shards might be left out.
const CONNECTIONS_PER_API: usize = 8;
/// How long is written before anything counts, in seconds.
const WARM_UP_S: u64 = 3;
/// Between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(40);
/// Between two questions about one todo.
const QUESTION_INTERVAL: Duration = Duration::from_micros(500);
/// A write that shows nowhere for so long is lost.
const VISIBLE_MAX: Duration = Duration::from_secs(30);

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct VisibleArguments {
    /// Writes per second
    #[arg(long, value_name = "WRITES_PER_S", value_delimiter = ',', default_value = "20,1000")]
    pub rates: Vec<f64>,
    /// Measure at half of what is acknowledged when nothing holds the rate, too
    #[arg(long)]
    pub half_rate: bool,
    /// How long each measurement takes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub seconds: u64,
    /// Connections that write
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 32)]
    pub connections: usize,
    /// API processes beside the workers
    #[arg(long, value_name = "PROCESSES", default_value_t = 2)]
    pub apis: usize,
}

/// What is measured: the API processes of one deployment.
struct Subject {
    name: &'static str,
    apis: Vec<SocketAddr>,
    token: String,
}

#[derive(Default)]
struct Figures {
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    acknowledged_p99_ms: Vec<f64>,
    rate: Vec<f64>,
}

/// Runs the part.
///
/// # Errors
/// A server or a service fails, or a write is lost.
pub fn run(bench: &Bench, arguments: &VisibleArguments) -> Result<Report, PartError> {
    crate::cpu::unpin_current_thread()?;
    let mut report = bench.report(
        "visible",
        "From the 202 of a write until every shard of every API process answers with it.",
        vec![
            setting("seconds of each measurement", arguments.seconds),
            setting("writing connections", arguments.connections),
            setting("API processes with services", arguments.apis),
        ],
    );
    std::fs::create_dir_all(&bench.scratch)?;
    {
        let product = Product::new(&bench.product, &bench.scratch)?;
        let server = product.start_on(&[])?;
        let subject = Subject { name: "embedded", apis: vec![server.address()], token: product.token(USER)? };
        subject.measure_all(bench, arguments, &mut report)?;
    }
    #[cfg(feature = "services")]
    {
        let services = AllServices::open(&bench.scratch.join("services"))?;
        let deployment = services.deployment("bench-visible")?;
        let _worker = deployment.worker(&bench.product, &bench.scratch)?;
        let apis: Vec<Server> =
            (0..arguments.apis).map(|_| deployment.api(&bench.product, &bench.scratch)).collect::<Result<_, _>>()?;
        let apis = apis.iter().map(Server::address).collect();
        let subject = Subject { name: "services", apis, token: deployment.token(&bench.product, USER)? };
        subject.measure_all(bench, arguments, &mut report)?;
    }
    Ok(report)
}

impl Subject {
    fn measure_all(&self, bench: &Bench, arguments: &VisibleArguments, report: &mut Report) -> Result<(), PartError> {
        // The worker joins its group and every connection is opened before anything counts.
        self.measure(&VisibleArguments { seconds: WARM_UP_S, ..arguments.clone() }, Some(BOUNDED_RATE))?;
        let mut rates: Vec<(String, f64)> =
            arguments.rates.iter().map(|rate| (format!("{rate} writes/s"), *rate)).collect();
        if arguments.half_rate {
            let most = self.measure(arguments, None)?.rate[0];
            rates.push((format!("half of {most:.0} writes/s"), most / 2.0));
        }
        let mut rows = Vec::new();
        for (label, rate) in rates {
            let mut all = Figures::default();
            for run in 1..=bench.runs {
                let one = self.measure(arguments, Some(rate))?;
                eprintln!(
                    "visible: {}, {label}, run {run} of {}: p50 {:.1} ms, p99 {:.1} ms",
                    self.name, bench.runs, one.p50_ms[0], one.p99_ms[0]
                );
                all.append(one);
            }
            if rate == BOUNDED_RATE {
                report.bounds.extend(self.bounds(&all));
            }
            rows.push(Row { label, measurements: all.measurements() });
        }
        report.tables.push(Table::new(format!("From 202 to visible everywhere, {}", self.name), rows));
        Ok(())
    }

    /// Writes at this rate, or as fast as they are acknowledged, and watches samples.
    fn measure(&self, arguments: &VisibleArguments, rate: Option<f64>) -> Result<Figures, PartError> {
        let newest: Mutex<Option<(String, Instant)>> = Mutex::new(None);
        let stop = AtomicBool::new(false);
        let load = WriteLoad {
            address: self.apis[0],
            token: &self.token,
            todo_ids: &["unused".to_owned()],
            mix: Mix::Creates,
            connections: rate.map_or(arguments.connections, |rate| arguments.connections.min(rate.ceil() as usize)),
            rate,
            writes: rate.map_or(usize::MAX, |rate| (rate * arguments.seconds as f64) as usize),
            variety: 0,
        };
        let stop_at = Instant::now() + Duration::from_secs(arguments.seconds);
        let (written, mut latencies_ms) = std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let watched = watch(&self.apis, &newest, stop_at);
                stop.store(true, Ordering::Relaxed);
                watched
            });
            let written = load.run_and_tell(&stop, &|id| {
                *newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                    Some((id.to_owned(), Instant::now()));
            });
            let watched = watching.join().unwrap_or_else(|_| Err(std::io::Error::other("a panic")));
            written.and_then(|written| Ok((written, watched?)))
        })?;
        let mut written = written;
        Ok(Figures {
            p50_ms: vec![percentile(&mut latencies_ms, 50.0)],
            p99_ms: vec![percentile(&mut latencies_ms, 99.0)],
            acknowledged_p99_ms: vec![written.latency_us(99.0) / 1e3],
            rate: vec![written.latencies_us.len() as f64 / written.elapsed.as_secs_f64()],
        })
    }

    fn bounds(&self, figures: &Figures) -> Vec<Bound> {
        let median = |runs: &[f64]| Measurement::new("", "", runs.to_vec()).median();
        let bound = |percent: &str, runs: &[f64], limit| {
            let claim = format!("{}, {BOUNDED_RATE} writes/s: {percent} from 202 to visible everywhere, ms", self.name);
            Bound::at_most(claim, median(runs), limit)
        };
        match self.name {
            "embedded" => vec![bound("p99", &figures.p99_ms, EMBEDDED_P99_MAX_MS)],
            _ => vec![
                bound("p50", &figures.p50_ms, SERVICES_P50_MAX_MS),
                bound("p99", &figures.p99_ms, SERVICES_P99_MAX_MS),
            ],
        }
    }
}

/// Takes the newest write now and then, and asks everywhere for it; returns how long each took until it was everywhere.
fn watch(
    apis: &[SocketAddr],
    newest: &Mutex<Option<(String, Instant)>>,
    stop_at: Instant,
) -> std::io::Result<Vec<f64>> {
    let mut clients = Vec::new();
    for api in apis {
        for _ in 0..CONNECTIONS_PER_API {
            clients.push(Client::connect(*api)?);
        }
    }
    let mut latencies_ms = Vec::new();
    while Instant::now() < stop_at {
        let taken = newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some((id, acknowledged_at)) = taken else {
            std::thread::sleep(QUESTION_INTERVAL);
            continue;
        };
        let request = get(&format!("/todos/{id}"));
        let mut last_seen_at = acknowledged_at;
        for client in &mut clients {
            // Whoever is asked later may have had it for long: only an answer without it moves the time.
            let mut was_missing = false;
            while client.exchange(&request)?.0.status != 200 {
                was_missing = true;
                if acknowledged_at.elapsed() > VISIBLE_MAX {
                    return Err(std::io::Error::other(format!("the acknowledged todo {id} does not show")));
                }
                std::thread::sleep(QUESTION_INTERVAL);
            }
            if was_missing || last_seen_at == acknowledged_at {
                last_seen_at = Instant::now();
            }
        }
        latencies_ms.push(last_seen_at.duration_since(acknowledged_at).as_secs_f64() * 1e3);
        std::thread::sleep(SAMPLE_INTERVAL);
        // The next sample is a write of then, whose time is short ago.
        newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }
    Ok(latencies_ms)
}

impl Figures {
    fn append(&mut self, other: Figures) {
        self.p50_ms.extend(other.p50_ms);
        self.p99_ms.extend(other.p99_ms);
        self.acknowledged_p99_ms.extend(other.acknowledged_p99_ms);
        self.rate.extend(other.rate);
    }

    fn measurements(&self) -> Vec<Measurement> {
        vec![
            Measurement::new("visible p50", "ms", self.p50_ms.clone()),
            Measurement::new("visible p99", "ms", self.p99_ms.clone()),
            Measurement::new("acknowledged p99", "ms", self.acknowledged_p99_ms.clone()),
            Measurement::new("acknowledged", "writes/s", self.rate.clone()),
        ]
    }
}
