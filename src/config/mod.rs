//! Settings: flags, environment and `.env` become one typed [`Config`], or the list of everything that is wrong.
//!
//! [`table`] declares every setting once: name, default, unit, range, help. Parsing, `--help`, `million-rps config`, the
//! README's table and `.env.example` are all made from it. A flag wins over the environment, the environment over
//! `.env`, `.env` over the default. Nothing here reads the process environment: [`Sources`] and [`Platform`] come from
//! the caller, so that tests need neither variables nor files.
//!
//! Secrets live in [`Secret`] and [`ConnectionUrl`], which do not print what they hold.

mod brokers;
mod check;
mod connection_urls;
mod cors_origins;
#[cfg(test)]
mod deployment_tests;
mod error;
mod kind;
mod log_level;
mod origin;
mod platform;
mod report;
mod secret;
mod setting;
mod sources;
pub mod table;
mod table_events;
mod table_kafka;
#[cfg(test)]
mod table_tests;
mod table_tokens;
#[cfg(test)]
mod tests;
mod token_settings;
mod value;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use check::Requirements;
pub use error::{ConfigErrors, SettingError};
pub use kind::Kind;
pub use origin::Origin;
pub use platform::Platform;
pub use report::{env_example, help_of, markdown, text};
pub use secret::{ConnectionUrl, Secret, mask_url};
pub use setting::{DefaultValue, Group, Setting};
pub use sources::{DotEnv, Environment, Sources};
pub use table::SETTINGS;
pub use token_settings::{KeySetPlace, PEM_BEGINS};
pub use values::EffectiveSetting;

use crate::auth::ClaimNames;
use crate::limits::{CACHE_TTL_MAX_S, CONNECTION_MEMORY_DEFAULT_MIN_BYTES, CONNECTION_MEMORY_SHARE_BYTES, POOL_MAX};
use crate::todo::TextLimits;
use token_settings::listed;
use values::Values;

/// The settings of a process, checked, grouped by who needs them.
#[derive(Debug, Clone)]
pub struct Config {
    /// Listener and connections.
    pub http: Http,
    /// The change feed.
    pub events: Events,
    /// Bearer tokens.
    pub auth: Auth,
    /// The way of a command to the log.
    pub write: Write,
    /// Where a process that is only a worker answers questions about itself; `None`: nowhere.
    pub worker_listen: Option<SocketAddr>,
    /// How long a missed change can hide: the list is verified against the store at least this often, and Redis keys
    /// expire after it.
    pub cache_ttl: Duration,
    /// What stands behind the three seams.
    pub deployment: Deployment,
    /// Logs.
    pub logging: Logging,
    /// What looks wrong with the given settings and has no effect, for the log and for `million-rps config`.
    pub warnings: Vec<String>,
    /// Every setting as it took effect, in the table's order, for `million-rps config`.
    pub effective: Vec<EffectiveSetting>,
}

/// Listener and connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where to listen; port 0 takes any free port.
    pub listen: SocketAddr,
    /// Shard threads; at least 1.
    pub shards: usize,
    /// How shards talk to the kernel.
    pub io_driver: IoDriver,
    /// Whether lists are sent compressed to clients that accept it.
    pub compression: bool,
    /// Origins whose pages may read answers; `*` is any.
    pub cors_origins: Vec<String>,
    /// Open connections of the whole process.
    pub max_connections: usize,
    /// What buffers of connections may take beyond what each has without asking, in bytes.
    pub connection_memory_bytes: usize,
    /// Longest body of a request, in bytes.
    pub body_max_bytes: usize,
    /// The same where it is an array of todos.
    pub array_body_max_bytes: usize,
    /// From a request's first byte, or from the accept, to the end of its head.
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// How long an answer may make no progress.
    pub write_timeout: Duration,
    /// What clients have to take of an answer in a second, on the average over each `write_rate_grace`.
    pub write_rate_min_bytes: u64,
    /// See `write_rate_min_bytes`.
    pub write_rate_grace: Duration,
    /// Bytes of old versions of the list that slow readers may hold; `None`: as much as the list takes.
    pub old_lists_max_bytes: Option<u64>,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// From SIGTERM to the end of the process.
    pub drain_timeout: Duration,
    /// Who sees in `/ready` what the services say.
    pub ready_details: ReadyDetails,
}

/// The change feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// Clients of the whole process that follow.
    pub followers_max: usize,
    /// Between two signs of life.
    pub heartbeat: Duration,
    /// Memory of the changes that are kept.
    pub history_max_bytes: u64,
    /// How long they are kept.
    pub history_age: Duration,
    /// Bytes that may wait for one of them.
    pub unsent_max_bytes: u64,
}

/// Who sees in `/ready` what the services say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyDetails {
    /// Nobody.
    Off,
    /// Who asks from this machine.
    Local,
    /// Anyone.
    On,
}

