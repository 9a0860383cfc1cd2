//! Part `events`: changes that are told to crowds of followers, by ours, by a floor and by others' servers.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use super::{Bench, PartError, USER, setting};
use crate::candidate::Kind;
use crate::followers::Crowd;
use crate::hubs::{HUBS, Hub, Running, Setting};
use crate::measurement::{Measurement, percentile};
use crate::memory::resident_bytes_with_descendants;
use crate::publisher::Publisher;
use crate::report::{Bound, Report, Row, Table};
use crate::server::Product;
use crate::writes::list_ids;
use crate::wrk::ReadLoad;

/// The load of the bounds.
const BOUNDED_FOLLOWERS: usize = 10_000;
const BOUNDED_RATE: f64 = 100.0;
const DELIVERIES_PER_S_MIN: f64 = 1_000_000.0;
const P99_MAX_MS: f64 = 150.0;
/// CPU time of a delivery, compared with the floor's.
const FLOOR_RATIO_MAX: f64 = 1.3;
/// Deliveries in a second of CPU time, compared with the best of the others.
const RIVAL_RATIO_MIN: f64 = 5.0;
const IDLE_FOLLOWER_MAX_BYTES: f64 = 1024.0;
/// Idle followers beside reads, and what reads may cost more beside them.
const IDLE_FOLLOWERS: usize = 5_000;
const READS_RATIO_MAX: f64 = 1.05;

/// What is still to be told when the last change has been made is waited for so long at most.
const REST_MAX: Duration = Duration::from_secs(5);
/// Buffers of connections that have fallen idle are given back within it.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// Between two looks at whether time is over.
const LOOK: Duration = Duration::from_millis(50);
/// The read load beside idle followers.
const READ_TARGET: &str = "/todos?limit=10";
const READ_CONNECTIONS: usize = 64;

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct EventsArguments {
    /// Sizes of the crowd
    #[arg(long, value_name = "FOLLOWERS", value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    pub followers: Vec<usize>,
    /// Changes per second
    #[arg(long, value_name = "RATES", value_delimiter = ',', default_values_t = [1.0, 100.0, 1_000.0])]
    pub rates: Vec<f64>,
    /// Those that are measured; all when not given
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// How long changes are made, for each size and rate
    #[arg(long, value_name = "S", default_value_t = 5)]
    pub seconds: u64,
    /// Length of the list; its todos are changed in turn
    #[arg(long, value_name = "TODOS", default_value_t = 5_000)]
    pub todos: u64,
    /// Leave out the reads beside idle followers
    #[arg(long)]
    pub no_reads: bool,
}

/// The figures of one crowd at one rate, each of all runs.
#[derive(Default)]
struct Figures {
    deliveries_per_s: Vec<f64>,
    cpu_us: Vec<f64>,
    cpu_percent: Vec<f64>,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    longest_ms: Vec<f64>,
    /// Of the changes made, in percent.
    told_percent: Vec<f64>,
    lost: Vec<f64>,
    follower_bytes: Vec<f64>,
}

/// What was measured of one hub at one load.
struct Measured {
    hub: &'static Hub,
    followers: usize,
    rate: f64,
    figures: Figures,
}

