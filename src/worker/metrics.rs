//! What a worker counts. The worker writes, the scrape reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::observe::counter::Histogram;
use crate::observe::dead_letter_burst::DeadLetterBurst;
use crate::observe::topic::TopicFigures;
use crate::observe::troubles::{Component, Troubles};
use crate::todo::Timestamp;

/// What a worker is doing.
///
/// In the order of what has to be told first: of several lanes, the last in this order is that of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum WorkerState {
    /// Applying whatever comes.
    Running,
    /// Not running yet.
    #[default]
    Starting,
    /// Ended as it was told to.
    Stopped,
    /// Something failed and is tried again; [`WorkerMetrics::last_error`] says what.
    Retrying,
    /// Ended by an error that would not pass.
    Failed,
}

/// The counters of one worker, to which all of its lanes add. All totals count since its start.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// Commands that were applied, those included that changed nothing.
    pub commands: AtomicU64,
    /// Todos that were written or deleted.
    pub changed_todos: AtomicU64,
    /// Todos that a batch named and left as they were, which were published as they stood.
    pub found_todos: AtomicU64,
    /// Records put aside because they could never be applied.
    pub dead_letters: AtomicU64,
    /// Members of commands that mean nothing to this version, and were not applied.
    pub unknown_members: AtomicU64,
    /// Batches that were committed.
    pub batches: AtomicU64,
    /// Commands of each batch.
    pub batch_sizes: Histogram,
    /// Time of each store transaction, those that failed included.
    pub apply_time: Histogram,
    /// Time that the worker spent on each attempt to publish, without what it did meanwhile.
    pub publish_time: Histogram,
    /// Attempts that failed and were tried again.
    pub retries: AtomicU64,
    /// Times that another worker had taken a partition over.
    pub fenced: AtomicU64,
    /// Times that the log had lost applied records of a partition, so that the store's place in it was moved back.
    pub moved_back: AtomicU64,
    /// What is in trouble beside the lanes' own work; in a process with an API, those of [`crate::observe::status::Status`].
    pub troubles: Arc<Troubles>,
    /// What is known of Kafka's topic.
    pub topic: Arc<TopicFigures>,
    lanes: Mutex<Vec<Lane>>,
    burst: Mutex<DeadLetterBurst>,
}

/// How one lane is.
#[derive(Debug, Default)]
struct Lane {
    state: WorkerState,
    last_error: Option<String>,
    lag: Lag,
    /// What waits for too long, as text.
    backlog: Option<String>,
}

/// What a lane has not applied.
#[derive(Debug, Clone, Copy)]
struct Lag {
    /// Records that are written but not yet applied; `None` when unknown.
    records: Option<u64>,
    /// When the oldest of them was written, or some time before; `None` when unknown.
    since: Option<Timestamp>,
}

impl Default for Lag {
    fn default() -> Lag {
        Lag { records: Some(0), since: None }
    }
}

impl Lag {
    fn age(self) -> Option<Duration> {
        if self.records == Some(0) {
            return Some(Duration::ZERO);
        }
        let age_us = Timestamp::now().as_micros().saturating_sub(self.since?.as_micros());
        Some(Duration::from_micros(u64::try_from(age_us).unwrap_or_default()))
    }
}

/// Names a lane to its worker's metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneNumber(usize);

impl LaneNumber {
    /// From 0.
    pub fn index(self) -> usize {
        self.0
    }
}

impl Default for WorkerMetrics {
    fn default() -> WorkerMetrics {
        WorkerMetrics {
            commands: AtomicU64::default(),
            changed_todos: AtomicU64::default(),
            found_todos: AtomicU64::default(),
            dead_letters: AtomicU64::default(),
            unknown_members: AtomicU64::default(),
            batches: AtomicU64::default(),
            batch_sizes: Histogram::of_sizes(),
            apply_time: Histogram::of_times(),
            publish_time: Histogram::of_times(),
            retries: AtomicU64::default(),
            fenced: AtomicU64::default(),
            moved_back: AtomicU64::default(),
            troubles: Arc::default(),
            topic: Arc::default(),
            lanes: Mutex::default(),
            burst: Mutex::default(),
        }
    }
}

impl WorkerMetrics {
    /// Metrics of a worker that notes its troubles in `troubles`, and shows these figures of the topic.
    pub fn with_troubles(troubles: Arc<Troubles>, topic: Arc<TopicFigures>) -> WorkerMetrics {
        WorkerMetrics { troubles, topic, ..WorkerMetrics::default() }
    }

    /// What the worker is doing.
    pub fn state(&self) -> WorkerState {
        self.lanes().iter().map(|lane| lane.state).max().unwrap_or_default()
    }

    /// Whether it applies whatever comes: it runs, and what it reads from and writes to answers.
    pub fn is_up(&self) -> bool {
        let cut_off = [Component::StoreLink, Component::LogLink].into_iter().any(|link| self.troubles.has(link));
        self.state() == WorkerState::Running && !cut_off
    }

    /// Why it is [`WorkerState::Retrying`] or has [`WorkerState::Failed`]; `None` when all is well.
    pub fn last_error(&self) -> Option<String> {
        self.lanes().iter().find_map(|lane| lane.last_error.clone())
    }

