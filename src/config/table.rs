//! The one table of all settings.

use super::error::SettingError;
use super::kind::Kind;
use super::platform::Platform;
use super::sources::Origin;
use crate::limits::{JWT_SECRET_MIN_BYTES, LOG_RECORD_MAX_BYTES};

/// A setting: an environment variable, a line of `.env`, and, unless it may hold a secret, a flag.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// The variable's name, its unit last.
    pub name: &'static str,
    /// Where it stands in help and documents.
    pub group: Group,
    /// What it takes.
    pub kind: Kind,
    /// What holds when it is not given.
    pub default: DefaultValue,
    /// Its unit, in words; empty when it has none.
    pub unit: &'static str,
    /// What it does, one or two sentences.
    pub help: &'static str,
    /// A value for examples; [`Setting::example`] falls back to the default.
    example: &'static str,
}

/// What holds when a setting is not given.
#[derive(Debug, Clone, Copy)]
pub enum DefaultValue {
    /// This value.
    Fixed(&'static str),
    /// A value that depends on the machine, and how to say so.
    Machine {
        /// In words.
        description: &'static str,
        /// The value.
        value: fn(&Platform) -> u64,
    },
    /// Nothing, and what that means.
    Unset {
        /// In words.
        meaning: &'static str,
    },
}

impl PartialEq for DefaultValue {
    /// Compares what people see: functions have no equality.
    fn eq(&self, other: &DefaultValue) -> bool {
        self.describe() == other.describe()
    }
}

impl Eq for DefaultValue {}

impl DefaultValue {
    /// The value, if there is one.
    pub fn text(&self, platform: &Platform) -> Option<String> {
        match self {
            DefaultValue::Fixed(text) => Some((*text).to_owned()),
            DefaultValue::Machine { value, .. } => Some(value(platform).to_string()),
            DefaultValue::Unset { .. } => None,
        }
    }

    /// The default in words.
    pub fn describe(&self) -> &'static str {
        match self {
            DefaultValue::Fixed(text) => text,
            DefaultValue::Machine { description, .. } => description,
            DefaultValue::Unset { meaning } => meaning,
        }
    }
}

/// The groups of settings, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Listener and shards.
    Server,
    /// Deadlines and caps.
    Limits,
    /// Bearer tokens.
    Tokens,
    /// Where the data lives.
    Data,
    /// Kafka.
    Kafka,
    /// Logs.
    Logs,
}

impl Group {
    /// All groups, in order.
    pub const ALL: [Group; 6] = [Group::Server, Group::Limits, Group::Tokens, Group::Data, Group::Kafka, Group::Logs];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Server => "Server",
            Group::Limits => "Deadlines and caps",
            Group::Tokens => "Tokens",
            Group::Data => "Data",
            Group::Kafka => "Kafka",
            Group::Logs => "Logs",
        }
    }
}

impl Setting {
    /// The flag without its dashes, such as `http-port`; `None` when the value may hold a secret, since command lines
    /// can be read by every user of the machine.
    pub fn flag(&self) -> Option<String> {
        (!self.kind.holds_secret()).then(|| self.name.to_ascii_lowercase().replace('_', "-"))
    }

    /// A value that would be accepted, or how to make one.
    pub fn example(&self) -> &'static str {
        match self.default {
            DefaultValue::Fixed(text) if self.example.is_empty() => text,
            _ => self.example,
        }
    }

    /// What is allowed, with the unit.
    pub fn allowed(&self) -> String {
        match self.unit {
            "" => self.kind.allowed(),
            unit => format!("{} {unit}", self.kind.allowed()),
        }
    }

    pub(super) fn error(&self, origin: Option<Origin>, shown: Option<String>, problem: String) -> SettingError {
        SettingError {
            name: self.name.to_owned(),
            shown,
            origin,
            problem,
            allowed: self.allowed(),
            example: format!("{}={}", self.name, self.example()),
        }
    }
}

/// The row of a setting.
///
/// # Panics
/// When the table has no such name.
pub(super) fn setting(name: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.name == name).unwrap_or_else(|| panic!("the table has no setting {name}"))
}

