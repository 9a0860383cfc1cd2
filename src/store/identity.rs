//! The identity of a deployment: what tells it from every other one, and the secret that its processes share.
//!
//! It is made once, together with the store's schema, and kept in the store: so all processes that share a store have the
//! same, across restarts, and those that do not share one never do. No secret of a person has to be rotated or copied for it.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// Bytes of the id.
pub const IDENTITY_ID_BYTES: usize = 16;
/// Bytes of the secret, and of each key that is derived from it.
pub const IDENTITY_SECRET_BYTES: usize = 32;

/// Who a deployment is.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    id: [u8; IDENTITY_ID_BYTES],
    secret: [u8; IDENTITY_SECRET_BYTES],
}

impl Identity {
    /// The identity with this id and this secret, as a store has kept them. `places` are other facts that tell this store
    /// from a copy of it; the id to the outside is made of them too, the secret is not.
    pub fn new(id: [u8; IDENTITY_ID_BYTES], secret: [u8; IDENTITY_SECRET_BYTES], places: &[&str]) -> Identity {
        if places.is_empty() {
            return Identity { id, secret };
        }
        let mut hash = Sha256::new();
        hash.update(b"million-rps identity 1");
        hash.update(id);
        for place in places {
            hash.update((place.len() as u64).to_be_bytes());
            hash.update(place);
        }
        let hash = hash.finalize();
        Identity { id: *hash.first_chunk().expect("SHA-256 has 32 bytes"), secret }
    }

    /// The id: no secret.
    pub fn id(&self) -> [u8; IDENTITY_ID_BYTES] {
        self.id
    }

    /// The id as 32 hexadecimal digits.
    pub fn name(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key for one purpose: who learns it learns neither the secret nor the key for another.
    pub fn key(&self, purpose: &[u8]) -> [u8; IDENTITY_SECRET_BYTES] {
        keyed_hash(&self.secret, &[purpose])
    }
}

/// HMAC-SHA256 of some texts, of which no two lists are the same bytes.
pub fn keyed_hash(key: &[u8], parts: &[&[u8]]) -> [u8; IDENTITY_SECRET_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Without the secret: identities get into logs and into the texts of failed tests.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity {{ id: {}, secret: *** }}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_purpose_and_by_secret_and_show_nothing_of_it() {
        let identity = Identity::new([7; 16], [9; 32], &[]);
        let keys = [
            identity.key(b"entity-tags"),
            identity.key(b"idempotency"),
            Identity::new([7; 16], [8; 32], &[]).key(b"entity-tags"),
        ];
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
        assert_eq!(
            keys[0],
            Identity::new([6; 16], [9; 32], &["copy"]).key(b"entity-tags"),
            "keys are of the secret alone"
        );
        let text = format!("{identity:?}");
        assert!(text.contains("0707") && !text.contains("0909") && !text.contains("9, 9"), "{text}");
    }

    #[test]
    fn a_copy_elsewhere_has_another_id() {
        let of = |places: &[&str]| Identity::new([7; 16], [9; 32], places).id();
        let all = [of(&[]), of(&["1", "23"]), of(&["12", "3"]), of(&["1", "2"]), of(&["1"])];
        for (at, id) in all.iter().enumerate() {
            assert!(!all[..at].contains(id), "{all:?}");
        }
        assert_eq!(of(&["1", "2"]), of(&["1", "2"]));
    }
}
