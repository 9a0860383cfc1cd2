//! Entity tags (RFC 9110 section 8.8.3), as they are written and read.

use super::coding::Coding;

/// Length of a written entity tag, in bytes: 16 hexadecimal digits between quotes.
pub const ENTITY_TAG_BYTES: usize = 18;
/// The same with a hyphen and the name of a coding.
const ENCODED_ENTITY_TAG_MAX_BYTES: usize = ENTITY_TAG_BYTES + "-zstd".len();

/// Writes the strong entity tag of a version.
pub fn entity_tag(tag: u64) -> [u8; ENTITY_TAG_BYTES] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'"'; ENTITY_TAG_BYTES];
    for (at, place) in text[1..=16].iter_mut().enumerate() {
        *place = HEX[(tag >> (60 - 4 * at)) as usize & 15];
    }
    text
}

/// The strong entity tag of a version in a coding: the coding's name stands behind the digits.
pub fn encoded_entity_tag(tag: u64, coding: Coding) -> EncodedEntityTag {
    let mut text = [b'"'; ENCODED_ENTITY_TAG_MAX_BYTES];
    text[..ENTITY_TAG_BYTES].copy_from_slice(&entity_tag(tag));
    let mut length = ENTITY_TAG_BYTES;
    if coding != Coding::Identity {
        let name = coding.name().as_bytes();
        text[length - 1] = b'-';
        text[length..length + name.len()].copy_from_slice(name);
        length += name.len() + 1;
    }
    EncodedEntityTag { text, length }
}

/// Reads an entity tag that [`encoded_entity_tag`] may have written, strong or made weak on its way; `None` if it is anything else.
pub fn own_entity_tag(text: &[u8]) -> Option<(u64, Coding)> {
    let text = text.strip_prefix(b"W/").unwrap_or(text);
    let inside = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let (digits, name) = inside.split_at_checked(16)?;
    let coding = match name {
        b"" => Coding::Identity,
        [b'-', name @ ..] => Coding::COMPRESSED.into_iter().find(|coding| coding.name().as_bytes() == name)?,
        _ => return None,
    };
    let tag = digits.iter().try_fold(0u64, |tag, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(tag << 4 | u64::from(value))
    })?;
    Some((tag, coding))
}

/// A written entity tag.
pub struct EncodedEntityTag {
    text: [u8; ENCODED_ENTITY_TAG_MAX_BYTES],
    length: usize,
}

impl std::ops::Deref for EncodedEntityTag {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.text[..self.length]
    }
}
