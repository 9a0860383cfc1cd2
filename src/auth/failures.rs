//! How many costly checks of signatures may fail.
//!
//! Whether a token is good is known only after its check, which takes 10 to 100 µs where the key is none of HMAC. So a connection
//! pays for what it has brought: once some of its tokens were refused in a second, its next ones are answered with 429 unseen.
//! Once a shard has seen enough of them, all connections that brought any wait, and no others: an honest client on a
//! connection of its own is never refused for what others do. Its connection has cost more than the check that it gets.

use std::cell::Cell;

use super::UnixSeconds;
use crate::limits::{FAILED_CHECKS_PER_CONNECTION_MAX, FAILED_CHECKS_PER_SHARD_MAX};

/// A second, and the checks in it that failed.
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

    fn has_any(&self) -> bool {
        self.0.get() != NEVER
    }

    fn add(&self, now: UnixSeconds, checks: u32) {
        self.0.set((now, self.within(now).saturating_add(checks)));
    }

    /// Whether a token of `connection` may be checked; `self` is the shard's count.
    pub(super) fn admits(&self, connection: &FailedChecks, now: UnixSeconds) -> bool {
        connection.within(now) < FAILED_CHECKS_PER_CONNECTION_MAX
            && (self.within(now) < FAILED_CHECKS_PER_SHARD_MAX || !connection.has_any())
    }

    /// Counts checks that were in vain.
    pub(super) fn count(&self, connection: &FailedChecks, now: UnixSeconds, checks: u32) {
        self.add(now, checks);
        connection.add(now, checks);
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
}
