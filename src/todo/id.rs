//! Ids of todos.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::Timestamp;

/// The id of a todo: a UUID, written in lower case with hyphens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TodoId(u128);

/// Length of a written [`TodoId`], in bytes.
pub const TODO_ID_TEXT_BYTES: usize = 36;

/// What [`IdKey`] is derived for.
pub const IDEMPOTENCY: &[u8] = b"idempotency";

/// The key of ids that come from `Idempotency-Key`: a secret of the deployment, which outlives those of its tokens.
#[derive(Clone)]
pub struct IdKey([u8; 32]);

impl IdKey {
    /// Takes the key.
    pub fn new(key: [u8; 32]) -> IdKey {
        IdKey(key)
    }
}

impl fmt::Debug for IdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdKey(***)")
    }
}

impl TodoId {
    /// A new id, UUIDv7 (RFC 9562 section 5.7): ids made later sort later, which keeps the store's index dense.
    pub fn new() -> TodoId {
        TodoId(uuid::Uuid::now_v7().as_u128())
    }

    /// A new id of a todo that is made at this moment. Each thread counts for itself, where [`TodoId::new`] takes a lock and
    /// reads the clock; of two threads, as of two processes, 42 bits of where they begin to count each millisecond and 32 bits of
    /// each id are left to chance. A moment before the last one counts on from the last.
    pub fn made_at(moment: Timestamp) -> TodoId {
        thread_local! {
            static COUNT: uuid::ContextV7 = const { uuid::ContextV7::new() };
        }
        let micros = moment.as_micros().max(0) as u64;
        let (seconds, nanos) = (micros / 1_000_000, (micros % 1_000_000 * 1_000) as u32);
        let moment = COUNT.with(|count| uuid::Timestamp::from_unix(count, seconds, nanos));
        TodoId(uuid::Uuid::new_v7(moment).as_u128())
    }

    /// The id that this user's key always stands for, whoever derives it with the same `id_key`: a UUIDv8 (RFC 9562 section 5.8) of
    /// HMAC-SHA256 over both, 122 bits of it. Two keys meet with a probability below 10⁻¹³ among a trillion, and nobody who
    /// lacks `id_key` can tell which id a key of another user has, or look for two that meet.
    pub fn of_key(id_key: &IdKey, user_id: &str, key: &[u8]) -> TodoId {
        let mut mac = Hmac::<Sha256>::new_from_slice(&id_key.0).expect("HMAC takes keys of any length");
        // With the length of the first, no two pairs are the same bytes.
        mac.update(&(user_id.len() as u64).to_be_bytes());
        mac.update(user_id.as_bytes());
        mac.update(key);
        let bytes = mac.finalize().into_bytes();
        let bytes = bytes.first_chunk().expect("SHA-256 has 32 bytes");
        TodoId(uuid::Builder::from_custom_bytes(*bytes).into_uuid().as_u128())
    }

    /// The id of the todo with this number in the array of this key: none that a key alone has, since a key has no NUL.
    pub fn of_key_in_array(id_key: &IdKey, user_id: &str, key: &[u8], index: u32) -> TodoId {
        TodoId::of_key(id_key, user_id, &[key, &[0], &index.to_be_bytes()].concat())
    }

    /// The id with these 128 bits.
    pub const fn from_u128(bits: u128) -> TodoId {
        TodoId(bits)
    }

    /// The 128 bits of the id.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// Writes the id as 36 bytes of text and returns them. A write does so four times (its key in the log, its command, its
    /// answer), so the digits are made eight at a time.
    #[inline]
    pub fn write_text(self, buffer: &mut [u8; TODO_ID_TEXT_BYTES]) -> &str {
        let [first, second, third, fourth] = [96, 64, 32, 0].map(|shift| hex((self.0 >> shift) as u32));
        *buffer = *b"________-____-____-____-____________";
        buffer[..8].copy_from_slice(&first);
        buffer[9..13].copy_from_slice(&second[..4]);
        buffer[14..18].copy_from_slice(&second[4..]);
        buffer[19..23].copy_from_slice(&third[..4]);
        buffer[24..28].copy_from_slice(&third[4..]);
        buffer[28..].copy_from_slice(&fourth);
        // SAFETY: hyphens and what `hex` has written are ASCII.
        unsafe { std::str::from_utf8_unchecked(buffer) }
    }
}

/// The eight lower-case hexadecimal digits of a number.
#[inline]
fn hex(number: u32) -> [u8; 8] {
    // One digit in each byte.
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in each byte whose digit is a letter.
    let letters = (digits + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    let to_letter = u64::from(b'a' - b'0' - 10);
    (digits + 0x3030_3030_3030_3030 + letters * to_letter).to_be_bytes()
}

impl Default for TodoId {
    fn default() -> Self {
        TodoId::new()
    }
}

/// Text that is no [`TodoId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")]
pub struct InvalidTodoId;

impl FromStr for TodoId {
    type Err = InvalidTodoId;

    /// Reads the hyphenated form, in either case; no other form of a UUID (braces, URN, no hyphens) is accepted, so
    /// that one todo has one URI.
    fn from_str(text: &str) -> Result<TodoId, InvalidTodoId> {
        if text.len() != TODO_ID_TEXT_BYTES {
            return Err(InvalidTodoId);
        }
        uuid::Uuid::try_parse(text).map(|id| TodoId(id.as_u128())).map_err(|_| InvalidTodoId)
    }
}

impl fmt::Display for TodoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write_text(&mut [0; TODO_ID_TEXT_BYTES]))
    }
}

impl fmt::Debug for TodoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_as_uuids_are() {
        let step = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3211_u128;
        for bits in (0..1_000).map(|factor| step.wrapping_mul(factor)).chain([u128::MAX, 0xf0 << 60]) {
            let text = TodoId::from_u128(bits).to_string();
            assert_eq!(text, uuid::Uuid::from_u128(bits).to_string());
            assert_eq!(text.parse(), Ok(TodoId::from_u128(bits)));
        }
    }

    #[test]
    fn a_key_stands_for_one_id_for_ever() {
        // Written out: another version of the program must derive the same.
        let id_key = IdKey::new([7; 32]);
        assert_eq!(format!("{id_key:?}"), "IdKey(***)");
        assert_ne!(
            TodoId::of_key(&id_key, "me", b"key"),
            TodoId::of_key(&IdKey::new([8; 32]), "me", b"key"),
            "another deployment"
        );
        // An id stays what it is from version to version.
        assert_eq!(TodoId::of_key(&id_key, "me", b"key").to_string(), "d508cea5-e7e2-8e56-934d-16ae6a6b9cb6");
        let ids: std::collections::HashSet<_> =
            [("me", "key"), ("mek", "ey"), ("", "mekey"), ("mekey", ""), ("you", "key"), ("me", "Key")]
                .map(|(user, key)| TodoId::of_key(&id_key, user, key.as_bytes()))
                .into();
        assert_eq!(ids.len(), 6);
        for id in ids {
            let id = uuid::Uuid::from_u128(id.as_u128());
            assert_eq!((id.get_version_num(), id.get_variant()), (8, uuid::Variant::RFC4122));
        }
    }
}
