//! The three brokers, and the proxies before them.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::deployment::{Deployment, PARTITIONS, required};
use crate::proxy::Proxy;
use crate::within;

/// Their numbers.
pub const BROKERS: [i32; 3] = [1, 2, 3];

/// The proxies, which last as long as the test process: without them the brokers do not reach each other.
struct Proxies {
    /// Before each broker, for its clients.
    clients: Vec<Proxy>,
    /// Before each broker, for the other brokers.
    between: Vec<Proxy>,
}

fn proxies() -> &'static Proxies {
    static PROXIES: OnceLock<Proxies> = OnceLock::new();
    PROXIES.get_or_init(|| {
        let listen = |addresses: &str, targets: &str| {
            let (addresses, targets) = (required(addresses), required(targets));
            addresses
                .split(',')
                .zip(targets.split(','))
                .map(|(address, target)| Proxy::listen(address, target))
                .collect()
        };
        Proxies {
            clients: listen("KAFKA_PROXY_ADDRESSES", "KAFKA_PROXY_TARGETS"),
            between: listen("KAFKA_BETWEEN_ADDRESSES", "KAFKA_BETWEEN_TARGETS"),
        }
    })
}

/// The proxy between a broker and its clients.
pub fn clients_of(broker: i32) -> &'static Proxy {
    &proxies().clients[broker as usize - 1]
}

/// The proxy between a broker and those that ask it, of the others.
pub fn askers_of(broker: i32) -> &'static Proxy {
    &proxies().between[broker as usize - 1]
}

/// Cuts a broker off from the others, both ways, while everybody else reaches it; ends when dropped.
pub struct CutOff;

impl CutOff {
    /// No other broker has an answer of it, and it has none of theirs.
    pub fn new(broker: i32) -> CutOff {
        askers_of(broker).black_hole();
        for other in BROKERS.into_iter().filter(|other| *other != broker) {
            // The name that a broker gives when it follows another.
            askers_of(other).black_hole_speakers_of(&format!("broker-{broker}-"));
        }
        CutOff
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        heal();
    }
}

/// Nothing is wrong with the network.
pub fn heal() {
    proxies().clients.iter().chain(&proxies().between).for_each(Proxy::heal);
}

/// A cluster whose replicas are all in sync, with a deployment of its own, which reaches the brokers through the proxies.
pub fn deployment() -> Deployment {
    heal();
    let deployment = Deployment::new();
    let addresses: Vec<String> = BROKERS.iter().map(|broker| clients_of(*broker).address.to_string()).collect();
    let deployment = deployment.set("KAFKA_BROKERS", &addresses.join(","));
    await_in_sync(&deployment);
    deployment
}

/// Topic, partition, leader, and the replicas that are in sync.
type Place = (String, i32, i32, Vec<i32>);

fn places(consumer: &BaseConsumer) -> Option<Vec<Place>> {
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(10)).ok()?;
    let places = metadata.topics().iter().flat_map(|topic| {
        let place = |partition: &rdkafka::metadata::MetadataPartition| {
            (topic.name().to_owned(), partition.id(), partition.leader(), partition.isr().to_vec())
        };
        topic.partitions().iter().map(place).collect::<Vec<_>>()
    });
    Some(places.collect())
}

/// Waits until every partition of every topic has a leader and three replicas in sync.
pub fn await_in_sync(deployment: &Deployment) -> Duration {
    let consumer: BaseConsumer = deployment.client_config().create().expect("a client");
    let in_sync = |(_, _, leader, replicas): &Place| *leader > 0 && replicas.len() == BROKERS.len();
    within("all replicas in sync", || places(&consumer)?.iter().all(in_sync).then_some(())).1
}

/// The leader of each partition of the deployment's topic.
pub fn leaders(deployment: &Deployment) -> BTreeMap<i32, i32> {
    let consumer: BaseConsumer = deployment.client_config().create().expect("a client");
    let own = || {
        let places = places(&consumer)?.into_iter().filter(|(topic, ..)| *topic == deployment.topic);
        let leaders: BTreeMap<i32, i32> = places.map(|(_, partition, leader, _)| (partition, leader)).collect();
        (leaders.len() == PARTITIONS && leaders.values().all(|leader| *leader > 0)).then_some(leaders)
    };
    within("a leader of each partition", own).0
}

/// Has each partition led by the broker behind its leader, by Kafka's own tools.
pub fn rotate_leaders(deployment: &Deployment) {
    let place = |(partition, leader): (i32, i32)| {
        let replicas: Vec<i32> = (0..3).map(|step| (leader + step) % 3 + 1).collect();
        serde_json::json!({ "topic": deployment.topic, "partition": partition, "replicas": replicas })
    };
    let before = leaders(deployment);
    let partitions: Vec<serde_json::Value> = before.clone().into_iter().map(place).collect();
    let plan = serde_json::json!({ "version": 1, "partitions": partitions }).to_string();
    java(
        "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
        "--reassignment-json-file",
        &plan,
        &["--execute"],
    );
    let chosen =
        partitions.iter().map(|place| serde_json::json!({ "topic": place["topic"], "partition": place["partition"] }));
    let chosen = serde_json::json!({ "partitions": chosen.collect::<Vec<_>>() }).to_string();
    within("another leader of each partition", || {
        let tool = "org.apache.kafka.tools.LeaderElectionCommand";
        java(tool, "--path-to-json-file", &chosen, &["--election-type", "preferred"]);
        let moved = leaders(deployment).iter().all(|(partition, leader)| before[partition] % 3 + 1 == *leader);
        moved.then_some(())
    });
}

fn java(class: &str, file_option: &str, contents: &str, more: &[&str]) {
    let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a file can be made");
    file.write_all(contents.as_bytes()).expect("written");
    let mut command = Command::new("java");
    command.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", &format!("{}/*", required("KAFKA_JARS")), class]);
    command.args(["--bootstrap-server", &required("KAFKA_BROKERS"), file_option]).arg(file.path()).args(more);
    // Its exit status is not 0 also where a partition is led by the right broker already.
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("java runs");
}
