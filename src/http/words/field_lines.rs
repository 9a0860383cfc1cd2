//! A field that may stand on several lines (RFC 9110 section 5.3).

use super::syntax::trim;

/// The values of one field, one for each of its lines, in their order, without the whitespace around them.
#[derive(Debug, Clone)]
pub struct FieldLines<'a> {
    pub(in crate::http) name: &'static str,
    pub(in crate::http) first: Option<&'a [u8]>,
    /// Lines of a head that has been checked, with those of other fields, from the end of the first value on.
    pub(in crate::http) rest: &'a [u8],
}

impl<'a> FieldLines<'a> {
    /// The field with just this value.
    pub fn of(value: &'a [u8]) -> FieldLines<'a> {
        FieldLines { name: "", first: Some(value), rest: b"" }
    }
}

impl<'a> Iterator for FieldLines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = self.rest.split_at(end + 1);
            self.rest = rest;
            if let [name @ .., b'\r', b'\n'] = line
                && let Some(colon) = name.iter().position(|&byte| byte == b':')
                && name[..colon].eq_ignore_ascii_case(self.name.as_bytes())
            {
                return Some(trim(&name[colon + 1..]));
            }
        }
        None
    }
}
