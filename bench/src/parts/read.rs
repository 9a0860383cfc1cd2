//! Part `read`: throughput and CPU time of one read, of ours, of the floors and of others, with the same bytes.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Bench, PartError, USER, setting};
use crate::candidate::{CANDIDATES, Candidate, Kind, Setting};
use crate::client::{Client, get};
use crate::cpu;
use crate::measurement::Measurement;
use crate::report::{Bound, Report, Row, Table};
use crate::server::{Product, Server};
use crate::writes::{Mix, WriteLoad, list_ids};
use crate::wrk::{ReadLoad, ReadResult};

/// Connections are opened, caches and clock speed come up.
const WARM_UP: Duration = Duration::from_secs(1);
/// A program that is so long on its CPU is at its limit.
const BUSY_SHARE: f64 = 0.95;
/// Writes change so many of the newest todos, which are the ones that limits show.
const CHANGED_TODOS: usize = 100;

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct ReadArguments {
    /// What is asked for
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ten")]
    pub loads: Vec<Load>,
    /// Requests that a connection sends together; 1 is a client that waits for each answer
    #[arg(long, value_name = "REQUESTS", value_delimiter = ',', default_value = "1,16,64")]
    pub depths: Vec<usize>,
    /// Connections
    #[arg(long, value_name = "CONNECTIONS", value_delimiter = ',', default_value = "64")]
    pub connections: Vec<usize>,
    /// Seconds of each run
    #[arg(long, value_name = "S", default_value_t = 5)]
    pub seconds: u64,
    /// Length of our list
    #[arg(long, value_name = "TODOS", default_value_t = 10_000)]
    pub todos: u64,
    /// Writes per second to ours meanwhile; none when 0, and none where nothing may change
    #[arg(long, value_name = "WRITES_PER_S", default_value_t = 20.0)]
    pub write_rate: f64,
    /// Measure these alone
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = candidate)]
    pub only: Vec<&'static Candidate>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Load {
    /// `GET /todos?limit=10`
    Ten,
    /// `GET /todos?limit=100`
    Hundred,
    /// `GET /todos`: the whole list
    All,
    /// `GET /todos?limit=10` with an `If-None-Match` that matches: 304
    Unchanged,
}

impl Load {
    fn target(self) -> &'static str {
        match self {
            Load::Ten | Load::Unchanged => "/todos?limit=10",
            Load::Hundred => "/todos?limit=100",
            Load::All => "/todos",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Load::Ten => "limit=10",
            Load::Hundred => "limit=100",
            Load::All => "the whole list",
            Load::Unchanged => "limit=10, unchanged (304)",
        }
    }

    /// Ours may cost so much more than the cheaper floor.
    fn floor_ratio_max(self) -> f64 {
        match self {
            Load::Ten => 1.05,
            Load::Hundred | Load::Unchanged => 1.10,
            Load::All => 1.15,
        }
    }
}

