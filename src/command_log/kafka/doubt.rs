//! Whether the brokers answer a reader. Errors of its connections come one by one and between them nothing, so a reader that told
//! of each would be in trouble and well again many times in a minute. Once there was one, it is in doubt until a broker has
//! answered for each of its partitions.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset as KafkaOffset;

use crate::command_log::kafka::extents::partition_list;
use crate::command_log::{LogError, PartitionId};

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// Why, while there is doubt.
    reason: Option<String>,
    /// When the answer to the last question was there, or was no longer waited for.
    asked_at: Option<Instant>,
}

/// Longest wait for an answer: meanwhile nothing is read of brokers that answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause between two questions.
const PAUSE: Duration = Duration::from_secs(2);

impl Doubt {
    /// Takes an error that is about a connection, and gives back any other.
    pub fn take(&mut self, error: KafkaError) -> Result<(), KafkaError> {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::OperationTimedOut) => {
                // That all are down says less than why one of them is.
                if self.reason.is_none() || error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
                    self.reason = Some(error.to_string());
                }
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Asks now and then, while there is doubt, where the partitions end.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] while a broker does not answer.
    pub fn settle<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        topic: &str,
        partitions: &[PartitionId],
    ) -> Result<(), LogError> {
        let Some(reason) = &self.reason else { return Ok(()) };
        if self.asked_at.is_none_or(|asked_at| asked_at.elapsed() >= PAUSE) {
            if answers(consumer, topic, partitions) {
                *self = Doubt::default();
                return Ok(());
            }
            self.asked_at = Some(Instant::now());
        }
        Err(LogError::Unavailable(format!("Kafka's brokers do not answer for all partitions of this worker: {reason}")))
    }
}

fn answers<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str, partitions: &[PartitionId]) -> bool {
    if partitions.is_empty() {
        return consumer.fetch_metadata(Some(topic), ANSWER_TIMEOUT).is_ok();
    }
    let asked = partition_list(topic, partitions.iter().map(|partition| (*partition, KafkaOffset::End)));
    let told = asked.ok().and_then(|ends| consumer.offsets_for_times(ends, ANSWER_TIMEOUT).ok());
    told.is_some_and(|told| told.elements().iter().all(|element| element.error().is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_connections_are_taken_and_others_are_not() {
        let mut doubt = Doubt::default();
        let down = |code| KafkaError::Global(code);
        assert!(doubt.take(down(RDKafkaErrorCode::TopicAuthorizationFailed)).is_err() && doubt.reason.is_none());
        assert!(doubt.take(down(RDKafkaErrorCode::AllBrokersDown)).is_ok());
        assert!(doubt.take(down(RDKafkaErrorCode::BrokerTransportFailure)).is_ok());
        let reason = doubt.reason.clone();
        assert!(doubt.take(down(RDKafkaErrorCode::AllBrokersDown)).is_ok());
        assert_eq!(doubt.reason, reason, "the one that says more");
    }
}
