//! The refresher: the one thread of an API process that turns feed and store into snapshots and hands them to the shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::feed::{FeedError, FeedEvent, FeedSubscriber};
use crate::observe::status::{Component, Status};
use crate::shard::inbox::{InboxSender, Message};
use crate::snapshot::{Reconciler, Snapshot, SnapshotBuilder};
use crate::store::{Changes, Store};
use crate::todo::Todo;

/// Least time between two swaps: changes that arrive meanwhile go into one snapshot, so that a flood of writes costs the
/// shards at most 500 swaps a second, and a single write is still seen within a few milliseconds.
const SWAP_INTERVAL: Duration = Duration::from_millis(2);
/// Longest wait for changes before the refresher looks at its other duties (stopping, re-verification).
const FEED_WAIT: Duration = Duration::from_millis(100);
/// First and longest pause after a failure.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What the refresher works with.
pub struct RefresherParts {
    /// Where changes come from.
    pub feed: Box<dyn FeedSubscriber>,
    /// Where the list comes from when the feed does not have it.
    pub store: Box<dyn Store>,
    /// The shards.
    pub inboxes: Vec<InboxSender>,
    /// Where the snapshot's age is told.
    pub status: Arc<Status>,
    /// The list is compared with the store at least this often (`CACHE_TTL_SEC`).
    pub verify_interval: Duration,
}

/// The running refresher thread.
pub struct Refresher {
    thread: JoinHandle<()>,
}

impl Refresher {
    /// Starts the thread; it ends soon after `stop` is set.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub fn start(parts: RefresherParts, stop: Arc<AtomicBool>) -> std::io::Result<Refresher> {
        let thread =
            std::thread::Builder::new().name("refresher".into()).spawn(move || Loop::new(parts, stop).run())?;
        Ok(Refresher { thread })
    }

    /// Waits for the thread's end.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the refresher thread panicked");
        }
    }
}

struct Loop {
    parts: RefresherParts,
    stop: Arc<AtomicBool>,
    snapshot: Arc<Snapshot>,
    /// Snapshots that shards may still hold. They are kept until no shard does, so that it is this thread, not a shard,
    /// that frees what they alone own.
    retired: Vec<Arc<Snapshot>>,
    verify_at: Instant,
}

impl Loop {
    fn new(parts: RefresherParts, stop: Arc<AtomicBool>) -> Loop {
        Loop { parts, stop, snapshot: Arc::new(Snapshot::empty()), retired: Vec::new(), verify_at: Instant::now() }
    }

    fn run(mut self) {
        if !self.retry("loading the list", Loop::load_first) {
            return;
        }
        while !self.stopped() {
            match self.parts.feed.next(FEED_WAIT) {
                Ok(FeedEvent::Current) => self.confirm(),
                Ok(FeedEvent::Changes(sets)) => {
                    self.apply(sets.iter().map(|set| &set.changes));
                    self.confirm();
                    std::thread::sleep(SWAP_INTERVAL);
                }
                Ok(FeedEvent::Lost { reason }) => {
                    tracing::warn!(reason, "changes were missed; comparing the list with the store");
                    self.verify_at = Instant::now();
                }
                // The feed's other end stops at the same time.
                Err(_) if self.stopped() => return,
                Err(error) => {
                    self.parts.status.trouble(Component::Feed, &error.to_string());
                    std::thread::sleep(RETRY_PAUSES.0);
                }
            }
            if Instant::now() >= self.verify_at && !self.retry("comparing the list with the store", Loop::reload) {
                return;
            }
            self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Calls `step` until it succeeds, with growing pauses; `false` when told to stop. The shards go on answering from
    /// the last snapshot meanwhile.
    fn retry(&mut self, what: &str, step: fn(&mut Loop) -> Result<(), FeedError>) -> bool {
        let mut pause = RETRY_PAUSES.0;
        while !self.stopped() {
            match step(self) {
                Ok(()) => return true,
                Err(error) => self.parts.status.trouble(Component::Feed, &format!("{what}: {error}")),
            }
            let resume_at = Instant::now() + pause;
            while Instant::now() < resume_at && !self.stopped() {
                std::thread::sleep(RETRY_PAUSES.0.min(pause));
            }
            pause = (pause * 2).min(RETRY_PAUSES.1);
        }
        false
    }

    fn load_first(&mut self) -> Result<(), FeedError> {
        let started_at = Instant::now();
        let mut builder = SnapshotBuilder::new();
        self.parts.feed.load(self.parts.store.as_mut(), &mut |todo| builder.push(&todo))?;
        self.swap(builder.finish(1));
        self.loaded();
        tracing::info!(todos = self.snapshot.len(), milliseconds = started_at.elapsed().as_millis(), "list loaded");
        Ok(())
    }

    /// Reads the list again and applies what differs: a list that is as it should be costs no swap and no second copy.
    fn reload(&mut self) -> Result<(), FeedError> {
        let snapshot = Arc::clone(&self.snapshot);
        let mut reconciler = Reconciler::new(&snapshot);
        self.parts.feed.load(self.parts.store.as_mut(), &mut |todo: Todo| reconciler.push(todo))?;
        let changes = reconciler.finish();
        if !changes.is_empty() {
            tracing::info!(todos = changes.len(), "the list differed from the store and was put right");
            self.apply([&changes]);
        }
        self.loaded();
        Ok(())
    }

    fn loaded(&mut self) {
        self.verify_at = Instant::now() + self.parts.verify_interval;
        self.confirm();
    }

    fn confirm(&self) {
        self.parts.status.snapshot_confirmed();
        self.parts.status.well(Component::Feed);
    }

    fn apply<'c>(&mut self, changes: impl IntoIterator<Item = &'c Changes>) {
        let next = self.snapshot.apply(changes);
        self.swap(next);
    }

    fn swap(&mut self, next: Snapshot) {
        self.parts.status.snapshot_swapped(next.version(), next.len(), next.content_length());
        let retired = std::mem::replace(&mut self.snapshot, Arc::new(next));
        self.retired.push(retired);
        for inbox in &self.parts.inboxes {
            inbox.send(Message::Snapshot(Arc::clone(&self.snapshot)));
        }
    }
}