/// Runs the part.
///
/// # Errors
/// A server fails.
pub fn run(bench: &Bench, arguments: &EventsArguments) -> Result<Report, PartError> {
    let mut report = bench.report(
        "events",
        "Followers of one shard, or of one process of another server on one CPU, while changes are made at a fixed rate. A \
         delivery is one change told to one follower. Latencies run from the acknowledgement of a change until the last \
         follower has it. The floor writes the same bytes to as many sockets, and does nothing else. CPU time is the server's, \
         with all that belongs to it: ours has log, store and list in the same process.",
        vec![setting("seconds", arguments.seconds), setting("todos", arguments.todos)],
    );
    let product = Product::new(&bench.product, &bench.scratch)?;
    product.seed(arguments.todos, USER)?;
    // The first start makes the key of the tokens.
    let todo_ids = list_ids(product.start(bench.server_cpu)?.address())?;
    let token = product.token(USER)?;
    let folder = tempfile::tempdir_in(&bench.scratch)?;
    let setting = Setting {
        product: &product,
        token: &token,
        todo_ids: &todo_ids,
        programs: &bench.programs,
        folder: folder.path(),
        server_cpu: bench.server_cpu,
    };
    let mut hubs = Vec::new();
    for hub in HUBS.iter().filter(|hub| arguments.only.is_empty() || arguments.only.iter().any(|name| name == hub.name))
    {
        match hub.prepare(&bench.programs, bench.builds) {
            Ok(()) => hubs.push(hub),
            Err(reason) => report.remarks.push(format!("{} was not measured: {reason}.", hub.name)),
        }
    }
    let mut all: Vec<Measured> = Vec::new();
    for &followers in &arguments.followers {
        for &rate in &arguments.rates {
            let new = |hub: &&'static Hub| Measured { hub, followers, rate, figures: Figures::default() };
            let mut load: Vec<Measured> = hubs.iter().map(new).collect();
            for run in 1..=bench.runs {
                for measured in &mut load {
                    let told = measured.measure(&setting, arguments.seconds);
                    let name = measured.hub.name;
                    match told {
                        Ok(text) => {
                            eprintln!("events: {name}, {followers} followers, {rate} changes/s, run {run}: {text}")
                        }
                        Err(error) => report.remarks.push(failure(measured, run, error.as_ref())),
                    }
                }
            }
            report.tables.push(table(&load));
            all.extend(load);
        }
    }
    report.bounds.extend(bounds(&all));
    if !arguments.no_reads && hubs.iter().any(|hub| hub.kind == Kind::Ours) {
        measure_reads(bench, arguments, &product, &mut report)?;
    }
    Ok(report)
}

fn failure(Measured { hub, followers, rate, .. }: &Measured, run: usize, error: &dyn Error) -> String {
    let text = format!("{}, {followers} followers, {rate} changes/s: run {run} failed: {error}.", hub.name);
    eprintln!("events: {text}");
    text
}

impl Measured {
    /// Measures once; returns what is told of it.
    fn measure(&mut self, setting: &Setting<'_>, seconds: u64) -> Result<String, PartError> {
        let running = self.hub.start(setting)?;
        let process = running.server.process();
        // One of each is no news to the hub any more.
        drop(Crowd::connect(running.server.address(), &running.follow(), 1)?);
        std::thread::sleep(SETTLED_AFTER);
        let before_bytes = resident_bytes_with_descendants(process)?;
        let mut crowd = Crowd::connect(running.server.address(), &running.follow(), self.followers)?;
        std::thread::sleep(SETTLED_AFTER);
        let grown_bytes = resident_bytes_with_descendants(process)?.saturating_sub(before_bytes);
        let cpu_before = running.server.cpu_time()?;
        let begun_at = Instant::now();
        let acknowledged_at = self.make_changes(&running, &mut crowd, seconds)?;
        let ended_at = crowd.told_all_at().last().copied().unwrap_or_else(Instant::now);
        let cpu = (running.server.cpu_time()? - cpu_before).as_secs_f64();
        let wall = ended_at.duration_since(begun_at).as_secs_f64();

        let told = crowd.told_all_at().iter().zip(&acknowledged_at);
        // A change may be told before its acknowledgement has come.
        let mut latencies_ms: Vec<f64> = told
            .map(|(told, acknowledged)| told.saturating_duration_since(*acknowledged).as_secs_f64() * 1e3)
            .collect();
        let figures = &mut self.figures;
        figures.deliveries_per_s.push(crowd.deliveries as f64 / wall);
        figures.cpu_us.push(cpu * 1e6 / crowd.deliveries as f64);
        figures.cpu_percent.push(cpu * 1e2 / wall);
        figures.p50_ms.push(percentile(&mut latencies_ms, 50.0));
        figures.p99_ms.push(percentile(&mut latencies_ms, 99.0));
        figures.longest_ms.push(percentile(&mut latencies_ms, 100.0));
        figures.told_percent.push(latencies_ms.len() as f64 * 1e2 / acknowledged_at.len() as f64);
        figures.lost.push(crowd.lost as f64);
        figures.follower_bytes.push(grown_bytes as f64 / self.followers as f64);
        let last = |values: &[f64]| values.last().copied().unwrap_or(f64::NAN);
        Ok(format!(
            "{:.0} deliveries/s, {:.2} µs CPU each, p99 {:.1} ms, {:.0} % told to all, {:.0} bytes a follower",
            last(&figures.deliveries_per_s),
            last(&figures.cpu_us),
            last(&figures.p99_ms),
            last(&figures.told_percent),
            last(&figures.follower_bytes),
        ))
    }

