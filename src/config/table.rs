//! The one table of all settings; the rows of the change feed are in `table_events.rs`, those of tokens in
//! `table_tokens.rs`, those of Kafka in `table_kafka.rs`.

use super::kind::Kind;
use super::setting::{DefaultValue, Group, Setting};
use super::table_events::EVENTS;
use super::table_kafka::KAFKA;
use super::table_tokens::TOKENS;
use crate::limits::{
    ARRAY_BODY_LIMIT_MAX_BYTES, ARRAY_LIMIT_MAX_TODOS, BODY_LIMIT_MAX_BYTES, CACHE_TTL_MAX_S,
    CONNECTION_MEMORY_MIN_BYTES, LOG_MAX_BYTES_MIN, WRITE_QUEUE_BYTES_MIN,
};

/// A deadline: long enough for a slow network, short enough to free what a dead client holds.
const DEADLINE_MS: Kind = Kind::Integer { min: 100, max: 600_000 };
/// An upper bound of a pool.
const POOL: Kind = Kind::Integer { min: 0, max: 10_000 };

/// The length of a text: one of ASCII has to fit into the largest body.
const TEXT_MAX_CHARS: Kind = Kind::Integer { min: 1, max: BODY_LIMIT_MAX_BYTES as u64 };

/// Every setting, in the order of [`Group::ALL`].
pub const SETTINGS: &[Setting] = &joined::<
    { BEFORE_EVENTS.len() + EVENTS.len() + TOKENS.len() + DATA.len() + KAFKA.len() + LOGS.len() },
>([BEFORE_EVENTS, EVENTS, TOKENS, DATA, KAFKA, LOGS]);

/// The parts, one behind the other.
const fn joined<const COUNT: usize>(parts: [&[Setting]; 6]) -> [Setting; COUNT] {
    let mut all = [parts[0][0]; COUNT];
    let (mut part, mut count) = (0, 0);
    while part < parts.len() {
        let mut at = 0;
        while at < parts[part].len() {
            all[count] = parts[part][at];
            (at, count) = (at + 1, count + 1);
        }
        part += 1;
    }
    all
}

