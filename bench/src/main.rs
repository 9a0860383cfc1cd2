//! The bench runner: builds what it measures, runs one part, and keeps the figures.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, Parser, Subcommand};
use million_rps_bench::parts::{
    Bench, attack, ceiling, events, latency, list_memory, read, ready, shards, visible, write_cost,
};
#[cfg(feature = "services")]
use million_rps_bench::parts::{accept, apply, overload, tuning};
use million_rps_bench::server::raise_file_limit;
use million_rps_bench::{cpu, page};

/// Measures million-rps: CPU per request and memory, beside the floor of the machine and beside others.
///
/// The server runs alone on one CPU, the load on another. Everything is measured several times, in turn; figures are
/// medians with the smallest and the largest run. A quiet machine is needed for figures that mean anything.
#[derive(Debug, Parser)]
#[command(name = "million-rps-bench", max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    part: Part,
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Commands that a worker applies a second, beside plain inserts into the same PostgreSQL
    #[cfg(feature = "services")]
    Apply(apply::ApplyArguments),
    /// Clients that do harm without a token: what they cost a shard, and those beside them
    Attack(attack::AttackArguments),
    /// Changes told to crowds of followers: deliveries, their CPU time and latency, ours, the floor's and others'
    Events(events::EventsArguments),
    /// CPU time of one write beside short and long lists
    WriteCost(write_cost::WriteCostArguments),
    /// Memory that readers of the whole list cost
    ListMemory(list_memory::ListMemoryArguments),
    /// Reads: throughput and CPU time of a request, ours, the floor's and others'
    Read(read::ReadArguments),
    /// Pipelined requests a second that one shard answers on one CPU
    Ceiling(ceiling::CeilingArguments),
    /// Acknowledged writes a second, beside a bare producer
    #[cfg(feature = "services")]
    Accept(accept::AcceptArguments),
    /// Acknowledged writes a second with one setting of Kafka's producer changed: linger, compression, batch, in flight
    #[cfg(feature = "services")]
    Tuning(tuning::TuningArguments),
    /// A minute of more writes than can be applied: memory, answers, and that nothing acknowledged is lost
    #[cfg(feature = "services")]
    Overload(overload::OverloadArguments),
    /// The time from a start until a long list is served, and the memory that it takes
    Ready(ready::ReadyArguments),
    /// The time from the 202 of a write until it is visible everywhere
    Visible(visible::VisibleArguments),
    /// Reads with 5 % writes between them: ours, and the Go program with Kafka
    Mixed(read::ReadArguments),
    /// Latency of reads at fixed rates, with oha
    Latency(latency::LatencyArguments),
    /// How throughput grows with the number of shards
    Shards(shards::ShardsArguments),
    /// Make the page, its drawings and the README's figures from what all parts have kept
    Report(ReportArguments),
}

#[derive(Debug, Clone, Args)]
struct CommonArguments {
    /// Runs of everything that is measured
    #[arg(long, global = true, value_name = "RUNS", default_value_t = 5, value_parser = runs)]
    runs: usize,
    /// The CPU of the server; the first allowed one when not given
    #[arg(long, global = true, value_name = "CPU")]
    server_cpu: Option<usize>,
    /// The CPU of the load; the last allowed one when not given
    #[arg(long, global = true, value_name = "CPU")]
    load_cpu: Option<usize>,
    /// The product's program, already built; when not given it is built
    #[arg(long, global = true, value_name = "FILE")]
    product: Option<PathBuf>,
    /// Take the bench's own programs as they are, without building them
    #[arg(long, global = true)]
    no_build: bool,
    /// Where the figures are kept, one JSON file a part
    #[arg(long, global = true, value_name = "FOLDER", default_value = "target/bench")]
    output: PathBuf,
}

#[derive(Debug, Clone, Args)]
struct ReportArguments {
    /// The page to write
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    page: PathBuf,
    /// The README whose figures are written
    #[arg(long, value_name = "FILE", default_value = "README.md")]
    readme: PathBuf,
}

fn runs(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|runs| (1..=1000).contains(runs)).ok_or_else(|| "expected 1 to 1000".to_owned())
}

