//! What a new place in the command log means for the commands that the log holds: told to whoever sets the place.

use std::collections::BTreeMap;
use std::fmt;

use crate::command_log::{Offset, PartitionId};
use crate::counted::Counted;
use crate::store::AppliedOffsets;

/// First offset of each partition, and the next one.
pub(super) type Bounds = BTreeMap<PartitionId, (Offset, Offset)>;

/// How many of the commands that the log holds stand where.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LogMove {
    /// Behind the new place.
    left: Offset,
    /// Those of them that the store has applied.
    again: Offset,
    /// Before the new place, and not applied to the store.
    skipped: Offset,
}

impl LogMove {
    /// From one place to another. A log without a place has its beginning.
    pub fn new(bounds: &Bounds, before: &AppliedOffsets, after: &AppliedOffsets) -> LogMove {
        let mut counted = LogMove::default();
        for (partition, (earliest, latest)) in bounds {
            let place = |offsets: &AppliedOffsets| {
                offsets.get(partition).map_or(*earliest, |next| (*next).clamp(*earliest, *latest))
            };
            let (before, after) = (place(before), place(after));
            counted.left += latest - after;
            counted.again += (before - after).max(0);
            counted.skipped += (after - before).max(0);
        }
        counted
    }
}

impl fmt::Display for LogMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Of what it holds, {} left to apply", Counted(self.left, "commands"))?;
        if self.again > 0 {
            write!(f, ", {} of them for a second time", self.again)?;
        }
        match self.skipped {
            0 => Ok(()),
            skipped => {
                write!(f, "; {} skipped, which this store has not applied and will not", Counted(skipped, "commands"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_repeated_and_skipped_is_counted_by_what_the_log_holds() {
        let bounds = Bounds::from([(0, (0, 10)), (1, (5, 10)), (2, (0, 0)), (3, (7, 9))]);
        let beginning = AppliedOffsets::from([(0, 0), (1, 5), (2, 0), (3, 7)]);
        let end = AppliedOffsets::from([(0, 10), (1, 10), (2, 0), (3, 9)]);
        // Partition 1 has deleted what stands before 5, and the store's place in 3 is behind its end.
        let applied = AppliedOffsets::from([(0, 4), (1, 2), (3, 90)]);
        let moved = |before: &AppliedOffsets, after: &AppliedOffsets| {
            let LogMove { left, again, skipped } = LogMove::new(&bounds, before, after);
            (left, again, skipped)
        };
        assert_eq!(moved(&applied, &beginning), (17, 6, 0));
        assert_eq!(moved(&applied, &end), (0, 0, 11));
        assert_eq!(moved(&AppliedOffsets::new(), &end), (0, 0, 17), "nothing of this log has been applied");
        assert_eq!(moved(&applied, &applied), (11, 0, 0));
        let text = LogMove::new(&bounds, &applied, &end).to_string();
        assert_eq!(
            text,
            "Of what it holds, 0 commands left to apply; 11 commands skipped, which this store has not applied and will not"
        );
        let text = LogMove { left: 1, again: 1, skipped: 0 }.to_string();
        assert_eq!(text, "Of what it holds, 1 command left to apply, 1 of them for a second time");
    }
}
