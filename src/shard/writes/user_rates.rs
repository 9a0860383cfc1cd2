//! How fast each user writes (`WRITE_RATE_PER_USER`), over all shards of the process.
//!
//! The one thing that shards share and write per request, and only writes meet it. A bucket of tokens a user, kept as one
//! number: the moment at which it will be full again (the generic cell rate algorithm, ITU-T I.371). A full bucket is as good
//! as none, so the table has room for those who have written just now, and no more.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::limits::{USER_RATE_SETS, USER_RATE_WAYS};

const SECOND_NS: u64 = 1_000_000_000;

/// The bucket of a user.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Of the user's name. With a seed that nobody knows, nobody can look for a name that shares another's bucket.
    hash: u64,
    /// When it is full again, in nanoseconds after the start; the past means that it is.
    full_at_ns: u64,
}

type Set = [Bucket; USER_RATE_WAYS];

/// The buckets of all users who have written just now.
pub struct UserRates {
    /// From one token to the next.
    token_ns: u64,
    /// In which an empty bucket becomes full: a second, as near as whole tokens come to it. Who was quiet may write so much at
    /// once.
    burst_ns: u64,
    started_at: Instant,
    seed: u64,
    sets: Box<[Mutex<Set>]>,
}

impl UserRates {
    /// Full buckets for everybody, into which so many tokens come a second.
    ///
    /// # Errors
    /// The system gives no random number.
    pub fn new(writes_per_second: u32) -> std::io::Result<UserRates> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)?;
        let writes_per_second = u64::from(writes_per_second.max(1));
        let token_ns = SECOND_NS / writes_per_second;
        Ok(UserRates {
            token_ns,
            burst_ns: token_ns * writes_per_second,
            started_at: Instant::now(),
            seed: u64::from_ne_bytes(seed),
            sets: (0..USER_RATE_SETS).map(|_| Mutex::default()).collect(),
        })
    }

    /// Takes a token of this user.
    ///
    /// # Errors
    /// There is none: how long to wait for it.
    pub fn take(&self, user: &str) -> Result<(), Duration> {
        self.take_at(user, 1, self.now_ns())
    }

    /// Takes so many tokens of this user, or none.
    ///
    /// # Errors
    /// There are fewer: how long to wait for them; `None` when a full bucket has fewer.
    pub fn take_all(&self, user: &str, tokens: u32) -> Result<(), Option<Duration>> {
        if u64::from(tokens) * self.token_ns > self.burst_ns {
            return Err(None);
        }
        self.take_at(user, tokens, self.now_ns()).map_err(Some)
    }

    /// Whether there is a token of this user, which stays there.
    ///
    /// # Errors
    /// There is none: how long to wait for it.
    pub fn check(&self, user: &str) -> Result<(), Duration> {
        let now_ns = self.now_ns();
        self.with_bucket(user, |bucket| self.after_taking(*bucket, 1, now_ns).map(drop))
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn take_at(&self, user: &str, tokens: u32, now_ns: u64) -> Result<(), Duration> {
        self.with_bucket(user, |bucket| {
            bucket.full_at_ns = self.after_taking(*bucket, tokens, now_ns)?;
            Ok(())
        })
    }

    /// When a bucket is full again, once so many tokens are taken from it now.
    fn after_taking(&self, bucket: Bucket, tokens: u32, now_ns: u64) -> Result<u64, Duration> {
        let full_at_ns = bucket.full_at_ns.max(now_ns).saturating_add(u64::from(tokens) * self.token_ns);
        match full_at_ns.saturating_sub(now_ns).checked_sub(self.burst_ns) {
            Some(missing_ns) if missing_ns > 0 => Err(Duration::from_nanos(missing_ns)),
            _ => Ok(full_at_ns),
        }
    }

    /// Gives the user's bucket to `work`. A user without one gets the place of the fullest of its set, whose own user has
    /// written least: where all are in use, a crowd of others does not make room for who writes most.
    fn with_bucket<R>(&self, user: &str, work: impl FnOnce(&mut Bucket) -> R) -> R {
        let hash = xxh3_64_with_seed(user.as_bytes(), self.seed);
        let mut set = self.sets[hash as usize % USER_RATE_SETS].lock().unwrap_or_else(PoisonError::into_inner);
        let place = set.iter().position(|bucket| bucket.hash == hash).unwrap_or_else(|| {
            let (fullest, _) =
                set.iter().enumerate().min_by_key(|(_, bucket)| bucket.full_at_ns).expect("a set has buckets");
            fullest
        });
        let bucket = &mut set[place];
        if bucket.hash != hash {
            *bucket = Bucket { hash, full_at_ns: 0 };
        }
        work(bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(writes_per_second: u32) -> UserRates {
        UserRates::new(writes_per_second).expect("the system has random numbers")
    }

    #[test]
    fn a_burst_of_one_second_and_then_the_rate() {
        for rate in [1, 2, 7, 1_000, 1_000_000] {
            let rates = rates(rate);
            let start_ns = 5 * SECOND_NS;
            let taken = (0..rate + 10).filter(|_| rates.take_at("u", 1, start_ns).is_ok()).count();
            assert_eq!(taken as u32, rate, "at once");
            let token_ns = rates.token_ns;
            assert!(rates.take_at("u", 1, start_ns + token_ns - 1).is_err());
            assert_eq!(rates.take_at("u", 1, start_ns + token_ns), Ok(()), "one more when its time has come");
            assert!(rates.take_at("u", 1, start_ns + token_ns).is_err());
            // However long the silence: the bucket holds no more.
            let later_ns = start_ns + 3_600 * SECOND_NS;
            let taken = (0..rate + 10).filter(|_| rates.take_at("u", 1, later_ns).is_ok()).count();
            assert_eq!(taken as u32, rate, "after an hour");
        }
    }

    #[test]
    fn the_wait_that_is_named_is_enough_and_not_too_long() {
        let rates = rates(3);
        let mut now_ns = 0;
        for _ in 0..100 {
            if let Err(wait) = rates.take_at("u", 1, now_ns) {
                assert!(wait <= Duration::from_secs(1));
                let wait_ns = wait.as_nanos() as u64;
                assert!(rates.take_at("u", 1, now_ns + wait_ns - 1).is_err(), "a moment too early");
                now_ns += wait_ns;
                assert_eq!(rates.take_at("u", 1, now_ns), Ok(()));
            }
        }
        assert!((30 * SECOND_NS..34 * SECOND_NS).contains(&now_ns), "100 at 3 a second: {now_ns}");
    }

    #[test]
    fn several_tokens_are_taken_together_or_not_at_all() {
        let rates = rates(10);
        assert_eq!(rates.take_at("u", 7, SECOND_NS), Ok(()));
        assert!(rates.take_at("u", 4, SECOND_NS).is_err());
        assert_eq!(rates.take_at("u", 3, SECOND_NS), Ok(()), "what was refused has taken none");
        assert_eq!(rates.take_all("another", 11), Err(None), "no bucket ever has so many");
        assert_eq!(rates.take_all("another", 10), Ok(()));
    }

    #[test]
    fn to_ask_takes_nothing() {
        let rates = rates(1);
        for _ in 0..10 {
            assert_eq!(rates.check("u"), Ok(()));
        }
        // A minute ahead, so that the test's own time does not matter.
        let ahead_ns = rates.now_ns() + 60 * SECOND_NS;
        assert_eq!(rates.take_at("u", 1, ahead_ns), Ok(()));
        assert!(rates.check("u").is_err());
        assert_eq!(rates.check("another"), Ok(()));
    }

    #[test]
    fn a_million_users_take_no_more_memory_and_free_nobody_who_is_over_the_limit() {
        let rates = rates(10);
        let now_ns = SECOND_NS;
        for _ in 0..10 {
            assert_eq!(rates.take_at("heavy", 1, now_ns), Ok(()));
        }
        let refused =
            (0..1_000_000).filter(|number| rates.take_at(&format!("user {number}"), 1, now_ns).is_err()).count();
        assert_eq!(refused, 0, "nobody suffers for another");
        assert!(rates.take_at("heavy", 1, now_ns).is_err(), "the crowd has not made room for it");
        assert_eq!(rates.sets.len() * USER_RATE_WAYS, USER_RATE_SETS * USER_RATE_WAYS);
    }

    #[test]
    fn threads_share_a_bucket() {
        let rates = rates(1_000);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1_000).filter(|_| rates.take_at("u", 1, SECOND_NS).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(taken, 1_000);
    }
}
