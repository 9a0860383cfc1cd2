//! How many dead letters there have been, for processes that write none themselves.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::command_log::kafka::{KafkaOptions, log_error, partition_count};
use crate::command_log::kafka_extents::all_extents;
use crate::command_log::kafka_lost_brokers::LostBrokers;
use crate::command_log::{LogError, PartitionId};
use crate::limits::KAFKA_REQUEST_TIMEOUT_MS;

/// Asks the topic of dead letters.
pub struct DeadLetterCount {
    client: BaseConsumer,
    topic: String,
    brokers: LostBrokers,
}

impl DeadLetterCount {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when librdkafka does not take the options.
    pub fn new(options: &KafkaOptions) -> Result<DeadLetterCount, LogError> {
        let client = options
            .client_config()
            // librdkafka wants a name; nothing joins or commits under it.
            .set("group.id", format!("{}-dead-letters", options.group))
            .create()
            .map_err(log_error)?;
        Ok(DeadLetterCount { client, topic: options.dead_letter_topic(), brokers: LostBrokers::new(options) })
    }

    /// All that were ever written, those that have been sent again included; 0 without a topic.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub fn ever(&mut self) -> Result<u64, LogError> {
        let asked = self.ask();
        match asked {
            Ok(_) => self.brokers.note_answer(),
            Err(_) => self.brokers.note_silence(),
        }
        self.brokers.look(self.client.client());
        asked
    }

    fn ask(&self) -> Result<u64, LogError> {
        let count = partition_count(self.client.client(), &self.topic)?.unwrap_or(0);
        let partitions: Vec<PartitionId> = (0..).take(count).collect();
        let timeout = Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);
        let extents = all_extents(&self.client, &self.topic, &partitions, timeout)?;
        Ok(extents.values().map(|extent| u64::try_from(extent.latest).unwrap_or_default()).sum())
    }
}