/// A deadline: long enough for a slow network, short enough to free what a dead client holds.
const DEADLINE_MS: Kind = Kind::Integer { min: 100, max: 600_000 };
/// An upper bound of a pool.
const POOL: Kind = Kind::Integer { min: 1, max: 10_000 };

/// Every setting, in the order of [`Group::ALL`].
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "HTTP_HOST",
        group: Group::Server,
        kind: Kind::Address,
        default: DefaultValue::Fixed("0.0.0.0"),
        unit: "",
        help: "Address to listen on.",
        example: "127.0.0.1",
    },
    Setting {
        name: "HTTP_PORT",
        group: Group::Server,
        kind: Kind::Integer { min: 0, max: 65_535 },
        default: DefaultValue::Fixed("8080"),
        unit: "",
        help: "TCP port to listen on; 0 takes any free one.",
        example: "",
    },
    Setting {
        name: "SHARDS",
        group: Group::Server,
        // CPU_SETSIZE of Linux: sched_setaffinity(2) pins to CPUs below it.
        kind: Kind::Integer { min: 1, max: 1024 },
        default: DefaultValue::Machine {
            description: "one per allowed CPU",
            value: |platform| platform.allowed_cpus.clamp(1, 1024) as u64,
        },
        unit: "threads",
        help: "Threads that serve HTTP, each pinned to one CPU.",
        example: "4",
    },
    Setting {
        name: "IO_DRIVER",
        group: Group::Server,
        kind: Kind::Choice(&["auto", "io_uring", "epoll"]),
        default: DefaultValue::Fixed("auto"),
        unit: "",
        help: "How shards talk to the kernel; auto takes io_uring where the kernel allows it.",
        example: "",
    },
    Setting {
        name: "DRAIN_TIMEOUT_MS",
        group: Group::Server,
        kind: DEADLINE_MS,
        default: DefaultValue::Fixed("10000"),
        unit: "ms",
        help: "From SIGTERM to the end of the process: requests that were read are answered within it.",
        example: "",
    },
    Setting {
        name: "MAX_CONNECTIONS",
        group: Group::Limits,
        kind: Kind::Integer { min: 1, max: 4_000_000 },
        default: DefaultValue::Machine {
            description: "10000, or what the file limit allows",
            value: |platform| platform.connections_max().clamp(1, 10_000),
        },
        unit: "connections",
        help: "Open client connections of the whole process.",
        example: "10000",
    },
    Setting {
        name: "HEADER_TIMEOUT_MS",
        group: Group::Limits,
        kind: DEADLINE_MS,
        default: DefaultValue::Fixed("10000"),
        unit: "ms",
        help: "A request's head has to be complete within it.",
        example: "",
    },
    Setting {
        name: "BODY_TIMEOUT_MS",
        group: Group::Limits,
        kind: DEADLINE_MS,
        default: DefaultValue::Fixed("10000"),
        unit: "ms",
        help: "A request's body has to be complete within it.",
        example: "",
    },
    Setting {
        name: "WRITE_TIMEOUT_MS",
        group: Group::Limits,
        kind: DEADLINE_MS,
        default: DefaultValue::Fixed("10000"),
        unit: "ms",
        help: "A connection is closed when its client takes nothing of an answer for so long.",
        example: "",
    },
    Setting {
        name: "IDLE_TIMEOUT_MS",
        group: Group::Limits,
        kind: Kind::Integer { min: 100, max: 3_600_000 },
        default: DefaultValue::Fixed("90000"),
        unit: "ms",
        help: "A connection without a request is kept so long; it has to outlive a load balancer's keep-alive, often 60 to \
               75 s.",
        example: "",
    },
    Setting {
        name: "ACK_TIMEOUT_MS",
        group: Group::Limits,
        kind: Kind::Integer { min: 100, max: 60_000 },
        default: DefaultValue::Fixed("5000"),
        unit: "ms",
        help: "A write waits so long for the command log before it is answered with 503.",
        example: "",
    },
    Setting {
        name: "WRITE_QUEUE_COMMANDS",
        group: Group::Limits,
        kind: Kind::Integer { min: 1, max: 16_777_216 },
        default: DefaultValue::Fixed("65536"),
        unit: "commands",
        help: "Commands that may wait for the command log; when as many do, a write is answered with 503.",
        example: "",
    },
    Setting {
        name: "WRITE_QUEUE_BYTES",
        group: Group::Limits,
        // At least the largest record has to fit.
        kind: Kind::Integer { min: LOG_RECORD_MAX_BYTES as u64, max: 1 << 36 },
        default: DefaultValue::Fixed("67108864"),
        unit: "bytes",
        help: "Bytes of commands that may wait for the command log.",
        example: "",
    },
    Setting {
        name: "JWT_SECRET",
        group: Group::Tokens,
        kind: Kind::Secret { min_bytes: JWT_SECRET_MIN_BYTES },
        default: DefaultValue::Unset {
            meaning: "made at the first start, kept in DATA_DIR; required with DATABASE_URL",
        },
        unit: "",
        help: "Key of the tokens (HS256), the same for all processes.",
        example: "$(openssl rand -base64 48)",
    },
    Setting {
        name: "JWT_ISSUER",
        group: Group::Tokens,
        kind: Kind::Text,
        default: DefaultValue::Unset { meaning: "not checked" },
        unit: "",
        help: "The iss that a token must have.",
        example: "https://login.example.com",
    },
    Setting {
        name: "JWT_AUDIENCE",
        group: Group::Tokens,
        kind: Kind::Text,
        default: DefaultValue::Unset { meaning: "not checked" },
        unit: "",
        help: "The aud that a token must name.",
        example: "todos",
    },
    Setting {
        name: "JWT_LEEWAY_SEC",
        group: Group::Tokens,
        kind: Kind::Integer { min: 0, max: 300 },
        default: DefaultValue::Fixed("0"),
        unit: "s",
        help: "How far exp and nbf of a token may be off, for clocks that disagree.",
        example: "",
    },
    Setting {
        name: "DATA_DIR",
        group: Group::Data,
        kind: Kind::Path,
        default: DefaultValue::Fixed("data"),
        unit: "",
        help: "Folder of the embedded store, log and token key; not used with DATABASE_URL.",
        example: "",
    },
    Setting {
        name: "DATABASE_URL",
        group: Group::Data,
        kind: Kind::Url(&["postgres", "postgresql"]),
        default: DefaultValue::Unset { meaning: "embedded: everything in DATA_DIR" },
        unit: "",
        help: "PostgreSQL; setting it selects the deployment with PostgreSQL, Kafka and Redis.",
        example: "postgres://todos:password@localhost:5432/todos",
    },
    Setting {
        name: "DB_POOL_SIZE",
        group: Group::Data,
        kind: POOL,
        default: DefaultValue::Fixed("100"),
        unit: "connections",
        help: "Most connections to PostgreSQL; they open on need.",
        example: "",
    },
    Setting {
        name: "REDIS_URL",
        group: Group::Data,
        kind: Kind::Url(&["redis", "rediss"]),
        default: DefaultValue::Fixed("redis://localhost:6379/0"),
        unit: "",
        help: "Redis, the feed between workers and API processes.",
        example: "",
    },
    Setting {
        name: "REDIS_POOL_SIZE",
        group: Group::Data,
        kind: POOL,
        default: DefaultValue::Fixed("500"),
        unit: "connections",
        help: "Most connections to Redis; they open on need.",
        example: "",
    },
    Setting {
        name: "CACHE_TTL_SEC",
        group: Group::Data,
        kind: Kind::Integer { min: 1, max: 86_400 },
        default: DefaultValue::Fixed("300"),
        unit: "s",
        help: "The list is verified against the store at least this often, and keys in Redis expire after it.",
        example: "",
    },
    Setting {
        name: "KAFKA_BROKERS",
        group: Group::Kafka,
        kind: Kind::Brokers,
        default: DefaultValue::Fixed("localhost:9092"),
        unit: "",
        help: "Brokers to start from.",
        example: "kafka-1:9092,kafka-2:9092",
    },
    Setting {
        name: "KAFKA_TODO_TOPIC",
        group: Group::Kafka,
        kind: Kind::Topic,
        default: DefaultValue::Fixed("todo-commands"),
        unit: "",
        help: "Topic of the commands; dead letters go to the topic of that name with .dead-letters behind it.",
        example: "",
    },
    Setting {
        name: "KAFKA_PARTITIONS",
        group: Group::Kafka,
        kind: Kind::Integer { min: 1, max: 10_000 },
        default: DefaultValue::Fixed("16"),
        unit: "partitions",
        help: "Partitions of the topic when it has to be created: as many workers can share the work.",
        example: "",
    },
    Setting {
        name: "KAFKA_GROUP_ID",
        group: Group::Kafka,
        kind: Kind::Text,
        default: DefaultValue::Fixed("million-rps-workers"),
        unit: "",
        help: "Consumer group of the workers.",
        example: "",
    },
    Setting {
        name: "KAFKA_GROUP_INSTANCE_ID",
        group: Group::Kafka,
        kind: Kind::Text,
        default: DefaultValue::Unset { meaning: "dynamic membership" },
        unit: "",
        help: "Names this worker across restarts (static membership): its partitions wait for it instead of moving.",
        example: "worker-1",
    },
    Setting {
        name: "KAFKA_LINGER_MS",
        group: Group::Kafka,
        kind: Kind::Integer { min: 0, max: 50 },
        default: DefaultValue::Fixed("1"),
        unit: "ms",
        help: "How long the producer waits for a batch to fill.",
        example: "",
    },
    Setting {
        name: "KAFKA_COMPRESSION",
        group: Group::Kafka,
        kind: Kind::Choice(&["none", "gzip", "snappy", "lz4"]),
        default: DefaultValue::Fixed("lz4"),
        unit: "",
        help: "Compression of the producer's batches.",
        example: "",
    },
    Setting {
        name: "KAFKA_SECURITY_PROTOCOL",
        group: Group::Kafka,
        kind: Kind::Choice(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]),
        default: DefaultValue::Fixed("PLAINTEXT"),
        unit: "",
        help: "How to talk to the brokers.",
        example: "",
    },
    Setting {
        name: "KAFKA_SASL_MECHANISM",
        group: Group::Kafka,
        kind: Kind::Choice(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]),
        default: DefaultValue::Unset { meaning: "required with a SASL protocol" },
        unit: "",
        help: "How to log in to the brokers.",
        example: "SCRAM-SHA-512",
    },
    Setting {
        name: "KAFKA_SASL_USERNAME",
        group: Group::Kafka,
        kind: Kind::Text,
        default: DefaultValue::Unset { meaning: "required with a SASL protocol" },
        unit: "",
        help: "User at the brokers.",
        example: "million-rps",
    },
    Setting {
        name: "KAFKA_SASL_PASSWORD",
        group: Group::Kafka,
        kind: Kind::Secret { min_bytes: 1 },
        default: DefaultValue::Unset { meaning: "required with a SASL protocol" },
        unit: "",
        help: "Password at the brokers.",
        example: "'a password'",
    },
    Setting {
        name: "KAFKA_SSL_CA_LOCATION",
        group: Group::Kafka,
        kind: Kind::Path,
        default: DefaultValue::Unset { meaning: "the system's" },
        unit: "",
        help: "File with the certificates of the authorities to trust (PEM).",
        example: "/etc/ssl/kafka-ca.pem",
    },
    Setting {
        name: "LOG_LEVEL",
        group: Group::Logs,
        kind: Kind::LogLevel,
        default: DefaultValue::Fixed("info"),
        unit: "",
        help: "What is logged, to standard error.",
        example: "info,million_rps::worker=debug",
    },
    Setting {
        name: "LOG_FORMAT",
        group: Group::Logs,
        kind: Kind::Choice(&["auto", "human", "json"]),
        default: DefaultValue::Fixed("auto"),
        unit: "",
        help: "auto and human are for people, with colours on a terminal; json is one object a line.",
        example: "json",
    },
];
