//! The hashes of a list: keyed, so that nobody who reads and writes todos can make two contents with one entity tag.
//!
//! ```text
//! todo's JSON -> hash (key 1) -> summed over the todos of a page -> entity tag (key 2)
//!                             \-> entity tag of the todo (key 2)
//! ```
//! A sum is a function of the todos alone and is found in one way down the tree, but of summands that are known two sets with the
//! same sum can be looked for, whatever the hash. So summands and sums are never shown: an entity tag is a keyed hash of its own
//! (SipHash, made for texts that an attacker chooses). What is left is to wait until two of the tags that were shown are equal,
//! which takes some 2³² versions of the list.

use siphasher::sip::SipHasher13;

use crate::store::identity::keyed_hash;

/// The keys of a deployment's hashes.
#[derive(Clone, Copy)]
pub struct HashKeys {
    todo: SipHasher13,
    tag: SipHasher13,
    owner: SipHasher13,
}

/// What an entity tag stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tagged {
    /// A page with nothing behind it.
    LastPage = 0,
    /// A page that others follow.
    Page = 1,
    /// A single todo.
    Todo = 2,
    /// The whole list, as a position names it.
    State = 3,
    /// A number of todos.
    Count = 4,
}

impl HashKeys {
    /// The keys that come of the one for entity tags, which all processes of a deployment share.
    pub fn new(entity_tag_key: &[u8; 32]) -> HashKeys {
        let hasher = |purpose: &[u8]| {
            let key = keyed_hash(entity_tag_key, &[purpose]);
            SipHasher13::new_with_key(key.first_chunk().expect("HMAC-SHA256 has 32 bytes"))
        };
        HashKeys { todo: hasher(b"todo"), tag: hasher(b"tag"), owner: hasher(b"owner") }
    }

    /// The hash of a todo's JSON.
    pub(super) fn todo(&self, json: &[u8]) -> u64 {
        self.todo.hash(json)
    }

    /// The entity tag of todos whose hashes have this sum. Each todo has its place in its JSON, so the sum says the order too.
    #[inline]
    pub(super) fn tag(&self, sum: u64, tagged: Tagged) -> u64 {
        let mut content = [0; 9];
        content[..8].copy_from_slice(&sum.to_le_bytes());
        content[8] = tagged as u8;
        self.tag.hash(&content)
    }

    /// The hash by which owners are told apart. The worker compares the texts.
    pub(super) fn owner(&self, user_id: &str) -> u64 {
        self.owner.hash(user_id.as_bytes())
    }
}

impl PartialEq for HashKeys {
    fn eq(&self, other: &HashKeys) -> bool {
        let keys = |keys: &HashKeys| (keys.todo.keys(), keys.tag.keys(), keys.owner.keys());
        keys(self) == keys(other)
    }
}

impl std::fmt::Debug for HashKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKeys(***)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn hashes_are_those_of_their_key_and_purpose() {
        let (keys, other) = (HashKeys::new(&[1; 32]), HashKeys::new(&[2; 32]));
        assert!(keys == HashKeys::new(&[1; 32]) && keys != other);
        let tags = [Tagged::LastPage, Tagged::Page, Tagged::Todo, Tagged::State, Tagged::Count]
            .map(|tagged| keys.tag(7, tagged));
        assert_eq!(BTreeSet::from(tags).len(), 5);
        assert_ne!(keys.tag(7, Tagged::Todo), other.tag(7, Tagged::Todo));
        assert_ne!(keys.todo(b"a"), other.todo(b"a"));
        assert_ne!(keys.owner("a"), keys.todo(b"a"));
        assert_ne!(keys.tag(keys.todo(b"a"), Tagged::Todo), keys.todo(b"a"), "a summand is never shown");
        assert_eq!(format!("{keys:?}"), "HashKeys(***)");
    }
}
