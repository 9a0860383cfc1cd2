//! The command log in Apache Kafka: for several API processes and workers.
//!
//! Built on librdkafka. Keys are the ids of todos, spread over the partitions as the Java client does (murmur2), so that
//! programs in other languages agree on the order of a todo's commands. The producer is idempotent and waits for all
//! in-sync replicas. Consumers share a group for the division of work only: where to go on is what the store says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

pub use super::kafka_appender::KafkaAppender;
pub use super::kafka_dead_letters::{list_dead_letters, replay_dead_letters};
pub use super::kafka_host::KafkaHost;
pub use super::kafka_place::{
    Members, group_members, group_offsets, groups_of_topic, log_bounds, log_id, set_group_offsets,
};
pub use super::kafka_reader::KafkaReader;
pub use super::kafka_seat::Seat;
pub use super::kafka_workers::{WorkerWatch, WorkersSeen};
use crate::command_log::LogError;
use crate::command_log::kafka_trouble::explained;
use crate::counted::Counted;
use crate::limits::{
    BODY_MAX_BYTES, COMMAND_MAX_BYTES, COMMAND_OVERHEAD_BYTES, KAFKA_CONNECT_TIMEOUT_MS,
    KAFKA_RECONNECT_BACKOFF_MAX_MS, KAFKA_RECONNECT_BACKOFF_MS, KAFKA_REQUEST_TIMEOUT_MS, SERVICE_WATCH_INTERVAL_MS,
};

/// How brokers know this program.
pub(super) const CLIENT_ID: &str = "million-rps";
/// How often it is looked whether a new topic is shown.
const SHOWN_POLL: Duration = Duration::from_millis(20);

/// Where the topic is and how to use it.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// `host:port` of one or more brokers, separated by commas.
    pub brokers: String,
    /// The topic of commands; dead letters go to `<topic>.dead-letters`.
    pub topic: String,
    /// Partitions of the topic when it has to be created; an existing topic keeps its own number.
    pub partitions: i32,
    /// Replicas of topics that have to be created; `None` leaves it to the brokers.
    pub replication_factor: Option<i32>,
    /// `min.insync.replicas` of topics that have to be created; `None` leaves it to the brokers.
    pub min_insync_replicas: Option<i32>,
    /// Encryption and identity.
    pub security: KafkaSecurity,
    /// How long a message may wait for company, in milliseconds: fewer, larger requests for a later acknowledgement.
    pub linger_ms: u64,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// Most messages that wait for their acknowledgement; more are refused.
    pub queue_max_messages: u32,
    /// Most kilobytes that wait for their acknowledgement; more are refused.
    pub queue_max_kb: u32,
    /// Largest command that the requests of this deployment make, in bytes: a topic that takes less is told of.
    pub command_max_bytes: u32,
    /// Longest that a message may wait for its acknowledgement, in milliseconds, before it is refused.
    pub acknowledge_timeout_ms: u64,
    /// The consumer group that the workers share.
    pub group: String,
    /// A name of this worker that stays when it is restarted (static membership): its partitions then wait for it, as
    /// long as its session lasts, instead of moving twice. No two workers may have the same.
    pub group_instance: Option<String>,
    /// How long a worker may be silent before its partitions go to others, in milliseconds.
    pub session_timeout_ms: u64,
}

impl KafkaOptions {
    /// Options that work as they are; the settings bring their own, and a producer of theirs compresses.
    pub fn new(brokers: &str, topic: &str) -> KafkaOptions {
        KafkaOptions {
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            partitions: 16,
            replication_factor: None,
            min_insync_replicas: None,
            security: KafkaSecurity::default(),
            linger_ms: 1,
            compression: "none".to_owned(),
            queue_max_messages: 100_000,
            queue_max_kb: 128 * 1024,
            command_max_bytes: (BODY_MAX_BYTES + COMMAND_OVERHEAD_BYTES) as u32,
            acknowledge_timeout_ms: 5_000,
            group: "todo-workers".to_owned(),
            group_instance: None,
            session_timeout_ms: 6_000,
        }
    }

    /// The topic that takes what can never be applied.
    pub fn dead_letter_topic(&self) -> String {
        format!("{}.dead-letters", self.topic)
    }

