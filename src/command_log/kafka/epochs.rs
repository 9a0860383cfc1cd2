//! By which leaders the records of the topic were written. A log that has lost records and was given others has records of a later
//! leader where the applied ones stood, also when it is as long as before.
//!
//! librdkafka compares epochs only while it reads, and does not say where the log parts from what was read. So a partition is
//! read from one record before its place: the epoch of that record is compared with the one that was applied.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset as KafkaOffset;

use crate::command_log::kafka::extents::partition_list;
use crate::command_log::kafka::gathered::{Fetched, leader_epoch};
use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::trouble::log_error;
use crate::command_log::{LeaderEpoch, LeaderEpochs, LogError, Offset, PartitionId};
use crate::limits::KAFKA_REQUEST_TIMEOUT_MS;

/// The epochs of what was applied, or taken from the log since.
#[derive(Default)]
pub(super) struct Epochs {
    known: LeaderEpochs,
    /// Partitions whose record before their place has not been seen since they were started.
    unchecked: BTreeSet<PartitionId>,
}

impl Epochs {
    /// The epochs at the places that partitions are about to be started at.
    pub fn expect(&mut self, epochs: LeaderEpochs) {
        self.known.extend(epochs);
    }

    /// A record was taken.
    pub fn note(&mut self, fetched: &Fetched) {
        match fetched.leader_epoch {
            Some(epoch) => self.known.insert(fetched.partition, (fetched.record.offset + 1, epoch)),
            None => self.known.remove(&fetched.partition),
        };
    }

    /// The epoch of the record before this place.
    pub fn before(&self, partition: PartitionId, next: Offset) -> Option<LeaderEpoch> {
        self.known.get(&partition).filter(|(place, _)| *place == next).map(|(_, epoch)| *epoch)
    }

    /// A partition is to be started at this place.
    pub fn start(&mut self, partition: PartitionId, next: Offset) {
        if next > 0 && self.before(partition, next).is_some() {
            self.unchecked.insert(partition);
        } else {
            self.unchecked.remove(&partition);
        }
    }

    /// The partition has deleted the record before its place, or is another reader's.
    pub fn leave_unchecked(&mut self, partition: PartitionId) {
        self.unchecked.remove(&partition);
    }

    /// Where to fetch from.
    pub fn first(&self, partition: PartitionId, next: Offset) -> Offset {
        next - Offset::from(self.unchecked.contains(&partition))
    }

    /// Whether this record shows that those before the place are others than were applied; the first one since the start does.
    pub fn refutes(&mut self, fetched: &Fetched) -> bool {
        if !self.unchecked.remove(&fetched.partition) {
            return false;
        }
        // A later record tells nothing: the one before the place may have been deleted since.
        let applied = self.before(fetched.partition, fetched.record.offset + 1);
        matches!((fetched.leader_epoch, applied), (Some(found), Some(applied)) if found > applied)
    }
}

/// The first offset within `range` whose record was written after this epoch; the end of the range where there is none.
///
/// # Errors
/// [`LogError::Unavailable`].
pub(super) fn first_after(
    options: &KafkaOptions,
    partition: PartitionId,
    epoch: LeaderEpoch,
    range: Range<Offset>,
) -> Result<Offset, LogError> {
    let consumer: BaseConsumer = options
        .client_config()
        // It joins no group, and a client needs the name of one.
        .set("group.id", &options.group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .create()
        .map_err(log_error)?;
    let Range { start: mut low, end: mut high } = range;
    while low < high {
        let middle = low + (high - low) / 2;
        let (offset, found) = record_from(&consumer, options, partition, middle)?;
        if found.is_some_and(|found| found > epoch) {
            high = middle;
        } else {
            low = offset + 1;
        }
    }
    Ok(low)
}

/// The first record from an offset on: where it stands, and its epoch.
fn record_from(
    consumer: &BaseConsumer,
    options: &KafkaOptions,
    partition: PartitionId,
    from: Offset,
) -> Result<(Offset, Option<LeaderEpoch>), LogError> {
    let place = partition_list(&options.topic, [(partition, KafkaOffset::Offset(from))])?;
    consumer.assign(&place).map_err(log_error)?;
    let deadline = Instant::now() + Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);
    loop {
        match consumer.poll(deadline.saturating_duration_since(Instant::now())) {
            Some(Ok(message)) if message.offset() >= from => return Ok((message.offset(), leader_epoch(&message))),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(log_error(error)),
            None => return Err(LogError::Unavailable(format!("partition {partition} shows no record from {from} on"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_log::Record;
    use crate::todo::Timestamp;

    fn fetched(offset: Offset, leader_epoch: Option<LeaderEpoch>) -> Fetched {
        let record = Record { offset, logged_at: Timestamp::default(), key: Vec::new(), payload: Vec::new() };
        Fetched { partition: 3, record, leader_epoch }
    }

    #[test]
    fn the_record_before_the_place_tells_whether_the_applied_ones_are_still_there() {
        for (record, is_refuted) in [
            (fetched(9, Some(4)), false),
            (fetched(9, Some(5)), true),
            (fetched(9, None), false),
            // The one before the place has been deleted by age; or an older copy of the log is there.
            (fetched(10, Some(5)), false),
            (fetched(9, Some(2)), false),
        ] {
            let mut epochs = Epochs::default();
            epochs.expect(LeaderEpochs::from([(3, (10, 4)), (5, (7, 1))]));
            epochs.start(3, 10);
            assert_eq!((epochs.first(3, 10), epochs.first(5, 7)), (9, 7));
            assert_eq!(epochs.refutes(&record), is_refuted, "{:?}", record.leader_epoch);
            assert_eq!(epochs.first(3, 10), 10, "it is asked once");
            assert!(!epochs.refutes(&fetched(9, Some(7))));
        }
    }

    #[test]
    fn an_epoch_counts_for_its_place_alone() {
        let mut epochs = Epochs::default();
        epochs.expect(LeaderEpochs::from([(3, (10, 4))]));
        for elsewhere in [0, 9, 11] {
            epochs.start(3, elsewhere);
            assert_eq!(epochs.first(3, elsewhere), elsewhere);
        }
        epochs.note(&fetched(10, Some(6)));
        assert_eq!((epochs.before(3, 10), epochs.before(3, 11)), (None, Some(6)));
        epochs.start(3, 11);
        epochs.leave_unchecked(3);
        assert_eq!(epochs.first(3, 11), 11);
        epochs.note(&fetched(11, None));
        assert_eq!(epochs.before(3, 12), None);
    }
}
