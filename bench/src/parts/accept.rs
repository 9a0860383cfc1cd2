//! Part `accept`: acknowledged writes a second through the API, beside a bare producer of librdkafka that has as many
//! messages of the same size on their way to the same broker.
//!
//! Nothing applies the writes meanwhile. Each load is followed by its producer, so that whatever else happens on the machine
//! meets both.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;

use super::{Bench, PartError, USER, setting};
use crate::commands::{Producer, Row};
use crate::deployment::AllServices;
use crate::measurement::Measurement;
use crate::report::{Bound, Report, Row as ReportRow, Table};

/// The API's part of what the bare producer does.
const PRODUCER_RATIO_MIN: f64 = 0.5;
/// What the API acknowledges is so many times what a server accepts that acknowledges nothing, at the connections below.
const RIVAL_RATIO_MIN: f64 = 5.0;
const RIVAL_CONNECTIONS: u64 = 512;
/// The product's own settings.
const LINGER_MS: u64 = 1;
const COMPRESSION: &str = "lz4";
/// What wrk is told.
const SCRIPT: &str = include_str!("../../wrk/post.lua");

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct AcceptArguments {
    /// Connections of each load, and with `xDEPTH` behind it requests that each of them sends together
    #[arg(long, value_name = "LOADS", value_delimiter = ',', default_value = "64,512,4096,64x16,512x16", value_parser = load)]
    pub loads: Vec<Load>,
    /// How long each measurement takes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    pub seconds: u64,
    /// Another server whose POST /todos is measured at 512 connections, in turn with ours
    #[arg(long, value_name = "ADDRESS")]
    pub rival: Option<SocketAddr>,
}

/// Connections, and requests that each sends together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    connections: u64,
    depth: u64,
}

fn load(text: &str) -> Result<Load, String> {
    let (connections, depth) = text.split_once('x').unwrap_or((text, "1"));
    match (connections.parse(), depth.parse()) {
        (Ok(connections @ 1..=100_000), Ok(depth @ 1..=1_000)) => Ok(Load { connections, depth }),
        _ => Err("expected CONNECTIONS or CONNECTIONSxDEPTH".to_owned()),
    }
}

#[derive(Default)]
struct Figures {
    api: Vec<f64>,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    errors: Vec<f64>,
    producer: Vec<f64>,
}

/// Runs the part.
///
/// # Errors
/// A server, a service or wrk fails.
pub fn run(bench: &Bench, arguments: &AcceptArguments) -> Result<Report, PartError> {
    crate::cpu::unpin_current_thread()?;
    let mut report = bench.report(
        "accept",
        "Writes that are acknowledged a second: by the API, whose 202 comes after the broker's own acknowledgement, and by \
         the broker to a bare producer with the same settings and as many messages on their way. Both share all CPUs with \
         the broker, and the API with its load as well.",
        vec![setting("seconds of each measurement", arguments.seconds), setting("compression", COMPRESSION)],
    );
    std::fs::create_dir_all(&bench.scratch)?;
    let services = AllServices::open(&bench.scratch.join("services"))?;
    let deployment = services.deployment("bench-accept")?;
    let api = deployment.api(&bench.product, &bench.scratch)?;
    let token = deployment.token(&bench.product, USER)?;
    let producer = Producer::new(&services, LINGER_MS, COMPRESSION)?;
    let duration = Duration::from_secs(arguments.seconds);
    let mut rows = Vec::new();
    for load in &arguments.loads {
        let Load { connections, depth } = *load;
        let mut figures = Figures::default();
        for run in 0..=bench.runs {
            let posted = load.post(api.address(), &token, duration)?;
            let produced = producer.rate(deployment.topic(), connections * depth, duration)?;
            eprintln!(
                "accept: {connections} connections, depth {depth}, run {run} of {}: API {:.0}/s, producer {produced:.0}/s",
                bench.runs, posted.rate
            );
            // The first run warms up.
            if run > 0 {
                figures.add(&posted, produced);
            }
        }
        let label =
            format!("{connections} connections, {}", if depth == 1 { "plain".into() } else { format!("{depth} deep") });
        report.bounds.push(Bound::at_least(
            format!("{label}: acknowledged by the API over the bare producer"),
            median(&figures.api) / median(&figures.producer),
            PRODUCER_RATIO_MIN,
        ));
        rows.push(figures.row(label));
    }
    report.tables.push(Table::new("Acknowledged writes", rows));
    if let Some(rival) = arguments.rival {
        let load = Load { connections: RIVAL_CONNECTIONS, depth: 1 };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..bench.runs {
            ours.push(load.post(api.address(), &token, duration)?.rate);
            theirs.push(load.post(rival, &token, duration)?.rate);
        }
        report.bounds.push(Bound::at_least(
            format!("{RIVAL_CONNECTIONS} connections: acknowledged by the API over accepted by the rival"),
            median(&ours) / median(&theirs),
            RIVAL_RATIO_MIN,
        ));
    }
    Ok(report)
}

fn median(runs: &[f64]) -> f64 {
    Measurement::new("", "", runs.to_vec()).median()
}

struct Posted {
    /// Writes/s that were answered with 2xx.
    rate: f64,
    errors: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Load {
    fn post(self, address: SocketAddr, token: &str, duration: Duration) -> io::Result<Posted> {
        let mut script = tempfile::Builder::new().suffix(".lua").tempfile()?;
        script.write_all(SCRIPT.as_bytes())?;
        let Row { title, description, .. } = Row::new(100_000);
        let mut command = Command::new("wrk");
        command.args(["-t1", &format!("-c{}", self.connections), &format!("-d{}s", duration.as_secs().max(1))]);
        command.arg("--timeout").arg("10s").arg("-s").arg(script.path()).arg(format!("http://{address}/todos"));
        command.arg("--").arg(self.depth.to_string()).arg(token);
        command.arg(format!("{{\"title\":\"{title}\",\"description\":\"{description}\"}}"));
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers: Option<Vec<f64>> = text
            .lines()
            .find_map(|line| line.strip_prefix("RESULT "))
            .and_then(|line| line.split(' ').map(|number| number.parse().ok()).collect());
        match numbers.as_deref() {
            Some([accepted, duration_us, errors, p50_us, p99_us]) => Ok(Posted {
                rate: accepted / duration_us * 1e6,
                errors: *errors,
                p50_ms: p50_us / 1e3,
                p99_ms: p99_us / 1e3,
            }),
            _ => Err(io::Error::other(format!("wrk gave no result. It wrote:\n{text}"))),
        }
    }
}

impl Figures {
    fn add(&mut self, posted: &Posted, produced: f64) {
        self.api.push(posted.rate);
        self.p50_ms.push(posted.p50_ms);
        self.p99_ms.push(posted.p99_ms);
        self.errors.push(posted.errors);
        self.producer.push(produced);
    }

    fn row(self, label: String) -> ReportRow {
        let measurements = vec![
            Measurement::new("API", "writes/s", self.api),
            Measurement::new("p50", "ms", self.p50_ms),
            Measurement::new("p99", "ms", self.p99_ms),
            Measurement::new("errors", "", self.errors),
            Measurement::new("bare producer", "writes/s", self.producer),
        ];
        ReportRow { label, measurements }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_read() {
        assert_eq!(load("64"), Ok(Load { connections: 64, depth: 1 }));
        assert_eq!(load("512x16"), Ok(Load { connections: 512, depth: 16 }));
        assert!(load("0").is_err() && load("8x").is_err());
    }
}
