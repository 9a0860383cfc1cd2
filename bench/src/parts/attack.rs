//! Part `attack`: what clients that do harm without a token cost a shard, and those beside them.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use super::{Bench, PartError, USER, setting};
use crate::attackers::{Kind, attack};
use crate::candidate::{Candidate, Setting};
use crate::client::{Client, get};
use crate::cpu;
use crate::measurement::{Measurement, percentile};
use crate::memory::resident_bytes;
use crate::report::{Bound, Report, Row, Table};
use crate::server::{Product, Server};

/// CPU time that attackers may cost, in percent of a shard, which is one CPU.
const CPU_MAX_PERCENT: f64 = 20.0;
/// How much longer the 99th percentile of honest requests may be than without attackers.
const P99_RATIO_MAX: f64 = 2.0;
/// Threads that the kernel may have for the ring.
const KERNEL_WORKERS_MAX: f64 = 4.0;
/// Between two requests of the honest client.
const HONEST_PAUSE: Duration = Duration::from_millis(2);
/// Between two looks at memory and threads.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// The honest client by itself is watched so long at least.
const QUIET_MIN: Duration = Duration::from_secs(15);
/// An honest request that takes longer than this has not been served.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// What the floor answers.
const FLOOR_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const MIB: f64 = 1024.0 * 1024.0;

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct AttackArguments {
    /// Length of the list: 3,000 todos are about 900 KB
    #[arg(long, value_name = "TODOS", default_value_t = 3_000)]
    pub todos: u64,
    /// Clients of each kind
    #[arg(long, value_name = "CLIENTS", default_value_t = 400)]
    pub clients: usize,
    /// The kinds
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Kind::ALL)]
    pub kinds: Vec<Kind>,
    /// The drivers, as `IO_DRIVER` names them
    #[arg(long, value_name = "DRIVERS", value_delimiter = ',', default_values_t = ["io_uring".to_owned(), "epoll".to_owned()])]
    pub drivers: Vec<String>,
    /// How long each kind acts by itself
    #[arg(long, value_name = "S", default_value_t = 15)]
    pub seconds: u64,
    /// How long all kinds act at once; 0: they do not
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub together_seconds: u64,
    /// Memory that all kinds at once may add to the process
    #[arg(long, value_name = "MIB", default_value_t = 256.0)]
    pub memory_max_mib: f64,
}

/// What was seen while some kinds acted.
struct Seen {
    /// CPU time of the server in percent of one CPU.
    cpu_percent: f64,
    kernel_workers: usize,
    grown_mib: f64,
    p99_us: f64,
    longest_us: f64,
    answers: usize,
    connections: u64,
}

