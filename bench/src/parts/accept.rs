//! Part `accept`: acknowledged writes a second through the API, beside a bare producer of librdkafka that has as many
//! messages of the same size on their way to the same broker, and beside a Go program that acknowledges nothing.
//!
//! Nothing applies the writes meanwhile. Each load is followed by those that it is compared with, so that whatever else
//! happens on the machine meets all.

use std::time::Duration;

use clap::Args;

use super::acknowledged::{Load, Posted, Produced, column, load};
use super::{Bench, PartError, USER, setting};
use crate::candidate::go_manner;
use crate::commands::{COMPRESSION, Partitions, Producer};
use crate::deployment::{AllServices, JWT_SECRET};
use crate::report::{Bound, Report, Row as ReportRow, Table};

/// The API's part of what the bare producer does.
const PRODUCER_RATIO_MIN: f64 = 0.5;
/// What the API acknowledges is so many times what a server accepts that acknowledges nothing, at the connections below.
const RIVAL_RATIO_MIN: f64 = 5.0;
const RIVAL_CONNECTIONS: u64 = 512;
/// The rival gets so long before it is measured.
const RIVAL_WARM_UP: Duration = Duration::from_secs(1);

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct AcceptArguments {
    /// Connections of each load, and with `xDEPTH` behind it requests that each of them sends together
    #[arg(long, value_name = "LOADS", value_delimiter = ',', default_value = "64,512,4096,64x16,512x16", value_parser = load)]
    pub loads: Vec<Load>,
    /// How long each measurement takes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    pub seconds: u64,
    /// Leave the Go program out
    #[arg(long)]
    pub without_rival: bool,
}

/// Runs of one load.
#[derive(Default)]
struct Figures {
    api: Vec<Posted>,
    rival: Vec<Posted>,
    producer: Vec<Produced>,
}

/// Runs the part.
///
/// # Errors
/// A server, a service or the load fails; a write is not answered with 202.
pub fn run(bench: &Bench, arguments: &AcceptArguments) -> Result<Report, PartError> {
    crate::cpu::unpin_current_thread()?;
    let mut report = bench.report(
        "accept",
        "Writes that are acknowledged a second: by the API, whose 202 comes after the broker's own acknowledgement, and by \
         the broker to a bare producer with the same settings and as many messages on their way. Both share all CPUs with \
         the broker, and the API with its load as well. The Go program answers 202 without waiting for the broker. A latency \
         is that of all requests that a connection sends together.",
        vec![setting("seconds of each measurement", arguments.seconds), setting("compression", COMPRESSION)],
    );
    std::fs::create_dir_all(&bench.scratch)?;
    let has_rival = !arguments.without_rival && {
        let prepared = go_manner::prepare(&bench.programs, bench.builds);
        prepared.inspect_err(|reason| report.remarks.push(format!("go-manner was not measured: {reason}"))).is_ok()
    };
    let services = AllServices::open(&bench.scratch.join("services"))?;
    let deployment = services.deployment("bench-accept")?;
    let rival_deployment = services.deployment("bench-accept-rival")?;
    let api = deployment.api(&bench.product, &bench.scratch)?;
    let token = deployment.token(&bench.product, USER)?;
    let producer = Producer::new(&services, &[])?;
    let duration = Duration::from_secs(arguments.seconds.max(1));
    let (mut rows, mut costs) = (Vec::new(), Vec::new());
    for load in &arguments.loads {
        let mut figures = Figures::default();
        for run in 0..=bench.runs {
            let posted = load.post(&api, &token, duration)?;
            let produced = load.produce(&producer, deployment.topic(), Partitions::ByKey, duration)?;
            eprintln!(
                "accept: {}, run {run} of {}: API {:.0}/s, producer {:.0}/s",
                load.label(),
                bench.runs,
                posted.rate,
                produced.rate
            );
            // The first run warms up.
            if run == 0 {
                continue;
            }
            if has_rival && load.connections == RIVAL_CONNECTIONS {
                // Made anew each time: what it has not written yet is gone with it, and takes no CPU from the others.
                let rival = go_manner::start_for_writes(
                    &bench.programs,
                    &bench.scratch,
                    services.kafka_brokers(),
                    rival_deployment.topic(),
                    JWT_SECRET,
                )?;
                load.post(&rival, &token, RIVAL_WARM_UP)?;
                let posted = load.post(&rival, &token, duration)?;
                eprintln!("accept: {}, go-manner {:.0}/s", load.label(), posted.rate);
                figures.rival.push(posted);
            }
            figures.api.push(posted);
            figures.producer.push(produced);
        }
        figures.judge(*load, &mut report);
        rows.push(figures.rates(*load));
        costs.push(figures.costs(*load));
    }
    report.tables.push(Table::new("Acknowledged writes", rows));
    report.tables.push(Table::new("CPU time of one write", costs));
    Ok(report)
}

impl Figures {
    fn judge(&self, load: Load, report: &mut Report) {
        let label = load.label();
        let api = column("", "", &self.api, |run| run.rate).median();
        report.bounds.push(Bound::at_least(
            format!("{label}: acknowledged by the API over the bare producer"),
            api / column("", "", &self.producer, |run| run.rate).median(),
            PRODUCER_RATIO_MIN,
        ));
        if !self.rival.is_empty() {
            report.bounds.push(Bound::at_least(
                format!("{label}: acknowledged by the API over accepted by go-manner"),
                api / column("", "", &self.rival, |run| run.rate).median(),
                RIVAL_RATIO_MIN,
            ));
        }
        let half_us = self.half_us(report.machine.cpus);
        let (load_us, rest_us) = (self.median_us(|run| run.load_us), self.median_us(|run| run.rest_us));
        report.remarks.push(format!(
            "{label}: half of the bare producer's rate leaves {half_us:.1} µs of all CPUs together for a write. The load alone \
             takes {load_us:.1}, the broker and the rest of the machine {rest_us:.1}, the API {:.1}.",
            self.median_us(|run| run.server_us)
        ));
    }

    fn median_us(&self, figure: impl Fn(&Posted) -> f64) -> f64 {
        column("", "", &self.api, figure).median()
    }

    /// The CPU time that a write may take in all, at half the bare producer's rate, in microseconds.
    fn half_us(&self, cpus: usize) -> f64 {
        cpus as f64 * 1e6 / (PRODUCER_RATIO_MIN * column("", "", &self.producer, |run| run.rate).median())
    }

    fn rates(&self, load: Load) -> ReportRow {
        let mut measurements = vec![
            column("API", "writes/s", &self.api, |run| run.rate),
            column("p50", "ms", &self.api, |run| run.p50_ms),
            column("p99", "ms", &self.api, |run| run.p99_ms),
            column("bare producer", "writes/s", &self.producer, |run| run.rate),
        ];
        if !self.rival.is_empty() {
            measurements.push(column("go-manner, unacknowledged", "writes/s", &self.rival, |run| run.rate));
        }
        ReportRow { label: load.label(), measurements }
    }

    fn costs(&self, load: Load) -> ReportRow {
        let measurements = vec![
            column("API", "µs", &self.api, |run| run.server_us),
            column("load", "µs", &self.api, |run| run.load_us),
            column("broker and the rest", "µs", &self.api, |run| run.rest_us),
            column("bare producer", "µs", &self.producer, |run| run.producer_us),
            column("broker and the rest, for the producer", "µs", &self.producer, |run| run.rest_us),
        ];
        ReportRow { label: load.label(), measurements }
    }
}
