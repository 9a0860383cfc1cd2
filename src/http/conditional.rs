//! Conditional requests: entity tags, If-Match, If-None-Match (RFC 9110 sections 8.8.3 and 13).
//!
//! No resource here has a modification date, so If-Modified-Since and If-Unmodified-Since are ignored, as RFC 9110 asks
//! for (sections 13.1.3 and 13.1.4). Neither has one ranges, so If-Range is ignored too.

use super::head::Head;
use super::words::coding::Coding;
use super::words::entity_tag::{encoded_entity_tag, entity_tag};
use super::words::field_lines::FieldLines;
use super::words::syntax::trim;

/// What the conditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Answer as if there were none.
    Holds,
    /// Answer 304 (Not Modified), with the fields that a 200 would have.
    NotModified,
    /// Answer 412 (Precondition Failed), and change nothing.
    Failed,
}

/// Evaluates the conditions of a request, in the order of RFC 9110 section 13.2.2. `current` is the tag of what the
/// target shows now, `None` when there is nothing.
///
/// To be called last, when the answer without conditions would be a success (section 13.2.1).
#[inline]
pub fn evaluate(head: &Head<'_>, current: Option<u64>) -> Condition {
    if head.if_match().next().is_some() && !if_match_holds(head.if_match(), current) {
        return Condition::Failed;
    }
    match current {
        Some(tag) if if_none_match_hits(head.if_none_match(), tag) => {
            if head.method.is_read() {
                Condition::NotModified
            } else {
                Condition::Failed
            }
        }
        _ => Condition::Holds,
    }
}

/// Evaluates the conditions of a request for what comes in several codings, as [`evaluate`] does; any of its tags stands
/// for it. `coding` is the one of a full answer. With it comes the coding whose tag the answer 304 has: the one that the
/// client named, so that a cache knows which of its answers is meant (RFC 9111 section 4.3.4).
#[inline]
pub fn evaluate_encoded(head: &Head<'_>, tag: u64, coding: Coding) -> (Condition, Coding) {
    if !head.has_condition() {
        return (Condition::Holds, coding);
    }
    let mut codings = [coding, Coding::Identity, Coding::Gzip, Coding::Brotli, Coding::Zstd].into_iter();
    let is_named = |lines: FieldLines<'_>, coding, comparison| {
        let wanted = encoded_entity_tag(tag, coding);
        names_tag(lines, &wanted, comparison)
    };
    if head.if_match().next().is_some()
        && !codings.clone().any(|coding| is_named(head.if_match(), coding, Comparison::Strong))
    {
        return (Condition::Failed, coding);
    }
    match codings.find(|&coding| is_named(head.if_none_match(), coding, Comparison::Weak)) {
        Some(named) if head.method.is_read() => (Condition::NotModified, named),
        Some(named) => (Condition::Failed, named),
        None => (Condition::Holds, coding),
    }
}

/// Whether If-None-Match names the tag, by weak comparison, or is `*`. What is malformed is ignored.
#[inline]
pub fn if_none_match_hits<'a>(lines: impl Iterator<Item = &'a [u8]>, tag: u64) -> bool {
    names(lines, Some(tag), Comparison::Weak)
}

/// Whether If-Match names the tag, by strong comparison, or is `*` and there is something. What is malformed is ignored.
pub fn if_match_holds<'a>(lines: impl Iterator<Item = &'a [u8]>, current: Option<u64>) -> bool {
    names(lines, current, Comparison::Strong)
}

/// RFC 9110 section 8.8.3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn names<'a>(lines: impl Iterator<Item = &'a [u8]>, current: Option<u64>, comparison: Comparison) -> bool {
    current.is_some_and(|tag| names_tag(lines, &entity_tag(tag), comparison))
}

fn names_tag<'a>(mut lines: impl Iterator<Item = &'a [u8]>, wanted: &[u8], comparison: Comparison) -> bool {
    lines.any(|value| value == wanted || value == b"*" || list_names(value, wanted, comparison))
}

