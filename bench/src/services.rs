//! Real Kafka (with PostgreSQL and Redis beside it) for what needs it: the one that the environment names, or one that is
//! started here.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/services.sh");

/// Running services; those that were started here are stopped when it is dropped.
pub struct Services {
    /// `host:port`, several separated by commas.
    pub kafka_brokers: String,
    started_in: Option<PathBuf>,
}

impl Services {
    /// Those of the environment's `KAFKA_BROKERS`; without it starts some, with their data below `parent`.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn given_or_started(parent: &Path) -> io::Result<Services> {
        if let Ok(kafka_brokers) = std::env::var("KAFKA_BROKERS") {
            return Ok(Services { kafka_brokers, started_in: None });
        }
        let folder = std::path::absolute(parent)?.join("services");
        std::fs::create_dir_all(&folder)?;
        eprintln!("starting Kafka in {}", folder.display());
        // From here on `drop` stops whatever has started, also when not all has.
        let mut services = Services { kafka_brokers: String::new(), started_in: Some(folder.clone()) };
        script("start", &folder)?;
        let variables = script("env", &folder)?;
        let brokers = variables.lines().find_map(|line| line.strip_prefix("export KAFKA_BROKERS="));
        let brokers = brokers.ok_or_else(|| io::Error::other("deploy/services.sh names no KAFKA_BROKERS"))?;
        services.kafka_brokers = brokers.trim_matches(['\'', '"']).to_owned();
        Ok(services)
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.started_in.as_deref().map(|folder| script("stop", folder)) {
            eprintln!("{error}");
        }
    }
}

fn script(command: &str, folder: &Path) -> io::Result<String> {
    let output =
        Command::new(SCRIPT).arg(command).arg(folder).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("deploy/services.sh {command} failed: {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
