//! The load at a fixed rate: oha, which counts a response's time from when its request was due, not from when it could be
//! sent (`--latency-correction`).

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

/// The program, if there is one.
///
/// # Errors
/// There is none: in words.
pub fn find() -> Result<OsString, String> {
    crate::tools::find("oha", "--version")
        .ok_or_else(|| "oha cannot be started (deploy/setup.sh bench installs it, or: cargo install oha)".into())
}

/// What oha sends.
#[derive(Debug, Clone)]
pub struct FixedRateLoad<'l> {
    /// The server.
    pub address: SocketAddr,
    /// The request target.
    pub target: &'l str,
    /// Connections.
    pub connections: usize,
    /// Requests per second of all connections; `None` sends as many as it can.
    pub rate: Option<f64>,
    /// How long.
    pub duration: Duration,
}

/// What oha has seen.
#[derive(Debug, Clone, PartialEq)]
pub struct FixedRateResult {
    /// Responses per second.
    pub rate: f64,
    /// Times below which 50, 99 and 99.9 % of the responses came, in milliseconds.
    pub p50_ms: f64,
    /// As above.
    pub p99_ms: f64,
    /// As above.
    pub p999_ms: f64,
    /// Requests that got no response, or one that is not 200.
    pub errors: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    summary: Summary,
    latency_percentiles: Percentiles,
    status_code_distribution: std::collections::BTreeMap<String, u64>,
    #[serde(default)]
    error_distribution: std::collections::BTreeMap<String, u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    requests_per_sec: f64,
}

#[derive(Deserialize)]
struct Percentiles {
    p50: Option<f64>,
    p99: Option<f64>,
    #[serde(rename = "p99.9")]
    p999: Option<f64>,
}

impl FixedRateLoad<'_> {
    /// Runs oha on the CPUs of the calling thread.
    ///
    /// # Errors
    /// It fails, or says something else than expected.
    pub fn run(&self, program: &OsString) -> io::Result<FixedRateResult> {
        let mut command = Command::new(Path::new(program));
        command.args(["--no-tui", "--output-format", "json"]);
        command.arg("-z").arg(format!("{}s", self.duration.as_secs().max(1)));
        command.arg("-c").arg(self.connections.to_string());
        if let Some(rate) = self.rate {
            command.arg("-q").arg(format!("{rate:.0}")).arg("--latency-correction");
        }
        command.arg(format!("http://{}{}", self.address, self.target));
        let output = command.stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        read_result(&text).ok_or_else(|| {
            let log = String::from_utf8_lossy(&output.stderr);
            io::Error::other(format!("`{command:?}` gave no result. It wrote:\n{text}\n{log}"))
        })
    }
}

fn read_result(text: &str) -> Option<FixedRateResult> {
    let output: Output = serde_json::from_str(text).ok()?;
    let ms = |seconds: Option<f64>| seconds.unwrap_or(f64::NAN) * 1e3;
    let bad_statuses = output.status_code_distribution.iter().filter(|(status, _)| *status != "200");
    // What is under way when the time is over is no error of the server.
    let errors = output.error_distribution.iter().filter(|(error, _)| !error.contains("deadline"));
    Some(FixedRateResult {
        rate: output.summary.requests_per_sec,
        p50_ms: ms(output.latency_percentiles.p50),
        p99_ms: ms(output.latency_percentiles.p99),
        p999_ms: ms(output.latency_percentiles.p999),
        errors: bad_statuses.chain(errors).map(|(_, count)| count).sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_read() {
        let text = r#"{"summary":{"successRate":1.0,"total":2.0,"requestsPerSec":999.5},
            "latencyPercentiles":{"p10":0.001,"p50":0.002,"p99":0.003,"p99.9":0.004},
            "statusCodeDistribution":{"200":1999,"503":2},
            "errorDistribution":{"aborted due to deadline":64,"connection error":1}}"#;
        let result = read_result(text).expect("a result");
        assert_eq!((result.rate, result.errors), (999.5, 3));
        assert_eq!((result.p50_ms, result.p99_ms, result.p999_ms), (2.0, 3.0, 4.0));
        assert_eq!(read_result("oha: unknown option"), None);
    }
}
