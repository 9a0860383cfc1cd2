//! The feed: how changes travel from workers to API processes.
//!
//! Implementations: `in_process` (a channel, when API and worker are one process) and `redis`. Both pass the same suite
//! (`tests/seams/feed_suite.rs`).

pub mod in_process;

#[cfg(feature = "services")]
pub mod redis;
#[cfg(feature = "services")]
mod redis_entry;
#[cfg(feature = "services")]
mod redis_publisher;
#[cfg(feature = "services")]
mod redis_subscriber;

use std::time::Duration;

use crate::store::{AppliedOffsets, Changes, OffsetStep, Store, StoreError};
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
    /// The store was needed and failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Will not pass by itself.
    #[error("{0}")]
    Fatal(String),
}

/// The writing end; a worker owns it.
pub trait FeedPublisher: Send {
    /// Publishes what a batch changed, after its transaction has committed. Change sets that the feed already has are
    /// ignored. Where the feed finds that it never got the steps before this one (a worker died between its commit and
    /// its publishing), it marks the list as lost, so that every API process loads it anew.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`]: publish the same set again before any later one.
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

    /// Tells the feed where the store stands when a worker takes over partitions, before it applies anything to them:
    /// the feed compares, and marks the list as lost where steps are missing.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`]: try again.
    fn resume(&mut self, offsets: &AppliedOffsets) -> Result<(), FeedError>;
}

/// What a subscriber gets.
#[derive(Debug, PartialEq, Eq)]
pub enum FeedEvent {
    /// Apply these, in this order.
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
    /// Loads the whole list, in any order, from the feed where it is warm, else from `store` (one process of a fleet
    /// does so, the others wait for it). After it, [`FeedSubscriber::next`] goes on from exactly there: a change is
    /// seen in the load or after it, at least once.
    ///
    /// Returns how far the log is certainly in the list, or less, never more; the steps of the changes that follow go on
    /// from there.
    ///
    /// # Errors
    /// [`FeedError`]; `each` may have been called before.
    fn load(&mut self, store: &mut dyn Store, each: &mut dyn FnMut(Todo)) -> Result<AppliedOffsets, FeedError>;

    /// Waits up to `max_wait` for changes and takes all that have come.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`]: the link is down; go on calling, it reconnects by itself.
    fn next(&mut self, max_wait: Duration) -> Result<FeedEvent, FeedError>;
}
