//! Real PostgreSQL, Kafka and Redis, and the product on top of them: a database and a topic of its own for each run.

use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use redis::Commands as _;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

use crate::server::{Server, ServerError};

/// The product's schema, so that what it is compared with has the same table and the same indexes.
const SCHEMA: &str = include_str!("../../src/store/postgres/schema.sql");
/// Partitions of a topic, as by the product's own default.
pub const PARTITIONS: i32 = 16;
/// A worker that was told to stop has so long.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Between two looks at something that is about to be.
const POLL: Duration = Duration::from_millis(5);
/// The key of the bench's tokens.
pub const JWT_SECRET: &str = "a key of the bench, which guards nothing";

/// Whatever ends a conversation with a service.
pub type ServiceError = Box<dyn std::error::Error>;

/// The three services.
pub struct AllServices {
    /// Where this bench has started them; `None` when they were there.
    started: Option<PathBuf>,
    database_url: String,
    redis_url: String,
    kafka_brokers: String,
    runtime: Runtime,
}

impl AllServices {
    /// Takes those that `DATABASE_URL`, `REDIS_URL` and `KAFKA_BROKERS` name when all three are set; starts some below
    /// `folder` otherwise, and stops them in the end.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn open(folder: &Path) -> Result<AllServices, ServiceError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let given = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let (Some(database_url), Some(redis_url), Some(kafka_brokers)) =
            (given("DATABASE_URL"), given("REDIS_URL"), given("KAFKA_BROKERS"))
        {
            return Ok(AllServices { started: None, database_url, redis_url, kafka_brokers, runtime });
        }
        std::fs::create_dir_all(folder)?;
        let folder = std::path::absolute(folder)?;
        eprintln!("starting PostgreSQL, Redis and Kafka in {}", folder.display());
        script("start", &folder)?;
        let settings = script("env", &folder)?;
        let setting = |name: &str| {
            let prefix = format!("export {name}=");
            let found = settings.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned);
            found.ok_or_else(|| io::Error::other(format!("the services have no {name}")))
        };
        let (database_url, redis_url) = (setting("DATABASE_URL")?, setting("REDIS_URL")?);
        Ok(AllServices {
            database_url,
            redis_url,
            kafka_brokers: setting("KAFKA_BROKERS")?,
            runtime,
            started: Some(folder),
        })
    }

    /// Drives a conversation with PostgreSQL or Kafka's administrator.
    pub fn block_on<T>(&self, conversation: impl Future<Output = T>) -> T {
        self.runtime.block_on(conversation)
    }

    /// A database with the product's schema, a topic, and no trace of either in Redis.
    ///
    /// # Errors
    /// A service refuses.
    pub fn deployment(&self, name: &str) -> Result<Deployment<'_>, ServiceError> {
        let name = format!("{name}-{}-{}", std::process::id(), unique());
        let deployment = Deployment { services: self, name };
        self.block_on(async {
            let client = connect(&self.database_url).await?;
            client.batch_execute(&format!("CREATE DATABASE \"{}\"", deployment.name)).await?;
            connect(&deployment.database_url()).await?.batch_execute(SCHEMA).await?;
            let admin: AdminClient<DefaultClientContext> = self.kafka_config().create()?;
            let topic = NewTopic::new(&deployment.name, PARTITIONS, TopicReplication::Fixed(1));
            for result in admin.create_topics([&topic], &AdminOptions::new()).await? {
                result.map_err(|(topic, code)| format!("the topic {topic} cannot be made: {code}"))?;
            }
            Ok::<(), ServiceError>(())
        })?;
        Ok(deployment)
    }

    /// Where the brokers are.
    pub fn kafka_brokers(&self) -> &str {
        &self.kafka_brokers
    }

    /// How to reach the brokers.
    pub fn kafka_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.kafka_brokers).set("log_level", "3");
        config
    }
}

impl Drop for AllServices {
    fn drop(&mut self) {
        if let Some(folder) = &self.started
            && let Err(error) = script("stop", folder)
        {
            eprintln!("{error}");
        }
    }
}

fn script(command: &str, folder: &Path) -> Result<String, ServiceError> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/services.sh");
    // Its standard error goes where the bench's does: it says what is missing.
    let output = Command::new(path).arg(command).arg(folder).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("deploy/services.sh {command} failed").into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn unique() -> u64 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        // Whoever uses the connection gets an error of its own.
        let _ = connection.await;
    });
    Ok(client)
}

/// A database and a topic of one name; both are removed in the end.
pub struct Deployment<'s> {
    services: &'s AllServices,
    name: String,
}

