//! From one list to the next: applies what has changed, and encodes it for those who follow the list.

use std::sync::Arc;
use std::time::Instant;

use super::{RefreshLoop, Source};
use crate::change_feed::{BatchDraft, News, ResetReason};
use crate::command_log::Coverage;
use crate::feed::{ChangeSet, short_of};
use crate::observe::status::Component;
use crate::snapshot::Snapshot;
use crate::store::{AppliedOffsets, Changes};
use crate::wires::inbox::Message;

/// The progress of a list that has taken in this much of the log.
pub(super) fn progress(offsets: &AppliedOffsets) -> u64 {
    offsets.values().map(|next| u64::try_from(*next).unwrap_or(0)).fold(0, u64::wrapping_add)
}

/// A list in the making, with what it brings to those who follow.
pub(super) struct NextList {
    pub snapshot: Snapshot,
    pub news: News,
    /// How far it has taken in the log.
    pub covered: AppliedOffsets,
}

impl RefreshLoop {
    /// Begins with the present list.
    pub(super) fn next_list(&self) -> NextList {
        let snapshot = Snapshot::clone(&self.snapshot);
        NextList { news: News::since(snapshot.position()), snapshot, covered: self.covered.clone() }
    }

    /// Applies change sets, one after the other: each leads to a position of its own, which other processes have as well, however
    /// many came to them at a time.
    pub(super) fn apply_sets(&self, next: &mut NextList, sets: &[ChangeSet]) {
        for set in sets {
            let steps = set.steps.iter().map(|step| (step.partition, step.to));
            next.covered.extend(steps);
            self.apply_changes(next, &set.changes);
        }
    }

    /// Applies changes that lead to a list of [`NextList::covered`].
    pub(super) fn apply_changes(&self, next: &mut NextList, changes: &Changes) {
        let before = next.snapshot.position();
        let mut draft = BatchDraft::new(self.parts.event_batch_max_bytes);
        let room = self.parts.room.as_deref();
        let applied = next.snapshot.apply_noting([changes], |outcome| {
            room.iter().for_each(|room| room.count(outcome.owner_before, outcome.owner));
            draft.take(&outcome);
        });
        next.snapshot = applied.at_progress(progress(&next.covered));
        let position = next.snapshot.position();
        if position.state == before.state {
            // Todos as they stood, as a worker publishes them that begins again. Who follows need not hear of it.
            draft = BatchDraft::new(0);
        }
        match draft.finish(position) {
            Some(batch) if position != before => next.news.batches.push(Arc::new(batch)),
            Some(_) => {}
            None => next.news = News::anew(ResetReason::TooManyChanges, position),
        }
    }

    /// The list has been read as a whole, and this is what makes it of the present one.
    pub(super) fn apply_differences(&mut self, next: &mut NextList, offsets: AppliedOffsets, changes: &Changes) {
        // A store that was set back to an earlier state, or another one.
        let is_behind = short_of(&offsets, &next.covered).is_some();
        // Whoever reads from the store alone knows why.
        if is_behind && self.alone.is_none() {
            self.setback.suspect(&offsets, &next.covered);
        }
        next.covered = offsets;
        self.apply_changes(next, changes);
        if is_behind {
            tracing::warn!(
                "the list that was read is an earlier one than before: the store was set back. Followers read it again"
            );
            next.news = News::anew(ResetReason::BeganAnew, next.snapshot.position());
        }
    }

    /// Applies what the feed had received behind the list when that was read: only then it is the list of one place.
    pub(super) fn catch_up(&mut self, next: &mut NextList, source: Source) {
        if matches!(source, Source::Feed) {
            let sets = self.parts.feed.catch_up();
            self.apply_sets(next, &sets);
        }
    }

    /// Takes over a list that was read as a whole; the shards hear of it if it is another one.
    pub(super) fn swap_whole(&mut self, next: NextList) {
        let covered = next.covered.clone();
        if next.news.reset.is_some() || next.snapshot.position() != self.snapshot.position() {
            self.swap(next);
        }
        self.cover(Coverage::Whole(covered));
    }

    /// Tells the shards what the snapshot has taken in, after they have been handed it.
    pub(super) fn cover(&mut self, coverage: Coverage) {
        match &coverage {
            Coverage::Whole(offsets) => self.covered.clone_from(offsets),
            Coverage::Steps(steps) => self.covered.extend(steps.iter().copied()),
        }
        let coverage = Arc::new(coverage);
        for inbox in &self.parts.inboxes {
            inbox.send(Message::Covered(Arc::clone(&coverage)));
        }
    }

    pub(super) fn swap(&mut self, NextList { snapshot: next, news, .. }: NextList) {
        self.parts.status.snapshot_swapped(next.version(), next.len(), next.content_length());
        if let Some(room) = &self.parts.room {
            let trouble = room.trouble(next.content_length());
            self.parts.status.shared_troubles().set(Component::Limits, trouble.as_deref());
        }
        let retired = std::mem::replace(&mut self.snapshot, Arc::new(next));
        self.retired.push((retired, Instant::now()));
        let news = Arc::new(news);
        for inbox in &self.parts.inboxes {
            inbox.send(Message::Snapshot(Arc::clone(&self.snapshot), Arc::clone(&news)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_without_commands_move_nothing() {
        assert_eq!(progress(&AppliedOffsets::from([(0, 5), (1, 0), (7, 3)])), 8);
        assert_eq!(progress(&AppliedOffsets::from([(0, 5), (7, 3)])), 8);
        assert_eq!(progress(&AppliedOffsets::new()), 0);
    }
}
