//! Part `ceiling`: how many pipelined requests a second one shard answers on one CPU.

use std::io;
use std::time::Duration;

use clap::Args;

use super::live::while_writing;
use super::read::Load;
use super::{Bench, PartError, USER, setting};
use crate::client::get;
use crate::cpu;
use crate::measurement::Measurement;
use crate::pipeline::{PipelineLoad, PipelineResult};
use crate::report::{Bound, Report, Row, Table};
use crate::server::Product;

/// What one shard has to answer on one CPU, with writes going on.
const RATE_MIN: f64 = 1_000_000.0;
/// Connections are opened, caches and clock speed come up.
const WARM_UP: Duration = Duration::from_millis(500);

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct CeilingArguments {
    /// Requests that a connection sends together
    #[arg(long, value_name = "REQUESTS", value_delimiter = ',', default_value = "16,64")]
    pub depths: Vec<usize>,
    /// Connections
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 64)]
    pub connections: usize,
    /// Seconds of each run
    #[arg(long, value_name = "S", default_value_t = 3)]
    pub seconds: u64,
    /// Length of the list
    #[arg(long, value_name = "TODOS", default_value_t = 10_000)]
    pub todos: u64,
    /// Writes per second meanwhile
    #[arg(long, value_name = "WRITES_PER_S", default_value_t = 20.0)]
    pub write_rate: f64,
}

#[derive(Default, Clone)]
struct Figures {
    rate: Vec<f64>,
    cpu_us: Vec<f64>,
    server_share: Vec<f64>,
    load_share: Vec<f64>,
    response_bytes: Vec<f64>,
}

/// Runs the part.
///
/// # Errors
/// The server does not start, or a request is not answered with 200.
pub fn run(bench: &Bench, arguments: &CeilingArguments) -> Result<Report, PartError> {
    let mut report = bench.report(
        "ceiling",
        "`GET /todos?limit=10`, pipelined, from ours with one shard on one CPU, while todos of that page are written. One \
         CPU of wrk is busy before one CPU of ours is, so the load is the bench's own: it looks at the status and the length \
         of each response and skips its body.",
        vec![
            setting("seconds of each run", arguments.seconds),
            setting("connections", arguments.connections),
            setting("todos", arguments.todos),
            setting("writes meanwhile", format!("{} writes/s", arguments.write_rate)),
        ],
    );
    eprintln!("ceiling: seeding {} todos", arguments.todos);
    let product = Product::new(&bench.product, &bench.scratch)?;
    product.seed_for_reading(arguments.todos, USER, bench.server_cpu)?;
    let token = product.token(USER)?;
    let mut figures = vec![Figures::default(); arguments.depths.len()];
    for run in 0..bench.runs {
        for (depth, figures) in arguments.depths.iter().zip(&mut figures) {
            eprintln!("ceiling: run {} of {}: depth {depth}", run + 1, bench.runs);
            let server = product.start(bench.server_cpu)?;
            let load = |duration| PipelineLoad {
                address: server.address(),
                request: get(Load::Ten.target()),
                depth: *depth,
                connections: arguments.connections,
                duration,
                status: 200,
            };
            let read = || -> io::Result<(PipelineResult, Duration, Duration)> {
                load(WARM_UP).run()?;
                let (server_before, load_before) = (server.cpu_time()?, cpu::current_thread_cpu_time()?);
                let result = load(Duration::from_secs(arguments.seconds)).run()?;
                let server_time = server.cpu_time()?.saturating_sub(server_before);
                Ok((result, server_time, cpu::current_thread_cpu_time()?.saturating_sub(load_before)))
            };
            let (result, server_time, load_time) = while_writing(&server, &token, arguments.write_rate, 0, read)?;
            let (responses, elapsed) = (result.responses as f64, result.elapsed.as_secs_f64());
            figures.rate.push(responses / elapsed);
            figures.cpu_us.push(server_time.as_secs_f64() * 1e6 / responses);
            figures.server_share.push(server_time.as_secs_f64() / elapsed * 100.0);
            figures.load_share.push(load_time.as_secs_f64() / elapsed * 100.0);
            figures.response_bytes.push(result.bytes as f64 / responses);
        }
    }
    let rows = arguments.depths.iter().zip(&figures).map(|(depth, figures)| figures.row(*depth));
    report.tables.push(Table::new("One shard, pipelined".to_owned(), rows.collect()));
    let best =
        figures.iter().map(|figures| Measurement::new("", "", figures.rate.clone()).median()).fold(0.0, f64::max);
    report.bounds.push(Bound::at_least(
        "limit=10, pipelined, live writes: requests/s of one shard, at the better depth".to_owned(),
        best,
        RATE_MIN,
    ));
    Ok(report)
}

impl Figures {
    fn row(&self, depth: usize) -> Row {
        Row {
            label: format!("depth {depth}"),
            measurements: vec![
                Measurement::new("rate", "requests/s", self.rate.clone()),
                Measurement::new("CPU per request", "µs", self.cpu_us.clone()),
                Measurement::new("server's CPU", "%", self.server_share.clone()),
                Measurement::new("load's CPU", "%", self.load_share.clone()),
                Measurement::new("response", "bytes", self.response_bytes.clone()),
            ],
        }
    }
}
