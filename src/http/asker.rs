//! Whether a request comes from this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::head::Head;
use super::words::version::Version;

/// Whether a person or a program on this machine asks, as far as the request tells. For a proxy on this machine everybody
/// has its address, so what proxies leave behind decides as well: a request that names whom it is forwarded for, a host that
/// is not this machine's own name for itself, and HTTP/1.0, which some proxies speak to what stands behind them. A proxy that
/// hides all of that cannot be told from a person, and nginx does since 1.29.7 unless it is told otherwise: hence the setting
/// READY_DETAILS. What would do harm in a stranger's hands asks for more than this.
pub fn is_local(peer: Option<IpAddr>, head: &Head<'_>) -> bool {
    peer.is_some_and(|peer| peer.to_canonical().is_loopback())
        && head.version == Version::Http11
        && names_this_machine(head.authority)
        && !head.field_names().any(is_of_a_proxy)
}

/// Whether an authority is a name of the loopback interface.
fn names_this_machine(authority: &[u8]) -> bool {
    let Ok(authority) = std::str::from_utf8(authority) else { return false };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse().is_ok_and(|address: Ipv6Addr| address.to_canonical().is_loopback()),
        None => host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback()),
    }
}

/// Whether a field of this name says that somebody stands between client and server.
fn is_of_a_proxy(name: &[u8]) -> bool {
    let starts = |start: &[u8]| name.len() >= start.len() && name[..start.len()].eq_ignore_ascii_case(start);
    let ends = |end: &[u8]| name.len() >= end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end);
    // RFC 7239, RFC 9110 section 7.6.3, and the fields of before: X-Forwarded-For, X-Real-IP, CF-Connecting-IP and the like.
    name.eq_ignore_ascii_case(b"forwarded")
        || name.eq_ignore_ascii_case(b"via")
        || starts(b"x-forwarded-")
        || starts(b"x-envoy-")
        || ends(b"-ip")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Parsed, parse_head};

    fn judged(peer: &str, version: &str, host: &str, fields: &str) -> bool {
        let request = format!("GET /ready HTTP/{version}\r\nHost: {host}\r\n{fields}\r\n");
        match parse_head(request.as_bytes()) {
            Ok(Parsed::Complete { head, .. }) => is_local(peer.parse().ok(), &head),
            other => panic!("{request}: {other:?}"),
        }
    }

    #[test]
    fn who_asks_from_this_machine_is_local() {
        for peer in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"] {
            for host in
                ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::ffff:127.0.0.1]"]
            {
                assert!(judged(peer, "1.1", host, "User-Agent: curl\r\nAccept: */*\r\nShip: y\r\n"), "{peer} {host}");
            }
        }
    }

    #[test]
    fn others_and_all_that_a_proxy_passes_on_are_not() {
        for peer in
            ["10.0.0.1", "192.168.1.1", "172.17.0.1", "::ffff:10.0.0.1", "fe80::1", "2001:db8::1", "0.0.0.0", "none"]
        {
            assert!(!judged(peer, "1.1", "localhost", ""), "{peer}");
        }
        for host in
            ["example.com", "api.example.com:8080", "10.0.0.1", "localhost.example.com", "[2001:db8::1]:80", "", "::1"]
        {
            // What is no host at all is refused before.
            if host != "::1" {
                assert!(!judged("127.0.0.1", "1.1", host, ""), "{host}");
            }
        }
        for field in [
            "Forwarded: for=192.0.2.60",
            "Via: 1.1 proxy",
            "via: 1.0 x",
            "X-Forwarded-For: 192.0.2.60",
            "x-forwarded-for:",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: a",
            "X-Real-IP: 192.0.2.60",
            "CF-Connecting-IP: 192.0.2.60",
            "True-Client-IP: 192.0.2.60",
            "X-Envoy-External-Address: 192.0.2.60",
        ] {
            assert!(!judged("127.0.0.1", "1.1", "localhost", &format!("A: b\r\n{field}\r\nC: d\r\n")), "{field}");
        }
        assert!(
            !judged("127.0.0.1", "1.0", "localhost", ""),
            "nginx before 1.29.7 speaks HTTP/1.0 to what stands behind it"
        );
    }
}
