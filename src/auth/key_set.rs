//! The keys that tokens are taken with at a time.

use std::sync::Arc;

use super::{Algorithm, Key, UnixSeconds};
use crate::config::Secret;
use crate::limits::{CLOCK_BEHIND_MAX_S, KEY_FETCH_ASKED_INTERVAL_SEC, KEYS_MAX};

/// A set of keys; what changes is replaced as a whole.
#[derive(Debug, Default, Clone)]
pub struct KeySet {
    keys: Vec<Arc<Key>>,
    fetch: Fetch,
    secret: Option<Secret>,
}

/// Whether a part of the keys comes from an address, and of when it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// No part does.
    #[default]
    None,
    /// It does, and has not come yet.
    Awaited,
    /// It was as it is here then.
    At(UnixSeconds),
}

/// More keys than tokens are checked with. None of them is left out in silence, since its tokens would be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{count} different keys; {KEYS_MAX} are the most that tokens are checked with")]
pub struct TooManyKeys {
    count: usize,
}

impl From<Key> for KeySet {
    fn from(key: Key) -> KeySet {
        KeySet { keys: vec![key.into()], ..KeySet::default() }
    }
}

impl KeySet {
    /// A set of these; one that stands twice counts once.
    ///
    /// # Errors
    /// [`TooManyKeys`].
    pub fn new(keys: impl IntoIterator<Item = impl Into<Arc<Key>>>) -> Result<KeySet, TooManyKeys> {
        let mut set = KeySet::default();
        for key in keys.into_iter().map(Into::into) {
            if !set.contains(&key) {
                set.keys.push(key);
            }
        }
        if set.keys.len() > KEYS_MAX { Err(TooManyKeys { count: set.keys.len() }) } else { Ok(set) }
    }

    /// The set, a part of which comes from an address.
    pub fn with_fetch(self, fetch: Fetch) -> KeySet {
        KeySet { fetch, ..self }
    }

    /// The set, with the secret that tokens of this process's own are signed with.
    pub fn with_secret(self, secret: Option<Secret>) -> KeySet {
        KeySet { secret, ..self }
    }

    /// The secret that tokens of this process's own are signed with; `None` when all keys are those of others.
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// Whether a part is still to come.
    pub fn is_awaited(&self) -> bool {
        self.fetch == Fetch::Awaited
    }

    /// Whether the issuer may have a key by now that is not in here. A set that was fetched lately is taken as it is: it is not
    /// fetched again for each token that names an unknown key.
    pub fn may_lack_a_key(&self, now: UnixSeconds) -> bool {
        match self.fetch {
            Fetch::None => false,
            Fetch::Awaited => true,
            // A clock that was set back makes it old. A shard's clock may be a little behind that of whoever has fetched.
            Fetch::At(at) => !(-CLOCK_BEHIND_MAX_S..KEY_FETCH_ASKED_INTERVAL_SEC).contains(&now.saturating_sub(at)),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.keys.iter()
    }

    /// Whether this very key is in it.
    pub fn contains(&self, key: &Key) -> bool {
        self.keys.iter().any(|one| **one == *key)
    }

    /// Whether one has this name.
    pub fn names(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id() == Some(id))
    }

    /// Whether one is for this algorithm.
    pub fn has(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.algorithm() == algorithm)
    }

    /// Those that may have signed a token with this `kid` and this `alg`. A key without a name may have signed under any,
    /// because its owner and the signer never agreed on one.
    pub fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Arc<Key>> {
        let may_be = move |key: &Key| match (id, key.id()) {
            (Some(wanted), Some(name)) => wanted == name,
            (None, _) | (_, None) => true,
        };
        self.keys.iter().filter(move |key| key.algorithm() == algorithm && may_be(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_left_out_and_one_that_stands_twice_counts_once() {
        let keys = |count: usize| {
            let secret = |number| Secret::new(format!("{number:032}"));
            (0..count).map(move |number| Key::from_secret(&secret(number))).chain([Key::from_secret(&secret(0))])
        };
        assert_eq!(KeySet::new(keys(KEYS_MAX)).map(|set| set.len()).ok(), Some(KEYS_MAX));
        let many = KeySet::new(keys(KEYS_MAX + 1)).expect_err("one is too many");
        assert_eq!(many, TooManyKeys { count: KEYS_MAX + 1 });
    }

    #[test]
    fn a_set_that_was_fetched_lately_lacks_no_key_also_by_a_clock_that_is_a_little_behind() {
        let set = KeySet::default().with_fetch(Fetch::At(1000));
        for now in [998, 999, 1000, 1000 + KEY_FETCH_ASKED_INTERVAL_SEC - 1] {
            assert!(!set.may_lack_a_key(now), "{now}");
        }
        for now in [900, 1000 + KEY_FETCH_ASKED_INTERVAL_SEC] {
            assert!(set.may_lack_a_key(now), "{now}");
        }
    }
}
