//! Part `overload`: more writes than can be applied, for a while.
//!
//! Connections update todos of their own, many requests at a time, and note of each todo the last update that was
//! acknowledged. Then everything that was acknowledged has to be applied, and each todo has to show that update or one that
//! was sent after it and refused: the log may hold what nobody could acknowledge.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Deserialize;

use super::{Bench, PartError, USER, setting};
use crate::client::{Client, get};
use crate::commands::Row;
use crate::deployment::AllServices;
use crate::measurement::Measurement;
use crate::memory::resident_bytes;
use crate::report::{Bound, Report, Row as ReportRow, Table};

/// Acknowledged, over applied while the load lasts: below it, it was no overload.
const OVERLOAD_MIN: f64 = 2.0;
/// The load pauses while it is further ahead, so that what is left in the end can be applied within minutes.
const OVERLOAD_PACE: f64 = 2.5;
/// It may always be so many writes ahead: the worker has to begin first.
const HEAD_START: u64 = 200_000;
/// How often the load looks how far the worker is.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Resident memory of the worker and of the API process at most, whatever waits.
const WORKER_MIB_MAX: f64 = 512.0;
const API_MIB_MAX: f64 = 768.0;
/// Everything that was acknowledged is applied within it.
const APPLIED_MAX: Duration = Duration::from_secs(300);
const MIB: f64 = (1 << 20) as f64;

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct OverloadArguments {
    /// How long more is written than can be applied, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub seconds: u64,
    /// Connections that write
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 16)]
    pub connections: usize,
    /// Requests that a connection sends together
    #[arg(long, value_name = "REQUESTS", default_value_t = 200)]
    pub depth: usize,
    /// Todos that each connection updates in turn
    #[arg(long, value_name = "TODOS", default_value_t = 4_000)]
    pub todos: usize,
}

/// What one connection saw.
#[derive(Default)]
struct Outcome {
    acknowledged: u64,
    refused: u64,
    /// By id: the last update that was acknowledged, and the last that was sent.
    last: BTreeMap<String, (u64, u64)>,
}

/// How far the load is ahead of the worker.
struct Lead {
    acknowledged: AtomicU64,
    allowed: AtomicU64,
}

/// Runs the part.
///
/// # Errors
/// A server or a service fails, an answer is neither 202 nor 503, or an acknowledged write is lost.
pub fn run(bench: &Bench, arguments: &OverloadArguments) -> Result<Report, PartError> {
    crate::cpu::unpin_current_thread()?;
    let mut report = bench.report(
        "overload",
        "Updates at two and a half times what one worker applies: what is acknowledged, what is applied meanwhile, the \
         memory of both processes, and whether all that was acknowledged is in the list in the end.",
        vec![
            setting("seconds", arguments.seconds),
            setting("connections", arguments.connections),
            setting("requests sent together", arguments.depth),
        ],
    );
    std::fs::create_dir_all(&bench.scratch)?;
    let services = AllServices::open(&bench.scratch.join("services"))?;
    let deployment = services.deployment("bench-overload")?;
    super::apply::fill(&deployment, (arguments.connections * arguments.todos) as u64)?;
    let api = deployment.api(&bench.product, &bench.scratch)?;
    let mut worker = deployment.worker(&bench.product, &bench.scratch)?;
    let token = deployment.token(&bench.product, USER)?;
    let mut feed = deployment.feed()?;

    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let (mut worker_mib, mut api_mib) = (Vec::new(), Vec::new());
    let lead = Lead { acknowledged: AtomicU64::new(0), allowed: AtomicU64::new(HEAD_START) };
    let outcomes: Vec<io::Result<Outcome>> = std::thread::scope(|scope| {
        let (token, address, lead) = (&token, api.address(), &lead);
        let writers: Vec<_> = (0..arguments.connections)
            .map(|connection| scope.spawn(move || write(address, token, connection, arguments, lead, end)))
            .collect();
        while Instant::now() < end {
            std::thread::sleep(LOOK_EVERY);
            let applied = feed.published().unwrap_or_default();
            lead.allowed.store(HEAD_START + (applied as f64 * OVERLOAD_PACE) as u64, Ordering::Relaxed);
            worker_mib.push(resident_bytes(worker.process()).unwrap_or_default() as f64 / MIB);
            api_mib.push(resident_bytes(api.process()).unwrap_or_default() as f64 / MIB);
        }
        writers.into_iter().map(|writer| writer.join().unwrap_or_else(|_| Err(io::Error::other("a panic")))).collect()
    });
    let applied_meanwhile = feed.published()?;
    let outcomes: Vec<Outcome> = outcomes.into_iter().collect::<io::Result<_>>()?;
    let acknowledged: u64 = outcomes.iter().map(|outcome| outcome.acknowledged).sum();
    let refused: u64 = outcomes.iter().map(|outcome| outcome.refused).sum();
    eprintln!("overload: {acknowledged} acknowledged, {refused} refused, {applied_meanwhile} applied meanwhile");

    let drained_from = Instant::now();
    while feed.published()? < acknowledged {
        if drained_from.elapsed() > APPLIED_MAX || !worker.is_running() {
            return Err(format!("{} of {acknowledged} acknowledged writes were applied", feed.published()?).into());
        }
        worker_mib.push(resident_bytes(worker.process())? as f64 / MIB);
        std::thread::sleep(Duration::from_millis(100));
    }
    let drained = drained_from.elapsed().as_secs_f64();
    let wrong = wrong_todos(api.address(), &outcomes)?;

    let most = |values: &[f64]| values.iter().copied().fold(f64::NAN, f64::max);
    report.bounds = vec![
        Bound::at_least(
            "acknowledged over applied while the load lasts",
            acknowledged as f64 / applied_meanwhile.max(1) as f64,
            OVERLOAD_MIN,
        ),
        Bound::at_most("most resident memory of the worker, MiB", most(&worker_mib), WORKER_MIB_MAX),
        Bound::at_most("most resident memory of the API process, MiB", most(&api_mib), API_MIB_MAX),
        Bound::at_most("todos that lack an acknowledged update in the end", wrong as f64, 0.0),
    ];
    let figure = |name: &str, unit: &str, value: f64| Measurement::new(name, unit, vec![value]);
    let seconds = arguments.seconds as f64;
    report.tables.push(Table::new(
        "Overload",
        vec![ReportRow {
            label: "updates".into(),
            measurements: vec![
                figure("acknowledged", "writes/s", acknowledged as f64 / seconds),
                figure("refused with 503", "writes/s", refused as f64 / seconds),
                figure("applied meanwhile", "writes/s", applied_meanwhile as f64 / seconds),
                figure("rest applied after", "s", drained),
            ],
        }],
    ));
    Ok(report)
}

