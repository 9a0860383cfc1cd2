//! Partitions of a reader that do not have the place that the store wants: which they are, and whether they have it by now.

use std::time::{Duration, Instant};

use super::{KafkaReader, Place};
use crate::command_log::kafka_extents::extents;
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
                    self.failures.push_back(extent.out_of_range(partition, next));
                    self.assigned.insert(partition, Place::Nowhere);
                    self.starting.remove(&partition);
                    self.progress.forget(partition);
                    self.lost.insert(partition, *extent);
                }
                _ => self.start_at(partition, Place::At(next)),
            }
        }
        match self.failures.pop_front() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
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
                Ok(extents) => self.lost.extend(extents),
                Err(error) => tracing::debug!(%error, "Kafka does not say where the partitions begin and end"),
            }
            self.lost_asked_at = Instant::now();
        }
        match self.lost.get(&partition) {
            Some(extent) if !extent.has(next) => Err(extent.out_of_range(partition, next)),
            _ => Ok(()),
        }
    }
}
