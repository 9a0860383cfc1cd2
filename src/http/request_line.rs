//! The request line: method, target, version (RFC 9112 section 3).

use super::authority;
use super::words::method::Method;
use super::words::problem_kind::ProblemKind;
use super::words::rejection::Rejection;
use super::words::syntax::{PLAIN_TARGET, TOKEN, is_raw_in_query, percent_encodings_are_whole};
use super::words::version::Version;
use crate::limits::{METHOD_MAX_BYTES, TARGET_MAX_BYTES};

/// A request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestLine<'a> {
    pub method: Method,
    /// The authority of an absolute target; it replaces Host (RFC 9112 section 3.2.2).
    pub authority: Option<&'a [u8]>,
    pub path: &'a [u8],
    pub query: Option<&'a [u8]>,
    pub version: Version,
    /// Bytes of the line, with its CRLF.
    pub length: usize,
}

/// Reads the line at the start of `input`; `None` while it is incomplete.
#[inline(always)]
pub(super) fn read(input: &[u8]) -> Result<Option<RequestLine<'_>>, Rejection> {
    let Some(method_length) = measure_method(input)? else { return Ok(None) };
    let method = Method::from_name(&input[..method_length]);
    let after_method = &input[method_length + 1..];
    let Some(target) = measure_target(after_method)? else { return Ok(None) };
    let after_target = &after_method[target.length + 1..];
    let Some(version) = read_version(after_target)? else { return Ok(None) };
    let length = method_length + 1 + target.length + 1 + VERSION_PATTERN.len();
    let text = &after_method[..target.length];
    let (authority, path, query) = match (method, text) {
        (Method::Connect, _) => return Err(refuse_tunnel(text)),
        (_, [b'/', ..]) => {
            let (path, query) = split_query(text, target.query_at);
            (None, path, query)
        }
        (Method::Options, b"*") => (None, text, None),
        (_, b"*") => return Err(Rejection::bad_request("the target * is for OPTIONS only")),
        _ => read_absolute_target(method, text)?,
    };
    Ok(Some(RequestLine { method, authority, path, query, version, length }))
}

/// The length of the method, which ends at a space.
#[inline]
fn measure_method(input: &[u8]) -> Result<Option<usize>, Rejection> {
    if input.starts_with(b"GET ") {
        return Ok(Some(3));
    }
    for (at, &byte) in input.iter().enumerate() {
        match byte {
            b' ' if at > 0 => return Ok(Some(at)),
            _ if !TOKEN.contains(byte) => return Err(refuse_method(at, byte)),
            _ if at == METHOD_MAX_BYTES => {
                return Err(Rejection::new(ProblemKind::NotImplemented, "the method is longer than any that is known"));
            }
            _ => {}
        }
    }
    Ok(None)
}

#[cold]
fn refuse_method(at: usize, byte: u8) -> Rejection {
    // A TLS record of type handshake starts with this byte (RFC 8446 section 5.1).
    const TLS_HANDSHAKE: u8 = 0x16;
    Rejection::bad_request(match (at, byte) {
        (0, TLS_HANDSHAKE) => "this port speaks plain HTTP, and the request is TLS: use http:// instead of https://",
        (_, b'\r' | b'\n') => "the request line ends within the method",
        _ => "the request does not start with a method",
    })
}

struct TargetMeasure {
    length: usize,
    /// Where the first `?` stands.
    query_at: Option<usize>,
}

/// The length of the target, which ends at a space. Every byte is checked on the way.
#[inline]
fn measure_target(input: &[u8]) -> Result<Option<TargetMeasure>, Rejection> {
    // Only an absolute target has an authority, and only an authority has brackets.
    let is_absolute = input.first() != Some(&b'/');
    let window = &input[..input.len().min(TARGET_MAX_BYTES + 1)];
    let mut length = 0;
    let mut query_at = None;
    let mut has_percent = false;
    loop {
        length += window[length..].iter().take_while(|&&byte| PLAIN_TARGET.contains(byte)).count();
        match window.get(length) {
            Some(b' ') => break,
            Some(b'?') => query_at = query_at.or(Some(length)),
            Some(b'%') => has_percent = true,
            Some(b'[' | b']') if is_absolute => {}
            Some(&byte) if query_at.is_some() && is_raw_in_query(byte) => {}
            Some(&byte) => return Err(refuse_target(byte)),
            None if window.len() <= TARGET_MAX_BYTES => return Ok(None),
            None => return Err(TARGET_TOO_LONG),
        }
        length += 1;
    }
    if length == 0 {
        return Err(Rejection::bad_request("more than one space between method and target"));
    }
    if has_percent && !percent_encodings_are_whole(&window[..length]) {
        return Err(Rejection::bad_request("the target has a % without two hexadecimal digits"));
    }
    Ok(Some(TargetMeasure { length, query_at }))
}

