//! Whether so many commands become dead letters that it is no longer about single ones: each was acknowledged, and a cause
//! that all have in common is somebody's to find.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{DEAD_LETTER_BURST, DEAD_LETTER_WINDOW_MS};

/// The dead letters of the last while.
#[derive(Debug, Default)]
pub struct DeadLetterBurst {
    /// When some came, and how many; the oldest first.
    seen: VecDeque<(Instant, u64)>,
    /// All of these.
    sum: u64,
}

impl DeadLetterBurst {
    /// Some more came.
    pub fn add(&mut self, now: Instant, count: u64) {
        if count > 0 {
            self.seen.push_back((now, count));
            self.sum += count;
        }
        self.forget(now);
    }

    /// What is to be said of them; `None` while they are few.
    pub fn reason(&mut self, now: Instant) -> Option<String> {
        self.forget(now);
        (self.sum >= DEAD_LETTER_BURST).then(|| {
            format!(
                "{DEAD_LETTER_BURST} or more commands within {} s could never be applied and were put aside, although they had \
                 been acknowledged. `million-rps dead-letters list` says why; `million-rps dead-letters replay --all` applies \
                 them once the cause is gone",
                DEAD_LETTER_WINDOW_MS / 1_000
            )
        })
    }

    /// Whether none has come within the window.
    pub fn is_over(&self) -> bool {
        self.seen.is_empty()
    }

    fn forget(&mut self, now: Instant) {
        let window = Duration::from_millis(DEAD_LETTER_WINDOW_MS);
        while let Some((at, count)) = self.seen.front()
            && now.saturating_duration_since(*at) > window
        {
            self.sum -= count;
            self.seen.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_within_the_window_are_told_until_they_are_over() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut burst = DeadLetterBurst::default();
        burst.add(at(0), DEAD_LETTER_BURST - 1);
        assert_eq!(burst.reason(at(0)), None, "a few are about themselves");
        burst.add(at(DEAD_LETTER_WINDOW_MS + 1), 1);
        assert_eq!(burst.reason(at(DEAD_LETTER_WINDOW_MS + 1)), None, "the first are long ago");
        burst.add(at(DEAD_LETTER_WINDOW_MS + 2), DEAD_LETTER_BURST - 1);
        assert!(burst.reason(at(DEAD_LETTER_WINDOW_MS + 3)).is_some_and(|text| text.contains("dead-letters list")));
        assert_eq!(burst.reason(at(3 * DEAD_LETTER_WINDOW_MS)), None);
        assert!(burst.is_over());
    }
}
