//! What a worker counts. The worker writes, the scrape reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper bounds of the batch size histogram, in commands; a last bucket takes what is above.
pub const BATCH_SIZE_BOUNDS: [u64; 5] = [1, 10, 100, 1_000, 5_000];

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
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Commands that were applied, those included that changed nothing.
    pub commands: AtomicU64,
    /// Todos that were written or deleted.
    pub changed_todos: AtomicU64,
    /// Records put aside because they could never be applied.
    pub dead_letters: AtomicU64,
    /// Batches that were committed.
    pub batches: AtomicU64,
    /// Batches by their size: bucket `i` counts sizes up to [`BATCH_SIZE_BOUNDS`]`[i]` and above the bound before it.
    pub batch_sizes: [AtomicU64; BATCH_SIZE_BOUNDS.len() + 1],
    /// Time spent in store transactions, those that failed included, in microseconds.
    pub apply_micros: AtomicU64,
    /// Time spent publishing, in microseconds.
    pub publish_micros: AtomicU64,
    /// Attempts that failed and were tried again.
    pub retries: AtomicU64,
    /// Times that another worker had taken a partition over.
    pub fenced: AtomicU64,
    lanes: Mutex<Vec<Lane>>,
}

/// How one lane is.
#[derive(Debug, Default)]
struct Lane {
    state: WorkerState,
    last_error: Option<String>,
    /// `None` when unknown.
    lag: Option<u64>,
}

/// Names a lane to its worker's metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneNumber(usize);

impl WorkerMetrics {
    /// What the worker is doing.
    pub fn state(&self) -> WorkerState {
        self.lanes().iter().map(|lane| lane.state).max().unwrap_or_default()
    }

    /// Why it is [`WorkerState::Retrying`] or has [`WorkerState::Failed`]; `None` when all is well.
    pub fn last_error(&self) -> Option<String> {
        self.lanes().iter().find_map(|lane| lane.last_error.clone())
    }

    /// Records that are written but not yet read; `None` when a lane does not know.
    pub fn lag(&self) -> Option<u64> {
        self.lanes().iter().map(|lane| lane.lag).sum()
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

    pub(super) fn set_lag(&self, lane: LaneNumber, lag: Option<u64>) {
        self.lanes()[lane.0].lag = lag;
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_batch(&self, commands: u64, changed_todos: u64) {
        let bucket = BATCH_SIZE_BOUNDS.partition_point(|bound| *bound < commands);
        add(&self.batch_sizes[bucket], 1);
        add(&self.batches, 1);
        add(&self.commands, commands);
        add(&self.changed_todos, changed_todos);
    }
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

pub(super) fn add_time(counter: &AtomicU64, time: Duration) {
    add(counter, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_counted_in_the_bucket_of_their_size() {
        let metrics = WorkerMetrics::default();
        for size in [0, 1, 2, 10, 11, 5_000, 5_001] {
            metrics.count_batch(size, 0);
        }
        let buckets: Vec<u64> = metrics.batch_sizes.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        assert_eq!(buckets, [2, 2, 1, 0, 1, 1]);
    }

    #[test]
    fn a_lane_in_trouble_is_trouble_of_the_worker_and_lags_add_up() {
        let metrics = WorkerMetrics::default();
        assert_eq!(metrics.state(), WorkerState::Starting);
        let lanes = [metrics.add_lane(), metrics.add_lane()];
        metrics.set_state(lanes[0], WorkerState::Retrying, Some("no store".into()));
        metrics.set_state(lanes[1], WorkerState::Running, None);
        assert_eq!((metrics.state(), metrics.last_error()), (WorkerState::Retrying, Some("no store".into())));
        metrics.set_lag(lanes[1], Some(2));
        assert_eq!(metrics.lag(), None);
        metrics.set_lag(lanes[0], Some(3));
        metrics.set_state(lanes[0], WorkerState::Running, None);
        assert_eq!((metrics.state(), metrics.last_error(), metrics.lag()), (WorkerState::Running, None, Some(5)));
    }
}