fn main() -> ExitCode {
    match execute(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        // The report says which bound does not hold.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("million-rps-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all bounds of the part hold.
fn execute(cli: &Cli) -> Result<bool, Box<dyn Error>> {
    let output = &cli.common.output;
    if let Part::Report(arguments) = &cli.part {
        page::write(output, &arguments.page)?;
        page::write_readme(output, &arguments.readme, &arguments.page)?;
        println!("{}", arguments.page.display());
        return Ok(true);
    }
    let bench = prepare(&cli.common)?;
    let report = match &cli.part {
        #[cfg(feature = "services")]
        Part::Apply(arguments) => apply::run(&bench, arguments)?,
        Part::Attack(arguments) => attack::run(&bench, arguments)?,
        Part::Events(arguments) => events::run(&bench, arguments)?,
        Part::WriteCost(arguments) => write_cost::run(&bench, arguments)?,
        Part::ListMemory(arguments) => list_memory::run(&bench, arguments)?,
        Part::Read(arguments) => read::run(&bench, arguments)?,
        Part::Ceiling(arguments) => ceiling::run(&bench, arguments)?,
        #[cfg(feature = "services")]
        Part::Accept(arguments) => accept::run(&bench, arguments)?,
        #[cfg(feature = "services")]
        Part::Tuning(arguments) => tuning::run(&bench, arguments)?,
        #[cfg(feature = "services")]
        Part::Overload(arguments) => overload::run(&bench, arguments)?,
        Part::Ready(arguments) => ready::run(&bench, arguments)?,
        Part::Visible(arguments) => visible::run(&bench, arguments)?,
        Part::Mixed(arguments) => read::run_mixed(&bench, arguments)?,
        Part::Latency(arguments) => latency::run(&bench, arguments)?,
        Part::Shards(arguments) => shards::run(&bench, arguments)?,
        Part::Report(_) => unreachable!("made above"),
    };
    let path = report.save(output)?;
    println!("{}", report.to_markdown());
    println!("Kept in {}", path.display());
    let failed: Vec<&str> = report.failed().map(|bound| bound.claim.as_str()).collect();
    for claim in &failed {
        eprintln!("million-rps-bench: does not hold: {claim}");
    }
    Ok(failed.is_empty())
}

/// Builds what is measured, and goes to the load's CPU.
fn prepare(common: &CommonArguments) -> Result<Bench, Box<dyn Error>> {
    let programs = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let product = match &common.product {
        Some(product) => product.clone(),
        None => {
            build(&["--package", "million-rps", "--bin", "million-rps"])?;
            programs.join("million-rps")
        }
    };
    if !common.no_build {
        let bench = ["--package", "million-rps-bench", "--bins"];
        let with_rivals = [&bench[..], &["--features", "rivals", "--keep-going"]].concat();
        // Others' crates may fail to build: then the report says so, and the rest is measured.
        if !cfg!(feature = "rivals") || build(&with_rivals).is_err() {
            build(&bench)?;
        }
    }
    let allowed = cpu::allowed_cpus()?;
    let server_cpu = common.server_cpu.unwrap_or(allowed[0]);
    let load_cpu = common.load_cpu.unwrap_or(allowed[allowed.len() - 1]);
    for cpu in [server_cpu, load_cpu] {
        if !allowed.contains(&cpu) {
            return Err(format!("CPU {cpu} is not among those that this process may use: {allowed:?}").into());
        }
    }
    cpu::pin_current_thread(load_cpu)?;
    raise_file_limit()?;
    let scratch = common.output.join("scratch");
    std::fs::create_dir_all(&scratch)?;
    let command = std::env::args().skip(1).collect::<Vec<String>>().join(" ");
    Ok(Bench {
        product,
        programs,
        scratch,
        output: common.output.clone(),
        builds: !common.no_build,
        runs: common.runs,
        server_cpu,
        load_cpu,
        all_cpus: allowed,
        command: format!("cargo run --release -p million-rps-bench -- {command}"),
    })
}

/// Builds with the profile of this program.
fn build(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("build").args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    if command.status()?.success() { Ok(()) } else { Err(format!("`{command:?}` failed").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli =
            Cli::try_parse_from(["bench", "write-cost", "--todos", "1,2,3", "--runs", "2"]).expect("a valid line");
        assert_eq!(cli.common.runs, 2);
        let Part::WriteCost(arguments) = cli.part else { panic!("another part") };
        assert_eq!(arguments.todos, [1, 2, 3]);
        assert!(Cli::try_parse_from(["bench", "read", "--runs", "0"]).is_err());
    }
}
