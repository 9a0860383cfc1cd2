//! The refresher: the one thread of an API process that turns feed and store into snapshots and hands them to the shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::command_log::Coverage;
use crate::feed::{FeedError, FeedEvent, FeedSubscriber};
use crate::memory::{self, Occupancy};
use crate::observe::counter::{Counter, Histogram};
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

/// What the refresher counts.
#[derive(Debug)]
pub struct RefresherMetrics {
    /// From receiving changes until the shards were handed the snapshot with them.
    pub refresh_time: Histogram,
    /// Changed todos in each such snapshot.
    pub refresh_todos: Histogram,
    /// Time for reading the whole list.
    pub load_time: Histogram,
    /// Times that changes were missed.
    pub losses: Counter,
}

impl Default for RefresherMetrics {
    fn default() -> RefresherMetrics {
        RefresherMetrics {
            refresh_time: Histogram::of_times(),
            refresh_todos: Histogram::of_sizes(),
            load_time: Histogram::of_times(),
            losses: Counter::default(),
        }
    }
}

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
    /// What it counts.
    pub metrics: Arc<RefresherMetrics>,
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
            std::thread::Builder::new().name("refresher".into()).spawn(move || RefreshLoop::new(parts, stop).run())?;
        Ok(Refresher { thread })
    }

    /// The thread, for whoever waits for its end.
    pub fn into_thread(self) -> JoinHandle<()> {
        self.thread
    }
}

/// What the refresher thread does, turn by turn.
pub struct RefreshLoop {
    parts: RefresherParts,
    stop: Arc<AtomicBool>,
    snapshot: Arc<Snapshot>,
    /// Snapshots that shards may still hold. They are kept until no shard does, so that it is this thread, not a shard,
    /// that frees what they alone own.
    retired: Vec<Arc<Snapshot>>,
    /// When the list is to be read as a whole; `None`: it has never been.
    verify_at: Option<Instant>,
    /// After the next failure to read it.
    pause: Duration,
}

impl RefreshLoop {
    /// A loop that has loaded nothing yet. It makes no more noise about failures once `stop` is set.
    pub fn new(parts: RefresherParts, stop: Arc<AtomicBool>) -> RefreshLoop {
        let snapshot = Arc::new(Snapshot::empty());
        RefreshLoop { parts, stop, snapshot, retired: Vec::new(), verify_at: None, pause: RETRY_PAUSES.0 }
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    fn run(mut self) {
        while !self.stopped() {
            let resume_at = Instant::now() + self.turn(FEED_WAIT);
            while !self.stopped()
                && let Some(rest) = resume_at.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
            {
                std::thread::sleep(rest.min(RETRY_PAUSES.0));
            }
        }
    }

    /// One turn: reads the whole list when that is due, else waits up to `max_wait` for changes; hands the shards a
    /// snapshot if there is something new. The shards go on answering from the last one meanwhile. Returns how long to
    /// pause before the next turn.
    pub fn turn(&mut self, max_wait: Duration) -> Duration {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        let started_at = Instant::now();
        let loaded = match self.verify_at {
            None => self.load_first(),
            Some(verify_at) if Instant::now() >= verify_at => self.reload(),
            Some(_) => return self.follow(max_wait),
        };
        match loaded {
            Ok(()) => {
                // What sorting and reading took is some hundred bytes a todo, and this thread may not allocate for long.
                memory::give_back(true);
                self.use_huge_pages();
                self.parts.metrics.load_time.observe_time(started_at.elapsed());
                self.verify_at = Some(Instant::now() + self.parts.verify_interval);
                self.pause = RETRY_PAUSES.0;
                self.confirm();
                Duration::ZERO
            }
            Err(error) => {
                self.trouble(&format!("reading the whole list: {error}"));
                let pause = self.pause;
                self.pause = (pause * 2).min(RETRY_PAUSES.1);
                pause
            }
        }
    }

    /// A list lives long, and its changes touch it anywhere. It may have grown since the last time, so this is done again
    /// whenever the list has been read.
    fn use_huge_pages(&self) {
        let mut occupancy = Occupancy::default();
        self.snapshot.visit_memory(&mut |address, bytes| occupancy.add(address, bytes));
        let started_at = Instant::now();
        let huge_pages = occupancy.into_huge_pages();
        tracing::debug!(
            huge_pages,
            milliseconds = started_at.elapsed().as_millis(),
            "the list was put into huge pages"
        );
    }

    fn follow(&mut self, max_wait: Duration) -> Duration {
        match self.parts.feed.next(max_wait) {
            Ok(FeedEvent::Current) => {
                self.confirm();
                Duration::ZERO
            }
            Ok(FeedEvent::Changes(sets)) => {
                let received_at = Instant::now();
                self.apply(sets.iter().map(|set| &set.changes));
                let steps = sets.iter().flat_map(|set| &set.steps);
                self.cover(Coverage::Steps(steps.map(|step| (step.partition, step.to)).collect()));
                self.confirm();
                self.parts.metrics.refresh_todos.observe(sets.iter().map(|set| set.changes.len() as u64).sum());
                self.parts.metrics.refresh_time.observe_time(received_at.elapsed());
                SWAP_INTERVAL
            }
            Ok(FeedEvent::Lost { reason }) => {
                self.parts.metrics.losses.add(1);
                tracing::warn!(reason, "changes were missed; comparing the list with the store");
                self.verify_at = Some(Instant::now());
                Duration::ZERO
            }
            Err(error) => {
                self.trouble(&error.to_string());
                RETRY_PAUSES.0
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn trouble(&self, reason: &str) {
        // The feed's other end stops at the same time.
        if !self.stopped() {
            self.parts.status.trouble(Component::Feed, reason);
        }
    }

    fn load_first(&mut self) -> Result<(), FeedError> {
        let started_at = Instant::now();
        let mut builder = SnapshotBuilder::new();
        let offsets = self.parts.feed.load(self.parts.store.as_mut(), &mut |todo| builder.push(&todo))?;
        self.swap(builder.finish(1));
        self.cover(Coverage::Whole(offsets));
        tracing::info!(todos = self.snapshot.len(), milliseconds = started_at.elapsed().as_millis(), "list loaded");
        Ok(())
    }

    /// Reads the list again and applies what differs: a list that is as it should be costs no swap and no second copy.
    fn reload(&mut self) -> Result<(), FeedError> {
        let snapshot = Arc::clone(&self.snapshot);
        let mut reconciler = Reconciler::new(&snapshot);
        let offsets = self.parts.feed.load(self.parts.store.as_mut(), &mut |todo: Todo| reconciler.push(todo))?;
        let changes = reconciler.finish();
        if !changes.is_empty() {
            // Mostly changes that the store has and that are still on their way here.
            tracing::info!(todos = changes.len(), "the list was behind the store and has caught up");
            self.apply([&changes]);
        }
        // Also without a change: commands that changed nothing may have been missed.
        self.cover(Coverage::Whole(offsets));
        Ok(())
    }

    fn confirm(&self) {
        self.parts.status.snapshot_confirmed();
        self.parts.status.well(Component::Feed);
    }

    fn apply<'c>(&mut self, changes: impl IntoIterator<Item = &'c Changes>) {
        let next = self.snapshot.apply(changes);
        self.swap(next);
    }

    /// Tells the shards what the snapshot has taken in, after they have been handed it.
    fn cover(&self, coverage: Coverage) {
        let coverage = Arc::new(coverage);
        for inbox in &self.parts.inboxes {
            inbox.send(Message::Covered(Arc::clone(&coverage)));
        }
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
