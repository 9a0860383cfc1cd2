//! The authority of a request: `Host`, and the authority of an absolute target.

use std::net::Ipv6Addr;

use super::words::syntax::{REG_NAME, percent_decoded};

/// Whether `text` is `uri-host [ ":" port ]` (RFC 9110 section 7.2, RFC 3986 section 3.2), with a port that TCP has.
/// The host may be empty.
pub(super) fn is_valid(text: &[u8]) -> bool {
    match split_host(text) {
        Some((_, [])) => true,
        Some((_, [b':', port @ ..])) => is_port(port),
        _ => false,
    }
}

/// Whether the host in a valid authority is not empty.
pub(super) fn has_host(text: &[u8]) -> bool {
    split_host(text).is_some_and(|(host, _)| !host.is_empty())
}

/// Whether `text` is the authority that CONNECT needs: a host and a port (RFC 9112 section 3.2.3).
pub(super) fn is_valid_tunnel(text: &[u8]) -> bool {
    matches!(split_host(text), Some(([_, ..], [b':', port @ ..])) if is_port(port) && port.iter().any(|&digit| digit != b'0'))
}

/// Splits behind the host; `None` when the host is malformed.
fn split_host(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if text.first() == Some(&b'[') {
        let end = text.iter().position(|&byte| byte == b']')?;
        return is_ip_literal(&text[1..end]).then(|| text.split_at(end + 1));
    }
    let mut end = 0;
    loop {
        end += text[end..].iter().position(|&byte| !REG_NAME.contains(byte)).unwrap_or(text.len() - end);
        if text.get(end) != Some(&b'%') {
            return Some(text.split_at(end));
        }
        percent_decoded(&text[end..])?;
        end += 3;
    }
}

/// What stands between the brackets: `IPv6address` or `IPvFuture`.
fn is_ip_literal(text: &[u8]) -> bool {
    if let [b'v' | b'V', future @ ..] = text {
        let Some(dot) = future.iter().position(|&byte| byte == b'.') else { return false };
        let (version, address) = (&future[..dot], &future[dot + 1..]);
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && !address.is_empty()
            && address.iter().all(|&byte| byte == b':' || REG_NAME.contains(byte));
    }
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// `port = *DIGIT`, up to 65,535.
fn is_port(text: &[u8]) -> bool {
    let mut port = 0u32;
    text.iter().all(|&digit| {
        port = port.saturating_mul(10).saturating_add(u32::from(digit.wrapping_sub(b'0')));
        digit.is_ascii_digit() && port <= u32::from(u16::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        let valid = [
            "",
            "a",
            "a:",
            ":80",
            "example.com:8080",
            "127.0.0.1:65535",
            "[::1]",
            "[::1]:80",
            "[v1.a:b]",
            "a%20b",
            "a,b",
            "x_y",
        ];
        for text in valid {
            assert!(is_valid(text.as_bytes()), "{text}");
        }
        let invalid = [
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "user@a",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:99999999999",
            "a:-1",
            "[::1",
            "[]",
            "[::1]x",
            "[::1]80",
            "::1",
            "[1.2.3.4]",
            "[::g]",
            "[v.a]",
            "[v1.]",
            "a%2",
            "a%zz",
            "a\\b",
            "a\"b",
            "ä",
            "a<b",
            "a:8 0",
        ];
        for text in invalid {
            assert!(!is_valid(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn tunnels_need_a_host_and_a_port() {
        assert!(is_valid_tunnel(b"a:443"));
        assert!(is_valid_tunnel(b"[::1]:443"));
        for text in ["a", "a:", ":443", "a:0", "a:65536", "a:x", "http://a:1", "/", "*"] {
            assert!(!is_valid_tunnel(text.as_bytes()), "{text}");
        }
    }
}
