//! Part `tuning`: what linger, compression, batch and requests in flight of Kafka's producer do to acknowledged writes.
//!
//! One value is changed at a time, from the product's defaults. What the product has a setting for is measured through its
//! API, one process for each value. For the rest, and for what the setting does not allow, a bare producer with the
//! product's settings and one changed stands in; its messages fall to the partitions as the product's new todos do.
//! Everything runs at the same time and is measured in turn. Nothing applies the writes meanwhile.

use std::time::Duration;

use clap::Args;

use super::acknowledged::{Load, column, load};
use super::{Bench, PartError, USER, setting};
use crate::commands::{COMPRESSION, LINGER_MS, Partitions, Producer};
use crate::deployment::{AllServices, Deployment};
use crate::measurement::Measurement;
use crate::report::{Bound, Report, Row, Table};
use crate::server::Server;

/// The API's settings that are tried beside the defaults.
const SETTINGS: [(&str, &str); 6] = [
    ("KAFKA_LINGER_MS", "0"),
    ("KAFKA_LINGER_MS", "2"),
    ("KAFKA_LINGER_MS", "5"),
    ("KAFKA_COMPRESSION", "none"),
    ("KAFKA_COMPRESSION", "snappy"),
    ("KAFKA_COMPRESSION", "gzip"),
];
/// The settings of librdkafka that are tried beside the product's. The product leaves the first at librdkafka's default,
/// 1,000,000 bytes; it has one request on its way, where an idempotent producer may have 5; the third it does not offer.
const PRODUCER_SETTINGS: [(&str, &str); 5] = [
    ("batch.size", "4096"),
    ("batch.size", "16384"),
    ("max.in.flight.requests.per.connection", "2"),
    ("max.in.flight.requests.per.connection", "5"),
    ("compression.type", "zstd"),
];
/// The defaults reach so much of the rate of the best that was tried.
const DEFAULTS_RATIO_MIN: f64 = 0.9;
/// What is still on its way when a load ends reaches the log within it.
const SETTLED: Duration = Duration::from_millis(100);

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct TuningArguments {
    /// Connections of each load, and with `xDEPTH` behind it requests that each of them sends together
    #[arg(long, value_name = "LOADS", value_delimiter = ',', default_value = "64,64x16", value_parser = load)]
    pub loads: Vec<Load>,
    /// How long each measurement takes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    pub seconds: u64,
}

/// What takes writes.
enum Taker {
    Api(Server),
    Producer(Producer),
}

/// A taker of writes, and what is different with it.
struct Subject {
    label: String,
    taker: Taker,
}

/// One run of one subject.
struct Tried {
    rate: f64,
    /// From sending requests until they are answered, at the median and the 99th percentile; a bare producer has neither.
    latency_ms: Option<(f64, f64)>,
    /// CPU time of the API, or of the bare producer.
    own_us: f64,
    machine_us: f64,
    /// `None` when the broker's files are out of reach.
    log_bytes: Option<f64>,
}