const BEFORE_EVENTS: &[Setting] = &[
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
        name: "WORKER_HTTP_PORT",
        group: Group::Server,
        kind: Kind::Integer { min: 0, max: 65_535 },
        default: DefaultValue::Unset { meaning: "no listener" },
        unit: "",
        help: "TCP port of `million-rps worker` for /health, /ready and /metrics, on HTTP_HOST; an API has them on its own port.",
        example: "9100",
    },
    Setting {
        name: "READY_DETAILS",
        group: Group::Server,
        kind: Kind::Choice(&["off", "local", "on"]),
        default: DefaultValue::Fixed("local"),
        unit: "",
        help: "Who sees in /ready what the services say, with addresses and paths: nobody, this machine, anyone. Others see \
               which part is in trouble. Behind a proxy on this machine that adds no Forwarded, Via or X-Forwarded-For, and \
               sends a loopback name as Host, everybody looks local: set off there.",
        example: "off",
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
        help: "How shards talk to the kernel; auto takes io_uring where the kernel has it (Linux 6.1) and allows it.",
        example: "",
    },
    Setting {
        name: "COMPRESSION",
        group: Group::Server,
        kind: Kind::Choice(&["on", "off"]),
        default: DefaultValue::Fixed("on"),
        unit: "",
        help: "Whether lists are sent compressed (br, gzip, zstd) to clients that accept it. A thread of its own compresses \
               what is asked for.",
        example: "off",
    },
    Setting {
        name: "CORS_ORIGINS",
        group: Group::Server,
        kind: Kind::Origins,
        default: DefaultValue::Unset { meaning: "no page of another origin" },
        unit: "",
        help: "Pages of these origins may call the API from a browser, with a token in Authorization: what they send is compared \
               byte by byte. Cookies play no part. /ready, /metrics and the page's own calls stay closed to them.",
        example: "https://app.example",
    },
    Setting {
        name: "DRAIN_TIMEOUT_MS",
        group: Group::Server,
        kind: DEADLINE_MS,
        default: DefaultValue::Fixed("10000"),
        unit: "ms",
        help: "From SIGTERM on, requests that were read are answered within it; the process then ends, after 5 s at most.",
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
        name: "CONNECTION_MEMORY_MAX_BYTES",
        group: Group::Limits,
        kind: Kind::Integer { min: CONNECTION_MEMORY_MIN_BYTES, max: 1 << 40 },
        default: DefaultValue::Unset { meaning: "16 KiB for each of MAX_CONNECTIONS, at least 64 MiB" },
        unit: "bytes",
        help: "What buffers of all connections may take beyond 16 KiB each. When it is short, connections get less; a request \
               that does not fit is answered with 503, and those that hold most for long are closed.",
        example: "167772160",
    },
    Setting {
        name: "TITLE_MAX_CHARS",
        group: Group::Limits,
        kind: TEXT_MAX_CHARS,
        default: DefaultValue::Fixed("500"),
        unit: "characters",
        help: "Longest title that a request may bring; a longer one that the todo has already may be sent back.",
        example: "",
    },
    Setting {
        name: "DESCRIPTION_MAX_CHARS",
        group: Group::Limits,
        kind: TEXT_MAX_CHARS,
        default: DefaultValue::Fixed("10000"),
        unit: "characters",
        help: "The same for descriptions.",
        example: "",
    },
    Setting {
        name: "BODY_MAX_BYTES",
        group: Group::Limits,
        kind: Kind::Integer { min: 1024, max: BODY_LIMIT_MAX_BYTES as u64 },
        default: DefaultValue::Fixed("65536"),
        unit: "bytes",
        help: "Longest body of a request; more is answered with 413. A character takes up to 4 bytes, escaped up to 12. Uploads \
               take up to twice as much of CONNECTION_MEMORY_MAX_BYTES.",
        example: "",
    },
    Setting {
        name: "ARRAY_MAX_TODOS",
        group: Group::Limits,
        kind: Kind::Integer { min: 1, max: ARRAY_LIMIT_MAX_TODOS as u64 },
        default: DefaultValue::Fixed("1000"),
        unit: "todos",
        help: "Todos of a POST with an array; more are answered with 400. A shard's part of WRITE_QUEUE_COMMANDS bounds it, too.",
        example: "",
    },
    Setting {
        name: "ARRAY_BODY_MAX_BYTES",
        group: Group::Limits,
        kind: Kind::Integer { min: 1024, max: ARRAY_BODY_LIMIT_MAX_BYTES as u64 },
        default: DefaultValue::Fixed("1048576"),
        unit: "bytes",
        help: "Longest body with an array of todos; more is answered with 413. BODY_MAX_BYTES holds where that is more.",
        example: "",
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
        name: "WRITE_RATE_MIN_BYTES",
        group: Group::Limits,
        kind: Kind::Integer { min: 0, max: 1 << 30 },
        default: DefaultValue::Fixed("1024"),
        unit: "bytes",
        help: "A connection is closed when its client takes less of an answer than this in a second, on the average over \
               WRITE_RATE_GRACE_MS. A slow phone line takes several times the default.",
        example: "",
    },
    Setting {
        name: "WRITE_RATE_GRACE_MS",
        group: Group::Limits,
        kind: DEADLINE_MS,
        default: DefaultValue::Fixed("30000"),
        unit: "ms",
        help: "See WRITE_RATE_MIN_BYTES.",
        example: "",
    },
    Setting {
        name: "OLD_LISTS_MAX_BYTES",
        group: Group::Limits,
        kind: Kind::Integer { min: 1 << 20, max: 1 << 40 },
        default: DefaultValue::Unset { meaning: "as much as the list takes, at least 64 MiB" },
        unit: "bytes",
        help: "Memory of old versions of the list that clients are still reading; beyond it the slowest of these clients are cut \
               off.",
        example: "268435456",
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
        help: "A write waits so long for the command log before it is answered with 503. Kafka's client then gives up all \
               that wait, so that none is written twice.",
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
        kind: Kind::Integer { min: WRITE_QUEUE_BYTES_MIN, max: 1 << 36 },
        default: DefaultValue::Fixed("67108864"),
        unit: "bytes",
        help: "Bytes of commands that may wait for the command log.",
        example: "",
    },
    Setting {
        name: "WRITE_RATE_PER_USER",
        group: Group::Limits,
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        default: DefaultValue::Unset { meaning: "no limit" },
        unit: "writes/s",
        help: "Writes of one user that each API process takes in the long run; one second's worth at once. More are answered \
               with 429.",
        example: "100",
    },
    Setting {
        name: "TODOS_PER_USER_MAX",
        group: Group::Limits,
        kind: Kind::Integer { min: 1, max: u32::MAX as u64 },
        default: DefaultValue::Unset { meaning: "no limit" },
        unit: "todos",
        help: "Todos that one user may have. Creates beyond are answered with 429.",
        example: "10000",
    },
    Setting {
        name: "LIST_MAX_BYTES",
        group: Group::Limits,
        kind: Kind::Integer { min: 1024, max: u64::MAX },
        default: DefaultValue::Unset { meaning: "no limit" },
        unit: "bytes",
        help: "Bytes of the whole list, as JSON. Creates, and updates that make it longer, are answered with 507 beyond.",
        example: "1073741824",
    },
    Setting {
        name: "LOG_MAX_BYTES",
        group: Group::Limits,
        kind: Kind::Integer { min: LOG_MAX_BYTES_MIN, max: u64::MAX },
        default: DefaultValue::Fixed("8589934592"),
        unit: "bytes",
        help: "Bytes of the embedded log, which grows while the store fails. Writes beyond are answered with 503. Not used \
               with DATABASE_URL.",
        example: "",
    },
];

