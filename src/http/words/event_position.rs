//! Positions: what names a state of the list to clients (`Event-Position`), the same text in every process.

/// Longest text of a [`Position`], in bytes: the digits of two numbers of 64 bits and a hyphen.
pub const POSITION_TEXT_MAX_BYTES: usize = 20 + 1 + STATE_DIGITS;
const STATE_DIGITS: usize = 16;

/// A state of the list: how far it has come, and a keyed hash of all that it holds. Two lists with one position hold the same,
/// whatever way their processes came to it; so who has the one can go on with the changes of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// Commands of the log that the list has taken in, of all partitions together; greater is later.
    pub progress: u64,
    /// The hash of the list's todos.
    pub state: u64,
}

impl Position {
    /// Appends it as text: characters that may stand in a field, in an event and in a query.
    pub fn write(&self, out: &mut Vec<u8>) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        out.extend_from_slice(itoa::Buffer::new().format(self.progress).as_bytes());
        let mut text = [b'-'; 1 + STATE_DIGITS];
        for (at, place) in text[1..].iter_mut().enumerate() {
            *place = HEX[(self.state >> (60 - 4 * at)) as usize & 15];
        }
        out.extend_from_slice(&text);
    }

    /// Reads it back. Each position has one text only: any other is none.
    pub fn parse(text: &[u8]) -> Option<Position> {
        let text = std::str::from_utf8(text).ok()?;
        let (progress, state) = text.split_once('-')?;
        let is_state = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_sound = progress.bytes().all(|byte| byte.is_ascii_digit())
            && (progress == "0" || !progress.starts_with('0'))
            && state.len() == STATE_DIGITS
            && state.bytes().all(is_state);
        if !is_sound {
            return None;
        }
        Some(Position { progress: progress.parse().ok()?, state: u64::from_str_radix(state, 16).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(position: Position) -> Vec<u8> {
        let mut text = Vec::new();
        position.write(&mut text);
        text
    }

    #[test]
    fn what_is_no_position_is_none() {
        let position = Position { progress: 12, state: 0xabc };
        assert_eq!(text(position), b"12-0000000000000abc");
        assert_eq!(text(Position { progress: u64::MAX, state: u64::MAX }).len(), POSITION_TEXT_MAX_BYTES);
        for text in [
            "",
            "-",
            "12",
            "12-",
            "-0000000000000abc",
            "12-000000000000abc",
            "12-00000000000000abc",
            "12-0000000000000ABC",
            "12-0000000000000abg",
            "012-0000000000000abc",
            "+12-0000000000000abc",
            " 12-0000000000000abc",
            "12-0000000000000abc ",
            "12--000000000000abc",
            "12-+00000000000abc",
            "18446744073709551616-0000000000000abc",
            "١-0000000000000abc",
        ] {
            assert_eq!(Position::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Position::parse(&[0xff, b'-']), None);
    }

    proptest! {
        #[test]
        fn positions_are_read_back(progress: u64, state: u64) {
            let position = Position { progress, state };
            prop_assert_eq!(Position::parse(&text(position)), Some(position));
        }

        #[test]
        fn random_texts_never_panic(text in "[0-9a-f-]{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Position::parse(text.as_bytes());
            let _ = Position::parse(&bytes);
        }
    }
}