/// Runs the part.
///
/// # Errors
/// A server, a service or the load fails; a write is not answered with 202.
pub fn run(bench: &Bench, arguments: &TuningArguments) -> Result<Report, PartError> {
    crate::cpu::unpin_current_thread()?;
    let mut report = bench.report(
        "tuning",
        "What was tried to tune the way into Kafka: acknowledged writes a second with the product's defaults, and with one \
         setting changed. Settings of the product are measured through its API; the others by a bare producer with the \
         product's settings and as many messages on their way. All share all CPUs with the broker, and the API with its load \
         as well. A latency is that of all requests that a connection sends together. Beside each rate stands what part of \
         the defaults' rate in the same round it is. The texts of the todos are nearly the same, so they compress better \
         than people's do.",
        vec![
            setting("seconds of each measurement", arguments.seconds),
            setting("defaults", format!("linger {LINGER_MS} ms, {COMPRESSION}, batches of 1,000,000 bytes, 1 in flight")),
        ],
    );
    std::fs::create_dir_all(&bench.scratch)?;
    let services = AllServices::open(&bench.scratch.join("services"))?;
    let deployment = services.deployment("bench-tuning")?;
    let token = deployment.token(&bench.product, USER)?;
    // The default comes first of each: the others are compared with it.
    let apis = Subject::apis(bench, &deployment)?;
    let producers = Subject::producers(&services)?;
    let counter = Producer::new(&services, &[])?;
    let duration = Duration::from_secs(arguments.seconds.max(1));
    for load in &arguments.loads {
        for (title, subjects) in [("through the API", &apis), ("bare producer", &producers)] {
            let mut runs: Vec<Vec<Tried>> = subjects.iter().map(|_| Vec::new()).collect();
            // The first round warms up and is not counted.
            for run in 0..=bench.runs {
                for turn in 0..subjects.len() {
                    // Forwards and backwards in turn: who comes first in a round has no lasting advantage.
                    let turn = if run.is_multiple_of(2) { turn } else { subjects.len() - 1 - turn };
                    let subject = &subjects[turn];
                    let tried = subject.measure(*load, &deployment, &counter, &token, duration)?;
                    let (label, rate) = (&subject.label, tried.rate);
                    eprintln!("tuning: {}, {label}, run {run} of {}: {rate:.0}/s", load.label(), bench.runs);
                    if run > 0 {
                        runs[turn].push(tried);
                    }
                }
            }
            let rows: Vec<Row> =
                subjects.iter().zip(&runs).map(|(subject, tried)| row(&subject.label, tried, &runs[0])).collect();
            if matches!(subjects[0].taker, Taker::Api(_)) {
                report.bounds.push(bound(*load, &runs));
            }
            report.tables.push(Table::new(format!("{}, {title}", load.label()), rows));
        }
    }
    if deployment.log_bytes()?.is_none() {
        report.remarks.push("The services were there already, so the bytes in the log could not be looked at.".into());
    }
    Ok(report)
}

impl Subject {
    fn apis(bench: &Bench, deployment: &Deployment<'_>) -> Result<Vec<Subject>, PartError> {
        let defaults = [(None, "defaults".to_owned())];
        let changed = SETTINGS.iter().map(|change| (Some(*change), format!("{}={}", change.0, change.1)));
        let mut subjects = Vec::new();
        for (number, (change, label)) in defaults.into_iter().chain(changed).enumerate() {
            // A folder each: the log of a server has the name of its program.
            let folder = bench.scratch.join(format!("tuning-{number}"));
            std::fs::create_dir_all(&folder)?;
            let api = deployment.api_with(&bench.product, &folder, change.as_slice())?;
            subjects.push(Subject { label, taker: Taker::Api(api) });
        }
        Ok(subjects)
    }

    fn producers(services: &AllServices) -> Result<Vec<Subject>, PartError> {
        let defaults = [(None, "the product's settings".to_owned())];
        let changed = PRODUCER_SETTINGS.iter().map(|change| (Some(*change), format!("{}={}", change.0, change.1)));
        let mut subjects = Vec::new();
        for (change, label) in defaults.into_iter().chain(changed) {
            let producer = Producer::new(services, change.as_slice())?;
            subjects.push(Subject { label, taker: Taker::Producer(producer) });
        }
        Ok(subjects)
    }

    fn measure(
        &self,
        load: Load,
        deployment: &Deployment<'_>,
        counter: &Producer,
        token: &str,
        duration: Duration,
    ) -> Result<Tried, PartError> {
        let topic = deployment.topic();
        let (bytes_before, records_before) = (deployment.log_bytes()?, counter.records(topic)?);
        let mut tried = match &self.taker {
            Taker::Api(api) => {
                let posted = load.post(api, token, duration)?;
                Tried {
                    rate: posted.rate,
                    latency_ms: Some((posted.p50_ms, posted.p99_ms)),
                    own_us: posted.server_us,
                    machine_us: posted.server_us + posted.load_us + posted.rest_us,
                    log_bytes: None,
                }
            }
            Taker::Producer(producer) => {
                let produced = load.produce(producer, topic, Partitions::ByMillisecond, duration)?;
                Tried {
                    rate: produced.rate,
                    latency_ms: None,
                    own_us: produced.producer_us,
                    machine_us: produced.producer_us + produced.rest_us,
                    log_bytes: None,
                }
            }
        };
        std::thread::sleep(SETTLED);
        if let (Some(before), Some(after)) = (bytes_before, deployment.log_bytes()?) {
            let records = counter.records(topic)?.saturating_sub(records_before);
            tried.log_bytes = Some(after.saturating_sub(before) as f64 / records as f64);
        }
        Ok(tried)
    }
}

