//! The network between processes and servers: one proxy in front of each server.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::deployment::{Deployment, required};
use crate::proxy::Proxy;

/// The proxies. Processes that a deployment starts behind them reach their servers through them alone; the tests' own
/// questions go straight to the servers.
pub struct Network {
    /// In front of PostgreSQL.
    pub postgres: Proxy,
    /// In front of Redis.
    pub redis: Proxy,
    kafka: Option<KafkaProxy>,
}

/// Whose the one address is that Kafka's answers name for its proxy.
static KAFKA_ADDRESS: Mutex<()> = Mutex::new(());

/// The proxy in front of Kafka. It ends before another deployment may take its address.
struct KafkaProxy {
    proxy: Proxy,
    _address: MutexGuard<'static, ()>,
}

impl KafkaProxy {
    /// Waits until the address is free.
    fn new() -> KafkaProxy {
        let address = KAFKA_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
        let proxy = Proxy::listen(&required("KAFKA_PROXY_ADDRESS"), &required("KAFKA_PROXY_TARGET"));
        KafkaProxy { proxy, _address: address }
    }
}

impl Network {
    fn new() -> Network {
        Network {
            postgres: Proxy::before(host_and_port(&required("DATABASE_URL"))),
            redis: Proxy::before(host_and_port(&required("REDIS_URL"))),
            kafka: None,
        }
    }

    /// In front of Kafka, whose answers name the proxy's address too.
    pub fn kafka(&self) -> &Proxy {
        &self.kafka.as_ref().expect("Kafka was put behind the network").proxy
    }

    /// All three.
    pub fn links(&self) -> [&Proxy; 3] {
        [&self.postgres, self.kafka(), &self.redis]
    }
}

impl Deployment {
    /// Processes that are started from now on reach these servers ([`SERVERS`]) through the network.
    pub fn behind_network(mut self, servers: &[&str]) -> Deployment {
        let mut network = self.network.take().unwrap_or_else(Network::new);
        for &name in servers {
            let direct = self.setting(name);
            let proxy = match name {
                "DATABASE_URL" => &network.postgres,
                "KAFKA_BROKERS" => &network.kafka.get_or_insert_with(KafkaProxy::new).proxy,
                "REDIS_URL" => &network.redis,
                _ => panic!("{name} names no server"),
            };
            let through = direct.replace(host_and_port(&direct), &proxy.address.to_string());
            self = self.set(name, &through);
        }
        self.network = Some(network);
        self
    }

    /// The network that its processes are behind.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("it was put behind one")
    }
}

/// The settings that name the servers.
pub const SERVERS: [&str; 3] = ["DATABASE_URL", "KAFKA_BROKERS", "REDIS_URL"];

/// `host:port` within a URL, or the text itself.
pub fn host_and_port(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split(['/', '?']).next().expect("split gives one")
}

/// Added each way by a slow link.
pub const SLOW_LATENCY: Duration = Duration::from_millis(50);
/// What a slow link lets through, in bytes a second: a batch of some hundred todos takes most of a second.
pub const SLOW_RATE: u32 = 128 * 1024;