/// Updates the connection's todos in turn, until `end`.
fn write(
    address: SocketAddr,
    token: &str,
    connection: usize,
    arguments: &OverloadArguments,
    lead: &Lead,
    end: Instant,
) -> io::Result<Outcome> {
    let ids: Vec<String> =
        (0..arguments.todos).map(|todo| Row::new((connection * arguments.todos + todo) as u64).id).collect();
    let mut client = Client::connect(address)?;
    let mut outcome = Outcome::default();
    let mut number: u64 = 0;
    while Instant::now() < end {
        if lead.acknowledged.load(Ordering::Relaxed) > lead.allowed.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let first = number;
        let mut requests = Vec::new();
        for _ in 0..arguments.depth {
            number += 1;
            let id = &ids[number as usize % ids.len()];
            let body = format!("{{\"title\":\"{number}\"}}");
            requests.extend_from_slice(
                format!(
                    "PUT /todos/{id} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
                     Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .as_bytes(),
            );
        }
        client.send(&requests)?;
        for number in first + 1..=number {
            let head = client.receive_head()?;
            io::copy(&mut client.body(&head), &mut io::sink())?;
            let last = outcome.last.entry(ids[number as usize % ids.len()].clone()).or_default();
            last.1 = number;
            match head.status {
                202 => {
                    outcome.acknowledged += 1;
                    lead.acknowledged.fetch_add(1, Ordering::Relaxed);
                    last.0 = number;
                }
                503 => outcome.refused += 1,
                status => return Err(io::Error::other(format!("a write was answered with {status}"))),
            }
        }
    }
    Ok(outcome)
}

#[derive(Deserialize)]
struct Shown {
    id: String,
    title: String,
}

/// Todos whose title is older than the last acknowledged update, or nobody's.
fn wrong_todos(address: SocketAddr, outcomes: &[Outcome]) -> Result<usize, PartError> {
    // What is published is a moment later in every snapshot.
    std::thread::sleep(Duration::from_secs(1));
    let mut client = Client::connect(address)?;
    client.send(&get("/todos"))?;
    let head = client.receive_head()?;
    let mut body = Vec::new();
    client.body(&head).read_to_end(&mut body)?;
    let shown: Vec<Shown> = serde_json::from_slice(&body)?;
    let titles: BTreeMap<String, String> = shown.into_iter().map(|todo| (todo.id, todo.title)).collect();
    let is_right = |(id, (acknowledged, sent)): (&String, &(u64, u64))| {
        let number = titles.get(id).and_then(|title| title.parse::<u64>().ok());
        // A todo none of whose updates was acknowledged may have its first title.
        number.map_or(*acknowledged == 0, |number| (*acknowledged..=*sent).contains(&number))
    };
    Ok(outcomes.iter().flat_map(|outcome| &outcome.last).filter(|entry| !is_right(*entry)).count())
}
