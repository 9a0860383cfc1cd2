//! Parts `read` and `mixed`: throughput and CPU time of one request, of ours, of the floors and of others, with the same
//! bytes.

mod cell;
mod figures;

use std::io;
use std::time::Duration;

use clap::{Args, ValueEnum};

use cell::Cell;
pub use cell::{Load, Responses};
use figures::{Figures, bounds, remarks};

use super::live::while_writing;
use super::{Bench, PartError, USER, setting};
use crate::candidate::{CANDIDATES, Candidate, Kind, Setting};
use crate::client::Client;
use crate::machine;
use crate::report::{ChartForm, Report, Table};
use crate::server::{Product, file_limit};
use crate::services::Services;
use crate::wrk::{ReadLoad, ReadResult, WritesBetween};

/// How often ours and the floors are measured in each round. They differ least, and a process that has just started costs some
/// percent more or less than another of the same program for as long as it lives.
const CLOSE_RUNS: usize = 2;
/// Connections are opened, caches and clock speed come up.
const WARM_UP: Duration = Duration::from_secs(1);
/// Where the answer has to stay the same (304), live writes change todos from here on: behind every page that is read.
const BEHIND_PAGES: usize = 1_000;
/// Files that server and load open beside one for each connection.
const OTHER_FILES: u64 = 200;

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct ReadArguments {
    /// Cells that are measured together: `headline` takes minutes, `full` most of an hour
    #[arg(long, value_enum, default_value_t = Plan::Headline)]
    pub plan: Plan,
    /// Instead of a plan: what is asked for
    #[arg(long, value_enum, value_delimiter = ',')]
    pub loads: Vec<Load>,
    /// Instead of a plan: requests that a connection sends together; 1 is a client that waits for each answer
    #[arg(long, value_name = "REQUESTS", value_delimiter = ',')]
    pub depths: Vec<usize>,
    /// Instead of a plan: connections
    #[arg(long, value_name = "CONNECTIONS", value_delimiter = ',')]
    pub connections: Vec<usize>,
    /// Seconds of each run; runs with 1,000 connections and more take twice as long
    #[arg(long, value_name = "S", default_value_t = 2)]
    pub seconds: u64,
    /// Length of our list
    #[arg(long, value_name = "TODOS", default_value_t = 10_000)]
    pub todos: u64,
    /// Writes per second to ours meanwhile; none when 0
    #[arg(long, value_name = "WRITES_PER_S", default_value_t = 20.0)]
    pub write_rate: f64,
    /// Measure these alone: names, or `ours`, `floor` and `rivals`
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = only)]
    pub only: Vec<Only>,
}

/// Cells that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plan {
    /// `limit=10` at depths 1, 16 and 64, of ours, the floors and the rivals that say most
    Headline,
    /// Every cell, of everybody
    Full,
}

/// One or more candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// All of this kind.
    Kind(Kind),
    /// This one.
    One(&'static Candidate),
}

fn only(name: &str) -> Result<Only, String> {
    match name {
        "ours" => Ok(Only::Kind(Kind::Ours)),
        "floor" | "floors" => Ok(Only::Kind(Kind::Floor)),
        "rivals" => Ok(Only::Kind(Kind::Rival)),
        _ => Candidate::named(name).map(Only::One).ok_or_else(|| {
            let names: Vec<&str> = CANDIDATES.iter().map(|candidate| candidate.name).collect();
            format!("expected ours, floor, rivals, or one of {}", names.join(", "))
        }),
    }
}

/// Runs the part `read`.
///
/// # Errors
/// Ours or a floor does not start, or wrk does not run.
pub fn run(bench: &Bench, arguments: &ReadArguments) -> Result<Report, PartError> {
    let about = "The same response from ours, with real todos and live writes, from two floors, which are limits and not \
                 servers (they count the ends of requests and write a constant), and from others' servers, which return a \
                 constant. One thread each, one after the other in each round, ours and the floors twice; a bound is \
                 about the median of the rounds' ratios. CPU per request is the server's own user and system time, so it is true also \
                 where wrk is the limit. Pipelined requests (a depth above 1) and plain ones are different things: compare \
                 within a table. Ours and the floors choose reno for what stays on loopback; others' servers are run as they \
                 come, with the congestion control of the system, which may pace them (BBR does).";
    let cells = match (&arguments.loads[..], &arguments.depths[..], &arguments.connections[..]) {
        ([], [], []) => cell::planned(arguments.plan),
        (loads, depths, connections) => {
            let or = |given: &[usize], otherwise: &[usize]| if given.is_empty() { otherwise } else { given }.to_vec();
            let loads = if loads.is_empty() { &[Load::Ten] } else { loads };
            cell::product(loads, &or(depths, &[1, 16, 64]), &or(connections, &[64]))
        }
    };
    measure_all(bench, arguments, bench.report("read", about, settings(arguments)), &cells, None)
}

