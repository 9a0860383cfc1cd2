//! How many costly checks of signatures may fail.
//!
//! Whether a token is good is known only after its check, which takes 10 to 100 µs where the key is none of HMAC. So a connection
//! pays for what it has brought: once some of its tokens were refused in a second, its next ones are answered with 429 unseen.
//! Once a shard has seen enough of them, all connections that brought any lately wait, and no others: an honest client on a
//! connection of its own is never refused for what others do. Its connection has cost more than the check that it gets.
//! A token that several keys may have signed costs the shard a check for each of them, and its connection one token.

use std::cell::Cell;

use super::UnixSeconds;
use crate::limits::{FAILED_CHECKS_KEPT_SEC, FAILED_CHECKS_PER_CONNECTION_MAX, FAILED_CHECKS_PER_SHARD_MAX};

/// A second, and the checks in it that failed; of a connection, the tokens.
type Count = (UnixSeconds, u32);
const NEVER: Count = (UnixSeconds::MIN, 0);

/// Checks that have failed, of one connection or of all.
#[derive(Debug)]
pub struct FailedChecks(Cell<Count>);

impl Default for FailedChecks {
    fn default() -> Self {
        FailedChecks(Cell::new(NEVER))
    }
}

impl FailedChecks {
    fn within(&self, now: UnixSeconds) -> u32 {
        let (second, count) = self.0.get();
        if second == now { count } else { 0 }
    }

    fn has_any_lately(&self, now: UnixSeconds) -> bool {
        self.0.get().0 > now.saturating_sub(FAILED_CHECKS_KEPT_SEC)
    }

    fn add(&self, now: UnixSeconds, checks: u32) {
        self.0.set((now, self.within(now).saturating_add(checks)));
    }

    /// Whether a token of `connection` may be checked; `self` is the shard's count.
    pub(super) fn admits(&self, connection: &FailedChecks, now: UnixSeconds) -> bool {
        connection.within(now) < FAILED_CHECKS_PER_CONNECTION_MAX
            && (self.within(now) < FAILED_CHECKS_PER_SHARD_MAX || !connection.has_any_lately(now))
    }

    /// Counts the checks of one token that were in vain.
    pub(super) fn count(&self, connection: &FailedChecks, now: UnixSeconds, checks: u32) {
        self.add(now, checks);
        connection.add(now, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_pays_for_its_own_and_a_new_one_for_none() {
        let (shard, bad) = (FailedChecks::default(), FailedChecks::default());
        let mut checked = 0;
        while shard.admits(&bad, 7) {
            shard.count(&bad, 7, 1);
            checked += 1;
        }
        assert_eq!(checked, FAILED_CHECKS_PER_CONNECTION_MAX);
        assert!(shard.admits(&bad, 8), "the next second");
        let crowd: Vec<_> = (0..FAILED_CHECKS_PER_SHARD_MAX).map(|_| FailedChecks::default()).collect();
        crowd.iter().for_each(|one| shard.count(one, 8, 1));
        assert!(!shard.admits(&bad, 8) && !shard.admits(&crowd[0], 8));
        assert!(shard.admits(&FailedChecks::default(), 8), "who has brought none is not refused");
        assert!(shard.admits(&bad, 9));
    }

    #[test]
    fn a_token_that_many_keys_may_have_signed_counts_once_for_its_connection() {
        let (shard, connection) = (FailedChecks::default(), FailedChecks::default());
        for _ in 1..FAILED_CHECKS_PER_CONNECTION_MAX {
            shard.count(&connection, 7, 20);
        }
        assert!(shard.admits(&connection, 7));
        shard.count(&connection, 7, FAILED_CHECKS_PER_SHARD_MAX);
        assert!(!shard.admits(&connection, 7));
    }

    #[test]
    fn a_bad_token_of_long_ago_is_forgotten() {
        let (shard, attacker) = (FailedChecks::default(), FailedChecks::default());
        let once = FailedChecks::default();
        shard.count(&once, 7, 1);
        for now in [7 + FAILED_CHECKS_KEPT_SEC - 1, 7 + FAILED_CHECKS_KEPT_SEC] {
            shard.count(&attacker, now, FAILED_CHECKS_PER_SHARD_MAX);
            assert_eq!(shard.admits(&once, now), now == 7 + FAILED_CHECKS_KEPT_SEC);
        }
        assert!(shard.admits(&FailedChecks::default(), UnixSeconds::MIN), "the clock is nonsense");
    }
}