const DATA: &[Setting] = &[
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
        kind: Kind::Database,
        default: DefaultValue::Unset { meaning: "embedded: everything in DATA_DIR" },
        unit: "",
        help: "PostgreSQL; setting it selects the deployment with PostgreSQL, Kafka and Redis. What it does not say is taken from \
               PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, PGSSLMODE, PGSSLROOTCERT and PGAPPNAME.",
        example: "postgres://todos:password@localhost:5432/todos",
    },
    Setting {
        name: "DB_POOL_SIZE",
        group: Group::Data,
        kind: POOL,
        default: DefaultValue::Fixed("100"),
        unit: "connections",
        help: "Most connections to PostgreSQL; they open on need. 0: no bound.",
        example: "",
    },
    Setting {
        name: "WORKER_LANES",
        group: Group::Data,
        kind: Kind::Integer { min: 1, max: 256 },
        default: DefaultValue::Fixed("1"),
        unit: "lanes",
        help: "Lanes of a worker that apply side by side, each with partitions and a connection to PostgreSQL of its own; \
               never more than DB_POOL_SIZE.",
        example: "",
    },
    Setting {
        name: "REDIS_URL",
        group: Group::Data,
        kind: Kind::Redis,
        default: DefaultValue::Fixed("redis://localhost:6379/0"),
        unit: "",
        help: "Redis, the feed between workers and API processes; with rediss:// over TLS, trusting the system's certificates or \
               those in the file that SSL_CERT_FILE names.",
        example: "",
    },
    Setting {
        name: "REDIS_POOL_SIZE",
        group: Group::Data,
        kind: POOL,
        default: DefaultValue::Fixed("500"),
        unit: "connections",
        help: "Most connections to Redis; they open on need. 0: no bound.",
        example: "",
    },
    Setting {
        name: "CACHE_TTL_SEC",
        group: Group::Data,
        kind: Kind::Integer { min: 0, max: CACHE_TTL_MAX_S },
        default: DefaultValue::Fixed("300"),
        unit: "s",
        help: "The list is verified against the store at least this often, and keys in Redis expire after it. 0, which is for ever \
               in the original, counts as the longest.",
        example: "",
    },
];

const LOGS: &[Setting] = &[
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
