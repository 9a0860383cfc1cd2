//! What the table of offsets says beside them, in rows of partitions that no log has. They are rows of the table that each worker
//! may write, rather than columns: a deployment of the version before has all that they need, and its workers pass them over.

use super::AppliedOffsets;
use crate::command_log::{KnownLogs, LeaderEpoch, LeaderEpochs, LogId, Offset, PartitionId};

/// The rows that hold the halves of the id of the log that is followed.
pub(super) const LOG_ID: [PartitionId; 2] = [-2, -3];
/// The first two rows that hold the halves of the id of a log that was rejected; the next log has the two below, and so on.
const REJECTED: [PartitionId; 2] = [-4, -5];

/// The row that holds the epoch of the last applied record of partition 0; that of partition 1 is the one below, and so on.
const EPOCH: PartitionId = -1_000_000;
/// Bits of the offset that an epoch's row repeats: an epoch of another offset, where a worker of the version before has gone on,
/// does not count.
const EPOCH_OFFSET_BITS: u32 = 40;

/// All rows that the table has of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LogRows {
    pub offsets: AppliedOffsets,
    pub known: KnownLogs,
    #[cfg_attr(not(feature = "services"), allow(dead_code, reason = "the embedded log has none"))]
    pub epochs: LeaderEpochs,
}

impl LogRows {
    /// Divides them by what they say.
    pub fn of(mut rows: AppliedOffsets) -> LogRows {
        let offsets = rows.split_off(&0);
        let id = |[high, low]: [PartitionId; 2]| {
            LogId::from_halves([high, low].map(|row| rows.get(&row).copied().unwrap_or_default()))
        };
        let rejected = (0..).map(rejected_rows).map_while(id).collect();
        let epoch = |(partition, next): (&PartitionId, &Offset)| {
            let row = rows.get(&EPOCH.checked_sub(*partition)?)?;
            let epoch = LeaderEpoch::try_from(row >> EPOCH_OFFSET_BITS).ok()?;
            (epoch_row(*partition, *next, epoch)?.1 == *row).then_some((*partition, (*next, epoch)))
        };
        let epochs = offsets.iter().filter_map(epoch).collect();
        LogRows { known: KnownLogs { followed: id(LOG_ID), rejected }, epochs, offsets }
    }

    /// The rows for the next log that is rejected.
    pub fn free(&self) -> [PartitionId; 2] {
        rejected_rows(self.known.rejected.len() as PartitionId)
    }
}

/// The row that says of which epoch the record before `next` is; `None` where it does not fit.
pub(super) fn epoch_row(partition: PartitionId, next: Offset, epoch: LeaderEpoch) -> Option<(PartitionId, i64)> {
    let low_bits = next & ((1 << EPOCH_OFFSET_BITS) - 1);
    let fits = epoch >> (i64::BITS - 1 - EPOCH_OFFSET_BITS) == 0;
    Some((EPOCH.checked_sub(partition)?, i64::from(epoch) << EPOCH_OFFSET_BITS | low_bits)).filter(|_| fits)
}

fn rejected_rows(number: PartitionId) -> [PartitionId; 2] {
    REJECTED.map(|first| first - 2 * number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_log::AnotherLog;

    #[test]
    fn what_a_rejected_log_is_told_by_names_the_rows_that_it_is_noted_in() {
        let found = LogId::from_bits(1).expect("not zero");
        let rows = format!("partition BETWEEN {} AND {}", EPOCH + 1, REJECTED[0]);
        let text = AnotherLog::Rejected { found }.to_string();
        assert!(text.contains(&rows) && LOG_ID.iter().all(|row| *row > REJECTED[0]), "{text}");
    }

    #[test]
    fn rows_come_apart_by_what_they_say() {
        let log = |bits| LogId::from_bits(bits).expect("not zero");
        let [followed, one, other] = [log(7), log(u128::MAX - 1), log(1 << 64)];
        let mut rows = AppliedOffsets::from([(-1, 0), (0, 5), (7, 9)]);
        assert_eq!(LogRows::of(rows.clone()).known, KnownLogs::default());
        rows.extend(LOG_ID.into_iter().zip(followed.halves()));
        for rejected in [one, other] {
            let free = LogRows::of(rows.clone()).free();
            rows.extend(free.into_iter().zip(rejected.halves()));
        }
        assert_eq!(rows.keys().next(), Some(&-7), "{rows:?}");
        let expected = LogRows {
            offsets: AppliedOffsets::from([(0, 5), (7, 9)]),
            known: KnownLogs { followed: Some(followed), rejected: vec![one, other] },
            epochs: LeaderEpochs::from([(7, (9, 8_000_000))]),
        };
        rows.extend(epoch_row(7, 9, 8_000_000));
        // Of a partition that is not there, and of a place that a worker of the version before has left.
        rows.extend(epoch_row(3, 9, 4));
        rows.extend(epoch_row(0, 4, 4));
        assert_eq!(LogRows::of(rows), expected);
        assert_eq!((epoch_row(7, 9, 1 << 23), epoch_row(7, 9, -1)), (None, None), "they do not fit");
    }
}
