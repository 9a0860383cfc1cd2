//! The refresher: the one thread of an API process that turns feed and store into snapshots and hands them to the shards.
//!
//! It follows the feed. While that fails, or stays behind the store, it reads the list from the store alone: it asks for the
//! offsets, and reads the list when they have moved. Then it tries the feed again, less and less often.

mod changes;
mod comparison;
pub mod metrics;
mod setback;
mod store_alone;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::change_feed::{News, ResetReason};
use crate::command_log::{Coverage, LogId};
use crate::feed::{Acquaintance, FeedError, FeedEvent, FeedSubscriber};
use crate::limits::FEED_COMPARE_MS;
use crate::memory::{self, Occupancy};
use crate::observe::status::{Component, Status};
use crate::shard::writes::room::ListRoom;
use crate::snapshot::{HashKeys, OldLists, Reconciler, Snapshot, SnapshotBuilder};
use crate::store::{AppliedOffsets, Store};
use crate::todo::{IDEMPOTENCY, IdKey, Todo};
use crate::wires::inbox::{InboxSender, Message};
use changes::{NextList, progress};
use comparison::Goal;
use metrics::RefresherMetrics;
use setback::Setback;
use store_alone::{FeedHealth, StoreAlone, jittered, next_look};

/// Least time between two swaps: changes that arrive meanwhile go into one snapshot, so that a flood of writes costs the
/// shards at most 500 swaps a second, and a single write is still seen within a few milliseconds.
const SWAP_INTERVAL: Duration = Duration::from_millis(2);
/// Longest wait for changes before the refresher looks at its other duties (stopping, re-verification).
const FEED_WAIT: Duration = Duration::from_millis(100);
/// How long a version has to be old before who holds it counts as a slow reader: by then each shard has taken the next.
const HELD_AFTER: Duration = Duration::from_millis(200);
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
    /// What it counts.
    pub metrics: Arc<RefresherMetrics>,
    /// The list is compared with the store at least this often (`CACHE_TTL_SEC`).
    pub verify_interval: Duration,
    /// How much the list may hold, where that is limited.
    pub room: Option<Arc<ListRoom>>,
    /// Where it tells what old versions hold.
    pub old_lists: Arc<OldLists>,
    /// Most bytes that the change feed tells of a batch; of a larger one it tells that the list has to be read again.
    pub event_batch_max_bytes: usize,
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
    /// that frees what they alone own. With the moments at which they became old, which is also their order.
    retired: Vec<(Arc<Snapshot>, Instant)>,
    /// When the list is to be read as a whole; `None`: it has never been.
    verify_at: Option<Instant>,
    /// After the next failure to read it.
    pause: Duration,
    /// How far the snapshot has taken in the log.
    covered: AppliedOffsets,
    /// What is known of the deployment.
    acquaintance: Option<Acquaintance>,
    feed: FeedHealth,
    /// While the list comes from the store alone.
    alone: Option<StoreAlone>,
    /// When to compare the list with the store by its offsets.
    compare_at: Instant,
    goal: Option<Goal>,
    setback: Setback,
    /// The log that the store follows; `None` as long as nobody has asked.
    log: Option<Option<LogId>>,
    /// Whether the status says that it was.
    is_store_set_back: bool,
    /// Whether the feed's trouble in the status is of this thread.
    is_in_trouble: bool,
    clock: Box<dyn Fn() -> Instant + Send>,
    /// A random number, for jitter.
    chance: Box<dyn FnMut() -> u64 + Send>,
}

/// Where a list is read from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Feed,
    Store,
}

impl RefreshLoop {
    /// A loop that has loaded nothing yet. It makes no more noise about failures once `stop` is set.
    pub fn new(parts: RefresherParts, stop: Arc<AtomicBool>) -> RefreshLoop {
        let snapshot = Arc::new(Snapshot::empty(HashKeys::new(&[0; 32])));
        let now = Instant::now();
        RefreshLoop {
            feed: FeedHealth::new(parts.verify_interval),
            parts,
            stop,
            snapshot,
            retired: Vec::new(),
            verify_at: None,
            pause: RETRY_PAUSES.0,
            covered: AppliedOffsets::new(),
            acquaintance: None,
            alone: None,
            compare_at: now,
            goal: None,
            setback: Setback::default(),
            log: None,
            is_store_set_back: false,
            is_in_trouble: false,
            clock: Box::new(Instant::now),
            chance: Box::new(|| RandomState::new().hash_one(())),
        }
    }

    /// Takes the time and its random numbers from elsewhere than the system, for tests that play hours in a moment and can be
    /// played again.
    pub fn with_clock_and_chance(
        self,
        clock: impl Fn() -> Instant + Send + 'static,
        chance: impl FnMut() -> u64 + Send + 'static,
    ) -> RefreshLoop {
        RefreshLoop { compare_at: clock(), clock: Box::new(clock), chance: Box::new(chance), ..self }
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
        self.retired.retain(|(snapshot, _)| Arc::strong_count(snapshot) > 1);
        self.measure_old_lists();
        let now = (self.clock)();
        if self.verify_at.is_none_or(|verify_at| now >= verify_at) {
            return self.read_whole();
        }
        if self.alone.is_some() {
            return self.look_at_store();
        }
        self.compare_with_store();
        self.follow(max_wait)
    }

