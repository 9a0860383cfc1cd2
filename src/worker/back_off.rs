//! The wait between attempts: it doubles, and jitters so that several workers do not come back together.

use std::time::{Duration, Instant};

use crate::limits::{WORKER_RETRY_MAX_MS, WORKER_RETRY_MIN_MS};

/// When the next attempt is due.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
    due_at: Option<Instant>,
}

impl BackOff {
    /// The last attempt failed, at `now`; `random` is any number, another one each time.
    pub(super) fn grow(&mut self, now: Instant, random: u64) {
        self.due_at = Some(now + delay(self.failures, random));
        self.failures = self.failures.saturating_add(1);
    }

    /// The last attempt succeeded.
    pub(super) fn reset(&mut self) {
        *self = BackOff::default();
    }

    /// Whether no attempt has failed since the last success.
    pub(super) fn is_over(&self) -> bool {
        self.due_at.is_none()
    }

    /// How long to wait from `now` for the next attempt; zero when it is due.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.due_at.map_or(Duration::ZERO, |due_at| due_at.saturating_duration_since(now))
    }
}

/// Between half and all of the doubled delay.
fn delay(failures: u32, random: u64) -> Duration {
    let full_ms = WORKER_RETRY_MIN_MS.saturating_mul(1 << failures.min(32)).min(WORKER_RETRY_MAX_MS);
    Duration::from_micros(full_ms * 500 + random % (full_ms * 500 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_limit() {
        for random in [0, 1, 12_345, u64::MAX] {
            let mut full_ms = WORKER_RETRY_MIN_MS;
            for failures in 0..100 {
                let delay = delay(failures, random);
                let full = Duration::from_millis(full_ms.min(WORKER_RETRY_MAX_MS));
                assert!(delay >= full / 2 && delay <= full, "{failures}: {delay:?}");
                full_ms = full_ms.saturating_mul(2);
            }
        }
    }
}