/// Runs the part `mixed`: reads with writes between them.
///
/// # Errors
/// Ours does not start, or wrk does not run.
pub fn run_mixed(bench: &Bench, arguments: &ReadArguments) -> Result<Report, PartError> {
    let about = "95 of 100 requests are `GET /todos?limit=10`, the others create a todo. Ours answers a write with 202 when \
                 it is durable, applies it to its store and shows it in the next reads, all in the same process. The Go \
                 program hands it to Kafka, does not wait, and applies nothing; Redis and Kafka are processes beside it \
                 whose time is not counted.";
    let connections = if arguments.connections.is_empty() { &[64][..] } else { &arguments.connections };
    let cells = cell::product(&[Load::Mixed], &[1], connections);
    let mut report = bench.report("mixed", about, settings(arguments));
    let services = Services::given_or_started(&bench.scratch);
    if let Err(reason) = &services {
        report.remarks.push(format!("go-manner is missing: there is no Kafka: {reason}."));
    }
    measure_all(bench, arguments, report, &cells, services.ok().as_ref())
}

fn settings(arguments: &ReadArguments) -> Vec<(String, String)> {
    vec![
        setting("seconds of each run", arguments.seconds),
        setting("todos", arguments.todos),
        setting("writes to ours meanwhile", format!("{} writes/s", arguments.write_rate)),
        setting("congestion control of the system", machine::congestion_control()),
    ]
}

/// Everything that was measured in a cell, one for each of its candidates.
struct Measured {
    cell: Cell,
    candidates: Vec<&'static Candidate>,
    figures: Vec<Figures>,
}

struct Context<'c> {
    bench: &'c Bench,
    arguments: &'c ReadArguments,
    product: &'c Product,
    responses: Responses,
    token: String,
    services: Option<&'c Services>,
}

fn measure_all(
    bench: &Bench,
    arguments: &ReadArguments,
    mut report: Report,
    cells: &[Cell],
    services: Option<&Services>,
) -> Result<Report, PartError> {
    let is_mixed = cells.iter().any(|cell| cell.load == Load::Mixed);
    let takes_load = |one: &Candidate| !is_mixed || one.kind == Kind::Ours || one.takes_writes() && services.is_some();
    let present = choose(bench, arguments, takes_load, &mut report);
    let explicit = !arguments.only.is_empty();
    let mut all: Vec<Measured> = Vec::new();
    for cell in cells {
        if file_limit()? < cell.connections as u64 + OTHER_FILES {
            report.remarks.push(format!(
                "{}: not measured, the limit of open files is {}.",
                cell.title(),
                file_limit()?
            ));
            continue;
        }
        let of_cell = |one: &&&Candidate| (explicit || cell.is_for(one)) && cell.can_be_answered_by(one);
        let candidates: Vec<&Candidate> = present.iter().filter(of_cell).copied().collect();
        let figures = candidates.iter().map(|_| Figures::default()).collect();
        all.push(Measured { cell: *cell, candidates, figures });
    }
    eprintln!("{}: seeding {} todos", report.part, arguments.todos);
    let product = Product::new(&bench.product, &bench.scratch)?;
    product.seed_for_reading(arguments.todos, USER, bench.server_cpu)?;
    let loads: Vec<Load> = cells.iter().flat_map(|cell| [cell.load, cell.load.unconditional()]).collect();
    let responses = Responses::capture(&product.start(bench.server_cpu)?, &loads)?;
    let token = product.token(USER)?;
    let context = Context { bench, arguments, product: &product, responses, token, services };

    let begin = report.clone();
    for run in 0..bench.runs {
        for at in 0..all.len() {
            context.measure_cell(&begin.part, run, &mut all[at])?;
            // What there is so far: an interrupted run loses nothing.
            report = summed_up(&begin, &all);
            if run + 1 < bench.runs || at + 1 < all.len() {
                let done = format!("Not finished: round {} of {}.", run + 1, bench.runs);
                let mut unfinished = report.clone();
                unfinished.remarks.push(done);
                unfinished.save(&bench.output)?;
            }
        }
    }
    Ok(report)
}

/// The candidates that were asked for and can be measured; the report tells about the others.
fn choose(
    bench: &Bench,
    arguments: &ReadArguments,
    takes_load: impl Fn(&Candidate) -> bool,
    report: &mut Report,
) -> Vec<&'static Candidate> {
    let is_wanted = |candidate: &&'static Candidate| {
        let of = |only: &Only| match only {
            Only::Kind(kind) => candidate.kind == *kind,
            Only::One(one) => *candidate == *one,
        };
        takes_load(candidate) && (arguments.only.is_empty() || arguments.only.iter().any(of))
    };
    let present = CANDIDATES.iter().filter(is_wanted).filter(|candidate| {
        let ready = candidate.prepare(&bench.programs, bench.builds);
        if let Err(reason) = &ready {
            eprintln!("{}: {} is missing: {reason}", report.part, candidate.name);
            report.remarks.push(format!("{} is missing: {reason}.", candidate.name));
        }
        ready.is_ok()
    });
    present.collect()
}

