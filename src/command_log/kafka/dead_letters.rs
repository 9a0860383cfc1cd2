//! Dead letters of the Kafka log: records that can never be applied, in a topic of their own.
//!
//! A dead letter keeps key and payload of its record; headers say why (`reason`) and whence (`source-partition`,
//! `source-offset`).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::Offset as KafkaOffset;

use crate::command_log::kafka::creation::{block_on, ensure_named_topic, partition_count};
use crate::command_log::kafka::extents::{all_extents, partition_list};
use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::shape::shape;
use crate::command_log::kafka::single_message::SingleMessage;
use crate::command_log::kafka::spread::spread;
use crate::command_log::kafka::trouble::log_error;
use crate::command_log::new_ids::partition_of_key;
use crate::command_log::{DeadLetter, LogError, Offset, PartitionId, Record};
use crate::limits::{KAFKA_DEAD_LETTER_MAX_BYTES, KAFKA_DEAD_LETTER_TIMEOUT_MS, KAFKA_REQUEST_TIMEOUT_MS};
use crate::todo::Timestamp;

const REASON: &str = "reason";
const SOURCE_PARTITION: &str = "source-partition";
const SOURCE_OFFSET: &str = "source-offset";

/// Writes one message at a time and waits until it is durable.
pub(super) struct DeadLetterWriter {
    options: KafkaOptions,
    /// Made at the first letter: most workers never see one.
    producer: Option<BaseProducer<SingleMessage>>,
}

impl DeadLetterWriter {
    pub fn new(options: &KafkaOptions) -> DeadLetterWriter {
        DeadLetterWriter { options: options.clone(), producer: None }
    }

    pub fn write(&mut self, partition: PartitionId, record: &Record, reason: &str) -> Result<(), LogError> {
        let topic = self.options.dead_letter_topic();
        if self.producer.is_none() {
            // One partition: letters are few, and this keeps them in order. Kept until somebody has looked at them. Takes
            // any record that the topic of commands took, although its headers make it larger here.
            let largest = KAFKA_DEAD_LETTER_MAX_BYTES.to_string();
            ensure_named_topic(&self.options, &topic, 1, &[("retention.ms", "-1"), ("max.message.bytes", &largest)])?;
        }
        let headers = |reason: &str| {
            OwnedHeaders::new()
                .insert(Header { key: REASON, value: Some(reason) })
                .insert(Header { key: SOURCE_PARTITION, value: Some(&partition.to_string()) })
                .insert(Header { key: SOURCE_OFFSET, value: Some(&record.offset.to_string()) })
        };
        let letter = BaseRecord::to(&topic).key(&record.key).payload(&record.payload).headers(headers(reason));
        match self.send(letter) {
            // The topic was made by somebody else, with a limit of its own. One record must not hold up its partition for
            // ever, and it still stands where it came from.
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                let reason = format!(
                    "{reason} (its {} bytes are left out, because the topic {topic} takes no record of this size: read \
                     them at the source, or raise max.message.bytes)",
                    record.payload.len()
                );
                let nothing = Vec::new();
                self.send(BaseRecord::to(&topic).key(&record.key).payload(&nothing).headers(headers(&reason)))
                    .map_err(log_error)
            }
            sent => sent.map_err(log_error),
        }
    }

    /// Sends a message and waits until it is durable.
    fn send(&mut self, message: BaseRecord<'_, Vec<u8>, Vec<u8>>) -> Result<(), KafkaError> {
        let producer = match &self.producer {
            Some(producer) => producer,
            None => {
                let producer = self
                    .options
                    .producer_config()
                    .set("linger.ms", "0")
                    .set("message.timeout.ms", KAFKA_DEAD_LETTER_TIMEOUT_MS.to_string())
                    .set("message.max.bytes", KAFKA_DEAD_LETTER_MAX_BYTES.to_string())
                    .create_with_context(SingleMessage::default())?;
                self.producer.insert(producer)
            }
        };
        let sent = producer.send(message).map_err(|(error, _)| error).and_then(|()| {
            // librdkafka gives the message up by itself in time; the second limit is for a client that fell silent.
            let deadline = Instant::now() + Duration::from_millis(2 * KAFKA_DEAD_LETTER_TIMEOUT_MS);
            while Instant::now() < deadline {
                producer.poll(Duration::from_millis(1));
                if let Some(result) = producer.client().context().take() {
                    return result;
                }
            }
            Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut))
        });
        // The next attempt starts with a new client: this one may still report the message, or have failed for good.
        sent.inspect_err(|_| self.producer = None)
    }
}

/// Calls `each` for every dead letter, oldest first. A letter that a worker wrote twice (it stopped before it could note
/// the first) comes once.
///
/// # Errors
/// [`LogError::Unavailable`]; `each` may have been called before.
pub fn list_dead_letters(options: &KafkaOptions, each: &mut dyn FnMut(DeadLetter)) -> Result<(), LogError> {
    read_letters(options, &mut |letter| {
        each(letter);
        Ok(())
    })?;
    Ok(())
}

