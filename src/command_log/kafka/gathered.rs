//! What one poll of the reading end has collected.

use rdkafka::bindings as librdkafka;
use rdkafka::message::{BorrowedMessage, Message};

use crate::command_log::{LeaderEpoch, PartitionId, Record, RecordBatch};
use crate::todo::Timestamp;

/// Records by partition, in the order in which the partitions came first.
#[derive(Default)]
pub(super) struct Gathered {
    pub batches: Vec<RecordBatch>,
    pub records: usize,
    pub bytes: usize,
}

impl Gathered {
    /// One more, behind those of its partition.
    pub fn add(&mut self, Fetched { partition, record, leader_epoch }: Fetched) {
        self.records += 1;
        self.bytes += record.key.len() + record.payload.len();
        let batch = match self.batches.iter_mut().find(|batch| batch.partition == partition) {
            Some(batch) => batch,
            None => {
                self.batches.push(RecordBatch { partition, ..RecordBatch::default() });
                self.batches.last_mut().expect("just pushed")
            }
        };
        (batch.next, batch.leader_epoch) = (record.offset + 1, leader_epoch);
        batch.records.push(record);
    }

    /// These partitions belong to another reader.
    pub fn forget(&mut self, partitions: &[PartitionId]) {
        self.batches.retain(|batch| !partitions.contains(&batch.partition));
        self.records = self.batches.iter().map(|batch| batch.records.len()).sum();
    }
}

/// A record as it came.
pub(super) struct Fetched {
    pub partition: PartitionId,
    pub record: Record,
    /// Of the leader that wrote it; `None` where the brokers do not say.
    pub leader_epoch: Option<LeaderEpoch>,
}

impl Fetched {
    /// Copies a message out of librdkafka.
    pub fn from_message(message: &BorrowedMessage<'_>) -> Fetched {
        let record = Record {
            offset: message.offset(),
            logged_at: Timestamp::from_micros(message.timestamp().to_millis().unwrap_or(0).saturating_mul(1_000)),
            key: message.key().unwrap_or_default().to_vec(),
            payload: message.payload().unwrap_or_default().to_vec(),
        };
        Fetched { partition: message.partition(), record, leader_epoch: leader_epoch(message) }
    }
}

/// The epoch of the leader that wrote a message; `None` where the brokers do not say.
pub(super) fn leader_epoch(message: &BorrowedMessage<'_>) -> Option<LeaderEpoch> {
    // SAFETY: the message lives as long as this borrow, and the call only reads it.
    let epoch = unsafe { librdkafka::rd_kafka_message_leader_epoch(message.ptr()) };
    Some(epoch).filter(|epoch| *epoch >= 0)
}
