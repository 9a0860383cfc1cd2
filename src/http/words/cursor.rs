//! Cursors: where the next page of a list begins, as opaque text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::todo::{Timestamp, TodoId, TodoKey};

/// Layout of a cursor before it becomes text: this version, `created_at` in microseconds, the id, a check sum; numbers in
/// big endian.
const CURSOR_VERSION: u8 = 1;
const KEY_BYTES: usize = 1 + 8 + 16;
const CURSOR_BYTES: usize = KEY_BYTES + 2;
/// Length of a written cursor, in bytes: four characters for each three bytes, so that no bits are left over and each
/// place has one text only.
pub const CURSOR_TEXT_BYTES: usize = CURSOR_BYTES / 3 * 4;

const _: () = assert!(CURSOR_BYTES.is_multiple_of(3));

/// Writes the cursor that continues behind `key`: opaque text of characters that need no escaping in a URI.
pub fn encode_cursor(key: TodoKey) -> [u8; CURSOR_TEXT_BYTES] {
    let mut bytes = [0; CURSOR_BYTES];
    bytes[0] = CURSOR_VERSION;
    bytes[1..9].copy_from_slice(&key.created_at.as_micros().to_be_bytes());
    bytes[9..KEY_BYTES].copy_from_slice(&key.id.as_u128().to_be_bytes());
    let check = check_sum(&bytes[..KEY_BYTES]);
    bytes[KEY_BYTES..].copy_from_slice(&check);
    let mut text = [0; CURSOR_TEXT_BYTES];
    URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).expect("the buffer has exactly the encoded length");
    text
}

/// Reads a cursor, as its characters come out of a query; `None` if it was not made here, or was changed on its way.
pub(in crate::http) fn read_cursor(mut characters: impl Iterator<Item = u8>) -> Option<TodoKey> {
    let mut plain = [0; CURSOR_TEXT_BYTES];
    for place in &mut plain {
        *place = characters.next()?;
    }
    if characters.next().is_some() {
        return None;
    }
    let mut bytes = [0; CURSOR_BYTES];
    URL_SAFE_NO_PAD.decode_slice(plain, &mut bytes).ok()?;
    let (version, rest) = bytes.split_first()?;
    let (micros, rest) = rest.split_first_chunk::<8>()?;
    let (id, check) = rest.split_first_chunk::<16>()?;
    let micros = i64::from_be_bytes(*micros);
    let created_at = Timestamp::from_micros(micros);
    let is_sound =
        *version == CURSOR_VERSION && created_at.as_micros() == micros && check == check_sum(&bytes[..KEY_BYTES]);
    is_sound.then_some(TodoKey { created_at, id: TodoId::from_u128(u128::from_be_bytes(*id)) })
}

/// Tells a cursor that was cut or changed on its way; no protection against one that was made up, which harms nobody.
fn check_sum(key: &[u8]) -> [u8; 2] {
    let sum = crc32c::crc32c(key);
    ((sum ^ (sum >> 16)) as u16).to_be_bytes()
}