/// Puts every dead letter back on the topic of commands, where it gets a new place at the end, and removes it from the
/// dead letters. Returns how many there were. When it fails in the middle, nothing is lost: what was put back already is
/// put back again by the next attempt.
///
/// # Errors
/// [`LogError::Unavailable`].
pub fn replay_dead_letters(options: &KafkaOptions) -> Result<u64, LogError> {
    let admin = options.administrator()?;
    // Each goes to the partition where the other commands of its todo are.
    let spread = match shape(admin.inner(), &options.topic)? {
        Some(shape) => spread(&admin, options, &shape)?,
        None => return Err(LogError::Unavailable(format!("there is no topic {}", options.topic))),
    };
    let mut writer = DeadLetterWriter::new(options);
    let mut count = 0;
    let ends = read_letters(options, &mut |letter| {
        count += 1;
        let (key, payload) = (&letter.record.key, &letter.record.payload);
        let partition = partition_of_key(key, spread) as PartitionId;
        writer.send(BaseRecord::to(&options.topic).partition(partition).key(key).payload(payload)).map_err(log_error)
    })?;
    remove_letters(options, &ends)?;
    Ok(count)
}

/// Reads all letters that are there now; returns where they end, by partition.
fn read_letters(
    options: &KafkaOptions,
    each: &mut dyn FnMut(DeadLetter) -> Result<(), LogError>,
) -> Result<Vec<(PartitionId, Offset)>, LogError> {
    let topic = options.dead_letter_topic();
    let consumer: BaseConsumer = options
        .client_config()
        // librdkafka wants a name; nothing joins or commits under it.
        .set("group.id", format!("{}-dead-letters", options.group))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .create()
        .map_err(log_error)?;
    let Some(partitions) = partition_count(consumer.client(), &topic)? else { return Ok(Vec::new()) };
    let mut ends = Vec::new();
    let mut unread = Vec::new();
    let all: Vec<PartitionId> = (0..).take(partitions).collect();
    let timeout = Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);
    for (partition, extent) in all_extents(&consumer, &topic, &all, timeout)? {
        ends.push((partition, extent.latest));
        if extent.earliest < extent.latest {
            unread.push((partition, extent.latest));
        }
    }
    if !unread.is_empty() {
        let from = partition_list(&topic, unread.iter().map(|&(partition, _)| (partition, KafkaOffset::Beginning)))?;
        consumer.assign(&from).map_err(log_error)?;
    }
    let mut seen = HashSet::new();
    let mut heard_at = Instant::now();
    while !unread.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard_at = Instant::now();
                let (partition, offset) = (message.partition(), message.offset());
                let letter = letter_from(&message);
                if unread.iter().any(|&(id, latest)| id == partition && offset < latest)
                    && seen.insert((letter.partition, letter.record.offset))
                {
                    each(letter)?;
                }
                unread.retain(|&(id, latest)| id != partition || offset + 1 < latest);
            }
            // The last records of the partition may be no messages (marks of transactions).
            Some(Err(KafkaError::PartitionEOF(partition))) => unread.retain(|&(id, _)| id != partition),
            Some(Err(error)) => tracing::debug!(%error, "reading dead letters"),
            None if heard_at.elapsed() > Duration::from_millis(2 * KAFKA_REQUEST_TIMEOUT_MS) => {
                return Err(LogError::Unavailable(format!("the topic {topic} could not be read in time")));
            }
            None => {}
        }
    }
    Ok(ends)
}

fn remove_letters(options: &KafkaOptions, ends: &[(PartitionId, Offset)]) -> Result<(), LogError> {
    if ends.is_empty() {
        return Ok(());
    }
    let admin = options.administrator()?;
    let ends = ends.iter().map(|&(partition, end)| (partition, KafkaOffset::Offset(end)));
    let list = partition_list(&options.dead_letter_topic(), ends)?;
    let timeout = Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);
    let admin_options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
    let removed = block_on(admin.delete_records(&list, &admin_options))?.map_err(log_error)?;
    for element in removed.elements() {
        element.error().map_err(log_error)?;
    }
    Ok(())
}

/// A letter that another program put there may lack headers: it is listed with what it has.
fn letter_from(message: &BorrowedMessage<'_>) -> DeadLetter {
    let header = |name: &str| -> Option<&str> {
        let headers = message.headers()?;
        let value = headers.iter().find(|header| header.key == name)?.value?;
        std::str::from_utf8(value).ok()
    };
    DeadLetter {
        partition: header(SOURCE_PARTITION).and_then(|text| text.parse().ok()).unwrap_or(-1),
        record: Record {
            offset: header(SOURCE_OFFSET).and_then(|text| text.parse().ok()).unwrap_or(message.offset()),
            logged_at: Timestamp::from_micros(message.timestamp().to_millis().unwrap_or(0).saturating_mul(1_000)),
            key: message.key().unwrap_or_default().to_vec(),
            payload: message.payload().unwrap_or_default().to_vec(),
        },
        reason: header(REASON).unwrap_or("unknown").to_owned(),
    }
}