/// How shards talk to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoDriver {
    /// io_uring where the kernel allows it, else epoll.
    Auto,
    /// io_uring, or the process does not start.
    IoUring,
    /// epoll.
    Epoll,
}

/// Bearer tokens.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// The key of HS256, from `JWT_SECRET`; `None` in the embedded deployment means the one in the data folder.
    pub secret: Option<Secret>,
    /// Where `JWT_SECRET` was given.
    pub secret_origin: Origin,
    /// Another `JWT_SECRET`, in `.env`, that the environment's has put aside.
    pub overruled_secret: Option<Secret>,
    /// The folder that has a key of an embedded deployment, present or past: `DATA_DIR`.
    pub key_folder: PathBuf,
    /// The secret before, from `JWT_SECRET_PREVIOUS`.
    pub previous_secret: Option<Secret>,
    /// Where that was given.
    pub previous_secret_origin: Origin,
    /// Public keys, from `JWT_PUBLIC_KEY`: their text, or the path of a file.
    pub public_key: Option<String>,
    /// A key set, from `JWT_JWKS`.
    pub key_set: Option<KeySetPlace>,
    /// How long a key set from an address is good at most.
    pub key_set_refresh: Duration,
    /// Who may vouch for that address; `None`: whom the system trusts.
    pub key_set_authorities: Option<PathBuf>,
    /// The claim that names the user; empty means `sub`.
    pub user_claim: String,
    /// The scope that writes need; `None`: none.
    pub write_scope: Option<String>,
    /// The `iss` that tokens must have; `None` accepts any.
    pub issuer: Option<String>,
    /// The `aud` of which tokens must name one; none accepts any.
    pub audiences: Vec<String>,
    /// Whether a token may be without `exp`.
    pub takes_endless: bool,
    /// How far `exp` and `nbf` may be off, for clocks that disagree.
    pub leeway: Duration,
    /// Whether the page is given tokens for whoever asks from this machine; only where the deployment is embedded.
    pub page_tokens: bool,
}

impl Auth {
    /// The claims that are looked at.
    pub fn claim_names(&self) -> ClaimNames {
        let user = if self.user_claim.is_empty() { "sub" } else { &self.user_claim };
        ClaimNames::new(user, self.write_scope.is_some())
    }

    /// Whether tokens are checked with the keys of somebody else.
    pub fn has_public_keys(&self) -> bool {
        self.public_key.is_some() || self.key_set.is_some()
    }
}

/// The way of a command to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// How long texts of a request may be.
    pub text_limits: TextLimits,
    /// Todos of an array that is posted.
    pub array_max_todos: usize,
    /// How long a write waits for the log before it is answered with 503.
    pub ack_timeout: Duration,
    /// Commands that may wait for the log, over all shards.
    pub queue_commands: usize,
    /// Bytes of commands that may wait for the log, over all shards.
    pub queue_bytes: usize,
    /// Writes of one user a second, over all shards; `None`: no limit.
    pub rate_per_user: Option<u32>,
    /// Todos of one user; `None`: no limit.
    pub todos_per_user_max: Option<u32>,
    /// Bytes of the whole list's JSON; `None`: no limit.
    pub list_max_bytes: Option<u64>,
    /// Bytes of the embedded log's segments.
    pub log_max_bytes: u64,
}

/// What stands behind the three seams.
#[derive(Debug, Clone)]
pub enum Deployment {
    /// Everything in one process and one folder.
    Embedded {
        /// The folder; made at the first start.
        data_dir: PathBuf,
    },
    /// PostgreSQL, Kafka and Redis.
    Services(Box<Services>),
}

/// How to reach PostgreSQL, Kafka and Redis.
#[derive(Debug, Clone)]
pub struct Services {
    /// PostgreSQL.
    pub database_url: ConnectionUrl,
    /// Most connections to PostgreSQL; they open on need.
    pub db_pool_size: usize,
    /// Parts of a worker process that apply side by side, each with partitions and a connection of its own.
    pub worker_lanes: usize,
    /// Redis.
    pub redis_url: ConnectionUrl,
    /// Most connections to Redis; they open on need.
    pub redis_pool_size: usize,
    /// Kafka.
    pub kafka: Kafka,
}

