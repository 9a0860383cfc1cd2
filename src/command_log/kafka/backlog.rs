//! Whether the topic is about to delete what no worker has applied.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset as KafkaOffset;

use crate::command_log::kafka::extents::{all_extents, partition_list};
use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::shape::TopicSettings;
use crate::command_log::kafka::trouble::log_error;
use crate::command_log::{LogError, PartitionId};
use crate::counted::Counted;
use crate::limits::{KAFKA_BACKLOG_WATCH_MS, KAFKA_REQUEST_TIMEOUT_MS};
use crate::todo::Timestamp;

/// What was found last.
#[derive(Default)]
pub(super) struct Backlog {
    asked_at: Option<Instant>,
    danger: Option<String>,
}

impl Backlog {
    /// The danger, if there is one; asks the brokers now and then. By the places that the workers commit to Kafka, which are
    /// seen also while no worker runs.
    pub fn look(&mut self, options: &KafkaOptions, partitions: usize, settings: &TopicSettings) -> Option<String> {
        if settings.retention_ms < 0 && settings.retention_bytes < 0 {
            self.danger = None;
            return None;
        }
        let interval = Duration::from_millis(KAFKA_BACKLOG_WATCH_MS);
        if self.asked_at.is_none_or(|asked_at| asked_at.elapsed() >= interval) {
            match danger(options, partitions, settings) {
                Ok(danger) => self.danger = danger,
                Err(error) => tracing::debug!(%error, "Kafka does not say how far the workers are"),
            }
            self.asked_at = Some(Instant::now());
        }
        self.danger.clone()
    }
}

fn danger(options: &KafkaOptions, partitions: usize, settings: &TopicSettings) -> Result<Option<String>, LogError> {
    let timeout = Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);
    let consumer: BaseConsumer = options
        .client_config()
        // Only asked for its places: nothing joins.
        .set("group.id", &options.group)
        .set("enable.auto.commit", "false")
        .create()
        .map_err(log_error)?;
    let all = || (0..).take(partitions);
    let places = partition_list(&options.topic, all().map(|partition| (partition, KafkaOffset::Invalid)))?;
    let places = consumer.committed_offsets(places, timeout).map_err(log_error)?;
    let old = match settings.retention_ms {
        ..0 => None,
        retention_ms => {
            // Half of its life is over.
            let moment_ms = Timestamp::now().as_micros() / 1_000 - retention_ms / 2;
            let moments = partition_list(&options.topic, all().map(|id| (id, KafkaOffset::Offset(moment_ms))))?;
            Some(consumer.offsets_for_times(moments, timeout).map_err(log_error)?)
        }
    };
    let (mut by_age, mut by_size) = (0_i64, 0_i64);
    let partitions: Vec<PartitionId> = all().collect();
    for (partition, extent) in all_extents(&consumer, &options.topic, &partitions, timeout)? {
        let (earliest, latest) = (extent.earliest, extent.latest);
        let place = |list: &rdkafka::TopicPartitionList| offset_of(list, &options.topic, partition);
        let applied = place(&places).unwrap_or(earliest).clamp(earliest, latest);
        if let Some(old) = &old {
            // Without an answer, all that is there is older.
            by_age += (place(old).unwrap_or(latest) - applied).max(0);
        }
        // It has begun to delete, and what is not applied is most of what it still holds.
        if settings.retention_bytes >= 0 && earliest > 0 && latest - applied > (latest - earliest) / 2 {
            by_size += latest - applied;
        }
    }
    let topic = &options.topic;
    Ok(match (by_age, by_size) {
        (0, 0) => None,
        (0, records) => Some(format!(
            "{} of the topic {topic} not applied, while it deletes by size (retention.bytes={}): start \
             workers of the group {}, or raise the bound, before anything of it is lost",
            Counted(records, "commands"),
            settings.retention_bytes,
            options.group
        )),
        (records, _) => Some(format!(
            "{} of the topic {topic} not applied, after more than half of the {} s that it keeps a command \
             (retention.ms): start workers of the group {}, or raise it, before anything of it is lost",
            Counted(records, "commands"),
            settings.retention_ms as f64 / 1e3,
            options.group
        )),
    })
}

fn offset_of(list: &rdkafka::TopicPartitionList, topic: &str, partition: PartitionId) -> Option<i64> {
    match list.find_partition(topic, partition)?.offset() {
        KafkaOffset::Offset(offset) => Some(offset),
        _ => None,
    }
}