const TARGET_TOO_LONG: Rejection =
    Rejection::new(ProblemKind::UriTooLong, "the request target is longer than 4096 bytes");
const _: () = assert!(TARGET_MAX_BYTES == 4096, "the text of the 414 names the limit");

#[cold]
fn refuse_target(byte: u8) -> Rejection {
    Rejection::bad_request(match byte {
        b'\r' | b'\n' => "the request line ends without a version, such as HTTP/1.1",
        b'#' => "the target has a fragment; # must be sent as %23",
        _ => "the target has a character that must be percent-encoded",
    })
}

/// What follows the target; `D` stands for a digit.
const VERSION_PATTERN: &[u8; 10] = b"HTTP/D.D\r\n";

/// Reads the version and the end of the line.
#[inline]
fn read_version(input: &[u8]) -> Result<Option<Version>, Rejection> {
    if input.starts_with(b"HTTP/1.1\r\n") {
        return Ok(Some(Version::Http11));
    }
    for (&byte, &expected) in input.iter().zip(VERSION_PATTERN) {
        let fits = if expected == b'D' { byte.is_ascii_digit() } else { byte == expected };
        if !fits {
            return Err(Rejection::bad_request(match (expected, byte) {
                (b'\r', b'\n') => "the request line ends in a bare LF; CRLF is expected",
                (b'\r' | b'\n', _) => "the version is not followed by CRLF",
                _ => "the target is not followed by one space and a version, such as HTTP/1.1",
            }));
        }
    }
    let Some(line_end) = input.first_chunk::<10>() else { return Ok(None) };
    match (line_end[5], line_end[7]) {
        (b'1', b'0') => Ok(Some(Version::Http10)),
        // A higher minor version is processed as the highest that is known (RFC 9110 section 2.5).
        (b'1', _) => Ok(Some(Version::Http11)),
        _ => Err(Rejection::new(ProblemKind::VersionNotSupported, "only HTTP/1.1 and HTTP/1.0 are spoken here")),
    }
}

fn split_query(text: &[u8], query_at: Option<usize>) -> (&[u8], Option<&[u8]>) {
    match query_at {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

type Target<'a> = (Option<&'a [u8]>, &'a [u8], Option<&'a [u8]>);

/// Takes an `absolute-form` target apart (RFC 9112 section 3.2.2), which a server must accept.
fn read_absolute_target(method: Method, text: &[u8]) -> Result<Target<'_>, Rejection> {
    let Some(scheme_length) = text.windows(3).position(|part| part == b"://") else {
        return Err(Rejection::bad_request("the target is neither a path that starts with / nor an absolute http URI"));
    };
    let (scheme, rest) = (&text[..scheme_length], &text[scheme_length + 3..]);
    if scheme.eq_ignore_ascii_case(b"https") {
        // RFC 9110 section 7.4: an https resource must not be served over a connection that is not secured.
        return Err(Rejection::new(ProblemKind::MisdirectedRequest, "https resources are not served over plain HTTP"));
    }
    if !scheme.eq_ignore_ascii_case(b"http") {
        return Err(Rejection::bad_request("the scheme of an absolute target must be http"));
    }
    let authority_length = rest.iter().position(|&byte| byte == b'/' || byte == b'?').unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at(authority_length);
    // Userinfo and an empty host are errors: RFC 9110 sections 4.2.4 and 4.2.1.
    if !authority::is_valid(authority) || !authority::has_host(authority) {
        return Err(Rejection::bad_request("the authority of the absolute target is not host or host:port"));
    }
    let (path, query) = split_query(path_and_query, path_and_query.iter().position(|&byte| byte == b'?'));
    if path.iter().any(|byte| matches!(byte, b'[' | b']')) {
        return Err(refuse_target(b'['));
    }
    let path = match (path, query) {
        // RFC 9112 section 3.2.4: OPTIONS on an absolute URI without path and query means the server.
        (b"", None) if method == Method::Options => b"*",
        (b"", _) => b"/",
        _ => path,
    };
    Ok((Some(authority), path, query))
}

