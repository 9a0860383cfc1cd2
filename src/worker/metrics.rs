//! What a worker counts. The worker writes, the scrape reads.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::observe::counter::Histogram;
use crate::todo::Timestamp;

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
#[derive(Debug)]
pub struct WorkerMetrics {
    /// Commands that were applied, those included that changed nothing.
    pub commands: AtomicU64,
    /// Todos that were written or deleted.
    pub changed_todos: AtomicU64,
    /// Records put aside because they could never be applied.
    pub dead_letters: AtomicU64,
    /// Batches that were committed.
    pub batches: AtomicU64,
    /// Commands of each batch.
    pub batch_sizes: Histogram,
    /// Time of each store transaction, those that failed included.
    pub apply_time: Histogram,
    /// Time of each attempt to publish.
    pub publish_time: Histogram,
    /// Attempts that failed and were tried again.
    pub retries: AtomicU64,
    /// Times that another worker had taken a partition over.
    pub fenced: AtomicU64,
    /// Records that are written but not yet applied; `u64::MAX` when unknown.
    pub lag: AtomicU64,
    /// When the oldest of them was written, or some time before, in microseconds since 1970; 0 when there is none, `u64::MAX`
    /// when unknown.
    lags_since_us: AtomicU64,
    last_error: Mutex<Option<String>>,
    state: AtomicU8,
}

impl Default for WorkerMetrics {
    fn default() -> WorkerMetrics {
        WorkerMetrics {
            commands: AtomicU64::default(),
            changed_todos: AtomicU64::default(),
            dead_letters: AtomicU64::default(),
            batches: AtomicU64::default(),
            batch_sizes: Histogram::of_sizes(),
            apply_time: Histogram::of_times(),
            publish_time: Histogram::of_times(),
            retries: AtomicU64::default(),
            fenced: AtomicU64::default(),
            lag: AtomicU64::default(),
            lags_since_us: AtomicU64::default(),
            last_error: Mutex::default(),
            state: AtomicU8::default(),
        }
    }
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

    /// How far the store is behind the log: the age of the oldest record that is not applied, or a little more; `None` when
    /// unknown. The clock is that of whoever wrote the record.
    pub fn lag_time(&self) -> Option<Duration> {
        match self.lags_since_us.load(Ordering::Relaxed) {
            0 => Some(Duration::ZERO),
            u64::MAX => None,
            since_us => {
                let now_us = u64::try_from(Timestamp::now().as_micros()).unwrap_or_default();
                Some(Duration::from_micros(now_us.saturating_sub(since_us)))
            }
        }
    }

    /// Notes how many records are not applied, and since when; `None` when unknown.
    pub(super) fn set_lag(&self, records: Option<u64>, since: Option<Timestamp>) {
        self.lag.store(records.unwrap_or(u64::MAX), Ordering::Relaxed);
        let since_us = match records {
            Some(0) => 0,
            _ => since.and_then(|since| u64::try_from(since.as_micros()).ok()).unwrap_or(u64::MAX),
        };
        self.lags_since_us.store(since_us, Ordering::Relaxed);
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
        assert_eq!(metrics.lag_time(), Some(Duration::ZERO));
        let minute_ago = Timestamp::from_micros(Timestamp::now().as_micros() - 60_000_000);
        metrics.set_lag(Some(3), Some(minute_ago));
        assert!(metrics.lag_time() >= Some(Duration::from_secs(60)), "{:?}", metrics.lag_time());
        metrics.set_lag(Some(0), Some(minute_ago));
        assert_eq!(metrics.lag_time(), Some(Duration::ZERO));
        metrics.set_lag(None, None);
        assert_eq!(metrics.lag_time(), None);
        let ahead = Timestamp::from_micros(Timestamp::now().as_micros() + 60_000_000);
        metrics.set_lag(Some(1), Some(ahead));
        assert_eq!(metrics.lag_time(), Some(Duration::ZERO), "another machine's clock");
    }
}