/// How to reach and use Kafka. The plain texts are spelled as librdkafka wants them.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The topic of the commands; dead letters go to `<topic>.dead-letters`.
    pub topic: String,
    /// Partitions of the topic when this process creates it.
    pub partitions: u32,
    /// Copies of each topic that this process creates; `None` leaves it to the brokers.
    pub replication_factor: Option<u16>,
    /// Copies that a write waits for, of each topic that this process creates; `None` leaves it to the brokers.
    pub min_insync_replicas: Option<u16>,
    /// The consumer group of the workers.
    pub group_id: String,
    /// Names this worker across restarts (static membership).
    pub group_instance_id: Option<String>,
    /// How long the producer waits for a batch to fill.
    pub linger: Duration,
    /// `none`, `gzip`, `snappy` or `lz4`.
    pub compression: &'static str,
    /// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub security_protocol: &'static str,
    /// Credentials; present exactly when the protocol uses SASL.
    pub sasl: Option<Sasl>,
    /// Certificates of the authorities to trust (PEM); `None` trusts the system's.
    pub ssl_ca_location: Option<PathBuf>,
}

/// SASL credentials for Kafka.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: &'static str,
    /// The user.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// A level, or levels by module: `info,million_rps::worker=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// As set, or in proportion to the connections.
fn connection_memory_bytes(values: &Values) -> usize {
    let share = values.integer::<usize>("MAX_CONNECTIONS").saturating_mul(CONNECTION_MEMORY_SHARE_BYTES);
    let set = values.optional_integer("CONNECTION_MEMORY_MAX_BYTES");
    set.unwrap_or(share.max(CONNECTION_MEMORY_DEFAULT_MIN_BYTES))
}

/// As set, or so many that a fifth of the connections are left for other requests.
fn followers_max(values: &Values) -> usize {
    let connections = values.integer::<usize>("MAX_CONNECTIONS");
    values.optional_integer("EVENTS_FOLLOWERS_MAX").unwrap_or(connections - connections / 5)
}

impl Config {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// [`ConfigErrors`] holds everything that is wrong, not only the first finding.
    pub fn load(sources: &Sources, platform: &Platform, needs: Requirements) -> Result<Config, ConfigErrors> {
        let mut errors = sources.errors();
        let values = Values::read(sources, platform, &mut errors);
        check::together(&values, platform, needs, &mut errors);
        if errors.is_empty() { Ok(Config::from_values(values, sources)) } else { Err(ConfigErrors::new(errors)) }
    }

    fn from_values(mut values: Values, sources: &Sources) -> Config {
        let overruled_secret = sources.overruled("JWT_SECRET").map(Secret::new);
        let mut warnings = sources.warnings();
        warnings.extend(values.warnings());
        Config {
            http: Http {
                listen: SocketAddr::new(values.address("HTTP_HOST"), values.integer("HTTP_PORT")),
                shards: values.integer("SHARDS"),
                io_driver: match values.choice("IO_DRIVER") {
                    "io_uring" => IoDriver::IoUring,
                    "epoll" => IoDriver::Epoll,
                    _auto => IoDriver::Auto,
                },
                compression: values.choice("COMPRESSION") == "on",
                cors_origins: values.optional_text("CORS_ORIGINS").as_deref().map(listed).unwrap_or_default(),
                max_connections: values.integer("MAX_CONNECTIONS"),
                connection_memory_bytes: connection_memory_bytes(&values),
                body_max_bytes: values.integer("BODY_MAX_BYTES"),
                array_body_max_bytes: values.integer("ARRAY_BODY_MAX_BYTES"),
                header_timeout: values.milliseconds("HEADER_TIMEOUT_MS"),
                body_timeout: values.milliseconds("BODY_TIMEOUT_MS"),
                write_timeout: values.milliseconds("WRITE_TIMEOUT_MS"),
                write_rate_min_bytes: values.integer("WRITE_RATE_MIN_BYTES"),
                write_rate_grace: values.milliseconds("WRITE_RATE_GRACE_MS"),
                old_lists_max_bytes: values.optional_integer("OLD_LISTS_MAX_BYTES"),
                idle_timeout: values.milliseconds("IDLE_TIMEOUT_MS"),
                drain_timeout: values.milliseconds("DRAIN_TIMEOUT_MS"),
                ready_details: match values.choice("READY_DETAILS") {
                    "off" => ReadyDetails::Off,
                    "on" => ReadyDetails::On,
                    _local => ReadyDetails::Local,
                },
            },
            events: Events {
                followers_max: followers_max(&values),
                heartbeat: values.seconds("EVENTS_HEARTBEAT_SEC"),
                history_max_bytes: values.integer("EVENTS_HISTORY_MAX_BYTES"),
                history_age: values.seconds("EVENTS_HISTORY_SEC"),
                unsent_max_bytes: values.integer("EVENTS_UNSENT_MAX_BYTES"),
            },
            auth: Auth {
                secret: values.optional_text("JWT_SECRET").map(Secret::new),
                secret_origin: values.given("JWT_SECRET").unwrap_or(Origin::Default),
                overruled_secret,
                key_folder: PathBuf::from(values.text("DATA_DIR")),
                issuer: values.optional_text("JWT_ISSUER"),
                audiences: values.optional_text("JWT_AUDIENCE").as_deref().map(listed).unwrap_or_default(),
                previous_secret: values.optional_text("JWT_SECRET_PREVIOUS").map(Secret::new),
                previous_secret_origin: values.given("JWT_SECRET_PREVIOUS").unwrap_or(Origin::Default),
                public_key: values.optional_text("JWT_PUBLIC_KEY"),
                key_set: values.optional_text("JWT_JWKS").map(KeySetPlace::of),
                key_set_refresh: values.seconds("JWT_JWKS_REFRESH_SEC"),
                key_set_authorities: values.optional_text("JWT_JWKS_CA_FILE").map(PathBuf::from),
                user_claim: values.text("JWT_USER_CLAIM"),
                write_scope: values.optional_text("JWT_WRITE_SCOPE"),
                takes_endless: values.choice("JWT_EXPIRY") == "optional",
                leeway: values.seconds("JWT_LEEWAY_SEC"),
                page_tokens: values.choice("PAGE_TOKENS") == "local",
            },
            write: Write {
                text_limits: TextLimits {
                    title_max_chars: values.integer("TITLE_MAX_CHARS"),
                    description_max_chars: values.integer("DESCRIPTION_MAX_CHARS"),
                },
                array_max_todos: values.integer("ARRAY_MAX_TODOS"),
                ack_timeout: values.milliseconds("ACK_TIMEOUT_MS"),
                queue_commands: values.integer("WRITE_QUEUE_COMMANDS"),
                queue_bytes: values.integer("WRITE_QUEUE_BYTES"),
                rate_per_user: values.optional_integer("WRITE_RATE_PER_USER"),
                todos_per_user_max: values.optional_integer("TODOS_PER_USER_MAX"),
                list_max_bytes: values.optional_integer("LIST_MAX_BYTES"),
                log_max_bytes: values.integer("LOG_MAX_BYTES"),
            },
            worker_listen: values
                .optional_integer("WORKER_HTTP_PORT")
                .map(|port| SocketAddr::new(values.address("HTTP_HOST"), port)),
            cache_ttl: match values.seconds("CACHE_TTL_SEC") {
                Duration::ZERO => Duration::from_secs(CACHE_TTL_MAX_S),
                ttl => ttl,
            },
            deployment: Deployment::from_values(&values, sources.environment),
            logging: Logging {
                level: values.text("LOG_LEVEL"),
                format: match values.choice("LOG_FORMAT") {
                    "json" => LogFormat::Json,
                    _human => LogFormat::Human,
                },
            },
            warnings,
            effective: values.take_effective(),
        }
    }
}

