//! The tokens that a shard has verified already.
//!
//! A table of fixed size in sets of a few slots (as a CPU's cache is built): it cannot grow, a look-up touches one set,
//! and putting a token in can only put another of the same set out. Which set a token belongs to depends on a random
//! key, so that nobody can choose tokens that fight for one set.

use std::rc::Rc;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_secret;

use super::{AuthError, Key, UnixSeconds};
use crate::limits::{TOKEN_CACHE_ENTRIES, TOKEN_CACHED_MAX_BYTES};

/// Slots that one token may take.
const SLOTS_PER_SET: usize = 4;
const SETS: usize = TOKEN_CACHE_ENTRIES / SLOTS_PER_SET;
/// What XXH3 asks for at least is 136 bytes; its own default has 192.
const HASH_KEY_BYTES: usize = 192;

const _: () = assert!(SETS.is_power_of_two() && SETS * SLOTS_PER_SET == TOKEN_CACHE_ENTRIES);

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub user: Rc<str>,
    pub validity: Validity,
    /// Whether it has the scope that writes need, where they need one.
    pub may_write: bool,
    /// What it is signed with.
    pub key: Arc<Key>,
}

/// When a token is valid, leeway included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second in which it is valid.
    pub from: UnixSeconds,
    /// The first second in which it is no longer valid.
    pub until: UnixSeconds,
}

impl Validity {
    /// # Errors
    /// [`AuthError::Expired`] or [`AuthError::NotYetValid`].
    pub fn check(self, now: UnixSeconds) -> Result<(), AuthError> {
        if now >= self.until {
            Err(AuthError::Expired)
        } else if now < self.from {
            Err(AuthError::NotYetValid)
        } else {
            Ok(())
        }
    }
}

struct Slot {
    hash: u64,
    token: Box<[u8]>,
    verified: Verified,
    /// Used since the hand last passed: such a slot is spared once.
    used: bool,
}

pub struct TokenCache {
    hash_key: [u8; HASH_KEY_BYTES],
    slots: Box<[Option<Slot>]>,
    /// Where the search for a slot to give up begins; moves on with each.
    hand: usize,
}

impl TokenCache {
    /// # Panics
    /// When the system has no random numbers to give.
    pub fn new() -> TokenCache {
        let mut hash_key = [0; HASH_KEY_BYTES];
        getrandom::fill(&mut hash_key).expect("the system's random number generator works");
        TokenCache { hash_key, slots: std::iter::repeat_with(|| None).take(TOKEN_CACHE_ENTRIES).collect(), hand: 0 }
    }

    /// The token's entry, if these very bytes are there. Whether it is valid now is for the caller to check, each time.
    pub fn get(&mut self, token: &[u8]) -> Option<&Verified> {
        let hash = self.hash(token);
        let slot = self.set(hash).iter_mut().flatten().find(|slot| slot.hash == hash && *slot.token == *token)?;
        slot.used = true;
        Some(&slot.verified)
    }

    /// Puts a token in that [`TokenCache::get`] did not find. Very long tokens stay out.
    pub fn insert(&mut self, token: &[u8], verified: Verified, now: UnixSeconds) {
        if token.len() > TOKEN_CACHED_MAX_BYTES {
            return;
        }
        let hash = self.hash(token);
        self.hand = (self.hand + 1) % SLOTS_PER_SET;
        let hand = self.hand;
        let set = self.set(hash);
        let victim = slot_to_give_up(set, hand, now);
        set[victim] = Some(Slot { hash, token: token.into(), verified, used: false });
    }

    /// Forgets the tokens for which `keeps` is false.
    pub fn retain(&mut self, keeps: impl Fn(&Verified) -> bool) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|slot| !keeps(&slot.verified)) {
                *slot = None;
            }
        }
    }

    fn hash(&self, token: &[u8]) -> u64 {
        xxh3_64_with_secret(token, &self.hash_key)
    }

    fn set(&mut self, hash: u64) -> &mut [Option<Slot>] {
        let first = (hash as usize & (SETS - 1)) * SLOTS_PER_SET;
        &mut self.slots[first..first + SLOTS_PER_SET]
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }
}

