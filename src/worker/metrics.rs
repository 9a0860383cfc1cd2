//! What a worker counts. The worker writes, the scrape reads.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the batch size histogram, in commands; a last bucket takes what is above.
pub const BATCH_SIZE_BOUNDS: [u64; 5] = [1, 10, 100, 1_000, 5_000];

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum WorkerState {
    /// Not running yet.
    Starting = 0,
    /// Applying whatever comes.
    Running = 1,
    /// Something failed and is tried again; [`WorkerMetrics::last_error`] says what.
    Retrying = 2,
    /// Ended as it was told to.
    Stopped = 3,
    /// Ended by an error that would not pass.
    Failed = 4,
}

/// The counters of one worker. All totals count since its start.
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
    /// Records that are written but not yet read; `u64::MAX` when unknown.
    pub lag: AtomicU64,
    last_error: Mutex<Option<String>>,
    state: AtomicU8,
}

impl WorkerMetrics {
    /// What the worker is doing.
    pub fn state(&self) -> WorkerState {
        match self.state.load(Ordering::Relaxed) {
            0 => WorkerState::Starting,
            1 => WorkerState::Running,
            2 => WorkerState::Retrying,
            3 => WorkerState::Stopped,
            _ => WorkerState::Failed,
        }
    }

    /// Why it is [`WorkerState::Retrying`] or has [`WorkerState::Failed`]; `None` when all is well.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_state(&self, state: WorkerState, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        self.state.store(state as u8, Ordering::Relaxed);
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
}
