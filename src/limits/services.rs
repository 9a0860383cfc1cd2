//! The bounds of the work with PostgreSQL, Kafka and Redis.

/// How often PostgreSQL, Redis and Kafka are asked whether they answer, in milliseconds.
pub const SERVICE_WATCH_INTERVAL_MS: u64 = 2_000;
/// Longest wait for the answer of PostgreSQL or Kafka to that, in milliseconds; PostgreSQL gets it twice where the connection has to
/// be opened anew. Redis has [`REDIS_REPLY_TIMEOUT_MS`].
pub const SERVICE_WATCH_PATIENCE_MS: u64 = 3_000;
/// Within it `/ready` names a service that does not answer, whether it is frozen, killed or not reached, in milliseconds.
pub const SERVICE_SILENCE_MS: u64 = 10_000;

const _: () = {
    assert!(SERVICE_WATCH_INTERVAL_MS + 2 * SERVICE_WATCH_PATIENCE_MS + 1_000 < SERVICE_SILENCE_MS);
    assert!(SERVICE_WATCH_INTERVAL_MS + 2 * REDIS_REPLY_TIMEOUT_MS + 1_000 < SERVICE_SILENCE_MS);
};

/// Longest that opening a TCP connection to PostgreSQL may take, in milliseconds; the whole greeting gets twice that.
pub const POSTGRES_CONNECT_TIMEOUT_MS: u64 = 5_000;
/// Longest that PostgreSQL works on one statement, in milliseconds: the largest batch takes about 100. Loading the whole
/// list is exempt.
pub const POSTGRES_STATEMENT_TIMEOUT_MS: u64 = 15_000;
/// Longest that a statement waits for another transaction's locks, in milliseconds.
pub const POSTGRES_LOCK_TIMEOUT_MS: u64 = 10_000;
/// Longest that a worker may fall silent in mid transaction, in milliseconds, before PostgreSQL ends its session: a
/// stopped worker must not hold the locks that its successor waits for.
pub const POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS: u64 = 5_000;
/// Longest wait for PostgreSQL's answer before the connection is given up, in milliseconds: a frozen server.
pub const POSTGRES_REPLY_TIMEOUT_MS: u64 = 20_000;
/// Longest that `migrate` may take, in milliseconds: it may rewrite the original's table.
pub const POSTGRES_MIGRATE_TIMEOUT_MS: u64 = 30 * 60_000;
/// First pause between attempts to connect to PostgreSQL, in milliseconds; doubles with each failure.
pub const POSTGRES_RECONNECT_BACKOFF_MIN_MS: u64 = 100;
/// Longest such pause, in milliseconds: how late a returned database may be noticed.
pub const POSTGRES_RECONNECT_BACKOFF_MAX_MS: u64 = 2_000;
/// Rows of one statement: more make it slower (measured: 1,000 rows 109 k rows/s, 5,000 rows 103 k rows/s), and this
/// bounds its message where todos are short.
pub const POSTGRES_STATEMENT_ROWS: usize = 1_000;
/// Bytes of titles and descriptions at which a statement is complete. PostgreSQL takes a worker whose statement is still on
/// its way over a narrow link for a silent one, and ends its session.
pub const POSTGRES_STATEMENT_TARGET_BYTES: usize = 1024 * 1024;

/// New rows of a batch from which on they are written by COPY, without looking for them first: below it, the round trip that
/// COPY takes costs more than it saves.
pub const POSTGRES_COPY_MIN_ROWS: usize = 32;
/// Batches that are looked for first after a todo that had to be new was there: a log that is replayed, or clients that choose
/// ids twice, then cost one failed transaction in so many.
pub const POSTGRES_DOUBTED_BATCHES: usize = 100;