/// An empty slot, or one whose token has expired, or the first from the hand on that was not used lately.
fn slot_to_give_up(set: &mut [Option<Slot>], hand: usize, now: UnixSeconds) -> usize {
    let is_free = |slot: &Option<Slot>| slot.as_ref().is_none_or(|slot| now >= slot.verified.validity.until);
    if let Some(free) = set.iter().position(is_free) {
        return free;
    }
    for step in 0..SLOTS_PER_SET {
        let place = (hand + step) % SLOTS_PER_SET;
        if let Some(slot) = &mut set[place]
            && !std::mem::take(&mut slot.used)
        {
            return place;
        }
    }
    hand
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn verified(user: &str, until: UnixSeconds) -> Verified {
        let key = Arc::new(Key::from_secret(&Secret::new("k")));
        Verified { user: user.into(), validity: Validity { from: 0, until }, may_write: true, key }
    }

    #[test]
    fn it_finds_exactly_what_was_put_in() {
        let mut cache = TokenCache::new();
        cache.insert(b"token-a", verified("a", 10), 0);
        cache.insert(b"token-b", verified("b", 10), 0);
        assert_eq!(&*cache.get(b"token-a").unwrap().user, "a");
        assert_eq!(&*cache.get(b"token-b").unwrap().user, "b");
        for other in [&b"token-c"[..], b"token-", b"token-a ", b""] {
            assert_eq!(cache.get(other), None);
        }
    }

    #[test]
    fn the_bytes_decide_even_when_hashes_collide() {
        let mut cache = TokenCache::new();
        cache.insert(b"token-a", verified("a", 10), 0);
        let hash = cache.hash(b"token-b");
        // Make the entry of `a` look as if it had the hash, and the set, of `b`.
        let mut slot = cache.slots.iter_mut().find_map(Option::take).unwrap();
        slot.hash = hash;
        cache.set(hash)[0] = Some(slot);
        assert_eq!(cache.get(b"token-b"), None);
    }

    #[test]
    fn it_never_holds_more_than_its_size_nor_very_long_tokens() {
        let mut cache = TokenCache::new();
        for number in 0..10 * TOKEN_CACHE_ENTRIES as u32 {
            cache.insert(&number.to_le_bytes(), verified("a", 10), 0);
        }
        assert!(cache.len() <= TOKEN_CACHE_ENTRIES);
        assert!(cache.len() > TOKEN_CACHE_ENTRIES * 9 / 10);
        let long = vec![b'x'; TOKEN_CACHED_MAX_BYTES + 1];
        cache.insert(&long, verified("a", 10), 0);
        assert_eq!(cache.get(&long), None);
    }

    #[test]
    fn a_token_in_use_outlives_a_stream_of_tokens_used_once() {
        let mut cache = TokenCache::new();
        cache.insert(b"in use", verified("a", 10), 0);
        for number in 0..10 * TOKEN_CACHE_ENTRIES as u32 {
            assert!(cache.get(b"in use").is_some());
            cache.insert(&number.to_le_bytes(), verified("b", 10), 0);
        }
    }

    #[test]
    fn expired_tokens_give_their_slots_up_first() {
        let mut set: Vec<Option<Slot>> = (0..SLOTS_PER_SET as i64)
            .map(|place| {
                let verified = verified("a", if place == 2 { 5 } else { 100 });
                Some(Slot { hash: 0, token: Box::new([]), verified, used: place == 2 })
            })
            .collect();
        assert_eq!(slot_to_give_up(&mut set, 1, 4), 1);
        assert_eq!(slot_to_give_up(&mut set, 1, 5), 2);
        set[3] = None;
        assert_eq!(slot_to_give_up(&mut set, 1, 4), 3);
    }
}
