//! Topics that are made where they are missing, and what the brokers say of those that are there.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use crate::command_log::LogError;
use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::trouble::{explained, log_error};
use crate::counted::Counted;
use crate::limits::KAFKA_REQUEST_TIMEOUT_MS;

/// How often it is looked whether a new topic is shown.
const SHOWN_POLL: Duration = Duration::from_millis(20);

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
