//! Where the partitions of a topic begin and end.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings as librdkafka;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::command_log::kafka::trouble::log_error;
use crate::command_log::{LogError, Offset, PartitionId};

/// The offsets that a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Of the first record.
    pub earliest: Offset,
    /// That the next record will get.
    pub latest: Offset,
}

impl Extent {
    /// Whether reading may go on at this offset.
    pub fn has(&self, next: Offset) -> bool {
        (self.earliest..=self.latest).contains(&next)
    }

    /// The error of one who wanted to.
    pub fn out_of_range(&self, partition: PartitionId, requested: Offset) -> LogError {
        LogError::OffsetOutOfRange { partition, requested, earliest: self.earliest, latest: self.latest }
    }
}

/// Asks the brokers, each once for the beginnings of all its partitions and once for their ends. A partition that a broker
/// does not tell of is missing in the answer.
///
/// # Errors
/// [`LogError::Unavailable`] when one of the brokers does not answer in time.
pub(super) fn extents<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[PartitionId],
    timeout: Duration,
) -> Result<BTreeMap<PartitionId, Extent>, LogError> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ask = |edge: KafkaOffset| -> Result<BTreeMap<PartitionId, Offset>, LogError> {
        // In place of a moment, the question may name the beginning or the end.
        let asked = partition_list(topic, partitions.iter().map(|partition| (*partition, edge)))?;
        let answered = consumer.offsets_for_times(asked, timeout).map_err(log_error)?;
        let told = answered.elements().into_iter().filter(|element| element.error().is_ok());
        Ok(told.filter_map(|element| Some((element.partition(), element.offset().to_raw()?))).collect())
    };
    let (beginnings, ends) = (ask(KafkaOffset::Beginning)?, ask(KafkaOffset::End)?);
    let extent = |(partition, earliest)| Some((partition, Extent { earliest, latest: *ends.get(&partition)? }));
    Ok(beginnings
        .into_iter()
        .filter_map(extent)
        .filter(|(_, extent)| extent.earliest >= 0 && extent.latest >= 0)
        .collect())
}

/// The same, when all of them have to be known.
///
/// # Errors
/// [`LogError::Unavailable`] also when a broker does not tell of a partition.
pub(super) fn all_extents<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[PartitionId],
    timeout: Duration,
) -> Result<BTreeMap<PartitionId, Extent>, LogError> {
    let extents = extents(consumer, topic, partitions, timeout)?;
    if extents.len() < partitions.len() {
        return Err(LogError::Unavailable(format!("Kafka does not say yet where all partitions of {topic} end")));
    }
    Ok(extents)
}

/// What the latest answers to fetches said about a partition; nobody is asked. `None` when there was none yet.
pub(super) fn known_extent<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: PartitionId,
) -> Option<Extent> {
    let topic = CString::new(topic).ok()?;
    let (mut earliest, mut latest) = (-1, -1);
    // SAFETY: the client is alive, the topic is a C string, and both numbers outlive the call.
    let error = unsafe {
        librdkafka::rd_kafka_get_watermark_offsets(
            client.native_ptr(),
            topic.as_ptr(),
            partition,
            &mut earliest,
            &mut latest,
        )
    };
    (error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && latest >= 0).then_some(Extent { earliest, latest })
}

/// A list of partitions for calls that look at no offset.
pub(super) fn positions(topic: &str, partitions: &[PartitionId]) -> Result<TopicPartitionList, LogError> {
    partition_list(topic, partitions.iter().map(|&partition| (partition, KafkaOffset::Invalid)))
}

/// A list of partitions with their offsets.
pub(super) fn partition_list(
    topic: &str,
    offsets: impl IntoIterator<Item = (PartitionId, KafkaOffset)>,
) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::new();
    let added: KafkaResult<()> =
        offsets.into_iter().try_for_each(|(partition, offset)| list.add_partition_offset(topic, partition, offset));
    added.map_err(log_error)?;
    Ok(list)
}