    /// Makes changes while the crowd follows; returns when each was acknowledged.
    fn make_changes(&self, running: &Running, crowd: &mut Crowd, seconds: u64) -> Result<Vec<Instant>, PartError> {
        let publisher = Publisher {
            address: running.server.address(),
            rate: self.rate,
            first: 0,
            count: (self.rate * seconds as f64).ceil() as usize,
            request: &|number| running.publish(number),
        };
        let stop = AtomicBool::new(false);
        let acknowledged_at = std::thread::scope(|scope| {
            let publishing = scope.spawn(|| publisher.run(&stop));
            let give_up_at = Instant::now() + Duration::from_secs(seconds);
            let mut follow = || -> std::io::Result<()> {
                while !publishing.is_finished() {
                    crowd.take_in(LOOK)?;
                    // A hub that is behind acknowledges late: what it is behind with is no part of the figures.
                    stop.store(Instant::now() > give_up_at, Ordering::Relaxed);
                }
                Ok(())
            };
            let followed = follow();
            stop.store(true, Ordering::Relaxed);
            let acknowledged_at = publishing.join().unwrap_or_else(|_| Err(std::io::Error::other("a panic")));
            followed.and(acknowledged_at)
        })?;
        let give_up_at = Instant::now() + REST_MAX;
        while crowd.told_all_at().len() < acknowledged_at.len() && crowd.lost == 0 && Instant::now() < give_up_at {
            crowd.take_in(LOOK)?;
        }
        Ok(acknowledged_at)
    }
}

impl Figures {
    fn measurements(&self) -> Vec<Measurement> {
        let new = |name: &str, unit: &str, runs: &[f64]| Measurement::new(name, unit, runs.to_vec());
        vec![
            new("deliveries", "/s", &self.deliveries_per_s),
            new("CPU per delivery", "µs", &self.cpu_us),
            new("CPU", "%", &self.cpu_percent),
            new("p50", "ms", &self.p50_ms),
            new("p99", "ms", &self.p99_ms),
            new("longest", "ms", &self.longest_ms),
            new("told to all", "%", &self.told_percent),
            new("cut off", "followers", &self.lost),
            new("idle follower", "bytes", &self.follower_bytes),
        ]
    }
}

fn table(load: &[Measured]) -> Table {
    let (followers, rate) = load.first().map_or((0, 0.0), |measured| (measured.followers, measured.rate));
    let was_measured = |measured: &&Measured| !measured.figures.cpu_us.is_empty();
    let row = |Measured { hub, figures, .. }: &Measured| Row {
        label: hub.kind.label(hub.name),
        measurements: figures.measurements(),
    };
    Table::new(format!("{followers} followers, {rate} changes/s"), load.iter().filter(was_measured).map(row).collect())
}

