//! PostgreSQL, Kafka and Redis behind the seams, made from the settings.
//!
//! Nothing here waits for a server: each implementation connects when it is first used and goes on trying, so that a
//! process may start before what it depends on.

use std::sync::Arc;

use crate::command_log::kafka::{
    KafkaAppender, KafkaHost, KafkaOptions, KafkaReader, KafkaSecurity, Seat, watch_topic,
};
use crate::config::{Config, Kafka, Services};
use crate::feed::redis::{RedisOptions, RedisPublisher, RedisSubscriber};
use crate::limits::COMMAND_OVERHEAD_BYTES;
use crate::observe::status::Status;
use crate::producer::ShardAcknowledgements;
use crate::store::identity::keyed_hash;
use crate::store::postgres::PostgresStore;

use super::error::ProcessError;
use super::events::Events;
use super::roles::Roles;
use super::seams::{ApiSeams, Seams, WorkerSeams};

/// Bytes that librdkafka counts for each message beside its payload, rounded up: its own queue has to hold what the
/// shards may have in flight, so that theirs is the limit that clients meet.
const MESSAGE_OVERHEAD_BYTES: usize = 512;
/// Most that librdkafka takes for `queue.buffering.max.kbytes`.
const QUEUE_MAX_KB: usize = 2_097_151;
/// Most that librdkafka takes for `queue.buffering.max.messages`.
const QUEUE_MAX_MESSAGES: usize = 10_000_000;
/// How long a worker may be silent before its partitions go to others, in milliseconds: short enough that a killed
/// worker's partitions are served again within ten seconds.
const SESSION_TIMEOUT_MS: u64 = 6_000;

/// The value of `KAFKA_GROUP_INSTANCE_ID` for a name that this program makes.
const GROUP_INSTANCE_AUTO: &str = "auto";

/// Opens the seams of a process that works with services.
///
/// # Errors
/// [`ProcessError`] for settings that a client library does not take.
pub fn open(
    config: &Config,
    services: &Services,
    roles: Roles,
    acknowledgements: Arc<ShardAcknowledgements>,
    status: &Status,
    events: &Events,
) -> Result<Seams, ProcessError> {
    let kafka = kafka_options(config, services);
    let redis = redis_options(config, services);
    let host = KafkaHost::new(status.shared_troubles(), status.shared_topic()).on_thread_end(events.teller());
    if !roles.api {
        watch_topic(host.clone(), kafka.clone())?;
    }
    if roles.api {
        status.await_log();
    }
    let api = match roles.api {
        true => Some(ApiSeams {
            appender: Box::new(KafkaAppender::within(host, kafka.clone(), acknowledgements)?),
            feed: Box::new(RedisSubscriber::new(&redis)?),
            // What takes writes learns which topic they have to go to.
            store: Box::new(store(services)?.telling(status.shared_topic())),
            key_folder: None,
        }),
        false => None,
    };
    let lanes = if roles.worker { services.worker_lanes.min(services.db_pool_size) } else { 0 };
    let worker =
        (0..lanes).map(|lane| worker_lane(services, kafka.clone(), &redis, status, lane)).collect::<Result<_, _>>()?;
    Ok(Seams { api, worker, data_dir_lock: None })
}

/// A lane is a worker with ends of its own and a member of the group of its own: while one waits for the database, another
/// reads, folds or publishes, and what keeps two processes apart keeps two lanes apart.
fn worker_lane(
    services: &Services,
    mut kafka: KafkaOptions,
    redis: &RedisOptions,
    status: &Status,
    lane: usize,
) -> Result<WorkerSeams, ProcessError> {
    let reader = match (kafka.group_instance.take(), lane) {
        (Some(name), _) if name == GROUP_INSTANCE_AUTO => match Seat::take(&kafka) {
            Some(seat) => KafkaReader::seated(kafka, seat)?,
            None => KafkaReader::new(kafka)?,
        },
        (Some(name), 1..) => {
            KafkaReader::new(KafkaOptions { group_instance: Some(format!("{name}-lane-{lane}")), ..kafka })?
        }
        (group_instance, _) => KafkaReader::new(KafkaOptions { group_instance, ..kafka })?,
    };
    Ok(WorkerSeams {
        reader: Box::new(reader),
        store: Box::new(store(services)?.telling(status.shared_topic())),
        publisher: Box::new(RedisPublisher::new(redis)?),
    })
}

