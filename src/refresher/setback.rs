//! A store that is an earlier state of itself: an older copy of it was put back, or a standby that was behind took over. Only a
//! worker applies again what it lacks, and it may be that none runs.

use std::collections::BTreeMap;

use crate::command_log::{Offset, PartitionId};
use crate::counted::Counted;
use crate::feed::short_of;
use crate::store::AppliedOffsets;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Setback {
    /// How far the list had come when the store was first seen to be short of it. One look alone proves nothing: a worker may
    /// be about to go where `migrate` has said, and tell the feed.
    suspected: Option<AppliedOffsets>,
    /// Where the store stood in partitions since when nobody has moved it, and how far the list had come there.
    lacking: BTreeMap<PartitionId, (Option<Offset>, Offset)>,
}

impl Setback {
    /// Compares how far the store has come with the list, and with the look before; says whether it is found out now that the
    /// store was set back.
    pub fn look(&mut self, stored: &AppliedOffsets, covered: &AppliedOffsets) -> bool {
        self.forget_moved(stored);
        if let Some(suspected) = self.suspected.take()
            && short_of(stored, &suspected).is_some()
        {
            for (partition, had) in suspected {
                let at = stored.get(&partition).copied();
                if at.is_none_or(|at| at < had) {
                    self.lacking.insert(partition, (at, had));
                }
            }
            return true;
        }
        self.suspect(stored, covered);
        false
    }

    /// The list had come farther than this. The next look shows whether the store stays there.
    pub fn suspect(&mut self, stored: &AppliedOffsets, covered: &AppliedOffsets) {
        self.suspected = short_of(stored, covered).map(|_| covered.clone());
    }

    /// Whether the next look may find out something, or has.
    pub fn is_open(&self) -> bool {
        self.suspected.is_some() || !self.lacking.is_empty()
    }

    /// Where somebody has moved the store since, a worker is there, which tells of what it finds.
    pub fn forget_moved(&mut self, stored: &AppliedOffsets) {
        self.lacking.retain(|partition, (at, _)| stored.get(partition).copied() == *at);
    }

    /// What `/ready` says; `None` when the store lacks nothing that was known here.
    pub fn trouble(&self) -> Option<String> {
        let (partition, (at, had)) = self.lacking.first_key_value()?;
        let commands: Offset = self.lacking.values().map(|(at, had)| had - at.unwrap_or(0)).sum();
        let at = at.map_or("has no place".to_owned(), |at| format!("is at {at}"));
        Some(format!(
            "the store stands earlier in the command log than before, by {}: in partition {partition} it {at} and was at {had}. An \
             older copy of it was put back, a standby that was behind took over, or `migrate` has moved its place; or the log has \
             lost records. Lists show what the store holds. Workers apply the commands again that the log has, and name what it has \
             not. Start a worker where none runs",
            Counted(commands, "commands")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(of: &[(PartitionId, Offset)]) -> AppliedOffsets {
        of.iter().copied().collect()
    }

    #[test]
    fn a_store_that_stays_short_of_the_list_was_set_back_until_somebody_moves_it() {
        let (list, older) = (offsets(&[(0, 9), (1, 7), (2, 5)]), offsets(&[(0, 4), (2, 5)]));
        let mut setback = Setback::default();
        assert!(!setback.look(&list, &list));
        assert!(!setback.look(&older, &list) && setback.trouble().is_none(), "one look proves nothing");
        // By then the list may have been read from the store again.
        assert!(setback.look(&older, &older));
        let trouble = setback.trouble().expect("it lacks something");
        assert!(trouble.contains("by 12 commands") && trouble.contains("it is at 4 and was at 9"), "{trouble}");
        assert!(!setback.look(&older, &older) && setback.trouble().is_some(), "said once, and true as long as it is");
        setback.look(&offsets(&[(0, 6), (2, 5)]), &older);
        let trouble = setback.trouble().expect("one partition has not moved");
        assert!(trouble.contains("by 7 commands") && trouble.contains("partition 1 it has no place"), "{trouble}");
        setback.forget_moved(&list);
        assert_eq!(setback.trouble(), None);
    }

    #[test]
    fn a_list_that_was_read_as_an_earlier_one_is_looked_at_again() {
        let (list, older) = (offsets(&[(0, 9)]), offsets(&[(0, 4)]));
        let mut setback = Setback::default();
        setback.suspect(&older, &list);
        assert!(setback.is_open() && setback.look(&older, &older) && setback.trouble().is_some());
    }

    #[test]
    fn a_worker_that_goes_back_and_applies_again_is_no_setback() {
        let (list, older) = (offsets(&[(0, 9)]), offsets(&[(0, 4)]));
        let mut setback = Setback::default();
        assert!(!setback.look(&older, &list));
        assert!(!setback.look(&offsets(&[(0, 9)]), &older), "it has come as far as the list had");
        assert!(!setback.look(&list, &list));
        assert_eq!(setback.trouble(), None);
    }
}