    /// What producers, consumers and administrators have in common.
    pub(super) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", CLIENT_ID)
            .set("reconnect.backoff.ms", KAFKA_RECONNECT_BACKOFF_MS.to_string())
            .set("reconnect.backoff.max.ms", KAFKA_RECONNECT_BACKOFF_MAX_MS.to_string())
            .set("socket.connection.setup.timeout.ms", KAFKA_CONNECT_TIMEOUT_MS.to_string())
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            // Topics are created on purpose, with the right number of partitions.
            .set("allow.auto.create.topics", "false")
            // Idle connections are closed by brokers as a matter of course.
            .set("log.connection.close", "false");
        // What is logged is decided elsewhere; without warnings nobody would learn of a broker that says nothing.
        if (config.log_level as i32) < RDKafkaLogLevel::Warning as i32 {
            config.set_log_level(RDKafkaLogLevel::Warning);
        }
        self.security.apply(&mut config);
        config
    }

    /// A client that makes and describes topics.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when librdkafka does not take the options.
    pub(super) fn administrator(&self) -> Result<AdminClient<DefaultClientContext>, LogError> {
        // Connections to all brokers, each tried again at its own pace. By default librdkafka connects to those that it
        // needs, and its administrator asks for one whenever any connection changes its state, without regard to
        // `reconnect.backoff.ms`: while the broker that it waits for is gone, each refusal is followed by the next attempt.
        let mut config = self.client_config();
        config
            .set("enable.sparse.connections", "false")
            // As often as it is asked something.
            .set("reconnect.backoff.ms", SERVICE_WATCH_INTERVAL_MS.to_string())
            .set("reconnect.backoff.max.ms", SERVICE_WATCH_INTERVAL_MS.to_string());
        config.create().map_err(log_error)
    }

    /// What every producer has: all that a 202 promises.
    pub(super) fn producer_config(&self) -> ClientConfig {
        let mut config = self.client_config();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            // One request at a time to each broker: the second of two could reach a leader that has missed the first, and
            // librdkafka would send what waits again under a new epoch, also what another broker has.
            .set("max.in.flight.requests.per.connection", "1")
            .set("partitioner", "murmur2_random")
            // Twice the largest command; the topic's own bound is kept by `BatchBounds`.
            .set("message.max.bytes", (2 * COMMAND_MAX_BYTES).to_string());
        config
    }
}

/// Encryption and identity towards the brokers; members that are not given keep librdkafka's defaults (plain text, no
/// identity).
#[derive(Clone, Default)]
pub struct KafkaSecurity {
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub protocol: Option<String>,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub sasl_mechanism: Option<String>,
    /// User name for SASL.
    pub sasl_username: Option<String>,
    /// Password for SASL.
    pub sasl_password: Option<String>,
    /// File or folder of certificates that sign the brokers' own; without it, the system's are used.
    pub ca_location: Option<String>,
    /// File of this client's certificate, where brokers ask for one.
    pub certificate_location: Option<String>,
    /// File of its private key.
    pub key_location: Option<String>,
}

impl KafkaSecurity {
    fn apply(&self, config: &mut ClientConfig) {
        for (name, value) in [
            ("security.protocol", &self.protocol),
            ("sasl.mechanism", &self.sasl_mechanism),
            ("sasl.username", &self.sasl_username),
            ("sasl.password", &self.sasl_password),
            ("ssl.ca.location", &self.ca_location),
            ("ssl.certificate.location", &self.certificate_location),
            ("ssl.key.location", &self.key_location),
        ] {
            if let Some(value) = value {
                config.set(name, value);
            }
        }
    }
}

impl std::fmt::Debug for KafkaSecurity {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSecurity")
            .field("protocol", &self.protocol)
            .field("sasl_mechanism", &self.sasl_mechanism)
            .field("sasl_username", &self.sasl_username)
            .field("sasl_password", &self.sasl_password.as_ref().map(|_| "***"))
            .field("ca_location", &self.ca_location)
            .field("certificate_location", &self.certificate_location)
            .field("key_location", &self.key_location)
            .finish()
    }
}

/// Creates the topic of commands, unless it is there; returns the number of its partitions.
///
/// # Errors
/// [`LogError::Unavailable`] when no broker answers, [`LogError::Fatal`] when this user may not create topics.
pub fn ensure_topic(options: &KafkaOptions) -> Result<usize, LogError> {
    let admin = options.administrator()?;
    ensure_commands_by(&admin, options).map_err(|error| explained(admin.inner(), error))
}

/// The same by an administrator who is there already.
pub(super) fn ensure_commands_by(
    admin: &AdminClient<DefaultClientContext>,
    options: &KafkaOptions,
) -> Result<usize, LogError> {
    let partitions = ensure_topic_by(admin, options, &options.topic, options.partitions, &[])?;
    if i32::try_from(partitions) != Ok(options.partitions) {
        tracing::warn!(
            topic = options.topic,
            partitions,
            asked = options.partitions,
            "the topic has another number of partitions than the settings ask for; it stays as it is"
        );
    }
    Ok(partitions)
}

/// Watches the topic for a process that has no writing end, which would do it: see [`KafkaHost`].
///
/// # Errors
/// [`LogError::Unavailable`]: the system refuses another thread.
pub fn watch_topic(host: KafkaHost, options: KafkaOptions) -> Result<(), LogError> {
    // The reading end says whether the brokers can be reached.
    super::kafka_watch::start(options, host, Arc::default(), |_| {})
}