/// A connection to the store; it connects when it is first used.
///
/// # Errors
/// [`ProcessError`] when the URL is not usable.
pub fn store(services: &Services) -> Result<PostgresStore, ProcessError> {
    Ok(PostgresStore::new(services.database_url.expose(), &services.kafka.topic)?)
}

/// Makes each client that connects later, to find out whether it takes its settings.
///
/// # Errors
/// [`ProcessError`]: one does not.
pub fn check_clients(config: &Config, services: &Services) -> Result<(), ProcessError> {
    store(services)?;
    RedisSubscriber::new(&redis_options(config, services))?;
    KafkaReader::new(kafka_options(config, services))?;
    Ok(())
}

/// How Kafka is used, by these settings.
pub fn kafka_options(config: &Config, services: &Services) -> KafkaOptions {
    let Kafka { brokers, topic, partitions, .. } = &services.kafka;
    let kafka = &services.kafka;
    let queue_bytes = config.write.queue_bytes + config.write.queue_commands * MESSAGE_OVERHEAD_BYTES;
    KafkaOptions {
        brokers: brokers.clone(),
        topic: topic.clone(),
        partitions: i32::try_from(*partitions).unwrap_or(i32::MAX),
        replication_factor: kafka.replication_factor.map(i32::from),
        min_insync_replicas: kafka.min_insync_replicas.map(i32::from),
        security: KafkaSecurity {
            protocol: Some(kafka.security_protocol.to_owned()),
            sasl_mechanism: kafka.sasl.as_ref().map(|sasl| sasl.mechanism.to_owned()),
            sasl_username: kafka.sasl.as_ref().map(|sasl| sasl.username.clone()),
            sasl_password: kafka.sasl.as_ref().map(|sasl| sasl.password.expose().to_owned()),
            ca_location: kafka.ssl_ca_location.as_ref().map(|path| path.display().to_string()),
            certificate_location: None,
            key_location: None,
        },
        linger_ms: u64::try_from(kafka.linger.as_millis()).unwrap_or(u64::MAX),
        compression: kafka.compression.to_owned(),
        queue_max_messages: u32::try_from(config.write.queue_commands.min(QUEUE_MAX_MESSAGES)).unwrap_or(u32::MAX),
        queue_max_kb: u32::try_from(queue_bytes.div_ceil(1024).min(QUEUE_MAX_KB)).unwrap_or(u32::MAX),
        command_max_bytes: (config.http.body_max_bytes + COMMAND_OVERHEAD_BYTES) as u32,
        acknowledge_timeout_ms: u64::try_from(config.write.ack_timeout.as_millis()).unwrap_or(u64::MAX),
        group: kafka.group_id.clone(),
        group_instance: kafka.group_instance_id.clone(),
        session_timeout_ms: SESSION_TIMEOUT_MS,
    }
}

/// How Redis is used, by these settings.
pub fn redis_options(config: &Config, services: &Services) -> RedisOptions {
    RedisOptions {
        url: services.redis_url.expose().to_owned(),
        topic: services.kafka.topic.clone(),
        cache_ttl: config.cache_ttl,
        // Two deployments that call their databases alike differ in this all the same. A worker need not know JWT_SECRET.
        fleet: config.auth.secret.as_ref().map(|secret| {
            let name = keyed_hash(secret.expose().as_bytes(), &[b"fleet", services.database_url.expose().as_bytes()]);
            name[..16].iter().map(|byte| format!("{byte:02x}")).collect()
        }),
    }
}
