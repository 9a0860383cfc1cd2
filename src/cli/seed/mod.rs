//! `million-rps seed`: fills the list with todos that look like real ones.
//!
//! [`SeedTodo`] makes them. Where a server runs, [`seed_through_api`] sends them through it, as any client would; where
//! none does, [`seed_offline`] takes them through the log and a worker itself. [`SeedProgress`] shows how far it is.

mod api;
mod connection;
mod log;
mod offline;
mod progress;
#[cfg(test)]
mod tests;
mod texts;
mod visible;

pub use api::{SeedError, SeedPlan, SeedReport, seed_through_api};
pub use offline::seed_offline;
pub use progress::SeedProgress;
pub use texts::SeedTodo;

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{SeedArguments, TokenArguments};
use crate::config::{Config, Deployment};
use crate::data_dir::DataDir;

/// How long the token of a seeding is valid: longer than the largest seeding takes.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes the todos that the arguments ask for, beside a running server or without one.
///
/// # Errors
/// What went wrong, and how many todos were made before it.
pub fn seed(config: &Config, arguments: &SeedArguments) -> Result<SeedReport, Box<dyn Error>> {
    let plan = SeedPlan { count: arguments.count, variety: arguments.variety };
    let data_dir = match &config.deployment {
        Deployment::Embedded { data_dir } => DataDir::open(data_dir)?,
        #[cfg(feature = "services")]
        Deployment::Services(services) => return seed_topic(config, services, &arguments.user, plan),
        #[cfg(not(feature = "services"))]
        Deployment::Services(_) => return Err(crate::process::services_missing().into()),
    };
    let progress = SeedProgress::on_stderr(plan.count);
    match data_dir.owner().map(|owner| owner.address) {
        Some(address) if !address.is_empty() => {
            let arguments =
                TokenArguments { sub: arguments.user.clone(), ttl: TOKEN_TTL, key: None, alg: None, kid: None };
            let token = super::token::token(config, &arguments)?;
            let address = reachable(address.parse()?);
            let shown_before = visible::todos_shown(address).unwrap_or_default();
            let report = seed_through_api(address, &token, plan, &progress)?;
            if !visible::wait_until_shown(address, shown_before + report.accepted) {
                eprintln!("all are in the command log, but the server does not show them yet; its /ready says why");
            }
            Ok(report)
        }
        _ => Ok(seed_offline(&data_dir, &arguments.user, plan, &progress)?),
    }
}

/// Sends the commands to the topic, as the API does; the workers apply them, now or when they start.
#[cfg(feature = "services")]
fn seed_topic(
    config: &Config,
    services: &crate::config::Services,
    user: &str,
    plan: SeedPlan,
) -> Result<SeedReport, Box<dyn Error>> {
    use crate::command_log::kafka::{KafkaAppender, ensure_topic};
    let options = crate::process::services::kafka_options(config, services);
    ensure_topic(&options)?;
    let tally = std::sync::Arc::<log::Tally>::default();
    let mut appender = KafkaAppender::new(options, tally.clone())?;
    let progress = SeedProgress::on_stderr(plan.count);
    log::append_all(&mut appender, &tally, user, plan, &progress)?;
    progress.finish();
    Ok(SeedReport { accepted: plan.count, retried: 0, elapsed: progress.elapsed() })
}

/// The address at which this machine reaches a server that listens on all of its addresses.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}
