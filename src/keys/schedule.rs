//! When a key set is fetched: pure, so that a day can be played in a moment. All times are in milliseconds of one clock.

use crate::limits::{KEY_FETCH_ASKED_INTERVAL_SEC, KEY_FETCH_RETRY_MAX_MS, KEY_FETCH_RETRY_MIN_MS};

/// Least time between two fetches of a set that came well, unless `JWT_JWKS_REFRESH_SEC` is shorter.
const WELL_MIN_MS: u64 = KEY_FETCH_ASKED_INTERVAL_SEC as u64 * 1000;

/// When the next fetch is due.
#[derive(Debug)]
pub struct Schedule {
    refresh_ms: u64,
    due_at_ms: u64,
    last_at_ms: Option<u64>,
    failures: u32,
}

impl Schedule {
    /// A first fetch at once, and others after so long at the latest.
    pub fn new(refresh_ms: u64) -> Schedule {
        Schedule { refresh_ms, due_at_ms: 0, last_at_ms: None, failures: 0 }
    }

    /// How long it is until the next fetch.
    pub fn wait_ms(&self, now_ms: u64) -> u64 {
        self.due_at_ms.saturating_sub(now_ms)
    }

    /// A token names a key that is not known: fetch now, unless the last fetch was less than a minute ago. It is asked again then.
    pub fn ask(&mut self, now_ms: u64) {
        let interval_ms = KEY_FETCH_ASKED_INTERVAL_SEC as u64 * 1000;
        if self.last_at_ms.is_none_or(|last_at_ms| now_ms.saturating_sub(last_at_ms) >= interval_ms) {
            self.due_at_ms = self.due_at_ms.min(now_ms);
        }
    }

    /// A fetch that began at `at_ms` has brought a set, which its issuer says is good for so long. `chance` is from 0 to 1: processes
    /// that started together do not fetch together.
    pub fn succeed(&mut self, at_ms: u64, good_for_ms: Option<u64>, chance: f64) {
        let least_ms = WELL_MIN_MS.min(self.refresh_ms);
        let wait_ms = good_for_ms.unwrap_or(self.refresh_ms).clamp(least_ms, self.refresh_ms);
        self.note(at_ms, wait_ms, 0.9 + 0.1 * chance);
        self.failures = 0;
    }

    /// A fetch that began at `at_ms` has brought nothing.
    pub fn fail(&mut self, at_ms: u64, chance: f64) {
        let wait_ms = (KEY_FETCH_RETRY_MIN_MS << self.failures.min(16)).min(KEY_FETCH_RETRY_MAX_MS);
        self.note(at_ms, wait_ms, 0.5 + 0.5 * chance);
        self.failures = self.failures.saturating_add(1);
    }

    fn note(&mut self, at_ms: u64, wait_ms: u64, part: f64) {
        self.last_at_ms = Some(at_ms);
        self.due_at_ms = at_ms + (wait_ms as f64 * part) as u64;
    }
}

/// How long a `Cache-Control` field says that an answer is good, in milliseconds; `None` when it does not say.
pub fn good_for_ms(cache_control: &str) -> Option<u64> {
    let directives = cache_control.split(',').map(|one| one.trim().to_ascii_lowercase());
    let mut good_for_ms = None;
    for directive in directives {
        if directive == "no-store" || directive == "no-cache" {
            return Some(0);
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            good_for_ms = seconds.trim_matches('"').parse::<u64>().ok().map(|seconds| seconds.saturating_mul(1000));
        }
    }
    good_for_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;
    const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

    #[test]
    fn cache_control_is_heard_within_bounds() {
        let next = |refresh_ms, field: &str| {
            let mut schedule = Schedule::new(refresh_ms);
            schedule.succeed(0, good_for_ms(field), 1.0);
            schedule.wait_ms(0)
        };
        for (field, wait_ms) in [
            ("max-age=300", 5 * MINUTE_MS),
            ("public, Max-Age=\"300\", must-revalidate", 5 * MINUTE_MS),
            ("max-age=1", MINUTE_MS),
            ("no-store", MINUTE_MS),
            ("max-age=99999999999999999999", 15 * MINUTE_MS),
            ("max-age=31536000", 15 * MINUTE_MS),
            ("private", 15 * MINUTE_MS),
            ("", 15 * MINUTE_MS),
        ] {
            assert_eq!(next(15 * MINUTE_MS, field), wait_ms, "{field}");
        }
        assert_eq!(next(1000, "max-age=300"), 1000, "the setting is the latest");
    }

    /// Plays a time of an issuer that is away from hour 1 to hour 25, with a client that has a token of an unknown key each
    /// second; returns when fetches began.
    fn day(refresh_ms: u64) -> Vec<u64> {
        let mut schedule = Schedule::new(refresh_ms);
        let mut fetches = Vec::new();
        for second in 0..26 * 3600 {
            let now_ms = second * 1000;
            let is_away = (3_600_000..3_600_000 + DAY_MS).contains(&now_ms);
            if schedule.wait_ms(now_ms) == 0 {
                fetches.push(now_ms);
                let chance = (second % 7) as f64 / 7.0;
                match is_away {
                    true => schedule.fail(now_ms, chance),
                    false => schedule.succeed(now_ms, None, chance),
                }
            }
            schedule.ask(now_ms);
        }
        fetches
    }

    #[test]
    fn a_day_without_the_issuer_brings_no_storm() {
        let fetches = day(15 * MINUTE_MS);
        let away: Vec<_> = fetches.iter().filter(|at_ms| (3_600_000..3_600_000 + DAY_MS).contains(*at_ms)).collect();
        assert!((1440..=2 * 1440 + 20).contains(&away.len()), "one or two a minute: {}", away.len());
        let back: Vec<_> = fetches.iter().filter(|at_ms| **at_ms >= 3_600_000 + DAY_MS).collect();
        assert!(*back[0] - 3_600_000 - DAY_MS <= MINUTE_MS, "it is found within a minute");
        assert!(back.windows(2).all(|two| two[1] - two[0] >= MINUTE_MS), "then once a minute at most");
    }

    #[test]
    fn tokens_ask_for_one_fetch_a_minute() {
        let mut schedule = Schedule::new(15 * MINUTE_MS);
        schedule.succeed(0, None, 1.0);
        for now_ms in (0..MINUTE_MS).step_by(100) {
            schedule.ask(now_ms);
            assert!(schedule.wait_ms(now_ms) > 0);
        }
        schedule.ask(MINUTE_MS);
        assert_eq!(schedule.wait_ms(MINUTE_MS), 0);
        schedule.fail(MINUTE_MS, 0.0);
        schedule.ask(MINUTE_MS + 1);
        assert!(schedule.wait_ms(MINUTE_MS + 1) > 0, "a fetch that failed counts, too");
    }
}
