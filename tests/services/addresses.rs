//! A server that is somewhere else than it is looked for: which one, where, and what to do.

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use million_rps::command_log::CommandReader;
use million_rps::command_log::kafka::{KafkaOptions, KafkaReader, ensure_topic};
use million_rps::feed::FeedError;

use crate::harness::process::Process;
use crate::security::publish;
use crate::setting::{eventually, required, unique};

/// The broker can be asked at its door for a proxy, and says that it is reached at the proxy's address.
#[test]
fn an_advertised_listener_that_cannot_be_reached_is_named_with_its_address() {
    let address = required("KAFKA_PROXY_ADDRESS");
    let options = || KafkaOptions::new(&required("KAFKA_PROXY_TARGET"), &unique("advertised"));
    let is_named = |text: &str| text.contains(&address) && text.contains("advertised.listeners");
    // Nobody listens there.
    let refused = ensure_topic(&options()).expect_err("it cannot be reached").to_string();
    assert!(is_named(&refused), "{refused}");
    // Somebody listens and says nothing: known only when the time to connect is over, and told from then on.
    let _silent = TcpListener::bind(&address).expect("nobody listens there");
    let mut reader = KafkaReader::new(options()).expect("usable options");
    let mut poll = || reader.poll(1, 1 << 20, Duration::from_millis(100)).expect_err("it says nothing").to_string();
    eventually("the silent address is named", || Some(poll()).filter(|text| is_named(text)));
    let still = poll();
    assert!(is_named(&still), "in each round: {still}");
}

/// A Redis in cluster mode.
struct Node {
    _process: Process,
    _folder: tempfile::TempDir,
    port: u16,
    bus_port: u16,
}

impl Node {
    fn start() -> Node {
        let [port, bus_port] = [(); 2]
            .map(|()| TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port());
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.args(["--cluster-enabled", "yes", "--cluster-port", &bus_port.to_string()]);
        command.arg("--dir").arg(folder.path());
        let process = Process::start(command);
        eventually("Redis listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        Node { _process: process, _folder: folder, port, bus_port }
    }

    fn cluster(&self, arguments: &[&str]) -> String {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).expect("a URL");
        let mut connection = client.get_connection().expect("it listens");
        redis::cmd("CLUSTER").arg(arguments).query(&mut connection).expect("it is in cluster mode")
    }

    fn publish(&self, database: u8) -> Result<(), FeedError> {
        publish(&format!("redis://127.0.0.1:{}/{database}", self.port))
    }
}

#[test]
fn a_redis_cluster_is_named_and_one_node_with_all_keys_is_as_good_as_none() {
    let nodes = [Node::start(), Node::start()];
    let refused = |what: &str, database| {
        let text = nodes[0].publish(database).expect_err(what).to_string();
        assert!(text.contains("Redis Cluster"), "{what}: {text}");
        assert!(text.contains("without cluster mode"), "{what}: {text}");
    };
    refused("it has no keys", 0);
    nodes[0].cluster(&["ADDSLOTSRANGE", "0", "16383"]);
    eventually("one node with all keys", || nodes[0].publish(0).ok());
    refused("it has no database but 0", 3);
    // Two halves.
    nodes[0].cluster(&["DELSLOTSRANGE", "8192", "16383"]);
    nodes[1].cluster(&["ADDSLOTSRANGE", "8192", "16383"]);
    nodes[0].cluster(&["MEET", "127.0.0.1", &nodes[1].port.to_string(), &nodes[1].bus_port.to_string()]);
    eventually("the two know each other", || {
        nodes[0].cluster(&["INFO"]).lines().any(|line| line.trim() == "cluster_size:2").then_some(())
    });
    for _ in 0..20 {
        refused("keys of any name", 0);
    }
}