pub(super) fn ensure_named_topic(
    options: &KafkaOptions,
    topic: &str,
    partitions: i32,
    topic_settings: &[(&str, &str)],
) -> Result<usize, LogError> {
    let admin = options.administrator()?;
    ensure_topic_by(&admin, options, topic, partitions, topic_settings).map_err(|error| explained(admin.inner(), error))
}

/// The same by an administrator who is there already.
pub(super) fn ensure_topic_by(
    admin: &AdminClient<DefaultClientContext>,
    options: &KafkaOptions,
    topic: &str,
    partitions: i32,
    topic_settings: &[(&str, &str)],
) -> Result<usize, LogError> {
    let known = partition_count(admin.inner(), topic)?;
    if let Some(partitions) = known {
        return Ok(partitions);
    }
    let timeout = Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);
    // -1: as many replicas as the brokers' own setting says.
    let replicas = options.replication_factor.unwrap_or(-1);
    let mut new_topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas));
    let in_sync = options.min_insync_replicas.map(|count| count.to_string());
    if let Some(count) = &in_sync {
        new_topic = new_topic.set("min.insync.replicas", count);
    }
    for (name, value) in topic_settings {
        new_topic = new_topic.set(name, value);
    }
    let admin_options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
    let results = block_on(admin.create_topics([&new_topic], &admin_options))?.map_err(log_error)?;
    for result in results {
        match result {
            Ok(_) => tracing::info!(topic, partitions, "created the topic"),
            // Another process was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, RDKafkaErrorCode::InvalidReplicationFactor)) if options.replication_factor.is_some() => {
                return Err(too_few_brokers(admin.inner(), topic, replicas));
            }
            Err((_, code)) => return Err(log_error(KafkaError::AdminOp(code))),
        }
    }
    wait_until_shown(admin.inner(), topic)
}

/// The brokers refused to make so many replicas. More brokers may come, so it is tried again.
fn too_few_brokers<C: rdkafka::ClientContext>(client: &Client<C>, topic: &str, replicas: i32) -> LogError {
    let timeout = Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);
    let brokers = client.fetch_metadata(Some(topic), timeout).map_or(0, |metadata| metadata.brokers().len());
    LogError::Unavailable(format!(
        "the topic {topic} is to have KAFKA_REPLICATION_FACTOR={replicas} replicas, but the cluster has {}, and \
         each keeps one: start more brokers, or lower the setting. It is tried again",
        Counted(brokers, "brokers")
    ))
}

/// Waits until the broker shows a topic that was just created: its metadata follow a moment after its answer.
fn wait_until_shown<C: rdkafka::ClientContext>(client: &Client<C>, topic: &str) -> Result<usize, LogError> {
    let give_up_at = Instant::now() + Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);
    loop {
        match partition_count(client, topic)? {
            Some(partitions) => return Ok(partitions),
            None if Instant::now() < give_up_at => std::thread::sleep(SHOWN_POLL),
            None => {
                let reason = format!("the topic {topic} was created, but the broker does not show it yet");
                return Err(LogError::Unavailable(reason));
            }
        }
    }
}

/// Partitions of a topic; `None` when there is no such topic.
pub(super) fn partition_count<C: rdkafka::ClientContext>(
    client: &Client<C>,
    topic: &str,
) -> Result<Option<usize>, LogError> {
    let metadata =
        client.fetch_metadata(Some(topic), Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS)).map_err(log_error)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error() {
        None => Ok(Some(found.partitions().len())),
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(None),
        Some(error) => Err(log_error(KafkaError::MetadataFetch(error.into()))),
    }
}

/// Drives one of the administrator's answers, which come from a thread of its own.
pub(super) fn block_on<T>(answer: impl Future<Output = T>) -> Result<T, LogError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| LogError::Unavailable(format!("no event loop for Kafka: {error}")))?;
    Ok(runtime.block_on(answer))
}

/// What an error of librdkafka means to a caller.
pub(super) fn log_error(error: KafkaError) -> LogError {
    use RDKafkaErrorCode as Code;
    match (&error, error.rdkafka_error_code()) {
        // A setting that librdkafka does not take; its text names the setting and the value is the operator's own.
        (KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_), _) => LogError::Fatal(format!("Kafka: {error}")),
        (
            _,
            Some(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::UnsupportedFeature
                | Code::UnsupportedVersion
                | Code::InvalidTopic
                | Code::InvalidPartitions
                | Code::InvalidReplicationFactor
                | Code::PolicyViolation
                | Code::InconsistentGroupProtocol
                | Code::FencedInstanceId
                | Code::Fatal,
            ),
        ) => LogError::Fatal(format!("Kafka: {error}")),
        _ => LogError::Unavailable(error.to_string()),
    }
}
