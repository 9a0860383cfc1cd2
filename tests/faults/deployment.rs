//! A deployment: a database, a topic and the processes that work with them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use million_rps::todo::TodoId;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use tokio_postgres::SimpleQueryMessage;

use crate::harness::client::{Answer, Client};
use crate::harness::is_well;
use crate::harness::metrics::await_shards;
use crate::harness::process::{Finished, Process};
use crate::harness::request::get;
use crate::harness::server::Setup;
use crate::network::Network;
use crate::within;

/// Partitions of the topic of a test that asks for no other number.
pub const PARTITIONS: usize = 8;
/// How long the API waits for the log before it refuses a write.
pub const ACK_TIMEOUT: Duration = Duration::from_millis(2_000);

/// The variable's value; without it the test cannot run, and says how it can.
pub fn required(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: these tests need real servers. Run `make test`, which starts them, or \
             `deploy/services.sh start DIR` and the lines that `deploy/services.sh env DIR` prints"
        )
    })
}

/// The URL of this database of the server.
fn database_url(name: &str) -> String {
    let url = required("DATABASE_URL");
    let (server, query) = url.split_once('?').unwrap_or((&url, ""));
    let (server, _) = server.rsplit_once('/').expect("DATABASE_URL names a database");
    format!("{server}/{name}?{query}")
}

/// Whose turn it is.
static TURN: RwLock<()> = RwLock::new(());

