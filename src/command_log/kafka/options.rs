//! Where Kafka is and how it is used: what the settings say, as librdkafka takes it.

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use crate::command_log::LogError;
use crate::command_log::kafka::trouble::log_error;
use crate::limits::{
    BODY_MAX_BYTES, COMMAND_MAX_BYTES, COMMAND_OVERHEAD_BYTES, KAFKA_CONNECT_TIMEOUT_MS,
    KAFKA_RECONNECT_BACKOFF_MAX_MS, KAFKA_RECONNECT_BACKOFF_MS, SERVICE_WATCH_INTERVAL_MS,
};

/// How brokers know this program.
pub(super) const CLIENT_ID: &str = "million-rps";
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