/// The figures of one subject, beside the defaults in the same rounds.
fn row(label: &str, runs: &[Tried], defaults: &[Tried]) -> Row {
    let ratios = runs.iter().zip(defaults).map(|(run, default)| run.rate / default.rate).collect();
    let mut measurements = vec![
        column("acknowledged", "writes/s", runs, |run| run.rate),
        Measurement::new("over the defaults", "", ratios),
    ];
    let latencies: Vec<(f64, f64)> = runs.iter().filter_map(|run| run.latency_ms).collect();
    if !latencies.is_empty() {
        measurements.push(column("p50", "ms", &latencies, |latency| latency.0));
        measurements.push(column("p99", "ms", &latencies, |latency| latency.1));
    }
    measurements.push(column("own CPU per write", "µs", runs, |run| run.own_us));
    measurements.push(column("CPU of the machine per write", "µs", runs, |run| run.machine_us));
    let log_bytes: Vec<f64> = runs.iter().filter_map(|run| run.log_bytes).collect();
    if !log_bytes.is_empty() {
        measurements.push(Measurement::new("in the log per write", "bytes", log_bytes));
    }
    Row { label: label.to_owned(), measurements }
}

/// The defaults, which are the first, against the best of all.
fn bound(load: Load, runs: &[Vec<Tried>]) -> Bound {
    let rates: Vec<f64> = runs.iter().map(|tried| column("", "", tried, |run| run.rate).median()).collect();
    let best = rates.iter().copied().fold(f64::NAN, f64::max);
    let defaults = rates.first().copied().unwrap_or(f64::NAN);
    let claim = format!("{}: acknowledged with the defaults over the best that was tried", load.label());
    Bound::at_least(claim, defaults / best, DEFAULTS_RATIO_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(rate: f64) -> Tried {
        Tried { rate, latency_ms: Some((1.0, 2.0)), own_us: 3.0, machine_us: 4.0, log_bytes: None }
    }

    fn three(rate: f64) -> Vec<Tried> {
        [rate, rate * 1.1, rate * 0.9].map(tried).into()
    }

    #[test]
    fn defaults_that_are_far_behind_the_best_do_not_pass() {
        let load = load("64x16").expect("a load");
        assert!(bound(load, &[three(1_000.0), three(900.0), three(1_100.0)]).holds());
        assert!(!bound(load, &[three(1_000.0), three(900.0), three(1_200.0)]).holds());
        assert!(!bound(load, &[]).holds(), "nothing was measured");
    }

    #[test]
    fn a_rate_is_compared_with_the_defaults_of_its_own_round() {
        // A machine that slows down in the second round slows both.
        let row = row("a", &[tried(1_500.0), tried(750.0)], &[tried(1_000.0), tried(500.0)]);
        let ratio = row.measurements.iter().find(|one| one.name == "over the defaults").expect("it is there");
        assert_eq!(ratio.runs, [1.5, 1.5]);
        assert!(row.measurements.iter().all(|one| one.unit != "bytes"), "the log was out of reach");
    }

    #[test]
    fn nothing_is_tried_that_is_the_default() {
        let linger = LINGER_MS.to_string();
        let defaults = [("KAFKA_LINGER_MS", linger.as_str()), ("KAFKA_COMPRESSION", COMPRESSION)];
        assert!(defaults.iter().all(|default| !SETTINGS.contains(default)), "{defaults:?}");
    }
}