/// Runs the part.
///
/// # Errors
/// The server does not start, or an honest request is not answered.
pub fn run(bench: &Bench, arguments: &AttackArguments) -> Result<Report, PartError> {
    let mut report = bench.report(
        "attack",
        "Clients without a token that do harm, beside one that asks for ten todos each two milliseconds: the CPU time that \
         they cost the shard beyond that client's, threads of the kernel, memory, and the client's 99th percentile, with \
         and without them. A new process for each row.",
        vec![
            setting("todos", arguments.todos),
            setting("clients of each kind", arguments.clients),
            setting("seconds alone and together", format!("{}, {}", arguments.seconds, arguments.together_seconds)),
        ],
    );
    let (product, other) =
        (Product::new(&bench.product, &bench.scratch)?, Product::new(&bench.product, &bench.scratch)?);
    product.seed(arguments.todos, USER)?;
    other.seed(arguments.todos, USER)?;
    let (alone, together) = (Duration::from_secs(arguments.seconds), Duration::from_secs(arguments.together_seconds));
    let kinds = &arguments.kinds[..];
    for driver in &arguments.drivers {
        let mut rows = Vec::new();
        eprintln!("attack: {driver}, nobody");
        let server = start(bench, &product, driver)?;
        let quiet = observe(&server, server.address(), &[], arguments.clients, alone.max(QUIET_MIN))?;
        drop(server);
        rows.push(row("nobody", &quiet, &quiet));
        let cells = kinds.iter().map(|kind| (kind.name(), std::slice::from_ref(kind), alone));
        for (name, kinds, time) in cells.chain([("all at once", kinds, together)]) {
            if time.is_zero() {
                continue;
            }
            eprintln!("attack: {driver}, {name}");
            let server = start(bench, &product, driver)?;
            let seen = observe(&server, server.address(), kinds, arguments.clients, time)?;
            let claim = |what: &str| format!("{driver}, {name}: {what}");
            report.bounds.extend([
                Bound::at_most(claim("CPU of attackers, % of a shard"), cost(&seen, &quiet), CPU_MAX_PERCENT),
                Bound::at_most(claim("p99 over p99 without"), seen.p99_us / quiet.p99_us, P99_RATIO_MAX),
                Bound::at_most(claim("threads of the kernel"), seen.kernel_workers as f64, KERNEL_WORKERS_MAX),
                Bound::at_most(claim("memory added, MiB"), seen.grown_mib, arguments.memory_max_mib),
            ]);
            rows.push(row(name, &seen, &quiet));
        }
        if kinds.contains(&Kind::Reconnecting) && !alone.is_zero() {
            eprintln!("attack: {driver}, {} at the floor", Kind::Reconnecting.name());
            match observe_floor(bench, &product, driver, arguments.clients, alone)? {
                Ok(seen) => rows.push(row("reconnecting, at the floor (a limit, not a server)", &seen, &quiet)),
                Err(reason) => report.remarks.push(format!("The floor was not measured: {reason}")),
            }
        }
        if !together.is_zero() {
            eprintln!("attack: {driver}, all at once at another server");
            let (server, attacked) = (start(bench, &product, driver)?, start(bench, &other, driver)?);
            cpu::run_process_when_idle(attacked.process())?;
            let seen = observe(&server, attacked.address(), kinds, arguments.clients, together)?;
            rows.push(row("all at once, at another server", &seen, &quiet));
        }
        report.tables.push(Table::new(format!("IO_DRIVER={driver}"), rows));
    }
    report.remarks.push(
        "Attackers and the honest client share the load's CPU, which the attackers have only while nobody else wants it. \
         What the machine's sharing costs the honest client shows the last row: there the attackers are at another process \
         on the same two CPUs, which runs only while nobody else wants its CPU."
            .into(),
    );
    Ok(report)
}

fn start(bench: &Bench, product: &Product, driver: &str) -> Result<Server, PartError> {
    Ok(product.start_with(&[bench.server_cpu], &[("IO_DRIVER", driver)])?)
}

/// What clients that come and go cost a program that does nothing but accept, receive, send and close; or why there is none.
fn observe_floor(
    bench: &Bench,
    product: &Product,
    driver: &str,
    clients: usize,
    time: Duration,
) -> Result<Result<Seen, String>, PartError> {
    let name = format!("floor-{driver}");
    let Some(floor) = Candidate::named(&name) else { return Ok(Err(format!("there is no {name}"))) };
    if let Err(reason) = floor.prepare(&bench.programs, bench.builds) {
        return Ok(Err(reason));
    }
    std::fs::create_dir_all(&bench.scratch)?;
    let folder = tempfile::tempdir_in(&bench.scratch)?;
    let setting = Setting {
        product,
        programs: &bench.programs,
        target: "/health",
        response: FLOOR_RESPONSE,
        in_turn: &[],
        unconditional: FLOOR_RESPONSE,
        folder: folder.path(),
        server_cpu: bench.server_cpu,
        kafka_brokers: None,
    };
    let server = floor.start(&setting)?;
    Ok(Ok(observe(&server, server.address(), &[Kind::Reconnecting], clients, time)?))
}

/// CPU time beyond what the honest client costs by itself, in percent of one CPU.
fn cost(seen: &Seen, quiet: &Seen) -> f64 {
    (seen.cpu_percent - quiet.cpu_percent).max(0.0)
}

