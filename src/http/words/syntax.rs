//! The character classes and small grammars that several parts of HTTP share.

/// A set of bytes; membership is one load.
pub(in crate::http) struct ByteSet([bool; 256]);

impl ByteSet {
    const fn alphanumeric_and(others: &[u8]) -> ByteSet {
        let mut set = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            set[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let mut at = 0;
        while at < others.len() {
            set[others[at] as usize] = true;
            at += 1;
        }
        ByteSet(set)
    }

    #[inline]
    pub(in crate::http) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }
}

/// `tchar`, RFC 9110 section 5.6.2.
pub(in crate::http) static TOKEN: ByteSet = ByteSet::alphanumeric_and(b"!#$%&'*+-.^_`|~");
/// `reg-name` without its `pct-encoded`, RFC 3986 section 3.2.2.
pub(in crate::http) static REG_NAME: ByteSet = ByteSet::alphanumeric_and(b"-._~!$&'()*+,;=");
/// `pchar` and `/`, RFC 3986 section 3.3, without the `%` of `pct-encoded`: what a path and a query are made of, but for
/// the characters that have a meaning there.
pub(in crate::http) static PLAIN_TARGET: ByteSet = ByteSet::alphanumeric_and(b"-._~!$&'()*+,;=:@/");
/// What stands in a query beside [`PLAIN_TARGET`], though RFC 3986 section 3.4 wants it percent-encoded: browsers send the ASCII
/// ones as they are (the query percent-encode set of the URL Standard leaves them out), curl and others UTF-8. None of them
/// separates anything, in a request line or in a query, so nobody can read them in two ways.
pub(in crate::http) fn is_raw_in_query(byte: u8) -> bool {
    matches!(byte, b'[' | b']' | b'{' | b'}' | b'|' | b'^' | b'`' | b'\\' | 0x80..)
}

/// `unreserved`, RFC 3986 section 2.3: these mean the same whether percent-encoded or not.
pub(in crate::http) static UNRESERVED: ByteSet = ByteSet::alphanumeric_and(b"-._~");

/// Whether a byte may stand in a field value: HTAB, SP, VCHAR, obs-text (RFC 9110 section 5.5).
pub(in crate::http) fn is_field_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether `text` is a `token`, RFC 9110 section 5.6.2.
pub(in crate::http) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| TOKEN.contains(byte))
}

/// The value of a hexadecimal digit.
pub(in crate::http) fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The byte that a percent-encoding at the start of `text` stands for.
pub(in crate::http) fn percent_decoded(text: &[u8]) -> Option<u8> {
    match text {
        [b'%', high, low, ..] => Some(hex_value(*high)? << 4 | hex_value(*low)?),
        _ => None,
    }
}

/// Whether two hexadecimal digits follow each `%`, RFC 3986 section 2.1.
pub(in crate::http) fn percent_encodings_are_whole(text: &[u8]) -> bool {
    let is_whole = |(at, _): (usize, &u8)| percent_decoded(&text[at..]).is_some();
    !text.contains(&b'%') || text.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(is_whole)
}

/// `text` without the optional whitespace (SP, HTAB) around it.
pub(in crate::http) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The elements of a list of tokens, RFC 9110 section 5.6.1; empty elements are left out, as a recipient must. Their
/// number is bounded by the size of the head.
pub(in crate::http) fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_lose_whitespace_and_empty_elements() {
        let elements: Vec<&[u8]> = list_elements(b" ,\ta b , ,,c\t").collect();
        assert_eq!(elements, [&b"a b"[..], b"c"]);
        assert_eq!(list_elements(b" , ").count(), 0);
    }

    #[test]
    fn percent_encodings() {
        assert_eq!(percent_decoded(b"%2Fx"), Some(b'/'));
        assert_eq!(percent_decoded(b"%2"), None);
        assert_eq!(percent_decoded(b"%g0"), None);
        assert!(percent_encodings_are_whole(b"a%41%42"));
        assert!(!percent_encodings_are_whole(b"a%4"));
    }

    #[test]
    fn character_classes_are_those_of_the_grammar() {
        for byte in 0..=255u8 {
            let separator = b"\"(),/:;<=>?@[\\]{}".contains(&byte);
            assert_eq!(TOKEN.contains(byte), byte.is_ascii_graphic() && !separator, "{byte:#x}");
            let outside_uri = b"\"#%<>?[\\]^`{|}".contains(&byte);
            assert_eq!(PLAIN_TARGET.contains(byte), byte.is_ascii_graphic() && !outside_uri, "{byte:#x}");
        }
    }
}