fn candidate(name: &str) -> Result<&'static Candidate, String> {
    CANDIDATES.iter().find(|candidate| candidate.name == name).ok_or_else(|| {
        let names: Vec<&str> = CANDIDATES.iter().map(|candidate| candidate.name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// One table.
#[derive(Debug, Clone, Copy)]
struct Cell {
    load: Load,
    depth: usize,
    connections: usize,
}

#[derive(Default)]
struct Figures {
    rate: Vec<f64>,
    cpu_us: Vec<f64>,
    server_share: Vec<f64>,
    load_share: Vec<f64>,
    response_bytes: Vec<f64>,
    p99_ms: Vec<f64>,
    errors: u64,
}

/// Runs the part.
///
/// # Errors
/// A server does not start, or wrk does not run.
pub fn run(bench: &Bench, arguments: &ReadArguments) -> Result<Report, PartError> {
    let mut report = bench.report(
        "read",
        "The same response from ours, with real todos, from two floors, which are limits and not servers (they count the \
         ends of requests and write a constant), and from others' servers, which return a constant. One thread each. CPU \
         per request is the server's own user and system time, so it is true also where wrk is the limit. Pipelined \
         requests (a depth above 1) and plain ones are different things: compare within a table.",
        vec![
            setting("seconds of each run", arguments.seconds),
            setting("todos", arguments.todos),
            setting("writes to ours meanwhile", format!("{} writes/s", arguments.write_rate)),
        ],
    );
    let candidates = choose(bench, arguments, &mut report);
    eprintln!("read: seeding {} todos", arguments.todos);
    let product = Product::new(&bench.product, &bench.scratch)?;
    product.seed(arguments.todos, USER)?;
    for load in &arguments.loads {
        let response = capture(&product.start(bench.server_cpu)?, *load)?;
        for connections in &arguments.connections {
            for depth in &arguments.depths {
                let cell = Cell { load: *load, depth: *depth, connections: *connections };
                measure_cell(bench, arguments, cell, &candidates, &product, &response, &mut report)?;
            }
        }
    }
    Ok(report)
}

/// The candidates that were asked for and can be measured; the report tells about the others.
fn choose(bench: &Bench, arguments: &ReadArguments, report: &mut Report) -> Vec<&'static Candidate> {
    let wanted = CANDIDATES.iter().filter(|candidate| arguments.only.is_empty() || arguments.only.contains(candidate));
    let present = wanted.filter(|candidate| match candidate.missing(&bench.programs) {
        Some(reason) => {
            report.remarks.push(format!("{} is missing: {reason}.", candidate.name));
            false
        }
        None => true,
    });
    present.collect()
}

/// The bytes of our response.
fn capture(server: &Server, load: Load) -> io::Result<Vec<u8>> {
    let mut client = Client::connect(server.address())?;
    let (head, body) = match entity_tag(&mut client, load)? {
        None => client.exchange(&get(load.target()))?,
        Some(tag) => {
            let condition = format!("\r\nIf-None-Match: {tag}\r\n\r\n");
            let request = String::from_utf8_lossy(&get(load.target())).trim_end().to_owned() + &condition;
            client.exchange(request.as_bytes())?
        }
    };
    let expected = if load == Load::Unchanged { 304 } else { 200 };
    if head.status != expected {
        return Err(io::Error::other(format!(
            "{} was answered with {} instead of {expected}",
            load.title(),
            head.status
        )));
    }
    Ok([head.bytes, body].concat())
}

/// The entity tag that a conditional load has to send.
fn entity_tag(client: &mut Client, load: Load) -> io::Result<Option<String>> {
    if load != Load::Unchanged {
        return Ok(None);
    }
    let (head, _) = client.exchange(&get(load.target()))?;
    head.field("etag").map(|tag| Some(tag.to_owned())).ok_or_else(|| io::Error::other("our list has no ETag"))
}

fn measure_cell(
    bench: &Bench,
    arguments: &ReadArguments,
    cell: Cell,
    candidates: &[&'static Candidate],
    product: &Product,
    response: &[u8],
    report: &mut Report,
) -> Result<(), PartError> {
    let title = format!("{}, depth {}, {} connections", cell.load.title(), cell.depth, cell.connections);
    let mut figures: Vec<Figures> = candidates.iter().map(|_| Figures::default()).collect();
    for run in 0..bench.runs {
        for turn in 0..candidates.len() {
            // Forwards and backwards in turn: who comes first in a round has no lasting advantage.
            let turn = if run % 2 == 0 { turn } else { candidates.len() - 1 - turn };
            let candidate = candidates[turn];
            eprintln!("read: {title}: {}, run {} of {}", candidate.name, run + 1, bench.runs);
            let folder = tempfile::tempdir_in(&bench.scratch)?;
            let setting = Setting {
                product,
                programs: &bench.programs,
                response,
                folder: folder.path(),
                server_cpu: bench.server_cpu,
            };
            let server = candidate.start(&setting)?;
            let write_rate = if candidate.kind == Kind::Ours { arguments.write_rate } else { 0.0 };
            let duration = Duration::from_secs(arguments.seconds);
            measure(&server, cell, duration, write_rate, product, &mut figures[turn])?;
        }
    }
    report.bounds.extend(bounds(&title, cell, candidates, &figures));
    report.remarks.extend(remarks(&title, candidates, &figures));
    let rows = candidates.iter().zip(&figures).map(|(candidate, figures)| figures.row(candidate, cell)).collect();
    report.tables.push(Table { title, rows });
    Ok(())
}

fn measure(
    server: &Server,
    cell: Cell,
    duration: Duration,
    write_rate: f64,
    product: &Product,
    figures: &mut Figures,
) -> Result<(), PartError> {
    let address = server.address();
    let tag = entity_tag(&mut Client::connect(address)?, cell.load).ok().flatten();
    let load = |duration| ReadLoad {
        address,
        target: cell.load.target(),
        if_none_match: tag.as_deref(),
        depth: cell.depth,
        connections: cell.connections,
        duration,
    };
    let read = || -> io::Result<(ReadResult, Duration)> {
        load(WARM_UP).run()?;
        let before = cpu::process_cpu_time(server.process())?;
        let result = load(duration).run()?;
        Ok((result, cpu::process_cpu_time(server.process())?.saturating_sub(before)))
    };
    let (result, cpu_time) = if write_rate > 0.0 && cell.load != Load::Unchanged {
        let (token, todo_ids) = (product.token(USER)?, list_ids(address)?);
        let writes = WriteLoad {
            address,
            token: &token,
            // The newest, so that the pages that are read change.
            todo_ids: &todo_ids[..todo_ids.len().min(CHANGED_TODOS)],
            // Keeps the length of the responses: the others return a constant.
            mix: Mix::Completions,
            connections: 1,
            rate: Some(write_rate),
            writes: usize::MAX,
            variety: 0,
        };
        while_writing(&writes, read)?
    } else {
        read()?
    };
    figures.push(&result, cpu_time);
    Ok(())
}

/// Calls `read` while the writes go on.
fn while_writing<R>(writes: &WriteLoad<'_>, read: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| writes.run(&stop));
        let read = read();
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| io::Error::other("the writer panicked"))??;
        read
    })
}