fn row(label: &str, seen: &Seen, quiet: &Seen) -> Row {
    let figure = |name: &str, unit: &str, value: f64| Measurement::new(name, unit, vec![value]);
    Row {
        label: label.to_owned(),
        measurements: vec![
            figure("CPU of attackers", "% of a shard", cost(seen, quiet)),
            figure("threads of the kernel", "", seen.kernel_workers as f64),
            figure("memory added", "MiB", seen.grown_mib),
            figure("p99", "µs", seen.p99_us),
            figure("longest", "µs", seen.longest_us),
            figure("honest answers", "", seen.answers as f64),
            figure("connections of attackers", "", seen.connections as f64),
        ],
    }
}

/// Lets these kinds act on the server at `attacked`, and asks and looks at `server` meanwhile.
fn observe(
    server: &Server,
    attacked: SocketAddr,
    kinds: &[Kind],
    clients: usize,
    time: Duration,
) -> Result<Seen, PartError> {
    let (address, process) = (server.address(), server.process());
    // The list is made flat, and each path has been taken once.
    for target in ["/todos", "/todos?limit=10"] {
        Client::connect(address)?.exchange(&get(target))?;
    }
    let before_bytes = resident_bytes(process)?;
    let stop = AtomicBool::new(false);
    let (begun_at, cpu_before) = (Instant::now(), server.cpu_time()?);
    // Nothing in here leaves before `stop` is set: the threads would go on for ever.
    std::thread::scope(|scope| {
        let attackers: Vec<_> =
            kinds.iter().map(|kind| scope.spawn(|| attack(*kind, clients, attacked, &stop))).collect();
        let honest = scope.spawn(|| ask(address, &stop));
        let (mut most_bytes, mut kernel_workers) = (before_bytes, 0);
        let looked = loop {
            std::thread::sleep(LOOK_PAUSE);
            let looked = resident_bytes(process).and_then(|bytes| Ok((bytes, count_kernel_workers(process)?)));
            match looked {
                Ok((bytes, workers)) => {
                    most_bytes = most_bytes.max(bytes);
                    kernel_workers = kernel_workers.max(workers);
                }
                // All threads end before the error is told.
                Err(error) => break Err(error),
            }
            if begun_at.elapsed() >= time {
                break Ok(());
            }
        };
        let spent = server.cpu_time();
        let elapsed = begun_at.elapsed();
        stop.store(true, Ordering::Relaxed);
        let panicked = || io::Error::other("a thread panicked");
        let mut latencies = honest.join().map_err(|_| panicked())??;
        let mut connections = 0;
        for attacker in attackers {
            connections += attacker.join().map_err(|_| panicked())??;
        }
        looked?;
        Ok(Seen {
            cpu_percent: (spent? - cpu_before).as_secs_f64() / elapsed.as_secs_f64() * 100.0,
            kernel_workers,
            grown_mib: (most_bytes - before_bytes) as f64 / MIB,
            p99_us: percentile(&mut latencies, 99.0),
            longest_us: percentile(&mut latencies, 100.0),
            answers: latencies.len(),
            connections,
        })
    })
}

/// Asks for ten todos again and again; how long each answer took, in microseconds.
fn ask(address: SocketAddr, stop: &AtomicBool) -> io::Result<Vec<f64>> {
    let mut client = Client::connect(address)?;
    let request = get("/todos?limit=10");
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let asked_at = Instant::now();
        let (head, _) = client.exchange(&request)?;
        let taken = asked_at.elapsed();
        if head.status != 200 || taken > ANSWER_MAX {
            return Err(io::Error::other(format!("an honest request got {} after {taken:?}", head.status)));
        }
        latencies.push(taken.as_secs_f64() * 1e6);
        std::thread::sleep(HONEST_PAUSE);
    }
    if latencies.is_empty() { Err(io::Error::other("no honest request was answered")) } else { Ok(latencies) }
}

/// Threads that the kernel has made for the rings of a process.
fn count_kernel_workers(process: u32) -> io::Result<usize> {
    let mut count = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end between the listing and the reading.
        let name = std::fs::read_to_string(thread?.path().join("comm")).unwrap_or_default();
        count += usize::from(name.starts_with("iou-wrk"));
    }
    Ok(count)
}
