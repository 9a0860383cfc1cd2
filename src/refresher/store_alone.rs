//! When the refresher reads the list from the store alone, and when it tries its feed again. Times only.

use std::time::{Duration, Instant};

use crate::limits::{
    FEED_EARLY_LOSSES_MAX, FEED_PATIENCE_MS, FEED_RETRY_MAX_MS, FEED_RETRY_MIN_MS, FEED_STEADY_MS, STORE_LOOK_MS,
    STORE_READ_SHARE,
};

/// The list comes from the store alone.
#[derive(Debug)]
pub(super) struct StoreAlone {
    /// Why.
    pub reason: String,
    /// When to look at the store.
    pub look_at: Instant,
    /// When to try the feed.
    pub feed_at: Instant,
}

impl StoreAlone {
    /// What `/ready` says.
    pub fn text(&self) -> String {
        format!("{}; meanwhile the list is read from the store, a little later than it would come", self.reason)
    }

    /// How long nothing is to be done.
    pub fn rest(&self, now: Instant) -> Duration {
        self.look_at.min(self.feed_at).saturating_duration_since(now)
    }
}

/// How the feed has been.
#[derive(Debug)]
pub(super) struct FeedHealth {
    /// Since when it does not answer.
    failing_since: Option<Instant>,
    /// When it was begun to be followed.
    followed_since: Option<Instant>,
    early_losses: u32,
    pause: Duration,
    /// A list that lives no longer than this after it was loaded was lost early.
    steady_after: Duration,
}

impl FeedHealth {
    /// Of a feed whose lists expire after `list_ttl`.
    pub fn new(list_ttl: Duration) -> FeedHealth {
        FeedHealth {
            failing_since: None,
            followed_since: None,
            early_losses: 0,
            pause: Duration::from_millis(FEED_RETRY_MIN_MS),
            steady_after: Duration::from_millis(FEED_STEADY_MS).min(list_ttl / 2),
        }
    }

    /// A list was loaded from it.
    pub fn loaded(&mut self, now: Instant) {
        (self.followed_since, self.failing_since) = (Some(now), None);
    }

    /// It has answered.
    pub fn answered(&mut self, now: Instant) {
        self.failing_since = None;
        if self.is_steady(now) {
            self.early_losses = 0;
            self.pause = Duration::from_millis(FEED_RETRY_MIN_MS);
        }
    }

    fn is_steady(&self, now: Instant) -> bool {
        self.followed_since.is_some_and(|since| now.saturating_duration_since(since) >= self.steady_after)
    }

    /// It has not answered: whether that lasts too long.
    pub fn failed(&mut self, now: Instant) -> bool {
        let since = *self.failing_since.get_or_insert(now);
        now.saturating_duration_since(since) >= Duration::from_millis(FEED_PATIENCE_MS)
    }

    /// The list was lost: whether that happens too often.
    pub fn lost(&mut self, now: Instant) -> bool {
        self.early_losses = if self.is_steady(now) { 0 } else { self.early_losses + 1 };
        self.early_losses > FEED_EARLY_LOSSES_MAX
    }

    /// When to try it next, after it has failed; `chance` is any number.
    pub fn next_try(&mut self, now: Instant, chance: u64) -> Instant {
        let at = now + jittered(self.pause, chance);
        self.pause = (self.pause * 2).min(Duration::from_millis(FEED_RETRY_MAX_MS));
        at
    }
}

/// When to look at the store next, after a look that took `took`.
pub(super) fn next_look(now: Instant, took: Duration, list_ttl: Duration, chance: u64) -> Instant {
    let shortest = Duration::from_millis(STORE_LOOK_MS);
    now + jittered(shortest.max(took * (STORE_READ_SHARE - 1)).min(list_ttl.max(shortest)), chance)
}

/// From two thirds of it to four thirds: what many processes do is spread.
pub(super) fn jittered(pause: Duration, chance: u64) -> Duration {
    let third_us = u64::try_from(pause.as_micros() / 3).unwrap_or(u64::MAX / 4);
    Duration::from_micros(2 * third_us + chance % (2 * third_us + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_around_what_they_should_be() {
        let pause = Duration::from_secs(3);
        for chance in [0, 1, 999_999_999, u64::MAX] {
            let jittered = jittered(pause, chance);
            assert!(jittered >= pause * 2 / 3 && jittered <= pause * 4 / 3, "{jittered:?}");
        }
        assert_eq!(jittered(Duration::ZERO, 7), Duration::ZERO);
    }

    #[test]
    fn a_feed_that_loses_its_list_soon_after_each_load_is_left_for_longer_and_longer() {
        let start = Instant::now();
        let mut health = FeedHealth::new(Duration::from_secs(300));
        for loss in 1..=FEED_EARLY_LOSSES_MAX {
            health.loaded(start);
            assert!(!health.lost(start), "loss {loss}");
        }
        assert!(health.lost(start));
        let pauses: Vec<Duration> = (0..8).map(|_| health.next_try(start, 0) - start).collect();
        assert!(pauses.is_sorted() && pauses[0] < pauses[7], "{pauses:?}");
        let later = start + Duration::from_millis(FEED_STEADY_MS);
        health.answered(later);
        assert!(!health.lost(later), "it was well for long enough");
        assert_eq!(health.next_try(later, 0) - later, pauses[0]);
    }

    #[test]
    fn a_feed_is_waited_for_only_shortly() {
        let start = Instant::now();
        let mut health = FeedHealth::new(Duration::from_secs(300));
        assert!(!health.failed(start));
        let later = start + Duration::from_millis(FEED_PATIENCE_MS);
        health.answered(start);
        assert!(!health.failed(later), "it had answered in between");
        assert!(health.failed(later + Duration::from_millis(FEED_PATIENCE_MS)));
    }

    #[test]
    fn reading_a_long_list_takes_its_share_of_the_time_and_no_more() {
        let (now, ttl) = (Instant::now(), Duration::from_secs(300));
        assert!(next_look(now, Duration::from_secs(10), ttl, 0) >= now + Duration::from_secs(26));
        assert!(next_look(now, Duration::ZERO, ttl, u64::MAX) <= now + Duration::from_millis(STORE_LOOK_MS * 4 / 3));
        assert!(next_look(now, Duration::from_secs(1_000), ttl, u64::MAX) <= now + ttl * 4 / 3);
    }
}
