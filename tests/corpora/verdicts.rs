//! Where this server and the authors of a corpus disagree, and why. Requests of HTTP/1.1 without `Host` have got one before
//! they are judged: without, RFC 9112 section 3.2 asks for 400.

const METHODS: &str = "RFC 9110 section 9.1: a method is any token; an unknown one is answered 501";
const LIMIT: &str = "within the limits of this server; gunicorn's are narrower or set for the test";
const HEADER_MAP: &str = "RFC 9110 section 5.1: an unknown field name is ignored; the danger is in CGI's names";
const TRAILER: &str = "RFC 9110 section 6.5.1: trailer fields are dropped, never merged into the head";
const BAD_TARGET: &str = "RFC 9112 section 3.2: a target has no fragment, no quotes and no bytes beyond ASCII";
const CODING: &str = "RFC 9112 section 6.1: an unknown transfer coding is answered 501";
const FOLD: &str = "RFC 9112 section 5.2: a server refuses obs-fold with 400, or unfolds it";
const PROXY: &str = "not HTTP: the PROXY protocol is not spoken here";
const CONNECT: &str = "RFC 9110 section 9.3.6: CONNECT is for proxies";
const USERINFO: &str = "RFC 9110 section 4.2.4: userinfo is an error";

/// Requests of gunicorn's `invalid` that are accepted here: name, reason.
pub const GUNICORN_ACCEPTED_HERE: &[(&str, &str)] = &[
    ("003c", METHODS),
    ("007", LIMIT),
    ("008", LIMIT),
    ("009", LIMIT),
    ("010", LIMIT),
    ("011", LIMIT),
    ("012", LIMIT),
    ("017", LIMIT),
    ("019", "X-Forwarded-Proto and X-Forwarded-Ssl are not looked at here"),
    ("040", HEADER_MAP),
    ("chunked_07", HEADER_MAP),
    ("limit_header_default_01", LIMIT),
    ("rfc9110_trailer_forbidden_cl_01", TRAILER),
    ("rfc9110_trailer_forbidden_host_01", TRAILER),
    ("rfc9110_trailer_forbidden_te_01", TRAILER),
    (
        "rfc9112_leading_crlf_02",
        "RFC 9112 section 2.2: at least one empty line before the request line is skipped; here four",
    ),
];

/// Requests of gunicorn's `valid` that are refused here: name, status, reason.
pub const GUNICORN_REFUSED_HERE: &[(&str, u16, &str)] = &[
    ("005", 400, BAD_TARGET),
    ("014", 400, BAD_TARGET),
    ("024", 414, "longer than TARGET_MAX_BYTES; RFC 9112 section 3 asks for 414"),
    ("025", 501, CODING),
    ("025_line", 501, CODING),
    ("028", 400, "RFC 9112 section 5.1: whitespace between name and colon is 400; gunicorn has a setting for it"),
    ("029", 501, CODING),
    ("030", 501, CODING),
    ("compat_obs_fold", 400, FOLD),
    ("compat_obs_fold_huge", 400, FOLD),
    ("pp_01", 400, PROXY),
    ("pp_02", 400, PROXY),
    ("pp_04", 400, PROXY),
    ("pp_05", 400, PROXY),
    ("rfc9112_smuggle_gzip_chunked_01", 501, CODING),
    ("rfc9112_smuggle_te_identity_chunked_01", 501, CODING),
    ("rfc9112_target_absolute_https_01", 421, "RFC 9110 section 7.4: https is not served on a connection without TLS"),
    ("rfc9112_target_absolute_userinfo_01", 400, USERINFO),
    ("rfc9112_target_authority_connect_01", 501, CONNECT),
    ("rfc9112_target_authority_ipv6_01", 501, CONNECT),
];

/// Requests of gunicorn's `valid` that are read differently here: name, reason.
pub const GUNICORN_READ_DIFFERENTLY: &[(&str, &str)] = &[
    ("031compat", "RFC 9110 section 9.1: methods are case-sensitive; gunicorn has a setting for it"),
    ("099", "the file holds less than its Content-Length says, so the request is not complete"),
];

/// Messages of http-parser that are refused here: name, status, reason.
pub const HTTP_PARSER_REFUSED_HERE: &[(&str, u16, &str)] = &[
    ("fragment in url", 400, BAD_TARGET),
    ("post identity body world", 400, BAD_TARGET),
    ("with quotes", 400, BAD_TARGET),
    ("connect request", 501, CONNECT),
    ("request with no http version", 400, "RFC 9112 section 3: a request line has a version; HTTP/0.9 is gone"),
    ("m-search request", 400, "RFC 9112 section 3.2.4: the target * is for OPTIONS only"),
    ("line folding in header value", 400, FOLD),
    ("connect caps request", 501, CONNECT),
    ("utf-8 path request", 400, BAD_TARGET),
    ("hostname underscore", 501, CONNECT),
    ("host:port and basic_auth", 400, USERINFO),
    (
        "line folding in header value",
        400,
        "RFC 9112 section 2.2: lines end in CRLF here; a bare LF may be accepted, and is not",
    ),
    ("multiple connection header values with folding", 400, FOLD),
    ("multiple connection header values with folding and lws", 400, FOLD),
    ("connect with body request", 501, CONNECT),
    ("source request", 400, "RFC 9112 section 2.3: ICE/1.0 is no version of HTTP"),
    ("post - multi coding transfer-encoding chunked body", 501, CODING),
    ("post - multi line coding transfer-encoding chunked body", 400, FOLD),
];