/// Longest wait for an answer of Kafka's brokers about topics and offsets, in milliseconds.
pub const KAFKA_REQUEST_TIMEOUT_MS: u64 = 5_000;
/// Longest wait of a consumer for a broker's answer before it takes another connection, in milliseconds; more than the
/// half second that a broker may keep an empty fetch.
pub const KAFKA_SOCKET_TIMEOUT_MS: u64 = 10_000;
/// How often Kafka is asked about the topic (its partitions, its settings, its replicas), in milliseconds: how late a change is
/// noticed. One or two small requests.
pub const KAFKA_TOPIC_WATCH_MS: u64 = 3_000;
/// Shortest retention of the topic that is not named as a danger, in milliseconds: a worker may be away for a night.
pub const TOPIC_RETENTION_MIN_MS: i64 = 24 * 3_600_000;
/// Smallest bound of a partition's size that is not named as a danger, in bytes: some million commands.
pub const TOPIC_RETENTION_MIN_BYTES: i64 = 1024 * 1024 * 1024;
/// How often it is asked whether the topic is about to delete what is not applied, in milliseconds: it takes a request for each
/// partition, and nobody's retention is near to it.
pub const KAFKA_BACKLOG_WATCH_MS: u64 = 15_000;
/// Longest wait for a connection to a Kafka broker to be ready, with TLS and login, in milliseconds: ten round trips of a second.
/// librdkafka names an address that says nothing only when it is over.
pub const KAFKA_CONNECT_TIMEOUT_MS: u64 = 10_000;
/// Pause between two attempts of Kafka's client to connect to a broker, in milliseconds, from the first on; an attempt after a
/// time of peace is made at once. Half of it lies between attempts to find any broker at all, and a process has several such
/// clients.
pub const KAFKA_RECONNECT_BACKOFF_MS: u64 = 1_000;
/// Longest pause between attempts to reach a Kafka broker, in milliseconds: how late a returned broker may be noticed.
pub const KAFKA_RECONNECT_BACKOFF_MAX_MS: u64 = 1_000;
/// Shortest time between two commits of a worker's progress to Kafka, in milliseconds: they only show it to people.
pub const KAFKA_COMMIT_INTERVAL_MS: u64 = 500;
/// How often a worker asks Kafka whether the topic that it reads is still the same, in milliseconds: how long it may go on reading
/// one that was made anew under the name. One small request.
pub const KAFKA_LOG_LOOK_MS: u64 = 1_000;
/// Shortest time between two questions of a paused worker about the ends of its partitions, in milliseconds: they only
/// show its lag to people.
pub const KAFKA_LAG_INTERVAL_MS: u64 = 1_000;
/// Longest wait for an answer to that question, in milliseconds; far less than the group waits for a silent worker.
pub const KAFKA_LAG_TIMEOUT_MS: u64 = 500;
/// Shortest time between two questions where partitions begin and end that do not have the place that the store wants, in
/// milliseconds: how late a repair may be noticed, beside [`super::WORKER_RETRY_MAX_MS`].
pub const KAFKA_LOST_PLACE_INTERVAL_MS: u64 = 1_000;
/// Longest wait of a worker that stops until Kafka has taken its last offsets, in milliseconds. They only show progress, and
/// whoever works next tells them as well.
pub const KAFKA_LAST_COMMIT_TIMEOUT_MS: u64 = 1_000;
/// Lanes of workers on one machine that take each other's places in Kafka's group (`KAFKA_GROUP_INSTANCE_ID=auto`).
pub const KAFKA_SEATS_MAX: usize = 1024;
/// Longest wait of a worker that stops for the broker's goodbye, in milliseconds: a broker that answers takes far less, and
/// one that does not must not keep the process from ending.
pub const KAFKA_LEAVE_TIMEOUT_MS: u64 = 3_000;
/// Longest wait until a dead letter is durable, in milliseconds.
pub const KAFKA_DEAD_LETTER_TIMEOUT_MS: u64 = 10_000;
/// Largest dead letter, in bytes: the most that librdkafka sends. It holds a record as other programs wrote it, and a record
/// that is too large to be put aside would hold up its partition.
pub const KAFKA_DEAD_LETTER_MAX_BYTES: u32 = 1_000_000_000;
/// Kilobytes that a worker's client fetches ahead of the worker, over all its partitions.
pub const KAFKA_FETCH_AHEAD_MAX_KB: u64 = 64 * 1024;

/// Longest wait for Redis to answer, beyond what it was asked to wait itself, in milliseconds: a frozen server, or a link
/// that died in silence, is noticed after it.
pub const REDIS_REPLY_TIMEOUT_MS: u64 = 2_000;
/// Pause between attempts to connect to Redis, in milliseconds: how late a returned server may be noticed.
pub const REDIS_RECONNECT_BACKOFF_MS: u64 = 250;
/// Most entries that the stream of changes keeps: a reader may be that many batches behind before it has to load anew.
pub const REDIS_CHANGES_MAX_ENTRIES: usize = 1_000;
/// Most bytes that the stream of changes takes of Redis's memory; beyond them its older half is dropped.
pub const REDIS_CHANGES_MAX_BYTES: usize = 128 * 1024 * 1024;
/// Most todos that one script writes, so that Redis is busy with it for about 2 milliseconds. A stream entry takes two
/// arguments a todo, and Lua passes at most 8,000.
pub const REDIS_PART_MAX_TODOS: usize = 1_000;
/// Most bytes of todos that one script writes: over the slowest link four seconds' worth.
pub const REDIS_PART_MAX_BYTES: usize = 2 * 1024 * 1024;
/// Longest that a lock on loading the list lives without a sign of life of its holder, in milliseconds.
pub const REDIS_LOAD_LOCK_MS: u64 = 10_000;
/// How long the lock stays after its holder failed, in milliseconds: a fleet then asks a store in trouble once in that
/// time.
pub const REDIS_LOAD_RETRY_MS: u64 = 1_000;
/// Longest that an API process waits for another one that loads the list, in milliseconds.
pub const REDIS_LOAD_WAIT_MAX_MS: u64 = 60_000;
/// Most entries of the stream that a reader takes at once.
pub const REDIS_READ_MAX_ENTRIES: usize = 64;
/// Longest that one question for changes waits at the server, in milliseconds: how often a silent link is tested.
pub const REDIS_BLOCK_MAX_MS: u64 = 1_000;
