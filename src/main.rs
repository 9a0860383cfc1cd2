//! The `million-rps` command: the command line becomes settings, the settings start the chosen process.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use million_rps::cli::{self, Cli, Command};
use million_rps::observe::logging;
use million_rps::process::{self, Roles};

// AddressSanitizer watches the system's allocator only (`make sanitize`).
#[cfg(not(address_sanitizer))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match execute(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not by a macro that panics where the terminal has closed.
            let _ = writeln!(std::io::stderr(), "million-rps: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: &Cli) -> Result<(), Box<dyn Error>> {
    let config = cli.load_config();
    let command = cli.chosen_command();
    if let Command::Config(arguments) = &command {
        end_with_the_reader();
        // Tells about settings, also about wrong ones, so it takes them as they are.
        let judged = config.as_ref().map_or(Ok(()), process::check_clients);
        print!("{}", cli::settings_report::settings_report(config, arguments)?);
        // What a client library does not take is an error here, too, as it is for every other command.
        judged?;
        return Ok(());
    }
    if matches!(command, Command::Token(_) | Command::DeadLetters(_)) {
        end_with_the_reader();
    }
    let config = config?;
    logging::init(&config.logging)?;
    for warning in &config.warnings {
        tracing::warn!("settings: {warning}");
    }
    match command {
        Command::Run => process::run(&config, Roles { api: true, worker: true })?,
        Command::Serve => process::run(&config, Roles { api: true, worker: false })?,
        Command::Worker => process::run(&config, Roles { api: false, worker: true })?,
        Command::Migrate(arguments) => cli::migrate::migrate(&config, &arguments)?,
        Command::Seed(arguments) => println!("{}", cli::seed::seed(&config, &arguments)?),
        Command::DeadLetters(arguments) => cli::dead_letters::dead_letters(&config, &arguments.action)?,
        Command::Token(arguments) => println!("{}", cli::token::token(&config, &arguments)?),
        Command::Config(_) => unreachable!("answered above"),
    }
    Ok(())
}

/// Lets a tool whose output goes into a pipe end quietly when nobody reads any more, as in `dead-letters list | head`. Rust
/// ignores SIGPIPE, so that printing would panic; a server wants it so.
fn end_with_the_reader() {
    // SAFETY: SIG_DFL is no function of ours, so nothing runs in signal context; no other thread has been started yet.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}