    /// Reads the whole list: from the feed, or from the store when the feed fails.
    fn read_whole(&mut self) -> Duration {
        let read = self.read_from_feed().or_else(|error| match error {
            FeedError::Store(error) => Err(error.to_string()),
            error => {
                self.go_alone(&error.to_string());
                self.read_list(Source::Store).map_err(|store_error| format!("{error}; and {store_error}"))
            }
        });
        match read {
            Ok(()) => {
                self.verify_at = Some((self.clock)() + self.parts.verify_interval);
                self.pause = RETRY_PAUSES.0;
                Duration::ZERO
            }
            Err(reason) => {
                self.trouble(&format!("reading the whole list: {reason}"));
                let pause = self.pause;
                self.pause = (pause * 2).min(RETRY_PAUSES.1);
                pause
            }
        }
    }

    /// Reads the whole list from the feed, and follows it from then on.
    fn read_from_feed(&mut self) -> Result<(), FeedError> {
        let known = self.acquaintance.as_ref().is_some_and(|acquaintance| acquaintance.identity.is_some());
        // While there is trouble, it may be that the store is another one by now.
        if !known || self.alone.is_some() {
            let acquaintance = self.parts.feed.identify(self.parts.store.as_mut())?;
            self.introduce(acquaintance);
        }
        self.read_list(Source::Feed)?;
        if self.alone.take().is_some() {
            tracing::info!("the feed is followed again");
        }
        let now = (self.clock)();
        self.feed.loaded(now);
        (self.goal, self.compare_at) = (None, now + jittered(Duration::from_millis(FEED_COMPARE_MS), (self.chance)()));
        self.confirm();
        Ok(())
    }

    /// Takes over what is known of the deployment, and tells the shards its part.
    fn introduce(&mut self, acquaintance: Acquaintance) {
        if self.acquaintance.as_ref() != Some(&acquaintance)
            && let Some(identity) = &acquaintance.identity
        {
            let key = IdKey::new(identity.key(IDEMPOTENCY));
            self.parts.inboxes.iter().for_each(|inbox| inbox.send(Message::IdKey(key.clone())));
        }
        self.acquaintance = Some(acquaintance);
    }

    /// From now on the list comes from the store alone.
    fn go_alone(&mut self, reason: &str) {
        let (now, chance) = ((self.clock)(), (self.chance)());
        let feed_at = self.feed.next_try(now, chance);
        self.goal = None;
        let alone = self.alone.insert(StoreAlone { reason: reason.to_owned(), look_at: now, feed_at });
        let text = alone.text();
        self.trouble(&text);
    }

    /// Looks whether the store has something new, and tries the feed when that is due: then it is known how far the feed's list
    /// has to reach.
    fn look_at_store(&mut self) -> Duration {
        let is_due = |at: Option<Instant>, now: Instant| at.is_some_and(|at| now >= at);
        if is_due(self.alone.as_ref().map(|alone| alone.look_at), (self.clock)()) {
            let started_at = (self.clock)();
            let looked = match self.parts.store.applied_offsets() {
                Ok(offsets) => {
                    self.setback.forget_moved(&offsets);
                    self.tell_setback();
                    if offsets == self.covered { Ok(()) } else { self.read_list(Source::Store) }
                }
                Err(error) => Err(error.into()),
            };
            let now = (self.clock)();
            let look_at = next_look(now, now - started_at, self.parts.verify_interval, (self.chance)());
            if let Some(alone) = &mut self.alone {
                alone.look_at = look_at;
                let reason = alone.text();
                match looked {
                    Ok(()) => {
                        self.parts.status.snapshot_confirmed();
                        self.trouble(&reason);
                    }
                    Err(error) => self.trouble(&format!("{reason}; and that fails: {error}")),
                }
            }
        }
        if is_due(self.alone.as_ref().map(|alone| alone.feed_at), (self.clock)()) {
            match self.read_from_feed() {
                Ok(()) => return Duration::ZERO,
                Err(error) => {
                    let look_at = self.alone.as_ref().map(|alone| alone.look_at);
                    self.go_alone(&error.to_string());
                    if let (Some(alone), Some(look_at)) = (&mut self.alone, look_at) {
                        alone.look_at = look_at;
                    }
                }
            }
        }
        self.alone.as_ref().map_or(Duration::ZERO, |alone| alone.rest((self.clock)()))
    }

