//! The worker's way to the feed. The store is the system of record, so a feed that fails does not hold it up: after a short
//! try the worker leaves sets out, and when the feed answers again it compares and marks the list as lost.

use std::time::{Duration, Instant};

use super::back_off::BackOff;
use super::work::Work;
use super::{Partition, Trouble, Worker};
use crate::command_log::PartitionId;
use crate::feed::{ChangeSet, FeedError, FeedPublisher};
use crate::limits::FEED_PATIENCE_MS;
use crate::observe::troubles::Component;
use crate::store::{AppliedOffsets, OffsetStep};

/// A set on its way to the feed.
pub(super) struct Sent {
    pub(super) set: ChangeSet,
    /// Time that the worker has spent on it so far.
    pub(super) spent: Duration,
}

/// The writing end of the feed, and how it is.
pub(super) struct Outlet {
    pub(super) publisher: Box<dyn FeedPublisher>,
    /// When the first attempt to publish the set at hand failed.
    failing_since: Option<Instant>,
    /// Since sets were left out: when to ask the feed again.
    behind: Option<BackOff>,
}

/// What becomes of a set that was not published.
enum Fate {
    /// It is to be published again, soon.
    TryAgain(FeedError),
    /// It is left out.
    LeftOut,
}

impl Outlet {
    pub(super) fn new(publisher: Box<dyn FeedPublisher>) -> Outlet {
        Outlet { publisher, failing_since: None, behind: None }
    }

    /// Whether sets are left out.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Whether the feed is to be asked again.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.behind.as_ref().is_some_and(|back_off| back_off.wait(now).is_zero())
    }

    /// The feed has taken what it was given.
    pub(super) fn succeeded(&mut self) {
        (self.failing_since, self.behind) = (None, None);
    }

    /// The feed has not taken a set, at `now`; `random` is any number.
    fn failed(&mut self, error: FeedError, now: Instant, random: u64) -> Fate {
        let since = *self.failing_since.get_or_insert(now);
        let is_short = now.saturating_duration_since(since) < Duration::from_millis(FEED_PATIENCE_MS);
        if matches!(error, FeedError::Busy(_)) || (is_short && matches!(error, FeedError::Unavailable(_))) {
            return Fate::TryAgain(error);
        }
        self.fell_behind(now, random);
        Fate::LeftOut
    }

    /// From now on sets are left out, or the feed was asked in vain.
    pub(super) fn fell_behind(&mut self, now: Instant, random: u64) {
        self.failing_since = None;
        self.behind.get_or_insert_default().grow(now, random);
    }
}

impl Worker {
    /// Hands a committed batch to the feed. Its answer is for [`Worker::settle`]: the next batch is read and applied
    /// meanwhile, but not while there is trouble.
    pub(super) fn publish(&mut self, set: ChangeSet) -> Result<(), Trouble> {
        debug_assert!(self.sent.is_none(), "sets are published in their order");
        if self.outlet.is_behind() {
            return self.finish(&set);
        }
        let started_at = Instant::now();
        if let Err(error) = self.outlet.publisher.begin(&set) {
            self.metrics.publish_time.observe_time(started_at.elapsed());
            return self.take_back(set, error);
        }
        self.sent = Some(Sent { set, spent: started_at.elapsed() });
        if self.back_off.is_over() { Ok(()) } else { self.settle() }
    }

    /// Waits for the feed's answer, if one is to come, and tells the log that the batch is finished.
    pub(super) fn settle(&mut self) -> Result<(), Trouble> {
        let Some(Sent { set, spent }) = self.sent.take() else { return Ok(()) };
        let started_at = Instant::now();
        let published = self.outlet.publisher.finish();
        self.metrics.publish_time.observe_time(spent + started_at.elapsed());
        match published {
            Ok(()) => {
                self.outlet.succeeded();
                self.finish(&set)
            }
            Err(error) => self.take_back(set, error),
        }
    }

    /// A set that the feed has not taken is published before all that came later, or left out.
    fn take_back(&mut self, set: ChangeSet, error: FeedError) -> Result<(), Trouble> {
        let reason = error.to_string();
        match self.outlet.failed(error, (self.clock)(), (self.chance)()) {
            Fate::TryAgain(error) => {
                self.work.push_front(Work::Publish(set));
                Err(error.into())
            }
            Fate::LeftOut => {
                self.note_behind(&reason);
                self.finish(&set)
            }
        }
    }

    /// Tells the log that a batch is finished.
    fn finish(&mut self, set: &ChangeSet) -> Result<(), Trouble> {
        let owned = |step: &&OffsetStep| self.partitions.contains_key(&step.partition);
        if set.steps.iter().filter(owned).any(|step| self.reader.would_delete(step.partition, step.to)) {
            // If this fails, the log keeps the commands until a later batch is finished.
            self.store.make_durable()?;
        }
        for step in set.steps.iter().filter(owned) {
            self.reader.applied(step.partition, step.to);
        }
        Ok(())
    }

    /// Tells the feed where the store stands in these partitions. When it does not answer, sets are left out until it does.
    pub(super) fn resume(&mut self, offsets: &AppliedOffsets) -> Result<(), Trouble> {
        if self.outlet.is_behind() {
            return Ok(());
        }
        match self.outlet.publisher.resume(offsets) {
            Ok(()) => Ok(()),
            Err(error @ FeedError::Busy(_)) => Err(error.into()),
            Err(error) => {
                self.outlet.fell_behind((self.clock)(), (self.chance)());
                self.note_behind(&error.to_string());
                Ok(())
            }
        }
    }

    /// After sets were left out: tells the feed where the store stands, as soon as it answers.
    pub(super) fn catch_up(&mut self) {
        if !self.outlet.is_due((self.clock)()) {
            return;
        }
        let applied = |(id, partition): (&PartitionId, &Partition)| match partition {
            Partition::Started { applied } => Some((*id, (*applied)?)),
            Partition::Waiting(_) => None,
        };
        let offsets: AppliedOffsets = self.partitions.iter().filter_map(applied).collect();
        match self.outlet.publisher.resume(&offsets) {
            Ok(()) => {
                self.outlet.succeeded();
                tracing::info!("the feed takes changes again; what it missed is loaded from the store");
                self.metrics.troubles.clear(Component::Feed);
            }
            Err(error) => {
                self.outlet.fell_behind((self.clock)(), (self.chance)());
                self.note_behind(&error.to_string());
            }
        }
    }

    fn note_behind(&self, reason: &str) {
        let reason = format!("changes are stored and not published, so lists are read from the store: {reason}");
        self.metrics.troubles.note(Component::Feed, &reason);
    }
}
