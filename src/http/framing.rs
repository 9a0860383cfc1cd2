//! How long the body of a request is (RFC 9112 section 6).

use super::words::problem_kind::ProblemKind;
use super::words::rejection::Rejection;
use super::words::syntax::{is_token, trim};
use super::words::version::Version;

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes, however many a client claims; zero when `Content-Length: 0` was sent.
    Length(u64),
    /// Chunks, to be read with [`crate::http::chunked::Decoder`].
    Chunked,
}

impl Framing {
    /// Whether bytes of a body follow the head.
    pub const fn has_body(self) -> bool {
        matches!(self, Framing::Length(1..) | Framing::Chunked)
    }
}

/// What the fields of one head say about framing.
#[derive(Debug, Default)]
pub(super) struct FramingFields<'a> {
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<TransferCodings>,
}

/// The transfer codings, over all field lines in their order.
#[derive(Debug, Default, Clone, Copy)]
struct TransferCodings {
    chunked_count: usize,
    chunked_is_last: bool,
    malformed: bool,
    unknown: bool,
}

impl<'a> FramingFields<'a> {
    /// Takes one `Content-Length` line. A second one is refused even when it agrees, as RFC 9110 section 8.6 allows.
    pub(super) fn take_content_length(&mut self, value: &'a [u8]) -> Result<(), Rejection> {
        match self.content_length.replace(value) {
            None => Ok(()),
            Some(_) => Err(Rejection::bad_request("Content-Length is given twice")),
        }
    }

    /// Takes one `Transfer-Encoding` line.
    pub(super) fn take_transfer_encoding(&mut self, value: &[u8]) {
        let codings = self.transfer_encoding.get_or_insert_default();
        // Not `list_elements`: a recipient must ignore empty elements (RFC 9110 section 5.6.1.2), but one that does and one
        // that does not would read another length. No client sends them, so they are refused, as in a second line.
        for element in value.split(|&byte| byte == b',').map(trim) {
            let (name, parameters) = match element.iter().position(|&byte| byte == b';') {
                Some(at) => (trim(&element[..at]), Some(&element[at..])),
                None => (element, None),
            };
            codings.chunked_is_last = name.eq_ignore_ascii_case(b"chunked");
            if codings.chunked_is_last {
                codings.chunked_count += 1;
                // RFC 9112 section 7.1: chunked has no parameters, and their presence is an error.
                codings.malformed |= parameters.is_some();
            } else {
                codings.unknown = true;
                codings.malformed |= !is_token(name);
            }
        }
    }

    /// Decides. Everything that two recipients might read differently is refused, and the connection closed.
    #[inline]
    pub(super) fn decide(self, version: Version) -> Result<Framing, Rejection> {
        match (self.transfer_encoding, self.content_length) {
            (None, None) => Ok(Framing::None),
            (None, Some(value)) => read_content_length(value),
            (Some(_), Some(_)) => {
                Err(Rejection::bad_request("Content-Length and Transfer-Encoding must not be given together"))
            }
            (Some(codings), None) => check_transfer_codings(codings, version),
        }
    }
}

/// `Content-Length = 1*DIGIT`.
fn read_content_length(value: &[u8]) -> Result<Framing, Rejection> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Rejection::bad_request("Content-Length is not one decimal number"));
    }
    let length =
        value.iter().try_fold(0u64, |length, digit| length.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    match length {
        None => Err(Rejection::bad_request("Content-Length is 2^64 or more")),
        Some(length) => Ok(Framing::Length(length)),
    }
}