    /// Records that are written but not yet applied; `None` when a lane does not know.
    pub fn lag(&self) -> Option<u64> {
        self.lanes().iter().map(|lane| lane.lag.records).sum()
    }

    /// How far the store is behind the log: the age of the oldest record that is not applied, or a little more; `None` when
    /// unknown. The clock is that of whoever wrote the record.
    pub fn lag_time(&self) -> Option<Duration> {
        self.lanes().iter().try_fold(Duration::ZERO, |most, lane| Some(most.max(lane.lag.age()?)))
    }

    pub(super) fn add_lane(&self) -> LaneNumber {
        let mut lanes = self.lanes();
        lanes.push(Lane::default());
        LaneNumber(lanes.len() - 1)
    }

    pub(super) fn set_state(&self, lane: LaneNumber, state: WorkerState, error: Option<String>) {
        let lane = &mut self.lanes()[lane.0];
        (lane.state, lane.last_error) = (state, error);
    }

    /// Notes how many records a lane has not applied, and since when; `None` when unknown.
    pub(super) fn set_lag(&self, lane: LaneNumber, records: Option<u64>, since: Option<Timestamp>) {
        self.lanes()[lane.0].lag = Lag { records, since };
    }

    /// The records that a lane has not applied, and the age of the oldest.
    pub(super) fn lag_of(&self, lane: LaneNumber) -> (Option<u64>, Option<Duration>) {
        let lag = self.lanes()[lane.0].lag;
        (lag.records, lag.age())
    }

    /// Shows what waits for too long in a lane, or that nothing does any more.
    pub(super) fn show_backlog(&self, lane: LaneNumber, backlog: Option<String>) {
        let mut lanes = self.lanes();
        lanes[lane.0].backlog = backlog;
        self.troubles.set(Component::Workers, lanes.iter().find_map(|lane| lane.backlog.as_deref()));
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record was put aside.
    pub(super) fn count_dead_letter(&self, now: Instant) {
        add(&self.dead_letters, 1);
        self.burst().add(now, 1);
    }

    /// Tells of a burst of dead letters, and of its end.
    pub(super) fn look_at_dead_letters(&self, now: Instant) {
        if self.dead_letters.load(Ordering::Relaxed) > 0 {
            self.troubles.set(Component::DeadLetters, self.burst().reason(now).as_deref());
        }
    }

    fn burst(&self) -> MutexGuard<'_, DeadLetterBurst> {
        self.burst.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_batch(&self, commands: u64, changed_todos: u64) {
        self.batch_sizes.observe(commands);
        add(&self.batches, 1);
        add(&self.commands, commands);
        add(&self.changed_todos, changed_todos);
    }
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_has_an_age_while_there_is_one() {
        let metrics = WorkerMetrics::default();
        let lane = metrics.add_lane();
        assert_eq!(metrics.lag_time(), Some(Duration::ZERO));
        let minute_ago = Timestamp::from_micros(Timestamp::now().as_micros() - 60_000_000);
        metrics.set_lag(lane, Some(3), Some(minute_ago));
        assert!(metrics.lag_time() >= Some(Duration::from_secs(60)), "{:?}", metrics.lag_time());
        metrics.set_lag(lane, Some(0), Some(minute_ago));
        assert_eq!(metrics.lag_time(), Some(Duration::ZERO));
        metrics.set_lag(lane, None, None);
        assert_eq!(metrics.lag_time(), None);
        let ahead = Timestamp::from_micros(Timestamp::now().as_micros() + 60_000_000);
        metrics.set_lag(lane, Some(1), Some(ahead));
        assert_eq!(metrics.lag_time(), Some(Duration::ZERO), "another machine's clock");
    }

    #[test]
    fn a_lane_in_trouble_is_trouble_of_the_worker_and_lags_add_up() {
        let metrics = WorkerMetrics::default();
        assert_eq!(metrics.state(), WorkerState::Starting);
        assert!(!metrics.is_up());
        let lanes = [metrics.add_lane(), metrics.add_lane()];
        metrics.set_state(lanes[0], WorkerState::Retrying, Some("no store".into()));
        metrics.set_state(lanes[1], WorkerState::Running, None);
        assert_eq!((metrics.state(), metrics.last_error()), (WorkerState::Retrying, Some("no store".into())));
        metrics.set_lag(lanes[0], None, None);
        metrics.set_lag(lanes[1], Some(2), None);
        assert_eq!(metrics.lag(), None);
        metrics.set_lag(lanes[0], Some(3), None);
        metrics.set_state(lanes[0], WorkerState::Running, None);
        assert_eq!((metrics.state(), metrics.last_error(), metrics.lag()), (WorkerState::Running, None, Some(5)));
        assert!(metrics.is_up());
        metrics.troubles.note(Component::FeedLink, "Redis does not answer");
        assert!(metrics.is_up(), "it stores without the feed");
        for link in [Component::StoreLink, Component::LogLink] {
            metrics.troubles.note(link, "no answer");
            assert!(!metrics.is_up());
            metrics.troubles.clear(link);
        }
        assert!(metrics.is_up());
    }
}
