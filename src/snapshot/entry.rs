//! One todo of a snapshot.

use super::chunk::Chunk;
use super::run::Run;
use super::tree::Summary;
use crate::todo::TodoKey;

/// What stands before a todo's owner in its JSON. It stands nowhere else: inside a JSON string every quote follows a
/// backslash.
const OWNER_PREFIX: &[u8] = b",\"user_id\":\"";

/// One todo of a snapshot.
#[derive(Clone, Copy)]
pub struct Entry<'s> {
    pub(super) chunk: &'s Chunk,
    /// Its number within the chunk.
    pub(super) at: usize,
    /// The sum over the chunks before.
    pub(super) before: Summary,
}

impl<'s> Entry<'s> {
    /// Its JSON object.
    pub fn json(&self) -> &'s [u8] {
        let json = self.chunk.item(self.at).json;
        &json[..json.len() - 1]
    }

    /// Changes when its JSON does; a function of the content alone, the same in every process.
    pub fn entity_tag(&self) -> u64 {
        self.chunk.item(self.at).hash
    }

    /// Its place in the list.
    pub fn key(&self) -> TodoKey {
        self.chunk.item(self.at).place.into()
    }

    /// Its number in the list, counted from 0 at the newest.
    pub fn rank(&self) -> usize {
        self.before.len + self.at
    }

    /// The sum over all todos before it and it.
    pub(super) fn sum_through(&self) -> Summary {
        self.before + self.chunk.sum_of_first(self.at + 1)
    }

    /// Whether this user created it.
    pub fn owned_by(&self, user_id: &str) -> bool {
        let json = self.json();
        // From behind: the long members stand before it.
        let prefix = json.windows(OWNER_PREFIX.len()).rposition(|window| window == OWNER_PREFIX);
        prefix.is_some_and(|at| starts_with_json_text(&json[at + OWNER_PREFIX.len()..], user_id))
    }

    /// Its JSON object as bytes to send.
    pub fn body(&self) -> Run {
        let end = self.sum_through().bytes - 1;
        Run::bare(end - self.json().len() as u64, end)
    }
}

/// Whether `json`, which begins after the opening quote of a string, begins with exactly this text and the closing
/// quote. Reads what [`write_json_string`](crate::todo::write_json_string) writes.
fn starts_with_json_text(json: &[u8], text: &str) -> bool {
    let mut rest = json;
    for expected in text.bytes() {
        let (byte, after) = match rest {
            [b'\\', b'u', b'0', b'0', high, low, after @ ..] => (hex_digit(*high) << 4 | hex_digit(*low), after),
            [b'\\', b'n', after @ ..] => (b'\n', after),
            [b'\\', b'r', after @ ..] => (b'\r', after),
            [b'\\', b't', after @ ..] => (b'\t', after),
            [b'\\', escaped, after @ ..] => (*escaped, after),
            [b'"', ..] | [] => return false,
            [byte, after @ ..] => (*byte, after),
        };
        if byte != expected {
            return false;
        }
        rest = after;
    }
    rest.first() == Some(&b'"')
}

fn hex_digit(digit: u8) -> u8 {
    char::from(digit).to_digit(16).unwrap_or_default() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::todo::write_json_string;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_text_equals_its_json_and_no_other(
            text in "[a-c\"\\\\\n\r\t\\x01\\x1fé😀]{0,6}",
            other in "[a-c\"\\\\\n\r\t\\x01\\x1fé😀]{0,6}",
        ) {
            let mut json = Vec::new();
            write_json_string(&mut json, &text);
            json.extend_from_slice(b",\"created_at\":\"\"");
            prop_assert!(starts_with_json_text(&json[1..], &text));
            prop_assert_eq!(starts_with_json_text(&json[1..], &other), text == other);
        }
    }
}
