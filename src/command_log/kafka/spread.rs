//! Over how many partitions todos are spread: noted once for each topic, in Kafka itself, and the same for everybody.
//!
//! A todo's partition is its hash modulo a number of partitions. Were that the topic's present number, a raised one would send
//! a todo's later commands elsewhere than its earlier ones, and a worker would apply them in any order; and API processes,
//! which learn of the raised number at different moments, would mix both. So the number is noted in a topic of its own,
//! `<topic>.partitions`, by the first process that sees the topic. The note that was written first counts, so processes that
//! start at the same moment agree. It names the topic by Kafka's own id: a topic that is made anew gets a note of its own.

use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::Offset as KafkaOffset;
use serde_json::Value;

use crate::command_log::LogError;
use crate::command_log::kafka::creation::ensure_topic_by;
use crate::command_log::kafka::extents::{all_extents, partition_list};
use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::shape::TopicShape;
use crate::command_log::kafka::single_message::SingleMessage;
use crate::command_log::kafka::trouble::log_error;
use crate::limits::{KAFKA_DEAD_LETTER_TIMEOUT_MS, KAFKA_REQUEST_TIMEOUT_MS};

/// How long the client may wait for one record.
const RECORD_WAIT: Duration = Duration::from_millis(100);

/// The topic of the note.
pub(super) fn note_topic(options: &KafkaOptions) -> String {
    format!("{}.partitions", options.topic)
}

/// The number that places the todos of this topic: the noted one, or, when nothing is noted yet, the present one, which is
/// then noted.
///
/// # Errors
/// [`LogError::Unavailable`]: try again. [`LogError::Fatal`]: this user may not keep the note.
pub(super) fn spread(
    admin: &AdminClient<DefaultClientContext>,
    options: &KafkaOptions,
    shape: &TopicShape,
) -> Result<u32, LogError> {
    let present = u32::try_from(shape.partitions).unwrap_or(u32::MAX);
    let topic = note_topic(options);
    // As safe as the commands themselves, and never more than the brokers can keep.
    let mut options = options.clone();
    options.replication_factor = i32::try_from(shape.replicas).ok().filter(|replicas| *replicas > 0);
    options.min_insync_replicas =
        options.min_insync_replicas.filter(|count| usize::try_from(*count).is_ok_and(|count| count <= shape.replicas));
    let for_ever = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];
    ensure_topic_by(admin, &options, &topic, 1, &for_ever)?;
    let consumer: BaseConsumer = options
        .client_config()
        // librdkafka wants a name; nothing joins or commits under it.
        .set("group.id", format!("{}-partitions", options.group))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .create()
        .map_err(log_error)?;
    if let Some(noted) = first_note(&consumer, &topic, &shape.id)? {
        return Ok(noted);
    }
    write_note(&options, &topic, &shape.id, present)?;
    let noted = first_note(&consumer, &topic, &shape.id)?;
    noted.ok_or_else(|| LogError::Unavailable(format!("the topic {topic} does not show what was written to it yet")))
}

/// The first note of this topic id.
fn first_note(consumer: &BaseConsumer, topic: &str, id: &str) -> Result<Option<u32>, LogError> {
    let extents = all_extents(consumer, topic, &[0], Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS))?;
    let Some(extent) = extents.get(&0).filter(|extent| extent.earliest < extent.latest) else { return Ok(None) };
    consumer.assign(&partition_list(topic, [(0, KafkaOffset::Beginning)])?).map_err(log_error)?;
    let give_up_at = Instant::now() + Duration::from_millis(2 * KAFKA_REQUEST_TIMEOUT_MS);
    while Instant::now() < give_up_at {
        match consumer.poll(RECORD_WAIT) {
            Some(Ok(message)) => {
                if let Some(noted) = message.payload().and_then(|note| partitions_in(note, id)) {
                    return Ok(Some(noted));
                }
                if message.offset() + 1 >= extent.latest {
                    return Ok(None);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            // It will not be allowed later either.
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                return Err(log_error(error));
            }
            Some(Err(error)) => tracing::debug!(%error, topic, "reading the note of partitions"),
            None => {}
        }
    }
    Err(LogError::Unavailable(format!("the topic {topic} could not be read in time")))
}

/// What a note says of the topic with this id; `None` when it is about another one, or no note.
fn partitions_in(note: &[u8], id: &str) -> Option<u32> {
    let note: Value = serde_json::from_slice(note).ok()?;
    let partitions = note.get("partitions")?.as_u64().and_then(|count| u32::try_from(count).ok())?;
    (note.get("topic_id")?.as_str()? == id && partitions > 0).then_some(partitions)
}

fn write_note(options: &KafkaOptions, topic: &str, id: &str, partitions: u32) -> Result<(), LogError> {
    let producer: BaseProducer<SingleMessage> = options
        .producer_config()
        .set("linger.ms", "0")
        .set("message.timeout.ms", KAFKA_DEAD_LETTER_TIMEOUT_MS.to_string())
        .create_with_context(SingleMessage::default())
        .map_err(log_error)?;
    let note = serde_json::json!({ "topic_id": id, "partitions": partitions }).to_string();
    let record = BaseRecord::<str, str>::to(topic).partition(0).key(&options.topic).payload(&note);
    producer.send(record).map_err(|(error, _)| log_error(error))?;
    // A client that is busy may take longer than the message.
    let waited = producer.flush(Duration::from_millis(2 * KAFKA_DEAD_LETTER_TIMEOUT_MS));
    match (producer.context().take(), waited) {
        (Some(written), _) => written.map_err(log_error),
        (None, Err(error)) => Err(log_error(error)),
        (None, Ok(())) => Err(LogError::Unavailable(format!("the topic {topic} takes no note in time"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_counts_for_its_own_topic_alone() {
        let note = br#"{"topic_id":"a","partitions":3,"written_by":"another version"}"#;
        assert_eq!(partitions_in(note, "a"), Some(3));
        assert_eq!(partitions_in(note, "b"), None);
        for no_note in [&b"{}"[..], b"3", b"", br#"{"topic_id":"a","partitions":0}"#, br#"{"topic_id":"a"}"#] {
            assert_eq!(partitions_in(no_note, "a"), None, "{}", String::from_utf8_lossy(no_note));
        }
    }
}
