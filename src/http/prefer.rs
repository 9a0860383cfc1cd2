//! `Prefer` (RFC 7240). What is not understood is ignored, whatever is wrong with it, as section 2 asks.

use super::words::field_lines::FieldLines;
use super::words::syntax::{is_token, trim};

/// The seconds of the preference `wait` (section 4.3); `None` when the client has none, or none that can be read. Of
/// several, the first counts. A number beyond what 64 bits hold counts as the largest.
pub fn wait_s(lines: FieldLines<'_>) -> Option<u64> {
    let preferences = lines.flat_map(|line| split(line, b',').map(|preference| split(preference, b';').next()));
    let value = preferences.flatten().find_map(|preference| match trim(preference) {
        // Names are compared without case, with or without quotes around the value (section 2).
        name if name.eq_ignore_ascii_case(b"wait") => Some(&b""[..]),
        pair => {
            let equals = pair.iter().position(|&byte| byte == b'=')?;
            trim(&pair[..equals]).eq_ignore_ascii_case(b"wait").then(|| trim(&pair[equals + 1..]))
        }
    })?;
    let digits = match value {
        [b'"', quoted @ .., b'"'] => quoted,
        token => token,
    };
    let is_number = is_token(digits) && digits.iter().all(u8::is_ascii_digit);
    let add = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    is_number.then(|| digits.iter().fold(0, add))
}

/// The parts of `text` between separators that stand in no quoted string (RFC 9110 section 5.6.4).
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    text.split(move |&byte| {
        if std::mem::take(&mut is_escaped) {
            return false;
        }
        is_escaped = is_quoted && byte == b'\\';
        is_quoted ^= byte == b'"';
        !is_quoted && byte == separator
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Parsed, parse_head};

    #[test]
    fn the_grammar_of_the_rfc() {
        for (value, seconds) in [
            ("wait=10", Some(10)),
            ("WAIT = 10", Some(10)),
            ("wait=\"10\"", Some(10)),
            ("wait=0", Some(0)),
            ("wait=007", Some(7)),
            ("wait=99999999999999999999999", Some(u64::MAX)),
            ("respond-async, wait=10", Some(10)),
            ("wait=10, wait=20", Some(10)),
            ("wait=x, wait=20", None),
            ("wait, wait=20", None),
            ("foo; wait=5, wait=10; bar=1", Some(10)),
            ("foo; wait=5", None),
            ("foo=\"a, wait=5\", wait=10", Some(10)),
            ("foo=\"a\\\", wait=5\", wait=10", Some(10)),
            ("foo=\"a, wait=5", None),
            (", ,wait=10,", Some(10)),
            ("wait=\"10;x\"", None),
            ("wait=", None),
            ("wait=\"\"", None),
            ("wait=\"", None),
            ("wait=-1", None),
            ("wait=+1", None),
            ("wait=1.5", None),
            ("wait=1 0", None),
            ("await=10", None),
            ("wait10", None),
            ("", None),
        ] {
            assert_eq!(wait_s(FieldLines::of(value.as_bytes())), seconds, "{value:?}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let request =
            b"POST /todos HTTP/1.1\r\nHost: h\r\nPrefer: return=minimal\r\nprefer: wait=3\r\nPrefer: wait=4\r\n\r\n";
        let Ok(Parsed::Complete { head, .. }) = parse_head(request) else { panic!("a whole head") };
        assert_eq!(wait_s(head.prefer()), Some(3));
    }
}
