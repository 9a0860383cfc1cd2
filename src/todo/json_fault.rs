//! What is wrong with a JSON text, and where: asked only when the fast parser has refused it.
//!
//! The fast parser says "no" without a true place, and also to what is valid: numbers beyond 64 bits and beyond a double, which
//! RFC 8259 section 6 lets a sender write. So a slower reader, which converts no number, has the last word.

use super::validation::BodyError;

/// Judges a text that was refused, which is UTF-8. `Ok`: it is valid but for what the fast parser cannot hold, and the numbers
/// in it have been replaced; no member that is known here is a number, so that nothing is lost.
///
/// # Errors
/// The text is not JSON; with the first byte that cannot stand where it stands.
pub(super) fn judge(text: &mut [u8]) -> Result<(), BodyError> {
    let mut reader = Reader { text, at: 0 };
    if let Err(fault) = reader.read_text() {
        let what = if reader.at < text.len() { fault } else { "it ends too early" };
        return Err(BodyError::whole(format!("the body is not valid JSON: {what}, {}", place(text, reader.at))));
    }
    replace_numbers(text);
    Ok(())
}

/// The place of a byte, counted from 1.
pub(super) fn place(text: &[u8], at: usize) -> String {
    let before = &text[..at.min(text.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    format!("at line {line}, byte {}", before.len() - line_start + 1)
}

/// What cannot stand at the reader's place.
type Fault = &'static str;

/// Reads a text from the left to the right (RFC 8259); after a fault it stands at the byte in question, or at the end.
struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Object,
    Array,
}

impl Reader<'_> {
    fn read_text(&mut self) -> Result<(), Fault> {
        // On the heap: how deep a text goes is its sender's choice.
        let mut around = Vec::new();
        loop {
            let begins = self.begin_value()?;
            if let Some(inside) = begins {
                self.skip_space();
                if !self.takes(inside.end()) {
                    around.push(inside);
                    if inside == Inside::Object {
                        self.read_name()?;
                    }
                    continue;
                }
            }
            // A value has ended, and perhaps what is around it.
            loop {
                self.skip_space();
                match around.last() {
                    None if self.at == self.text.len() => return Ok(()),
                    None => return Err("nothing may stand behind the object"),
                    Some(&inside) if self.takes(b',') => {
                        if inside == Inside::Object {
                            self.skip_space();
                            self.read_name()?;
                        }
                        break;
                    }
                    Some(inside) if self.takes(inside.end()) => drop(around.pop()),
                    Some(Inside::Object) => return Err("a comma or } is expected"),
                    Some(Inside::Array) => return Err("a comma or ] is expected"),
                }
            }
        }
    }

    /// Reads a value, or the bracket that begins one.
    fn begin_value(&mut self) -> Result<Option<Inside>, Fault> {
        self.skip_space();
        match self.next() {
            Some(b'{') => self.skip(Some(Inside::Object)),
            Some(b'[') => self.skip(Some(Inside::Array)),
            Some(b'"') => self.read_string().map(|()| None),
            Some(b'-' | b'0'..=b'9') => self.read_number().map(|()| None),
            Some(b't') => self.read_word(b"true").map(|()| None),
            Some(b'f') => self.read_word(b"false").map(|()| None),
            Some(b'n') => self.read_word(b"null").map(|()| None),
            _ => Err("a value is expected"),
        }
    }

    fn skip(&mut self, inside: Option<Inside>) -> Result<Option<Inside>, Fault> {
        self.at += 1;
        Ok(inside)
    }

    fn read_name(&mut self) -> Result<(), Fault> {
        if self.next() != Some(b'"') {
            return Err("the name of a member is expected, in double quotes");
        }
        self.read_string()?;
        self.skip_space();
        if self.takes(b':') { Ok(()) } else { Err("a colon is expected") }
    }

    fn read_string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        loop {
            match self.next() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.read_escape()?,
                Some(..0x20) => return Err("a control character within a text has to be escaped"),
                Some(_) => self.at += 1,
                None => return Err(""),
            }
        }
    }

    fn read_escape(&mut self) -> Result<(), Fault> {
        const LONE: Fault = "half of a pair of \\u escapes stands for no character";
        let start = self.at;
        self.at += 1;
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => match self.read_code_unit()? {
                0xdc00..=0xdfff => {
                    self.at = start;
                    return Err(LONE);
                }
                0xd800..=0xdbff => {
                    if !self.takes(b'\\') || self.next() != Some(b'u') {
                        return Err(LONE);
                    }
                    let second = self.at - 1;
                    if !matches!(self.read_code_unit()?, 0xdc00..=0xdfff) {
                        self.at = second;
                        return Err(LONE);
                    }
                }
                _ => {}
            },
            _ => return Err("there is no such escape"),
        }
        Ok(())
    }

    /// Reads `u` and four hexadecimal digits.
    fn read_code_unit(&mut self) -> Result<u32, Fault> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit * 16 + digit.ok_or("four hexadecimal digits are expected behind \\u")?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn read_number(&mut self) -> Result<(), Fault> {
        self.takes(b'-');
        if !self.takes(b'0') {
            self.read_digits()?;
        }
        if self.takes(b'.') {
            self.read_digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            let _ = self.takes(b'+') || self.takes(b'-');
            self.read_digits()?;
        }
        Ok(())
    }

    fn read_digits(&mut self) -> Result<(), Fault> {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count > 0 { Ok(()) } else { Err("a digit is expected") }
    }

    fn read_word(&mut self, word: &[u8]) -> Result<(), Fault> {
        let is_taken = word.iter().all(|&byte| self.takes(byte));
        if is_taken { Ok(()) } else { Err("a value is expected; words are true, false and null alone") }
    }

    fn skip_space(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn next(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.next() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }
}

