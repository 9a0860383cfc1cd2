//! Whether the list has all that the store has: the feed may answer while nobody reaches it who could publish.

use std::time::{Duration, Instant};

use super::RefreshLoop;
use super::setback::Setback;
use super::store_alone::jittered;
use crate::feed::short_of;
use crate::limits::{FEED_COMPARE_MS, FEED_COMPARE_PATIENCE_MS, FEED_COMPARE_PAUSE_MS};
use crate::observe::status::Component;
use crate::store::{AppliedOffsets, StoreError};

/// Where the store stood at a moment, which the list is to reach.
pub(super) struct Goal {
    offsets: AppliedOffsets,
    /// When the store was asked. A list that has come so far was current then.
    asked_at: Instant,
    is_reached: bool,
}

impl RefreshLoop {
    /// Compares when that is due.
    pub(super) fn compare_with_store(&mut self) {
        let now = (self.clock)();
        if !self.parts.feed.may_fall_behind() || now < self.compare_at {
            return;
        }
        self.parts.store.set_patience(Some(Duration::from_millis(FEED_COMPARE_PATIENCE_MS)));
        let compared = self.compare(now);
        self.parts.store.set_patience(None);
        let pause_ms = if compared.is_ok() { FEED_COMPARE_MS } else { FEED_COMPARE_PAUSE_MS };
        self.compare_at = (self.clock)() + jittered(Duration::from_millis(pause_ms), (self.chance)());
    }

    fn compare(&mut self, asked_at: Instant) -> Result<(), StoreError> {
        if self.acquaintance.as_ref().is_some_and(|acquaintance| acquaintance.identity.is_none()) {
            // Started while the store was away. If it is another store, the list is read anew, as that one's.
            let identity = self.parts.store.identity()?;
            tracing::info!(?identity, "the store has told whose list this is");
            self.acquaintance = None;
            self.verify_at = Some((self.clock)());
            return Ok(());
        }
        let goal = self.goal.take();
        if let Some(partition) = goal.as_ref().and_then(|goal| short_of(&self.covered, &goal.offsets)) {
            self.parts.metrics.losses.add(1);
            self.go_alone(&format!("the list has stopped behind the store in partition {partition}"));
            // What Redis says to that is the better reason.
            if let Some(alone) = &mut self.alone {
                alone.feed_at = alone.look_at;
            }
            return Ok(());
        }
        let offsets = self.parts.store.applied_offsets()?;
        let is_short = short_of(&offsets, &self.covered).is_some();
        if is_short && self.is_another_store()? {
            self.parts.metrics.losses.add(1);
            self.go_alone("the store is another one by now, as an older copy, and does not have all that the list has");
            return Ok(());
        }
        if (is_short || self.setback.is_open() || self.log.is_none()) && self.is_another_log()? {
            // Offsets of two logs cannot be compared: `migrate` has said where the store stands in this one.
            self.setback = Setback::default();
            self.tell_setback();
            if is_short {
                self.take_back_list(&offsets);
                return Ok(());
            }
        }
        let is_set_back = self.setback.look(&offsets, &self.covered);
        self.tell_setback();
        if is_short {
            if is_set_back {
                self.take_back_list(&offsets);
            }
            // Until then the list is not known to be the store's.
            return Ok(());
        }
        self.goal = Some(Goal { offsets, asked_at, is_reached: false });
        self.confirm_by_goal();
        Ok(())
    }

    /// The list goes beyond the store: from now on it is what the store has, here and in each process that would take it from the
    /// feed.
    fn take_back_list(&mut self, stored: &AppliedOffsets) {
        self.parts.metrics.losses.add(1);
        if let Err(error) = self.parts.feed.set_back(stored) {
            // It is tried again when the list that the feed has is taken and found to be the wrong one.
            tracing::warn!("the feed cannot be told that the store was set back: {error}");
        }
        self.go_alone("the store was set back, and does not have all that the list has");
        if let Some(alone) = &mut self.alone {
            alone.feed_at = alone.look_at;
        }
    }

    /// Says whether the store lacks what was once in the list.
    pub(super) fn tell_setback(&mut self) {
        let trouble = self.setback.trouble();
        if trouble.is_some() || self.is_store_set_back {
            self.is_store_set_back = trouble.is_some();
            self.parts.status.shared_troubles().set(Component::Store, trouble.as_deref());
        }
    }

    /// Whether the store follows another log than it did when this was asked before.
    fn is_another_log(&mut self) -> Result<bool, StoreError> {
        let log = self.parts.store.known_logs()?.followed;
        Ok(self.log.replace(log).is_some_and(|before| before != log))
    }

    /// Whether the store is not the one that the list is of. Its workers publish under another name then, and the changes that are
    /// followed come to nothing more.
    fn is_another_store(&mut self) -> Result<bool, StoreError> {
        let identity = self.parts.store.identity()?;
        Ok(self.acquaintance.as_ref().is_some_and(|acquaintance| acquaintance.identity.as_ref() != Some(&identity)))
    }

    /// Notes that the list was current when the store was asked, as soon as it has what the store had then.
    pub(super) fn confirm_by_goal(&mut self) {
        if let Some(goal) = &mut self.goal
            && !goal.is_reached
            && short_of(&self.covered, &goal.offsets).is_none()
        {
            goal.is_reached = true;
            let ago = (self.clock)().saturating_duration_since(goal.asked_at);
            self.parts.status.snapshot_was_current(ago);
        }
    }
}
