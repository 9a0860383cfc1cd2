//! The feed: how changes travel from workers to API processes.
//!
//! Implementations: `in_process` (a channel, when API and worker are one process) and `redis`. Both pass the same suite
//! (`tests/seams/feed_suite.rs`).

pub mod in_process;

#[cfg(feature = "services")]
pub mod redis;

use std::time::Duration;

use crate::command_log::{Offset, PartitionId};
use crate::store::{AppliedOffsets, Changes, Identity, OffsetStep, Store, StoreError};
use crate::todo::Todo;

/// The changes of one applied batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeSet {
    /// The steps that the batch made in the log; they say whether anything between was missed.
    pub steps: Vec<OffsetStep>,
    /// What it changed.
    pub changes: Changes,
}

/// What can go wrong with the feed.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// May pass: try again.
    #[error("the feed is unavailable: {0}")]
    Unavailable(String),
    /// It works, and has no room at this moment: try again until it has.
    #[error("the feed is busy: {0}")]
    Busy(String),
    /// The store was needed and failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Will not pass by itself.
    #[error("{0}")]
    Fatal(String),
}

/// What a refresher has to know of its deployment before it loads a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquaintance {
    /// The key of entity tags: [`Identity::key`] of [`ENTITY_TAGS`].
    pub entity_tag_key: [u8; 32],
    /// The whole identity; `None` as long as the store could not be asked.
    pub identity: Option<Identity>,
}

/// What the key of entity tags is derived for.
pub const ENTITY_TAGS: &[u8] = b"entity-tags";

impl From<Identity> for Acquaintance {
    fn from(identity: Identity) -> Acquaintance {
        Acquaintance { entity_tag_key: identity.key(ENTITY_TAGS), identity: Some(identity) }
    }
}

/// The writing end; a worker owns it.
pub trait FeedPublisher: Send {
    /// Says whose changes these are. To be called before anything else, and again when it may have changed: several
    /// deployments may share what is behind a feed.
    fn identify(&mut self, identity: &Identity);

    /// Publishes what a batch changed, after its transaction has committed. Change sets that the feed already has are
    /// ignored. Where the feed finds that it never got the steps before this one (a worker died between its commit and
    /// its publishing), it marks the list as lost, so that every API process loads it anew.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`] or [`FeedError::Busy`]: publish the same set again before any later one, or none until
    /// [`FeedPublisher::resume`] has succeeded.
    fn publish(&mut self, set: &ChangeSet) -> Result<(), FeedError>;

    /// Begins to publish a set, as [`FeedPublisher::publish`] does it, and need not wait for the feed's answer: the next call is
    /// [`FeedPublisher::finish`].
    ///
    /// # Errors
    /// As for [`FeedPublisher::publish`]; then there is nothing to finish.
    fn begin(&mut self, set: &ChangeSet) -> Result<(), FeedError> {
        self.publish(set)
    }

    /// Waits until the set is published that was begun last.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`]: nobody knows whether it is. Publish the same set again before any later one.
    fn finish(&mut self) -> Result<(), FeedError> {
        Ok(())
    }

    /// Tells the feed where the store stands, when a worker takes over partitions, before it applies anything to them, and after
    /// it has given up to publish: the feed compares, and marks the list as lost where steps are missing.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`]: try again.
    fn resume(&mut self, offsets: &AppliedOffsets) -> Result<(), FeedError>;
}

/// What a subscriber gets.
#[derive(Debug, PartialEq, Eq)]
pub enum FeedEvent {
    /// Apply these, in this order; none where a part of a batch has come and the rest has not.
    Changes(Vec<ChangeSet>),
    /// Changes were missed: call [`FeedSubscriber::load`] again.
    Lost {
        /// Why, for the log.
        reason: String,
    },
    /// Nothing came within the wait, and the link is alive: the list is current.
    Current,
}

/// The reading end; the refresher owns it.
pub trait FeedSubscriber: Send {
    /// Says whose list this is, as the store tells it. Where the store cannot be asked, it is what this end has been told before, or
    /// what others of the deployment have left for it in the feed. To be called before the first load.
    ///
    /// # Errors
    /// [`FeedError`]: nobody could be asked.
    fn identify(&mut self, store: &mut dyn Store) -> Result<Acquaintance, FeedError>;

    /// Whether changes can fail to come although this end gets its answers, so that its list has to be compared with the store.
    fn may_fall_behind(&self) -> bool;

    /// Loads the whole list, in any order, from the feed where it is warm, else from `store` (one process of a fleet
    /// does so, the others wait for it). After it, [`FeedSubscriber::next`] goes on from exactly there: a change is
    /// seen in the load or after it, at least once. A list in the feed that does not reach `at_least` is not taken.
    ///
    /// Returns how far the log is certainly in the list, or less, never more; the steps of the changes that follow go on
    /// from there.
    ///
    /// # Errors
    /// [`FeedError`]; `each` may have been called before.
    fn load(
        &mut self,
        store: &mut dyn Store,
        at_least: &AppliedOffsets,
        each: &mut dyn FnMut(Todo),
    ) -> Result<AppliedOffsets, FeedError>;

    /// Takes the changes that have come behind a list while it was loaded, so that it is the list of one place with them. Who
    /// does not gets them by [`FeedSubscriber::next`].
    fn catch_up(&mut self) -> Vec<ChangeSet> {
        Vec::new()
    }

    /// The store was set back, and stands here: a list that goes beyond it is dropped, so that no process takes it any more.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`]: try again.
    fn set_back(&mut self, _stored: &AppliedOffsets) -> Result<(), FeedError> {
        Ok(())
    }

    /// Waits up to `max_wait` for changes and takes all that have come.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`]: the link is down; go on calling, it reconnects by itself.
    fn next(&mut self, max_wait: Duration) -> Result<FeedEvent, FeedError>;
}

/// The first partition in which `offsets` do not reach `goal`.
pub fn short_of(offsets: &AppliedOffsets, goal: &AppliedOffsets) -> Option<PartitionId> {
    let reaches = |(partition, next): &(&PartitionId, &Offset)| offsets.get(partition).is_some_and(|at| at >= *next);
    goal.iter().find(|step| !reaches(step)).map(|(partition, _)| *partition)
}