impl Inside {
    fn end(self) -> u8 {
        match self {
            Inside::Object => b'}',
            Inside::Array => b']',
        }
    }
}

/// Makes each number of a valid text 0, without moving anything.
fn replace_numbers(text: &mut [u8]) {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => at = end_of_string(text, at),
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let length = text[at..].iter().take_while(|&byte| is_part(byte)).count();
                text[at..at + length].fill(b' ');
                text[at] = b'0';
                at += length;
            }
            _ => at += 1,
        }
    }
}

/// Where the string that begins at `at` is over.
fn end_of_string(text: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str) -> String {
        judge(&mut text.as_bytes().to_vec()).expect_err(text).to_string()
    }

    #[test]
    fn the_place_is_that_of_the_first_byte_that_cannot_stand_there() {
        for (text, expected) in [
            (r#"{"title":"a" "b":1}"#, "a comma or } is expected, at line 1, byte 14"),
            (r#"{"title":"a"} x"#, "nothing may stand behind the object, at line 1, byte 15"),
            (
                "{\n  \"title\": \"é\",\n  title: 1\n}",
                "the name of a member is expected, in double quotes, at line 3, byte 3",
            ),
            ("{\"title\":\"line\nbreak\"}", "a control character within a text has to be escaped, at line 1, byte 15"),
            (r#"{"title":"t","x":01}"#, "a comma or } is expected, at line 1, byte 19"),
            (r#"{"title":"t","x":-}"#, "a digit is expected, at line 1, byte 19"),
            (r#"{"title":"t","x":[1.]}"#, "a digit is expected, at line 1, byte 21"),
            (r#"{"title":"t","x":[1}"#, "a comma or ] is expected, at line 1, byte 20"),
            (r#"{"title":"t","x":NaN}"#, "a value is expected, at line 1, byte 18"),
            (
                r#"{"title":"t","x":nul}"#,
                "a value is expected; words are true, false and null alone, at line 1, byte 21",
            ),
            (r#"{"title":"\x"}"#, "there is no such escape, at line 1, byte 12"),
            (r#"{"title":"\u12g4"}"#, "four hexadecimal digits are expected behind \\u, at line 1, byte 15"),
            (r#"{"title":"\udead"}"#, "half of a pair of \\u escapes stands for no character, at line 1, byte 11"),
            (r#"{"title":"\ud800\n"}"#, "half of a pair of \\u escapes stands for no character, at line 1, byte 18"),
            ("{'title':1}", "the name of a member is expected, in double quotes, at line 1, byte 2"),
            (r#"{"title":"t",}"#, "the name of a member is expected, in double quotes, at line 1, byte 14"),
            (r#"{"title" "t"}"#, "a colon is expected, at line 1, byte 10"),
            ("{}\n\n}", "nothing may stand behind the object, at line 3, byte 1"),
            ("{\"a\":\n[1", "it ends too early, at line 2, byte 3"),
            (r#"{"a":"b"#, "it ends too early, at line 1, byte 8"),
        ] {
            assert_eq!(fault(text), format!("the body is not valid JSON: {expected}"), "{text}");
        }
    }

    #[test]
    fn numbers_are_replaced_and_texts_left_alone() {
        let mut text = br#"{"a":-1e400,"b 12":["1e9\"2",123456789012345678901234567890, 0.5E+3],"c":7}"#.to_vec();
        judge(&mut text).expect("valid");
        let value: serde_json::Value = serde_json::from_slice(&text).expect("still valid");
        assert_eq!(value, serde_json::json!({"a": 0, "b 12": ["1e9\"2", 0, 0], "c": 0}));
    }

    proptest! {
        #[test]
        fn another_parser_judges_the_same(text in r#"(\{|\}|\[|\]|:|,|"a"|"\\u0041|"|\\|[0-9]{1,2}|-|\.|[eE+]|true|null|fals|e| |\n|é){0,14}"#) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text).map_err(|error| error.to_string());
            // What it cannot hold is not what is judged here.
            prop_assume!(!theirs.as_ref().is_err_and(|error| error.contains("out of range")));
            let ours = judge(&mut text.clone().into_bytes());
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}: {:?} {:?}", text, ours, theirs);
        }

        #[test]
        fn what_stands_before_the_fault_is_no_fault(text in r#"\{("a"|:|,|"|\\u[0-9a-f]{3}|[0-9]|-|e|\[|\]|\}|tru|e){0,12}"#) {
            let mut reader = Reader { text: text.as_bytes(), at: 0 };
            if reader.read_text().is_err() {
                let before = judge(&mut text.as_bytes()[..reader.at].to_vec()).map_err(|error| error.to_string());
                // Half of a pair of escapes is found before its end.
                let is_no_fault = |told: &String| told.contains("ends too early") || told.contains("half of a pair");
                prop_assert!(before.as_ref().err().is_none_or(is_no_fault), "{}: {:?}", text, before);
            }
        }
    }
}
