//! Places of a reader that the topic does not have, and the topic that is not the one that is read any more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;

use super::{KafkaReader, Place};
use crate::command_log::kafka::epochs::first_after;
use crate::command_log::kafka::extents::{Extent, extents, positions};
use crate::command_log::kafka::trouble::log_error;
use crate::command_log::{LogError, Offset, PartitionId};
use crate::limits::{KAFKA_LAG_TIMEOUT_MS, KAFKA_LOST_PLACE_INTERVAL_MS, KAFKA_REQUEST_TIMEOUT_MS};

impl KafkaReader {
    /// Looks for the partitions whose places are gone: librdkafka has stopped one without saying which. The others are
    /// started again.
    pub(super) fn find_lost_places(&mut self) -> Result<(), LogError> {
        let consumer = self.consumer.as_ref().expect("the group was joined");
        let stands_at = |(&partition, &place): (&PartitionId, &Place)| match place {
            Place::At(next) => Some((partition, next)),
            Place::Nowhere | Place::Beginning => None,
        };
        let places: Vec<(PartitionId, Offset)> = self.assigned.iter().filter_map(stands_at).collect();
        let partitions: Vec<PartitionId> = places.iter().map(|(partition, _)| *partition).collect();
        let timeout = Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);
        let extents = extents(consumer, &self.options.topic, &partitions, timeout)?;
        self.has_lost_a_place = false;
        self.lost_asked_at = Instant::now();
        for (partition, next) in places {
            match extents.get(&partition) {
                Some(extent) if !extent.has(next) => {
                    self.lose(partition, next, self.own_part(partition, next, *extent))
                }
                extent => {
                    self.start_at(partition, Place::At(next));
                    if extent.is_some_and(|extent| extent.earliest >= next) {
                        self.epochs.leave_unchecked(partition);
                    }
                }
            }
        }
        match self.failures.pop_front() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// What stands before the place of this partition is not what was applied: the log has lost that, and was given other records.
    /// Tells, by the next poll, where these begin.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: it is not known; the partition is looked at again.
    pub(super) fn part_from(&mut self, partition: PartitionId) -> Result<(), LogError> {
        let (Some(Place::At(next)), Some(consumer)) = (self.assigned.get(&partition).copied(), &self.consumer) else {
            return Ok(());
        };
        let timeout = Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);
        let found = extents(consumer, &self.options.topic, &[partition], timeout);
        match found.map(|extents| extents.get(&partition).copied()) {
            Ok(Some(extent)) => {
                let own = self.own_part(partition, next, extent);
                if own.has(next) {
                    // Nobody has said where they begin.
                    self.start_at(partition, Place::At(next));
                } else {
                    self.lose(partition, next, own);
                }
                Ok(())
            }
            other => {
                self.start_at(partition, Place::At(next));
                other.map(drop)
            }
        }
    }

    /// The part of a partition that was applied: up to the first record of a later leader than the one before this place.
    fn own_part(&self, partition: PartitionId, next: Offset, extent: Extent) -> Extent {
        let Some(epoch) = self.epochs.before(partition, next) else { return extent };
        match first_after(&self.options, partition, epoch, extent.earliest..extent.latest.min(next)) {
            Ok(latest) if latest < extent.latest => Extent { latest, ..extent },
            Ok(_) => extent,
            Err(error) => {
                tracing::warn!("partition {partition} does not say which of its records were applied before: {error}");
                extent
            }
        }
    }

    fn lose(&mut self, partition: PartitionId, next: Offset, extent: Extent) {
        self.failures.push_back(extent.out_of_range(partition, next));
        self.assigned.insert(partition, Place::Nowhere);
        self.starting.remove(&partition);
        self.progress.forget(partition);
        self.note_lost(partition, extent);
    }

    /// Whether a partition that did not have its place has it by now. All of them are asked about together, and not
    /// more often than people can act.
    pub(super) fn check_lost_place(&mut self, partition: PartitionId, next: Offset) -> Result<(), LogError> {
        if !self.lost.contains_key(&partition) {
            return Ok(());
        }
        if let Some(consumer) = &self.consumer
            && self.lost_asked_at.elapsed() >= Duration::from_millis(KAFKA_LOST_PLACE_INTERVAL_MS)
        {
            let partitions: Vec<PartitionId> = self.lost.keys().copied().collect();
            let timeout = Duration::from_millis(KAFKA_LAG_TIMEOUT_MS);
            match extents(consumer, &self.options.topic, &partitions, timeout) {
                Ok(extents) => {
                    extents.into_iter().for_each(|(partition, extent)| self.note_lost(partition, extent));
                }
                Err(error) => tracing::debug!(%error, "Kafka does not say where the partitions begin and end"),
            }
            self.lost_asked_at = Instant::now();
        }
        match self.lost.get(&partition) {
            Some(extent) if !extent.has(next) => Err(extent.out_of_range(partition, next)),
            _ => Ok(()),
        }
    }

    /// Keeps the lowest end of a topic that has an id. What it was given since it ended there stands at offsets that the store
    /// takes for applied, so that a partition that has grown back does not have its place again.
    fn note_lost(&mut self, partition: PartitionId, mut extent: Extent) {
        let before = self.lost.get(&partition).filter(|_| self.log.is_some());
        extent.latest = before.map_or(extent.latest, |before| before.latest.min(extent.latest));
        self.lost.insert(partition, extent);
    }

    /// Notices when another topic has taken the place of the one that is read.
    pub(super) fn look_at_log(&mut self) -> Result<(), LogError> {
        let Some(log) = self.log else { return Ok(()) };
        match self.topic.look(&self.options) {
            Some(found) if found != log => Err(self.stop_reading()),
            _ => Ok(()),
        }
    }

    /// Takes nothing more from what has taken the topic's place. All partitions wait to be started.
    pub(super) fn stop_reading(&mut self) -> LogError {
        self.log = None;
        let assigned: BTreeSet<PartitionId> = self.assigned.keys().copied().collect();
        for partition in &assigned {
            self.forget(*partition);
            self.assigned.insert(*partition, Place::Nowhere);
        }
        if let Some(consumer) = &self.consumer {
            let fetching = consumer.context().forget_started(&assigned);
            let stopped = positions(&self.options.topic, &fetching)
                .and_then(|list| consumer.incremental_unassign(&list).map_err(log_error));
            if let Err(error) = stopped {
                // What is fetched is not taken.
                tracing::debug!(%error, "Kafka's client does not stop fetching");
            }
        }
        LogError::Replaced
    }
}
