//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): a string of structured fields (RFC 9651 section 3.3.3).

use std::borrow::Cow;

use super::problem::Problem;
use super::words::syntax::TOKEN;
use crate::limits::IDEMPOTENCY_KEY_MAX_BYTES;

/// Reads the value of the field. Beside the string in quotes that the draft asks for, the same key without quotes is taken,
/// as many clients send it: letters, digits, and the others of a token, `:` and `/`. Parameters are ignored, as an unknown
/// one must be.
///
/// # Errors
/// 400: no such string, an empty one, or one of more than [`IDEMPOTENCY_KEY_MAX_BYTES`] bytes.
pub fn idempotency_key(value: &[u8]) -> Result<Cow<'_, [u8]>, Problem> {
    let key = match value {
        [b'"', rest @ ..] => quoted(rest),
        bare => bare.iter().all(|&byte| TOKEN.contains(byte) || matches!(byte, b':' | b'/')).then_some(bare.into()),
    };
    key.filter(|key| (1..=IDEMPOTENCY_KEY_MAX_BYTES).contains(&key.len())).ok_or_else(|| {
        Problem::invalid_parameter(
            "Idempotency-Key is no string of 1 to 255 printable ASCII characters in quotes, such as \"8e03978e-40d5\"",
        )
    })
}

const _: () = assert!(IDEMPOTENCY_KEY_MAX_BYTES == 255, "the text of the 400 names the limit");

/// The string whose opening quote has been read; `None` when it is none.
fn quoted(rest: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut text = Cow::Borrowed(&b""[..]);
    let mut at = 0;
    loop {
        match rest[at..] {
            [b'"', ..] => break,
            [b'\\', escaped @ (b'"' | b'\\'), ..] => {
                text.to_mut().push(escaped);
                at += 2;
            }
            [b'\\', ..] => return None,
            [byte @ b' '..=b'~', ..] => {
                match &mut text {
                    Cow::Borrowed(text) => *text = &rest[..=at],
                    Cow::Owned(text) => text.push(byte),
                }
                at += 1;
            }
            _ => return None,
        }
    }
    match rest[at + 1..] {
        [] => Some(text),
        [b';', ref parameters @ ..] if parameters.iter().all(|byte| matches!(byte, b' '..=b'~')) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_with_and_without_quotes() {
        for (value, key) in [
            (&br#""8e03978e-40d5-43dd-bc93-6894a57f9324""#[..], &b"8e03978e-40d5-43dd-bc93-6894a57f9324"[..]),
            (b"8e03978e-40d5-43dd-bc93-6894a57f9324", b"8e03978e-40d5-43dd-bc93-6894a57f9324"),
            (b"order:7/a", b"order:7/a"),
            (br#""a b, c;d""#, b"a b, c;d"),
            (br#""a\"b\\c""#, br#"a"b\c"#),
            (br#""\\""#, b"\\"),
            (br#""a";p=1; q"#, b"a"),
            (br#""a";"#, b"a"),
        ] {
            let read = idempotency_key(value);
            assert_eq!(read.as_deref().ok(), Some(key), "{:?}", String::from_utf8_lossy(value));
        }
        let longest = vec![b'k'; IDEMPOTENCY_KEY_MAX_BYTES];
        assert_eq!(idempotency_key(&longest).as_deref().ok(), Some(&longest[..]));
        assert_eq!(idempotency_key(&[b"\"", &longest[..], b"\""].concat()).as_deref().ok(), Some(&longest[..]));
    }

    #[test]
    fn what_is_no_key_is_400() {
        let long = vec![b'k'; IDEMPOTENCY_KEY_MAX_BYTES + 1];
        let quoted_long = [b"\"", &long[..], b"\""].concat();
        for value in [
            &b""[..],
            br#""""#,
            br#"""#,
            br#""a"#,
            br#""a\""#,
            br#""a\b""#,
            br#"a"b""#,
            br#""a"b"#,
            br#""a" "b""#,
            br#""a","b""#,
            b"a b",
            b"a,b",
            b"a;p=1",
            b"a\tb",
            b"\"a\tb\"",
            b"\"a\x7fb\"",
            "\"ä\"".as_bytes(),
            "ä".as_bytes(),
            &long,
            &quoted_long,
        ] {
            let refused = idempotency_key(value).expect_err(&String::from_utf8_lossy(value));
            assert_eq!(refused.status().code(), 400);
        }
    }
}
