//! What the table of offsets says beside them, in rows of partitions that no log has. They are rows of the table that each worker
//! may write, rather than columns: a deployment of the version before has all that they need, and its workers pass them over.

use super::AppliedOffsets;
use crate::command_log::{KnownLogs, LogId, PartitionId};

/// The rows that hold the halves of the id of the log that is followed.
pub(super) const LOG_ID: [PartitionId; 2] = [-2, -3];
/// The first two rows that hold the halves of the id of a log that was rejected; the next log has the two below, and so on.
const REJECTED: [PartitionId; 2] = [-4, -5];

/// All rows that the table has of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LogRows {
    pub offsets: AppliedOffsets,
    pub known: KnownLogs,
}

impl LogRows {
    /// Divides them by what they say.
    pub fn of(mut rows: AppliedOffsets) -> LogRows {
        let offsets = rows.split_off(&0);
        let id = |[high, low]: [PartitionId; 2]| {
            LogId::from_halves([high, low].map(|row| rows.get(&row).copied().unwrap_or_default()))
        };
        let rejected = (0..).map(rejected_rows).map_while(id).collect();
        LogRows { offsets, known: KnownLogs { followed: id(LOG_ID), rejected } }
    }

    /// The rows for the next log that is rejected.
    pub fn free(&self) -> [PartitionId; 2] {
        rejected_rows(self.known.rejected.len() as PartitionId)
    }
}

fn rejected_rows(number: PartitionId) -> [PartitionId; 2] {
    REJECTED.map(|first| first - 2 * number)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        };
        assert_eq!(LogRows::of(rows), expected);
    }
}