fn bounds(all: &[Measured]) -> Vec<Bound> {
    let bounded: Vec<&Measured> =
        all.iter().filter(|one| one.followers == BOUNDED_FOLLOWERS && one.rate == BOUNDED_RATE).collect();
    let median =
        |one: &Measured, pick: fn(&Figures) -> &Vec<f64>| Measurement::new("", "", pick(&one.figures).clone()).median();
    let Some(ours) = bounded.iter().find(|one| one.hub.kind == Kind::Ours) else { return Vec::new() };
    let load = format!("{BOUNDED_FOLLOWERS} followers, {BOUNDED_RATE} changes/s");
    let own_cpu_us = median(ours, |figures| &figures.cpu_us);
    let mut bounds = vec![
        Bound::at_least(
            format!("{load}: deliveries/s"),
            median(ours, |figures| &figures.deliveries_per_s),
            DELIVERIES_PER_S_MIN,
        ),
        Bound::at_most(
            format!("{load}: p99 until the last follower has it, ms"),
            median(ours, |figures| &figures.p99_ms),
            P99_MAX_MS,
        ),
        Bound::at_most(
            "an idle follower, bytes",
            median(ours, |figures| &figures.follower_bytes),
            IDLE_FOLLOWER_MAX_BYTES,
        ),
    ];
    if let Some(floor) = bounded.iter().find(|one| one.hub.kind == Kind::Floor) {
        let ratio = own_cpu_us / median(floor, |figures| &figures.cpu_us);
        bounds.push(Bound::at_most(format!("{load}: CPU per delivery, times the floor's"), ratio, FLOOR_RATIO_MAX));
    }
    let rivals =
        bounded.iter().filter(|one| one.hub.kind == Kind::Rival).map(|one| median(one, |figures| &figures.cpu_us));
    let best = rivals.fold(f64::NAN, f64::min);
    if best.is_finite() {
        let claim = format!("{load}: deliveries per CPU second, times the best rival's");
        bounds.push(Bound::at_least(claim, best / own_cpu_us, RIVAL_RATIO_MIN));
    }
    bounds
}

/// CPU time of reads without followers and beside many that are told of nothing.
fn measure_reads(
    bench: &Bench,
    arguments: &EventsArguments,
    product: &Product,
    report: &mut Report,
) -> Result<(), PartError> {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let server = product.start(bench.server_cpu)?;
    let measure = || -> Result<f64, PartError> {
        let load = ReadLoad {
            address: server.address(),
            target: READ_TARGET,
            if_none_match: None,
            writes: None,
            unlike: None,
            depth: 1,
            connections: READ_CONNECTIONS,
            threads: 1,
            duration: Duration::from_secs(arguments.seconds),
        };
        let before = server.cpu_time()?;
        let result = load.run()?;
        Ok((server.cpu_time()? - before).as_secs_f64() * 1e6 / result.requests as f64)
    };
    measure()?;
    for run in 1..=bench.runs {
        alone.push(measure()?);
        let crowd = Crowd::connect(server.address(), &crate::client::get("/todos/events"), IDLE_FOLLOWERS)?;
        std::thread::sleep(SETTLED_AFTER);
        beside.push(measure()?);
        drop(crowd);
        std::thread::sleep(SETTLED_AFTER);
        eprintln!(
            "events: reads, run {run}: {:.2} µs alone, {:.2} µs beside {IDLE_FOLLOWERS} followers",
            alone[run - 1],
            beside[run - 1]
        );
    }
    let row = |label: &str, runs: Vec<f64>| Row {
        label: label.into(),
        measurements: vec![Measurement::new("CPU per request", "µs", runs)],
    };
    let rows = vec![row("no followers", alone), row(&format!("{IDLE_FOLLOWERS} followers, no changes"), beside)];
    let ratio = rows[1].measurements[0].median() / rows[0].measurements[0].median();
    report.bounds.push(Bound::at_most("reads beside idle followers, times the CPU without", ratio, READS_RATIO_MAX));
    report.tables.push(Table::new(format!("{READ_TARGET}, depth 1, {READ_CONNECTIONS} connections"), rows));
    Ok(())
}