fn check_transfer_codings(codings: TransferCodings, version: Version) -> Result<Framing, Rejection> {
    if version == Version::Http10 {
        return Err(Rejection::bad_request("HTTP/1.0 has no Transfer-Encoding"));
    }
    if codings.malformed {
        return Err(Rejection::bad_request("Transfer-Encoding is malformed"));
    }
    // RFC 9112 section 6.3: without a final chunked the length cannot be known, whatever the codings before it.
    if !codings.chunked_is_last {
        return Err(Rejection::bad_request("the last transfer coding of a request must be chunked"));
    }
    if codings.chunked_count > 1 {
        return Err(Rejection::bad_request("chunked must not be applied twice"));
    }
    if codings.unknown {
        return Err(Rejection::new(ProblemKind::NotImplemented, "the only transfer coding known here is chunked"));
    }
    Ok(Framing::Chunked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(version: Version, fields: &[(&str, &'static str)]) -> Result<Framing, u16> {
        let mut framing = FramingFields::default();
        for (name, value) in fields {
            match *name {
                "cl" => framing.take_content_length(value.as_bytes()).map_err(|rejection| rejection.status().code())?,
                _ => framing.take_transfer_encoding(value.as_bytes()),
            }
        }
        framing.decide(version).map_err(|rejection| rejection.status().code())
    }

    #[test]
    fn content_length() {
        let cases = [
            ("0", Ok(Framing::Length(0))),
            ("42", Ok(Framing::Length(42))),
            ("0000000000000000000000000000000042", Ok(Framing::Length(42))),
            ("65537", Ok(Framing::Length(65537))),
            ("18446744073709551615", Ok(Framing::Length(u64::MAX))),
            ("18446744073709551616", Err(400)),
            ("99999999999999999999999999999999", Err(400)),
            ("", Err(400)),
            ("+1", Err(400)),
            ("-1", Err(400)),
            ("1 1", Err(400)),
            ("1,1", Err(400)),
            ("1, 1", Err(400)),
            ("5,6", Err(400)),
            ("0x10", Err(400)),
            ("1e3", Err(400)),
            ("1.0", Err(400)),
            ("1_000", Err(400)),
            ("１", Err(400)),
        ];
        for (value, expected) in cases {
            assert_eq!(decide(Version::Http11, &[("cl", value)]), expected, "{value:?}");
            assert_eq!(decide(Version::Http10, &[("cl", value)]), expected, "{value:?}");
        }
        assert_eq!(decide(Version::Http11, &[("cl", "1"), ("cl", "1")]), Err(400));
        assert_eq!(decide(Version::Http11, &[]), Ok(Framing::None));
    }

    #[test]
    fn transfer_encoding() {
        let cases: &[(&[&'static str], Result<Framing, u16>)] = &[
            (&["chunked"], Ok(Framing::Chunked)),
            (&["Chunked"], Ok(Framing::Chunked)),
            (&[", chunked ,"], Err(400)),
            (&[",chunked"], Err(400)),
            (&["chunked,"], Err(400)),
            (&["gzip, , chunked"], Err(400)),
            (&["chunked", ""], Err(400)),
            (&["", "chunked"], Err(400)),
            (&["chunked", " \t"], Err(400)),
            (&["chunked", ","], Err(400)),
            (&[""], Err(400)),
            (&[","], Err(400)),
            (&["identity"], Err(400)),
            (&["gzip"], Err(400)),
            (&["chunked, gzip"], Err(400)),
            (&["chunked", "identity"], Err(400)),
            (&["chunked, chunked"], Err(400)),
            (&["chunked", "chunked"], Err(400)),
            (&["chunked;a=b"], Err(400)),
            (&["chunked;"], Err(400)),
            (&["\"chunked\""], Err(400)),
            (&["xchunked"], Err(400)),
            (&["chunked x"], Err(400)),
            (&["x y, chunked"], Err(400)),
            (&["gzip, chunked"], Err(501)),
            (&["gzip", "chunked"], Err(501)),
            (&["identity, chunked"], Err(501)),
            (&["x;a=b, chunked"], Err(501)),
        ];
        for (values, expected) in cases {
            let fields: Vec<_> = values.iter().map(|value| ("te", *value)).collect();
            assert_eq!(decide(Version::Http11, &fields), *expected, "{values:?}");
            assert_eq!(decide(Version::Http10, &fields), Err(400), "{values:?}");
        }
    }

    #[test]
    fn both_are_refused_in_either_order() {
        assert_eq!(decide(Version::Http11, &[("cl", "5"), ("te", "chunked")]), Err(400));
        assert_eq!(decide(Version::Http11, &[("te", "chunked"), ("cl", "5")]), Err(400));
        assert_eq!(decide(Version::Http11, &[("te", ""), ("cl", "0")]), Err(400));
    }
}