impl Figures {
    fn push(&mut self, result: &ReadResult, cpu_time: Duration) {
        let requests = result.requests as f64;
        self.rate.push(requests / result.elapsed.as_secs_f64());
        self.cpu_us.push(cpu_time.as_secs_f64() * 1e6 / requests);
        self.server_share.push(cpu_time.as_secs_f64() / result.elapsed.as_secs_f64());
        self.load_share.push(result.load_cpu_share);
        self.response_bytes.push(result.bytes as f64 / requests);
        self.p99_ms.push(result.p99_ms);
        self.errors += result.errors;
    }

    fn row(&self, candidate: &Candidate, cell: Cell) -> Row {
        let label = match candidate.kind {
            Kind::Ours => format!("**{}**", candidate.name),
            Kind::Floor => format!("{} (a limit, not a server)", candidate.name),
            Kind::Rival => candidate.name.to_owned(),
        };
        let percent = |shares: &[f64]| shares.iter().map(|share| share * 100.0).collect();
        let mut measurements = vec![
            Measurement::new("CPU per request", "µs", self.cpu_us.clone()),
            Measurement::new("rate", "requests/s", self.rate.clone()),
            Measurement::new("server's CPU", "%", percent(&self.server_share)),
            Measurement::new("wrk's CPU", "%", percent(&self.load_share)),
            Measurement::new("response", "bytes", self.response_bytes.clone()),
        ];
        // wrk does not know when a pipelined request was due.
        if cell.depth == 1 {
            measurements.push(Measurement::new("p99", "ms", self.p99_ms.clone()));
        }
        Row { label, measurements }
    }

    fn cpu(&self) -> f64 {
        Measurement::new("", "", self.cpu_us.clone()).median()
    }

    fn median_share(shares: &[f64]) -> f64 {
        Measurement::new("", "", shares.to_vec()).median()
    }
}

/// Ours against the cheaper floor and against every rival.
fn bounds(title: &str, cell: Cell, candidates: &[&Candidate], figures: &[Figures]) -> Vec<Bound> {
    let of = |kind| {
        let all = candidates.iter().zip(figures);
        all.filter(move |(candidate, _)| candidate.kind == kind)
            .map(|(candidate, figures)| (candidate.name, figures.cpu()))
    };
    let Some((_, ours)) = of(Kind::Ours).next() else { return Vec::new() };
    let floor = of(Kind::Floor).map(|(_, cpu)| cpu).fold(f64::NAN, f64::min);
    let mut bounds = Vec::new();
    if floor.is_finite() {
        bounds.push(Bound {
            claim: format!("{title}: CPU per request over the cheaper floor"),
            measured: ours / floor,
            at_most: cell.load.floor_ratio_max(),
        });
    }
    bounds.extend(of(Kind::Rival).map(|(name, cpu)| Bound {
        claim: format!("{title}: CPU per request over {name}"),
        measured: ours / cpu,
        at_most: 1.0,
    }));
    bounds
}

fn remarks(title: &str, candidates: &[&Candidate], figures: &[Figures]) -> Vec<String> {
    let mut remarks = Vec::new();
    let all = || candidates.iter().zip(figures);
    let is_limited_by_load = |figures: &Figures| {
        Figures::median_share(&figures.server_share) < BUSY_SHARE
            && Figures::median_share(&figures.load_share) > BUSY_SHARE
    };
    let limited: Vec<&str> =
        all().filter(|(_, figures)| is_limited_by_load(figures)).map(|(one, _)| one.name).collect();
    if !limited.is_empty() {
        remarks.push(format!("{title}: wrk was the limit of the rate, not the server, for {}.", limited.join(", ")));
    }
    let failed = all().filter(|(_, figures)| figures.errors > 0);
    remarks.extend(failed.map(|(one, figures)| format!("{title}: {} had {} errors.", one.name, figures.errors)));
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(cpu_us: f64, server_share: f64, load_share: f64) -> Figures {
        let one = |figure| vec![figure];
        Figures {
            cpu_us: one(cpu_us),
            server_share: one(server_share),
            load_share: one(load_share),
            ..Figures::default()
        }
    }

    #[test]
    fn ours_is_compared_with_the_cheaper_floor_and_each_rival() {
        let candidates: Vec<&Candidate> = CANDIDATES.iter().take(4).collect();
        let cell = Cell { load: Load::Ten, depth: 1, connections: 64 };
        let measured = [(6.6, 1.0, 0.5), (6.4, 1.0, 0.5), (6.0, 0.6, 0.99), (6.5, 1.0, 0.5)];
        let measured = measured.map(|(cpu, server, load)| figures(cpu, server, load));
        let bounds = bounds("t", cell, &candidates, &measured);
        assert_eq!(bounds.len(), 2);
        assert!((bounds[0].measured - 1.1).abs() < 1e-9 && !bounds[0].holds(), "{bounds:?}");
        assert!(bounds[1].claim.ends_with("over may_minihttp") && !bounds[1].holds(), "{bounds:?}");
        let remarks = remarks("t", &candidates, &measured);
        assert_eq!(remarks, ["t: wrk was the limit of the rate, not the server, for floor-io_uring."]);
    }
}