    fn measure_old_lists(&self) {
        let Some(settled_at) = Instant::now().checked_sub(HELD_AFTER) else { return };
        let settled = self.retired.partition_point(|(_, retired_at)| *retired_at <= settled_at);
        let later = self.retired[1.min(settled)..].iter().map(|(snapshot, _)| snapshot).chain([&self.snapshot]);
        let held = self.retired[..settled].iter().zip(later);
        let held_bytes = held.map(|((old, _), later)| old.held_beside(later)).sum();
        let settled_version = self.retired[..settled].last().map_or(0, |(snapshot, _)| snapshot.version());
        self.parts.old_lists.measured(&self.snapshot, settled_version, held_bytes);
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
        let event = self.parts.feed.next(max_wait);
        let now = (self.clock)();
        match event {
            Ok(FeedEvent::Current) => {
                self.feed.answered(now);
                self.confirm();
                Duration::ZERO
            }
            Ok(FeedEvent::Changes(sets)) if sets.is_empty() => {
                self.feed.answered(now);
                Duration::ZERO
            }
            Ok(FeedEvent::Changes(sets)) => {
                let received_at = Instant::now();
                self.feed.answered(now);
                let mut next = self.next_list();
                self.apply_sets(&mut next, &sets);
                self.swap(next);
                let steps = sets.iter().flat_map(|set| &set.steps);
                self.cover(Coverage::Steps(steps.map(|step| (step.partition, step.to)).collect()));
                self.confirm();
                self.parts.metrics.refresh_todos.observe(sets.iter().map(|set| set.changes.len() as u64).sum());
                self.parts.metrics.refresh_time.observe_time(received_at.elapsed());
                SWAP_INTERVAL
            }
            Ok(FeedEvent::Lost { reason }) => {
                self.parts.metrics.losses.add(1);
                if self.feed.lost(now) {
                    self.go_alone(&reason);
                } else {
                    tracing::warn!(reason, "changes were missed; comparing the list with the store");
                    self.verify_at = Some(now);
                }
                Duration::ZERO
            }
            Err(error) => {
                self.trouble(&error.to_string());
                if self.feed.failed(now) {
                    self.go_alone(&error.to_string());
                }
                RETRY_PAUSES.0
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn trouble(&mut self, reason: &str) {
        // The feed's other end stops at the same time.
        if !self.stopped() {
            self.is_in_trouble = true;
            self.parts.status.trouble(Component::Feed, reason);
        }
    }

    /// Reads the list from there. The first time it is built; later what differs is applied, so that a list that is as it should be
    /// costs no swap and no second copy.
    fn read_list(&mut self, source: Source) -> Result<(), FeedError> {
        let started_at = Instant::now();
        let mut next = self.next_list();
        let RefresherParts { feed, store, .. } = &mut self.parts;
        let (store, at_least) = (store.as_mut(), &self.covered);
        let mut read = |each: &mut dyn FnMut(Todo)| match source {
            Source::Feed => feed.load(store, at_least, each),
            Source::Store => store.scan(each).map_err(FeedError::Store),
        };
        let keys = self.acquaintance.as_ref().map(|acquaintance| HashKeys::new(&acquaintance.entity_tag_key));
        let keys = keys.unwrap_or(self.snapshot.keys());
        if self.verify_at.is_none() || keys != self.snapshot.keys() {
            let mut builder = SnapshotBuilder::new(keys);
            let offsets = read(&mut |todo| builder.push(&todo))?;
            let list = builder.finish(self.snapshot.version() + 1);
            self.parts.room.iter().for_each(|room| room.count_all(&list));
            let list = list.at_progress(progress(&offsets));
            next = NextList {
                news: News::anew(ResetReason::BeganAnew, list.position()),
                snapshot: list,
                covered: offsets,
            };
            self.catch_up(&mut next, source);
            self.swap_whole(next);
            tracing::info!(todos = self.snapshot.len(), milliseconds = started_at.elapsed().as_millis(), "list loaded");
        } else {
            let snapshot = Arc::clone(&self.snapshot);
            let mut reconciler = Reconciler::new(&snapshot);
            let offsets = read(&mut |todo| reconciler.push(todo))?;
            let changes = reconciler.finish();
            if !changes.is_empty() {
                match source {
                    // Mostly changes that the store has and that are still on their way here.
                    Source::Feed => {
                        tracing::info!(todos = changes.len(), "the list was behind the store and has caught up")
                    }
                    Source::Store => tracing::debug!(todos = changes.len(), "the store's list was read"),
                }
            }
            // Also without a change: commands that changed nothing may have been missed.
            self.apply_differences(&mut next, offsets, &changes);
            self.catch_up(&mut next, source);
            self.swap_whole(next);
        }
        // What sorting and reading took is some hundred bytes a todo, and this thread may not allocate for long.
        memory::give_back(true);
        self.use_huge_pages();
        self.parts.metrics.load_time.observe_time(started_at.elapsed());
        // What the feed has need not be all that the store has; the comparison tells.
        let is_first = self.parts.status.snapshot_age().is_none();
        if is_first || matches!(source, Source::Store) {
            self.parts.status.snapshot_confirmed();
        }
        Ok(())
    }

    /// The feed has answered. Where it may fall behind, that alone proves nothing about the store.
    fn confirm(&mut self) {
        match self.parts.feed.may_fall_behind() {
            false => self.parts.status.snapshot_confirmed(),
            true => self.confirm_by_goal(),
        }
        if std::mem::take(&mut self.is_in_trouble) {
            self.parts.status.well(Component::Feed);
        }
    }
}
