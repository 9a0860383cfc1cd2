//! Creates as fast as they are acknowledged, with so many on their way: through the API, and by a bare producer. Parts
//! share it.

use std::net::SocketAddr;
use std::time::Duration;

use super::PartError;
use crate::commands::{Partitions, Producer, Row};
use crate::cpu::{machine_cpu_time, process_cpu_time};
use crate::deployment::ServiceError;
use crate::measurement::{Measurement, percentile};
use crate::pipeline::PipelineLoad;
use crate::server::Server;
use crate::writes::request;

/// Connections, and requests that each sends together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub(super) connections: u64,
    pub(super) depth: u64,
}

/// Reads `CONNECTIONS` or `CONNECTIONSxDEPTH`.
pub(super) fn load(text: &str) -> Result<Load, String> {
    let (connections, depth) = text.split_once('x').unwrap_or((text, "1"));
    match (connections.parse(), depth.parse()) {
        (Ok(connections @ 1..=100_000), Ok(depth @ 1..=1_000)) => Ok(Load { connections, depth }),
        _ => Err("expected CONNECTIONS or CONNECTIONSxDEPTH".to_owned()),
    }
}

/// What a server did under a load.
pub(super) struct Posted {
    /// Writes that were answered with 202, a second.
    pub(super) rate: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) server_us: f64,
    pub(super) load_us: f64,
    pub(super) rest_us: f64,
}

/// What the bare producer did.
pub(super) struct Produced {
    pub(super) rate: f64,
    pub(super) producer_us: f64,
    pub(super) rest_us: f64,
}

impl Load {
    pub(super) fn label(self) -> String {
        let Load { connections, depth } = self;
        format!("{connections} connections, {}", if depth == 1 { "plain".into() } else { format!("{depth} deep") })
    }

    pub(super) fn post(self, server: &Server, token: &str, duration: Duration) -> Result<Posted, PartError> {
        let Row { title, description, .. } = Row::new(100_000);
        let body = format!("{{\"title\":\"{title}\",\"description\":\"{description}\"}}");
        let address: SocketAddr = server.address();
        let load = PipelineLoad {
            address,
            request: request("POST", "/todos", token, &body),
            depth: self.depth as usize,
            connections: self.connections as usize,
            duration,
            status: 202,
        };
        let (machine_before, server_before) = (machine_cpu_time()?, server.cpu_time()?);
        let mut result = load.run()?;
        let server_time = server.cpu_time()?.saturating_sub(server_before);
        let machine_time = machine_cpu_time()?.saturating_sub(machine_before);
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / result.responses as f64;
        Ok(Posted {
            rate: result.responses as f64 / result.elapsed.as_secs_f64(),
            server_us: micros(server_time),
            load_us: micros(result.cpu_time),
            rest_us: micros(machine_time.saturating_sub(server_time + result.cpu_time)),
            p50_ms: percentile(&mut result.latencies_us, 50.0) / 1e3,
            p99_ms: percentile(&mut result.latencies_us, 99.0) / 1e3,
        })
    }

    pub(super) fn produce(
        self,
        producer: &Producer,
        topic: &str,
        partitions: Partitions,
        duration: Duration,
    ) -> Result<Produced, ServiceError> {
        let (machine_before, own_before) = (machine_cpu_time()?, process_cpu_time(std::process::id())?);
        let in_flight = self.connections * self.depth;
        let (acknowledged, elapsed) = producer.load(topic, partitions, in_flight, duration)?;
        let own_time = process_cpu_time(std::process::id())?.saturating_sub(own_before);
        let machine_time = machine_cpu_time()?.saturating_sub(machine_before);
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / acknowledged as f64;
        Ok(Produced {
            rate: acknowledged as f64 / elapsed.as_secs_f64(),
            producer_us: micros(own_time),
            rest_us: micros(machine_time.saturating_sub(own_time)),
        })
    }
}

/// One figure of all runs.
pub(super) fn column<R>(label: &str, unit: &str, runs: &[R], figure: impl Fn(&R) -> f64) -> Measurement {
    Measurement::new(label, unit, runs.iter().map(figure).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_read() {
        assert_eq!(load("64"), Ok(Load { connections: 64, depth: 1 }));
        assert_eq!(load("512x16"), Ok(Load { connections: 512, depth: 16 }));
        assert!(load("0").is_err() && load("8x").is_err());
    }
}
