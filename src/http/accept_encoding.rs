//! `Accept-Encoding` (RFC 9110 section 12.5.3): which content coding an answer may have.

use super::words::coding::Coding;
use super::words::field_lines::FieldLines;
use super::words::syntax::{list_elements, trim};

/// The coding that the client likes best. Without the field, it has no preference, and gets identity, which costs it
/// nothing. Elements that cannot be read are ignored; of several that name the same coding, the first counts. When
/// nothing that is left is acceptable, it is identity: RFC 9110 section 12.5.3 leaves that to the server.
pub fn preferred_coding(lines: FieldLines<'_>) -> Coding {
    let (mut weights, mut others, mut identity) = ([None; Coding::COMPRESSED.len()], None, None);
    for element in lines.flat_map(list_elements) {
        let Some((name, weight)) = read_element(element) else { continue };
        let place = match Coding::COMPRESSED.iter().position(|coding| coding.is_called(name)) {
            Some(at) => &mut weights[at],
            None if name == b"*" => &mut others,
            None if Coding::Identity.is_called(name) => &mut identity,
            None => continue,
        };
        place.get_or_insert(weight);
    }
    let weights = weights.map(|weight| weight.or(others).unwrap_or(0));
    let mut best = (identity.unwrap_or(0), Coding::Identity);
    for (coding, weight) in Coding::COMPRESSED.into_iter().zip(weights) {
        // Identity that is liked as much as others is still the larger answer.
        if weight > best.0 || (weight == best.0 && weight > 0 && best.1 == Coding::Identity) {
            best = (weight, coding);
        }
    }
    best.1
}

/// `codings [ OWS ";" OWS "q=" qvalue ]`: the name and its weight in thousandths.
fn read_element(element: &[u8]) -> Option<(&[u8], u16)> {
    let Some(semicolon) = element.iter().position(|&byte| byte == b';') else { return Some((element, 1000)) };
    let weight = match trim(&element[semicolon + 1..]) {
        [b'q' | b'Q', b'=', value @ ..] => read_weight(value)?,
        _ => return None,
    };
    Some((trim(&element[..semicolon]), weight))
}

/// `qvalue` of RFC 9110 section 12.4.2: 0 to 1, with three decimals at most.
pub(super) fn read_weight(value: &[u8]) -> Option<u16> {
    let (whole, decimals) = match value {
        [whole @ (b'0' | b'1')] => (whole, &b""[..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    if !decimals.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| decimals.get(at).map_or(0, |digit| u16::from(digit - b'0'));
    let weight = 1000 * u16::from(whole - b'0') + 100 * digit(0) + 10 * digit(1) + digit(2);
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Coding::*;
    use super::*;
    use crate::http::{Parsed, parse_head};

    fn preferred(fields: &str) -> Coding {
        let request = format!("GET /todos HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        match parse_head(request.as_bytes()) {
            Ok(Parsed::Complete { head, .. }) => preferred_coding(head.accept_encoding()),
            other => panic!("{request}: {other:?}"),
        }
    }

    #[test]
    fn the_best_of_what_is_accepted() {
        for (value, coding) in [
            ("", Identity),
            ("gzip", Gzip),
            ("GZIP", Gzip),
            ("x-gzip", Gzip),
            ("br", Brotli),
            ("zstd", Zstd),
            ("deflate", Identity),
            ("compress, deflate", Identity),
            ("gzip, deflate, br, zstd", Brotli),
            ("gzip, deflate, zstd", Gzip),
            ("deflate, gzip, br;q=0.5", Gzip),
            ("br;q=0.5, zstd;q=0.501, gzip;q=0.5", Zstd),
            ("gzip;q=1.000, br;q=0.999", Gzip),
            ("gzip ; q=0.5 , br\t;\tQ=0.6", Brotli),
            ("identity", Identity),
            ("identity, gzip", Gzip),
            ("identity;q=0.5, gzip;q=0.4", Identity),
            ("identity;q=0.5, gzip;q=0.5", Gzip),
            ("gzip;q=0", Identity),
            ("gzip;q=0.000, *", Brotli),
            ("br;q=0, *;q=0.1", Gzip),
            ("*", Brotli),
            ("*;q=0", Identity),
            ("*;q=0, gzip;q=0.1", Gzip),
            ("identity;q=0", Identity),
            ("identity;q=0, gzip;q=0.001", Gzip),
            ("gzip;q=0, gzip", Identity),
            ("gzip;q=0.1, gzip;q=1, br;q=0.5", Brotli),
        ] {
            assert_eq!(preferred(&format!("Accept-Encoding: {value}\r\n")), coding, "{value:?}");
        }
        assert_eq!(preferred(""), Identity, "no field");
    }

    #[test]
    fn what_cannot_be_read_is_ignored() {
        for value in [
            "gzip;q=2",
            "gzip;q=1.001",
            "gzip;q=0.0001",
            "gzip;q=",
            "gzip;q=-1",
            "gzip;q=.5",
            "gzip;q=1.x",
            "gzip;q",
            "gzip;level=9",
            "gzip;q=1;q=1",
            "gzip q=1",
            "gzip;",
            "\"gzip\"",
            "g zip",
            ";q=1",
            "gzip;q= 1",
            "gzip;q =1",
        ] {
            assert_eq!(preferred(&format!("Accept-Encoding: {value}\r\n")), Identity, "{value:?}");
            assert_eq!(preferred(&format!("Accept-Encoding: {value}, ,br;q=0.1\r\n")), Brotli, "{value:?}");
        }
        assert_eq!(preferred("Accept-Encoding: gzip;q=1.\r\n"), Gzip, "the grammar allows it");
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines =
            "Accept-Encoding: deflate\r\nX: y\r\naccept-encoding: gzip;q=0.2\r\nAccept-Encoding: zstd;q=0.3\r\n";
        assert_eq!(preferred(lines), Zstd);
    }

    proptest! {
        #[test]
        fn random_values_never_panic(value in "[gzipbrstd*;q=01., \t]{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            preferred_coding(FieldLines::of(value.as_bytes()));
            preferred_coding(FieldLines::of(&bytes));
        }
    }
}