impl Deployment<'_> {
    /// The topic of its commands.
    pub fn topic(&self) -> &str {
        &self.name
    }

    /// The services that it is on.
    pub fn services(&self) -> &AllServices {
        self.services
    }

    fn database_url(&self) -> String {
        let (base, parameters) =
            self.services.database_url.split_once('?').unwrap_or((&self.services.database_url, ""));
        let server = base.rsplit_once('/').map_or(base, |(server, _)| server);
        format!("{server}/{}?{parameters}", self.name)
    }

    /// A connection to its database.
    ///
    /// # Errors
    /// The database refuses.
    pub fn database(&self) -> Result<Client, tokio_postgres::Error> {
        self.services.block_on(connect(&self.database_url()))
    }

    /// Its place in Redis.
    ///
    /// # Errors
    /// Redis refuses.
    pub fn feed(&self) -> Result<FeedPlace, ServiceError> {
        let connection = redis::Client::open(self.services.redis_url.as_str())?.get_connection()?;
        Ok(FeedPlace { connection, prefix: format!("million-rps:{{{}}}", self.name) })
    }

    /// A command of the product, with this deployment's settings and none of the caller's.
    pub fn command(&self, product: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(product);
        command.args(arguments).env_clear().env("DATABASE_URL", self.database_url());
        command.env("REDIS_URL", &self.services.redis_url).env("KAFKA_BROKERS", &self.services.kafka_brokers);
        command.env("KAFKA_TODO_TOPIC", &self.name).env("KAFKA_GROUP_ID", &self.name).env("JWT_SECRET", JWT_SECRET);
        command.env("HTTP_HOST", "127.0.0.1").env("HTTP_PORT", "0").env("LOG_LEVEL", "warn");
        for (name, value) in std::env::vars() {
            // A way to try a setting of the product out.
            if let Some(name) = name.strip_prefix("BENCH_PRODUCT_") {
                command.env(name, value);
            }
        }
        command
    }

    /// The bytes of its topic on the broker's disk; `None` when the services were not started here.
    ///
    /// # Errors
    /// The broker's files cannot be looked at.
    pub fn log_bytes(&self) -> io::Result<Option<u64>> {
        let Some(folder) = &self.services.started else { return Ok(None) };
        let data = folder.join("kafka/data");
        let mut bytes = 0;
        for partition in 0..PARTITIONS {
            for file in std::fs::read_dir(data.join(format!("{}-{partition}", self.name)))? {
                let file = file?;
                if file.path().extension().is_some_and(|extension| extension == "log") {
                    bytes += file.metadata()?.len();
                }
            }
        }
        Ok(Some(bytes))
    }

    /// Starts an API process on the CPUs of the calling thread and waits until it is ready.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn api(&self, product: &Path, folder: &Path) -> Result<Server, ServerError> {
        self.api_with(product, folder, &[])
    }

    /// The same, with these settings of the product (names of the environment, and values).
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn api_with(&self, product: &Path, folder: &Path, settings: &[(&str, &str)]) -> Result<Server, ServerError> {
        let mut command = self.command(product, &["serve"]);
        command.envs(settings.iter().copied());
        let mut server = Server::start(command, &[], folder)?;
        server.wait_for("/ready", |head| head.status == 200)?;
        Ok(server)
    }

    /// Starts a worker process on the CPUs of the calling thread.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn worker(&self, product: &Path, folder: &Path) -> io::Result<Worker> {
        let log = std::fs::File::create(folder.join("worker.log"))?;
        let mut command = self.command(product, &["worker"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(Worker { child: command.spawn()? })
    }

    /// A token for `user`.
    ///
    /// # Errors
    /// The command fails.
    pub fn token(&self, product: &Path, user: &str) -> Result<String, ServiceError> {
        let mut child = self.command(product, &["token", "--sub", user, "--ttl", "24h"]);
        let mut child = child.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
        if !child.wait()?.success() {
            return Err("no token could be made".into());
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for Deployment<'_> {
    fn drop(&mut self) {
        let removed = self.services.block_on(async {
            let client = connect(&self.services.database_url).await?;
            client.batch_execute(&format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name)).await?;
            let admin: AdminClient<DefaultClientContext> = self.services.kafka_config().create()?;
            admin.delete_topics(&[&self.name], &AdminOptions::new()).await?;
            Ok::<(), ServiceError>(())
        });
        let removed = removed.and_then(|()| Ok(self.feed()?.clear()?));
        if let Err(error) = removed {
            eprintln!("what a run left behind could not be removed: {error}");
        }
    }
}

/// A running worker; stopped in the end.
pub struct Worker {
    child: Child,
}

impl Worker {
    /// Its process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let Ok(process) = libc::pid_t::try_from(self.child.id()) else { return };
        // SAFETY: the child has not been waited for, so the id is still its own.
        unsafe { libc::kill(process, libc::SIGTERM) };
        let kill_at = Instant::now() + STOP_MAX;
        while self.is_running() {
            if Instant::now() > kill_at {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// What the feed in Redis holds of one deployment.
pub struct FeedPlace {
    connection: redis::Connection,
    prefix: String,
}

impl FeedPlace {
    /// How many records of the log are applied and published.
    ///
    /// # Errors
    /// Redis refuses.
    pub fn published(&mut self) -> redis::RedisResult<u64> {
        let fields: Vec<(String, String)> = self.connection.hgetall(format!("{}:offsets", self.prefix))?;
        let offsets = fields.iter().filter(|(partition, _)| !partition.starts_with('@'));
        Ok(offsets.filter_map(|(_, offset)| offset.parse::<u64>().ok()).sum())
    }

    /// Forgets the list, so that the next API process reads it from the store.
    ///
    /// # Errors
    /// Redis refuses.
    pub fn clear(&mut self) -> redis::RedisResult<()> {
        let keys = ["todos", "offsets", "changes", "loading"].map(|part| format!("{}:{part}", self.prefix));
        redis::cmd("UNLINK").arg(&keys[..]).exec(&mut self.connection)
    }
}