/// The report of what is measured so far.
fn summed_up(begin: &Report, all: &[Measured]) -> Report {
    let mut report = begin.clone();
    for Measured { cell, candidates, figures } in all {
        let title = cell.title();
        report.bounds.extend(bounds(*cell, candidates, figures));
        report.remarks.extend(remarks(&title, candidates, figures));
        let rows = candidates.iter().zip(figures).filter(|(_, figures)| figures.has_any());
        let rows: Vec<_> = rows.map(|(candidate, figures)| figures.row(candidate, *cell)).collect();
        if !rows.is_empty() {
            report.tables.push(Table::new(title, rows).drawn(ChartForm::Bars, figures::CPU, &cell.file()));
        }
    }
    report
}

impl Context<'_> {
    fn measure_cell(&self, part: &str, run: usize, measured: &mut Measured) -> Result<(), PartError> {
        let Measured { cell, candidates, figures } = measured;
        let all = 0..candidates.len();
        let close = || all.clone().filter(|turn| candidates[*turn].kind != Kind::Rival);
        let mut turns: Vec<usize> = all.clone().collect();
        for _ in 1..CLOSE_RUNS {
            turns.extend(close().rev());
        }
        if !run.is_multiple_of(2) {
            // Who comes first in a round has no lasting advantage.
            turns.reverse();
        }
        for turn in turns {
            let (candidate, figures) = (candidates[turn], &mut figures[turn]);
            if figures.left_out.is_some() {
                continue;
            }
            eprintln!("{part}: run {} of {}: {}: {}", run + 1, self.bench.runs, cell.title(), candidate.name);
            match self.measure(run, *cell, candidate, figures) {
                // A rival that fails is told, and does not end the run.
                Err(error) if candidate.kind == Kind::Rival => {
                    let text = error.to_string();
                    eprintln!("{part}: {} is left out: {text}", candidate.name);
                    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
                    let ends = [lines.first(), lines.last().filter(|_| lines.len() > 1)];
                    let told: Vec<&str> = ends.into_iter().flatten().copied().collect();
                    figures.left_out = Some(told.join(" ").trim_end_matches('.').to_owned());
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn measure(&self, run: usize, cell: Cell, candidate: &Candidate, figures: &mut Figures) -> Result<(), PartError> {
        let Context { bench, arguments, product, responses, .. } = self;
        let folder = tempfile::tempdir_in(&bench.scratch)?;
        let setting = Setting {
            product,
            programs: &bench.programs,
            target: cell.load.target(),
            response: responses.to(cell.load),
            in_turn: responses.behind(cell.load),
            unconditional: responses.to(cell.load.unconditional()),
            folder: folder.path(),
            server_cpu: bench.server_cpu,
            kafka_brokers: self.services.map(|services| services.kafka_brokers.as_str()),
        };
        let server = candidate.start(&setting)?;
        let address = server.address();
        let tag = cell::entity_tag(&mut Client::connect(address)?, cell.load)?;
        if candidate.kind != Kind::Ours {
            responses.check(&server, cell.load, tag.as_deref())?;
        }
        let unlike = cell.load.requests(cell.connections);
        if cell.load == Load::Mixed {
            cell::wait_for_writes(address, &self.token)?;
        }
        let load = |duration| ReadLoad {
            address,
            target: cell.load.target(),
            if_none_match: tag.as_deref(),
            writes: (cell.load == Load::Mixed).then_some(WritesBetween { percent: 5, token: &self.token }),
            unlike: unlike.as_ref(),
            depth: cell.depth,
            connections: cell.connections,
            threads: 1,
            duration,
        };
        let duration = Duration::from_secs(arguments.seconds) * if cell.connections >= 1000 { 2 } else { 1 };
        let read = || -> io::Result<(ReadResult, Duration)> {
            load(WARM_UP).run()?;
            let before = server.cpu_time()?;
            let result = load(duration).run()?;
            Ok((result, server.cpu_time()?.saturating_sub(before)))
        };
        let has_live_writes = candidate.kind == Kind::Ours && arguments.write_rate > 0.0 && cell.load != Load::Mixed;
        // The newest, so that the pages that are read change; where they may not, others.
        let first = if cell.load == Load::Unchanged { BEHIND_PAGES } else { 0 };
        let (result, cpu_time) = if has_live_writes {
            while_writing(&server, &self.token, arguments.write_rate, first, read)?
        } else {
            read()?
        };
        if result.requests == 0 {
            return Err("no response came".into());
        }
        // Live writes have changed the list since it was given to the others.
        let response_bytes = match unlike {
            None => cell::response_bytes(&server, cell.load)? as f64,
            Some(_) => result.bytes as f64 / result.requests as f64,
        };
        figures.push(run, &result, cpu_time, response_bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_names_choose_candidates() {
        assert_eq!(only("ours"), Ok(Only::Kind(Kind::Ours)));
        assert_eq!(only("nginx").ok(), Candidate::named("nginx").map(Only::One));
        assert!(only("apache").expect_err("it is not there").contains("may_minihttp"));
    }
}