impl Deployment {
    fn from_values(values: &Values, environment: Environment<'_>) -> Deployment {
        let pool = |name| Some(values.integer(name)).filter(|size| *size > 0).unwrap_or(POOL_MAX);
        let Some(database_url) = values.optional_text("DATABASE_URL") else {
            return Deployment::Embedded { data_dir: PathBuf::from(values.text("DATA_DIR")) };
        };
        Deployment::Services(Box::new(Services {
            database_url: ConnectionUrl::new(connection_urls::completed(&database_url, environment)),
            db_pool_size: pool("DB_POOL_SIZE"),
            worker_lanes: values.integer("WORKER_LANES"),
            redis_url: ConnectionUrl::new(values.text("REDIS_URL")),
            redis_pool_size: pool("REDIS_POOL_SIZE"),
            kafka: Kafka::from_values(values),
        }))
    }
}

impl Kafka {
    fn from_values(values: &Values) -> Kafka {
        let security_protocol = values.choice("KAFKA_SECURITY_PROTOCOL");
        let sasl = security_protocol.starts_with("SASL_").then(|| Sasl {
            mechanism: values.choice("KAFKA_SASL_MECHANISM"),
            username: values.text("KAFKA_SASL_USERNAME"),
            password: Secret::new(values.text("KAFKA_SASL_PASSWORD")),
        });
        Kafka {
            brokers: values.text("KAFKA_BROKERS"),
            topic: values.text("KAFKA_TODO_TOPIC"),
            partitions: values.integer("KAFKA_PARTITIONS"),
            replication_factor: values.optional_integer("KAFKA_REPLICATION_FACTOR"),
            min_insync_replicas: values.optional_integer("KAFKA_MIN_INSYNC_REPLICAS"),
            group_id: values.text("KAFKA_GROUP_ID"),
            group_instance_id: values.optional_text("KAFKA_GROUP_INSTANCE_ID"),
            linger: values.milliseconds("KAFKA_LINGER_MS"),
            compression: values.choice("KAFKA_COMPRESSION"),
            security_protocol,
            sasl,
            ssl_ca_location: values.optional_text("KAFKA_SSL_CA_LOCATION").map(PathBuf::from),
        }
    }
}