/// A deployment's turn.
#[allow(dead_code, reason = "held, not read")]
enum Turn {
    Alone(RwLockWriteGuard<'static, ()>),
    BesideOthers(RwLockReadGuard<'static, ()>),
    /// In that of another deployment, which lives longer.
    Borrowed,
}

/// A deployment of its own.
pub struct Deployment {
    setup: Setup,
    /// Its topic of commands; names its keys in Redis and its database too.
    pub topic: String,
    /// The consumer group of its workers.
    pub group: String,
    /// Lanes of each worker, which are members of the group.
    lanes: usize,
    /// Partitions of the topic.
    partitions: usize,
    runtime: tokio::runtime::Runtime,
    /// Ends before the turn: the next deployment's stands at the same address.
    pub(crate) network: Option<Network>,
    _turn: Turn,
}

impl Deployment {
    /// Waits for its turn and creates the database. The topic is created by the first process. No other deployment exists
    /// meanwhile: its test may stop the servers or measure.
    pub fn new() -> Deployment {
        // A failed test has put right what it had stopped.
        Deployment::in_turn(Turn::Alone(TURN.write().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The same for a test that stops its own processes and harms its own links alone, and may share the servers with
    /// others of that kind.
    pub fn beside_others() -> Deployment {
        Deployment::in_turn(Turn::BesideOthers(TURN.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Another deployment on the same servers, in this one's turn.
    pub fn neighbour(&self) -> Deployment {
        Deployment::in_turn(Turn::Borrowed)
    }

    fn in_turn(turn: Turn) -> Deployment {
        let topic = format!("faults-{}", TodoId::new());
        let group = format!("{topic}-workers");
        let setup = Setup::new()
            .set("DATABASE_URL", &database_url(&topic))
            .set("REDIS_URL", &required("REDIS_URL"))
            .set("KAFKA_BROKERS", &required("KAFKA_BROKERS"))
            .set("KAFKA_TODO_TOPIC", &topic)
            .set("KAFKA_GROUP_ID", &group)
            .set("KAFKA_PARTITIONS", &PARTITIONS.to_string())
            .set("ACK_TIMEOUT_MS", &ACK_TIMEOUT.as_millis().to_string())
            .set("SHARDS", "2");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let deployment =
            Deployment { setup, topic, group, lanes: 1, partitions: PARTITIONS, runtime, network: None, _turn: turn };
        let create = format!("CREATE DATABASE \"{}\"", deployment.topic);
        deployment.run_sql(&required("DATABASE_URL"), &create).expect("the database is created");
        deployment
    }

    /// Changes a setting of the processes that are started from now on.
    pub fn set(mut self, name: &str, value: &str) -> Deployment {
        self.setup = self.setup.clone().set(name, value);
        self
    }

    /// Gives the workers that are started from now on so many lanes.
    pub fn with_lanes(mut self, lanes: usize) -> Deployment {
        self.lanes = lanes;
        self.set("WORKER_LANES", &lanes.to_string())
    }

    /// Gives the topic so many partitions, unless it is there already.
    pub fn with_partitions(mut self, partitions: usize) -> Deployment {
        self.partitions = partitions;
        self.set("KAFKA_PARTITIONS", &partitions.to_string())
    }

    /// The value of a setting that it has given to its processes.
    pub fn setting(&self, name: &str) -> String {
        let command = self.setup.command(&[]);
        let value = command.get_envs().find(|(known, _)| *known == name).and_then(|(_, value)| value);
        value.and_then(|value| value.to_str()).unwrap_or_else(|| panic!("{name} is not set")).to_owned()
    }

    /// Starts an API process and waits until it is ready.
    pub fn serve(&self) -> Api {
        self.serve_unready("serve").until_ready()
    }

    /// Starts API and worker in one process and waits until it is ready.
    pub fn run(&self) -> Api {
        self.serve_unready("run").until_ready()
    }

    /// Starts a process with an API and waits until it listens.
    pub fn serve_unready(&self, command: &str) -> Api {
        let mut process = Process::start(self.setup.command(&[command]));
        let (address, _) = within("the line with the address", || {
            assert!(process.status().is_none(), "the API ended: {}", process.stderr.text());
            listens_on(&process.stdout.text())
        });
        Api { process, address }
    }

    /// Starts a process of any kind, and waits for nothing.
    pub fn start(&self, command: &str) -> Process {
        Process::start(self.setup.command(&[command]))
    }

    /// Starts a worker.
    pub fn worker(&self) -> Process {
        Process::start(self.setup.command(&["worker"]))
    }

    /// Starts workers and waits until each has a share of the partitions.
    pub fn workers<const COUNT: usize>(&self) -> [Process; COUNT] {
        let workers = std::array::from_fn(|_| self.worker());
        self.await_members(COUNT);
        workers
    }

    /// Runs a command of the program to its end.
    pub fn command(&self, arguments: &[&str]) -> Finished {
        self.setup.run(arguments)
    }

    /// Runs a line of a shell, which finds the program, to its end.
    pub fn shell(&self, line: &str, program_folder: &Path) -> Finished {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        self.setup.prepare(&mut command);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", program_folder.display()));
        Process::start(command).finish()
    }

    /// Waits until the group has the lanes of so many workers, each with a share, and no partition is without one.
    pub fn await_members(&self, workers: usize) {
        let consumer: BaseConsumer = self.client_config().create().expect("a client");
        let count = workers * self.lanes;
        within(&format!("{workers} workers that share the partitions"), || {
            let shares = shares(&consumer, &self.group)?;
            (shares.len() == count && !shares.contains(&0) && shares.iter().sum::<usize>() == self.partitions)
                .then_some(())
        });
    }

    /// Whether the group divides its partitions anew at this moment.
    pub fn is_rebalancing(&self, consumer: &BaseConsumer) -> bool {
        let groups = consumer.fetch_group_list(Some(&self.group), Duration::from_secs(10));
        groups.is_ok_and(|list| list.groups().iter().any(|group| group.state().ends_with("Rebalance")))
    }

    /// What every client of the brokers has in common.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", required("KAFKA_BROKERS"));
        config
    }

    /// The rows that a query returns, as text.
    ///
    /// # Panics
    /// When the database does not answer.
    pub fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.run_sql(&database_url(&self.topic), sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn run_sql(&self, url: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            let messages = client.simple_query(sql).await?;
            let rows = messages.into_iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
                _ => None,
            });
            Ok(rows.collect())
        })
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // All processes have ended. When this fails, the database goes with the servers' folder.
        let _ = self.run_sql(&required("DATABASE_URL"), &format!("DROP DATABASE \"{}\" WITH (FORCE)", self.topic));
    }
}

/// How many partitions each member of the group has; `None` while they are being divided.
fn shares(consumer: &BaseConsumer, group: &str) -> Option<Vec<usize>> {
    let list = consumer.fetch_group_list(Some(group), Duration::from_secs(10)).ok()?;
    let group = list.groups().iter().find(|found| found.name() == group)?;
    if group.state() != "Stable" {
        return None;
    }
    group.members().iter().map(|member| member.assignment().and_then(partitions_in)).collect()
}

/// Reads Kafka's ConsumerProtocolAssignment with one topic: version, topics, name, partitions.
fn partitions_in(assignment: &[u8]) -> Option<usize> {
    let number = |at: usize| Some(i32::from_be_bytes(assignment.get(at..at + 4)?.try_into().ok()?));
    if number(2)? == 0 {
        return Some(0);
    }
    let name_bytes = u16::from_be_bytes(assignment.get(6..8)?.try_into().ok()?);
    usize::try_from(number(8 + usize::from(name_bytes))?).ok()
}

/// The address in the first line that an API process prints.
fn listens_on(stdout: &str) -> Option<SocketAddr> {
    let (line, _) = stdout.split_once('\n')?;
    let address = line.strip_prefix("million-rps listens on http://").expect("the first line says where it listens");
    Some(address.parse().expect("an address"))
}

/// An API process.
pub struct Api {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Api {
    fn until_ready(self) -> Api {
        within("readiness", || (self.ready().0 == 200).then_some(()));
        self
    }

    /// Connects to it.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Status and document of `/ready`.
    pub fn ready(&self) -> (u16, Value) {
        let answer = self.connect().call(&get("/ready"));
        (answer.status, answer.json())
    }

    /// Waits until `/ready` names this trouble, while the process goes on serving.
    pub fn await_trouble(&self, text: &str) {
        within(&format!("{text:?} in /ready"), || {
            let (status, document) = self.ready();
            (status == 200 && document["status"] == "degraded" && document["reasons"].to_string().contains(text))
                .then_some(())
        });
    }

    /// Waits until `/ready` tells of no trouble.
    pub fn await_well(&self) {
        within("/ready without trouble", || is_well(&self.ready().1).then_some(()));
    }

    /// The whole list, as new as any of the shards had it when this was called.
    pub fn list(&self) -> Answer {
        await_shards(self.address);
        self.connect().call(&get("/todos")).expect(200)
    }

    /// The sum of a metric's samples.
    pub fn metric(&self, name: &str) -> f64 {
        let answer = self.connect().call(&get("/metrics")).expect(200);
        let samples = answer.text().lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        samples.sum()
    }

    /// Memory that the process holds, in bytes (VmRSS).
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}