/// Whether a list of entity tags names one: `#( [ "W/" ] DQUOTE *etagc DQUOTE )`. A tag may contain commas.
fn list_names(value: &[u8], wanted: &[u8], comparison: Comparison) -> bool {
    let mut rest = trim(value);
    while !rest.is_empty() {
        let (is_weak, quoted) = match rest.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let tag = read_quoted(quoted);
        if let Some(tag) = tag
            && tag == wanted
            && ends_element(&quoted[tag.len()..])
            && !(is_weak && comparison == Comparison::Strong)
        {
            return true;
        }
        let behind = tag.map_or(rest, |tag| &quoted[tag.len()..]);
        let comma = behind.iter().position(|&byte| byte == b',');
        rest = comma.map_or(&b""[..], |comma| trim(&behind[comma + 1..]));
    }
    false
}

/// The quoted text at the start of `text`, with its quotes.
fn read_quoted(text: &[u8]) -> Option<&[u8]> {
    let inside = text.strip_prefix(b"\"")?;
    let end = inside.iter().position(|&byte| byte == b'"')?;
    Some(&text[..end + 2])
}

fn ends_element(text: &[u8]) -> bool {
    matches!(trim(text), [] | [b',', ..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::words::entity_tag::own_entity_tag;
    use crate::http::{FieldLines, Method, Parsed, parse_head};

    const TAG: u64 = 0x0123_4567_89ab_cdef;
    const TEXT: &str = "\"0123456789abcdef\"";

    fn hits(value: &str) -> bool {
        if_none_match_hits(FieldLines::of(value.as_bytes()), TAG)
    }

    #[test]
    fn entity_tags_are_quoted_hexadecimal() {
        assert_eq!(entity_tag(TAG), TEXT.as_bytes());
        assert_eq!(&entity_tag(0), b"\"0000000000000000\"");
        assert_eq!(&entity_tag(u64::MAX), b"\"ffffffffffffffff\"");
    }

    #[test]
    fn tags_of_ours_are_read_as_they_were_written() {
        for coding in [Coding::Identity, Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            for tag in [0, 1, TAG, u64::MAX] {
                let text = encoded_entity_tag(tag, coding);
                assert_eq!(own_entity_tag(&text), Some((tag, coding)));
                assert_eq!(own_entity_tag(&[b"W/", &text[..]].concat()), Some((tag, coding)));
            }
        }
        for other in [
            "",
            "*",
            "\"",
            "\"\"",
            "\"0123456789abcde\"",
            "\"0123456789abcdef",
            "0123456789abcdef",
            "\"0123456789abcdeF\"",
            "\"0123456789abcdeg\"",
            "\"0123456789abcdef0\"",
            "\"0123456789abcdef-\"",
            "\"0123456789abcdef-identity\"",
            "\"0123456789abcdef-lz4\"",
            "w/\"0123456789abcdef\"",
            "\"0123456789abcdef\", \"a\"",
        ] {
            assert_eq!(own_entity_tag(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn lists_of_tags() {
        let hit = [
            TEXT.to_owned(),
            "*".to_owned(),
            format!("W/{TEXT}"),
            format!("\"a\", {TEXT}"),
            format!("\"a\",W/\"b\",W/{TEXT},\"c\""),
            format!(", ,{TEXT} ,"),
            format!("\"a,b\"\t,\t{TEXT}"),
            format!("\"a, \"b\", {TEXT}"),
            format!("unquoted, {TEXT}"),
            format!("\"a\"b, {TEXT}"),
        ];
        for value in hit {
            assert!(hits(&value), "{value}");
        }
        let miss = [
            String::new(),
            ",".to_owned(),
            "\"\"".to_owned(),
            "\"".to_owned(),
            "W/".to_owned(),
            "0123456789abcdef".to_owned(),
            TEXT.to_uppercase(),
            format!("w/{TEXT}"),
            format!("W/ {TEXT}"),
            format!("{TEXT}x"),
            format!("x{TEXT}"),
            format!("\"a{TEXT}"),
            format!("\"a,{}", &TEXT[1..]),
            "\"0123456789abcde\"".to_owned(),
            "\"a\", *".to_owned(),
        ];
        for value in miss {
            assert!(!hits(&value), "{value}");
        }
    }

    fn evaluated(method: &str, fields: &str, current: Option<u64>) -> Condition {
        let request = format!("{method} /todos HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        match parse_head(request.as_bytes()) {
            Ok(Parsed::Complete { head, .. }) => evaluate(&head, current),
            other => panic!("{request}: {other:?}"),
        }
    }

    #[test]
    fn conditions_in_their_order() {
        use Condition::*;
        let none_match = format!("If-None-Match: {TEXT}\r\n");
        let weak_match = format!("If-Match: W/{TEXT}\r\n");
        let strong_match = format!("If-Match: \"a\"\r\nX: y\r\nIf-Match: {TEXT}\r\n");
        let cases: &[(&str, &str, Option<u64>, Condition)] = &[
            ("GET", "", Some(TAG), Holds),
            ("GET", &none_match, Some(TAG), NotModified),
            ("HEAD", &none_match, Some(TAG), NotModified),
            ("PUT", &none_match, Some(TAG), Failed),
            ("GET", &none_match, Some(1), Holds),
            ("PUT", "If-None-Match: *\r\n", Some(TAG), Failed),
            ("PUT", "If-None-Match: *\r\n", None, Holds),
            ("GET", "If-None-Match: *\r\n", Some(TAG), NotModified),
            ("PUT", "If-Match: *\r\n", Some(TAG), Holds),
            ("PUT", "If-Match: *\r\n", None, Failed),
            ("PUT", "If-Match:\r\n", Some(TAG), Failed),
            ("DELETE", &strong_match, Some(TAG), Holds),
            ("DELETE", &strong_match, Some(1), Failed),
            ("DELETE", &weak_match, Some(TAG), Failed),
            ("GET", "If-Match: \"a\"\r\nIf-None-Match: *\r\n", Some(TAG), Failed),
            ("GET", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", Some(TAG), Holds),
            ("PUT", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", Some(TAG), Holds),
        ];
        for (method, fields, current, expected) in cases {
            assert_eq!(evaluated(method, fields, *current), *expected, "{method} {fields}");
        }
        assert!(Method::Get.is_read());
    }

    #[test]
    fn any_coding_of_the_same_version_is_unchanged() {
        use Coding::*;
        use Condition::*;
        let gzip = "\"0123456789abcdef-gzip\"";
        let cases = [
            ("", Gzip, (Holds, Gzip)),
            (&*format!("If-None-Match: {gzip}\r\n"), Gzip, (NotModified, Gzip)),
            (&*format!("If-None-Match: W/{gzip}\r\n"), Brotli, (NotModified, Gzip)),
            (&*format!("If-None-Match: {gzip}\r\n"), Identity, (NotModified, Gzip)),
            (&*format!("If-None-Match: {TEXT}\r\n"), Gzip, (NotModified, Identity)),
            (&*format!("If-None-Match: {TEXT}, {gzip}\r\n"), Gzip, (NotModified, Gzip)),
            ("If-None-Match: *\r\n", Zstd, (NotModified, Zstd)),
            ("If-None-Match: \"0123456789abcdef-xz\"\r\n", Gzip, (Holds, Gzip)),
            (&*format!("If-Match: {gzip}\r\n"), Identity, (Holds, Identity)),
            (&*format!("If-Match: W/{gzip}\r\n"), Gzip, (Failed, Gzip)),
            ("If-Match: \"a\"\r\nIf-None-Match: *\r\n", Gzip, (Failed, Gzip)),
        ];
        for (fields, coding, expected) in cases {
            let request = format!("GET /todos HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let Ok(Parsed::Complete { head, .. }) = parse_head(request.as_bytes()) else { panic!("{request}") };
            assert_eq!(evaluate_encoded(&head, TAG, coding), expected, "{fields}");
        }
    }

    #[test]
    fn a_tag_in_any_of_several_lines_hits() {
        let fields =
            format!("If-None-Match: \"a\"\r\nAccept: x\r\nif-none-match:\t\"b\" \r\nIF-NONE-MATCH: {TEXT}\r\n");
        assert_eq!(evaluated("GET", &fields, Some(TAG)), Condition::NotModified);
        assert_eq!(evaluated("GET", &fields, Some(1)), Condition::Holds);
    }

    proptest! {
        #[test]
        fn random_values_never_panic(value in "[W/\", *a\t]{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            hits(&value);
            if_none_match_hits(FieldLines::of(&bytes), TAG);
        }

        #[test]
        fn a_tag_is_found_between_any_others(
            before in prop::collection::vec("(W/)?\"[a-z,]{0,5}\"", 0..4),
            after in prop::collection::vec("(W/)?\"[a-z,]{0,5}\"", 0..4),
        ) {
            let others = [before.clone(), after.clone()].concat().join(", ");
            prop_assert!(!hits(&others));
            let all = [before, vec![TEXT.to_owned()], after].concat().join(" ,");
            prop_assert!(hits(&all));
        }
    }
}
