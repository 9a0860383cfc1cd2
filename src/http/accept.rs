//! `Accept` (RFC 9110 section 12.5.1): whether an answer of a media type is wanted.

use super::accept_encoding::read_weight;
use super::words::field_lines::FieldLines;
use super::words::syntax::{list_elements, trim};

/// Whether the client takes `type_name/subtype`. Without the field, or with nothing in it, it takes anything. The most specific
/// range that fits decides; parameters make none more specific here. What cannot be read is ignored.
pub fn accepts(lines: FieldLines<'_>, type_name: &str, subtype: &str) -> bool {
    let mut is_given = false;
    // The weights of `type/subtype`, `type/*` and `*/*`.
    let mut weights = [None::<u16>; 3];
    for element in lines.flat_map(list_elements) {
        is_given = true;
        let mut parts = element.split(|&byte| byte == b';').map(trim);
        let Some(range) = parts.next() else { continue };
        let Some(slash) = range.iter().position(|&byte| byte == b'/') else { continue };
        let is = |text: &[u8], name: &str| text.eq_ignore_ascii_case(name.as_bytes());
        let place = match (&range[..slash], &range[slash + 1..]) {
            (named, sub) if is(named, type_name) && is(sub, subtype) => &mut weights[0],
            (named, b"*") if is(named, type_name) => &mut weights[1],
            (b"*", b"*") => &mut weights[2],
            _ => continue,
        };
        let weight = parts.find_map(|part| match part {
            [b'q' | b'Q', b'=', value @ ..] => Some(read_weight(value)),
            _ => None,
        });
        if let Some(weight) = weight.unwrap_or(Some(1000)) {
            *place = Some(place.map_or(weight, |known| known.max(weight)));
        }
    }
    !is_given || weights.into_iter().flatten().next().is_some_and(|weight| weight > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_range_decides() {
        for (value, expected) in [
            ("", true),
            ("text/event-stream", true),
            ("TEXT/Event-Stream", true),
            ("text/*", true),
            ("*/*", true),
            ("application/json, */*;q=0.1", true),
            ("application/json", false),
            ("application/json, text/html", false),
            ("text/event-stream;q=0", false),
            ("text/event-stream;q=0.000, */*", false),
            ("text/*;q=0, */*", false),
            ("text/event-stream, text/*;q=0", true),
            ("text/event-stream;charset=utf-8;q=0.5", true),
            ("text/html;q=x, text/event-stream;q=x", false),
            ("text", false),
            ("event-stream", false),
            ("*", false),
            ("application/json,, text/event-stream", true),
        ] {
            let lines = FieldLines::of(value.as_bytes());
            assert_eq!(accepts(lines, "text", "event-stream"), expected, "{value:?}");
        }
    }
}