/// The answer to CONNECT: 400 for a malformed authority (RFC 9110 section 9.3.6 asks for it), else 501. It is given
/// before anything else of the request is read, and ends the connection.
fn refuse_tunnel(target: &[u8]) -> Rejection {
    if authority::is_valid_tunnel(target) {
        Rejection::new(ProblemKind::NotImplemented, "CONNECT is not implemented: this server is no proxy")
    } else {
        Rejection::bad_request("the target of CONNECT is not host:port")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> RequestLine<'_> {
        read(text.as_bytes()).unwrap_or_else(|rejection| panic!("{text:?}: {rejection:?}")).expect("complete")
    }

    #[test]
    fn targets_are_taken_apart() {
        let cases: &[(&str, Option<&str>, &str, Option<&str>)] = &[
            ("GET / HTTP/1.1\r\n", None, "/", None),
            ("GET /todos?limit=10&a=?b HTTP/1.1\r\n", None, "/todos", Some("limit=10&a=?b")),
            ("GET /todos? HTTP/1.0\r\n", None, "/todos", Some("")),
            ("GET //a/../%7e HTTP/1.1\r\n", None, "//a/../%7e", None),
            ("OPTIONS * HTTP/1.1\r\n", None, "*", None),
            ("GET http://a:80/todos?x HTTP/1.1\r\n", Some("a:80"), "/todos", Some("x")),
            ("GET HTTP://[::1] HTTP/1.1\r\n", Some("[::1]"), "/", None),
            ("GET http://a?b HTTP/1.1\r\n", Some("a"), "/", Some("b")),
            ("GET http://a/?b[]=[c] HTTP/1.1\r\n", Some("a"), "/", Some("b[]=[c]")),
            ("GET /a?[b]={c}|d^e`f\\g=é HTTP/1.1\r\n", None, "/a", Some("[b]={c}|d^e`f\\g=é")),
            ("OPTIONS http://a HTTP/1.1\r\n", Some("a"), "*", None),
            ("OPTIONS http://a/ HTTP/1.1\r\n", Some("a"), "/", None),
        ];
        for (text, authority, path, query) in cases {
            let line = line(text);
            assert_eq!(line.authority, authority.map(str::as_bytes), "{text}");
            assert_eq!(line.path, path.as_bytes(), "{text}");
            assert_eq!(line.query, query.map(str::as_bytes), "{text}");
            assert_eq!(line.length, text.len(), "{text}");
        }
    }

    #[test]
    fn versions() {
        assert_eq!(line("GET / HTTP/1.0\r\n").version, Version::Http10);
        assert_eq!(line("GET / HTTP/1.1\r\n").version, Version::Http11);
        assert_eq!(line("GET / HTTP/1.2\r\n").version, Version::Http11);
        assert_eq!(line("GET / HTTP/1.9\r\nrest").version, Version::Http11);
    }

    #[test]
    fn malformed_lines_are_refused_with_the_right_status() {
        let cases = [
            (" GET / HTTP/1.1\r\n", 400),
            ("\tGET / HTTP/1.1\r\n", 400),
            ("\n", 400),
            ("\u{16}\u{3}", 400),
            ("\0", 400),
            ("G(T / HTTP/1.1\r\n", 400),
            ("GET\t/ HTTP/1.1\r\n", 400),
            ("GET  / HTTP/1.1\r\n", 400),
            ("GET /  HTTP/1.1\r\n", 400),
            ("GET /\tHTTP/1.1\r\n", 400),
            ("GET / HTTP/1.1 \r\n", 400),
            ("GET / HTTP/1.1\n", 400),
            ("GET / HTTP/1.1\r\r\n", 400),
            ("GET /\r\n", 400),
            ("GET\r\n", 400),
            ("GET / http/1.1\r\n", 400),
            ("GET / HTTP/11\r\n", 400),
            ("GET / HTTP/1.10\r\n", 400),
            ("GET / HTTP/+1.1\r\n", 400),
            ("GET / HTTP /1.1\r\n", 400),
            ("GET / HTPP/1.1\r\n", 400),
            ("GET / HTTP/0.9\r\n", 505),
            ("GET / HTTP/2.0\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("GET todos HTTP/1.1\r\n", 400),
            ("GET ?a HTTP/1.1\r\n", 400),
            ("GET * HTTP/1.1\r\n", 400),
            ("GET a:80 HTTP/1.1\r\n", 400),
            ("OPTIONS ** HTTP/1.1\r\n", 400),
            ("GET /a#b HTTP/1.1\r\n", 400),
            ("GET /a\"b HTTP/1.1\r\n", 400),
            ("GET /a\\b HTTP/1.1\r\n", 400),
            ("GET /[a] HTTP/1.1\r\n", 400),
            ("GET /{a} HTTP/1.1\r\n", 400),
            ("GET /[a]?b HTTP/1.1\r\n", 400),
            ("GET http://a/[b]?c HTTP/1.1\r\n", 400),
            ("GET /a?\"b\" HTTP/1.1\r\n", 400),
            ("GET /a?<b> HTTP/1.1\r\n", 400),
            ("GET /a?b\tc HTTP/1.1\r\n", 400),
            ("GET /a?\u{7f} HTTP/1.1\r\n", 400),
            ("GET /a?b#c HTTP/1.1\r\n", 400),
            ("GET /é HTTP/1.1\r\n", 400),
            ("GET /\u{7f} HTTP/1.1\r\n", 400),
            ("GET /% HTTP/1.1\r\n", 400),
            ("GET /%4 HTTP/1.1\r\n", 400),
            ("GET /a%zz HTTP/1.1\r\n", 400),
            ("GET http:// HTTP/1.1\r\n", 400),
            ("GET http:///todos HTTP/1.1\r\n", 400),
            ("GET http://:80/todos HTTP/1.1\r\n", 400),
            ("GET http://user@a/todos HTTP/1.1\r\n", 400),
            ("GET http://a:x/ HTTP/1.1\r\n", 400),
            ("GET http://a/[ HTTP/1.1\r\n", 400),
            ("GET http:/a HTTP/1.1\r\n", 400),
            ("GET ftp://a/ HTTP/1.1\r\n", 400),
            ("GET https://a/ HTTP/1.1\r\n", 421),
            ("CONNECT a:443 HTTP/1.1\r\n", 501),
            ("CONNECT a HTTP/1.1\r\n", 400),
            ("CONNECT a:0 HTTP/1.1\r\n", 400),
            ("CONNECT /todos HTTP/1.1\r\n", 400),
        ];
        for (text, status) in cases {
            let rejection = read(text.as_bytes()).expect_err(text);
            assert_eq!(rejection.status().code(), status, "{text:?}: {rejection:?}");
        }
    }

    #[test]
    fn limits_hold_to_the_byte_and_do_not_wait_for_the_end() {
        let method = |length| "M".repeat(length);
        assert_eq!(read(method(METHOD_MAX_BYTES).as_bytes()), Ok(None));
        assert_eq!(line(&format!("{} / HTTP/1.1\r\n", method(METHOD_MAX_BYTES))).method, Method::Other);
        let rejection = read(method(METHOD_MAX_BYTES + 1).as_bytes()).expect_err("too long");
        assert_eq!(rejection.kind, ProblemKind::NotImplemented);

        let target = |length: usize| format!("GET /{}", "a".repeat(length - 1));
        assert_eq!(read(target(TARGET_MAX_BYTES).as_bytes()), Ok(None));
        line(&format!("{} HTTP/1.1\r\n", target(TARGET_MAX_BYTES)));
        let rejection = read(target(TARGET_MAX_BYTES + 1).as_bytes()).expect_err("too long");
        assert_eq!(rejection.kind, ProblemKind::UriTooLong);
    }
}
