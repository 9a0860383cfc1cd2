//! The head of a request: request line and header fields (RFC 9112 sections 2 to 5).

use super::authority;
use super::framing::{Framing, FramingFields};
use super::request_line::{self, RequestLine};
use super::words::connection::Connection;
use super::words::field_lines::FieldLines;
use super::words::method::Method;
use super::words::problem_kind::ProblemKind;
use super::words::rejection::Rejection;
use super::words::syntax::list_elements;
use super::words::version::Version;
use crate::limits::{HEAD_MAX_BYTES, HEADERS_MAX, LEADING_EMPTY_LINES_MAX};

/// What stands at the start of a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The start of a head; ask again with more bytes.
    Incomplete,
    /// A whole head.
    Complete {
        /// The head.
        head: Head<'a>,
        /// Its bytes, up to and with the empty line.
        consumed: usize,
    },
}

/// The head of a request. Everything borrows from the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head<'a> {
    /// The method.
    pub method: Method,
    /// The version.
    pub version: Version,
    /// The path of the target, percent-encoded as sent; `*` for the server itself (OPTIONS only).
    pub path: &'a [u8],
    /// What follows the first `?` of the target.
    pub query: Option<&'a [u8]>,
    /// Host and port that the client asked for: the authority of an absolute target, else the value of `Host`. Empty
    /// when the client knows none.
    pub authority: &'a [u8],
    /// How long the body is.
    pub framing: Framing,
    /// Whether the connection stays open after the answer, as far as the client is concerned (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// The request line and the fields that follow it, which the spans below point into.
    bytes: &'a [u8],
    authorization: Span,
    content_type: Span,
    idempotency_key: Span,
    content_encoding: Span,
    accept_encoding: Span,
    if_match: Span,
    if_none_match: Span,
    prefer: Span,
    /// Whether one of the list fields has more lines than the one that its span shows.
    has_repeated_list: bool,
}

impl<'a> Head<'a> {
    /// The value of `Authorization`.
    pub fn authorization(&self) -> Option<&'a [u8]> {
        self.authorization.of(self.bytes)
    }

    /// The value of `Content-Type`.
    pub fn content_type(&self) -> Option<&'a [u8]> {
        self.content_type.of(self.bytes)
    }

    /// The value of `Idempotency-Key`.
    pub fn idempotency_key(&self) -> Option<&'a [u8]> {
        self.idempotency_key.of(self.bytes)
    }

    /// The lines of `Content-Encoding`.
    pub fn content_encoding(&self) -> FieldLines<'a> {
        self.lines("content-encoding", self.content_encoding)
    }

    /// The lines of `Accept-Encoding`.
    pub fn accept_encoding(&self) -> FieldLines<'a> {
        self.lines("accept-encoding", self.accept_encoding)
    }

    /// Whether there is an `Accept-Encoding`.
    #[inline]
    pub fn has_accept_encoding(&self) -> bool {
        self.accept_encoding.is_present()
    }

    /// The lines of `If-Match`.
    pub fn if_match(&self) -> FieldLines<'a> {
        self.lines("if-match", self.if_match)
    }

    /// The lines of `If-None-Match`.
    pub fn if_none_match(&self) -> FieldLines<'a> {
        self.lines("if-none-match", self.if_none_match)
    }

    /// Whether there is an `If-Match` or an `If-None-Match`.
    #[inline]
    pub fn has_condition(&self) -> bool {
        self.if_match.is_present() || self.if_none_match.is_present()
    }

    /// The lines of `Prefer`.
    pub fn prefer(&self) -> FieldLines<'a> {
        self.lines("prefer", self.prefer)
    }

    /// The lines of a field that few requests have, in lower case: its name is looked for in all of them.
    pub fn rare(&self, name: &'static str) -> FieldLines<'a> {
        // No request line has the form of a field: behind its first word is a space.
        FieldLines { name, first: None, rest: self.bytes }
    }

    /// The names of all fields, as they were sent.
    pub fn field_names(&self) -> impl Iterator<Item = &'a [u8]> {
        // Behind the request line, each line that is not empty has a colon.
        self.bytes.split(|&byte| byte == b'\n').skip(1).filter_map(|line| line.split(|&byte| byte == b':').next())
    }

    fn lines(&self, name: &'static str, first: Span) -> FieldLines<'a> {
        let rest = if self.has_repeated_list { &self.bytes[usize::from(first.end)..] } else { b"" };
        FieldLines { name, first: first.of(self.bytes), rest }
    }

    /// What the answer says about the connection, as far as the client is concerned.
    pub fn connection(&self) -> Connection {
        match (self.keep_alive, self.version) {
            (false, _) => Connection::Close,
            (true, Version::Http10) => Connection::KeepAliveStated,
            (true, Version::Http11) => Connection::KeepAlive,
        }
    }
}

/// Where a field value stands in the head. Two bytes for each end keep [`Head`] small: it is moved for every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Span {
    /// Zero, where the request line stands, says that there is no such field.
    start: u16,
    end: u16,
}

const _: () = assert!(HEAD_MAX_BYTES <= u16::MAX as usize);

impl Span {
    /// The place of `value`, which is a part of `bytes`.
    #[inline]
    fn new(bytes: &[u8], value: &[u8]) -> Span {
        let start = value.as_ptr() as usize - bytes.as_ptr() as usize;
        Span { start: start as u16, end: (start + value.len()) as u16 }
    }

    #[inline]
    fn is_present(self) -> bool {
        self.start > 0
    }

    #[inline]
    fn of(self, bytes: &[u8]) -> Option<&[u8]> {
        self.is_present().then(|| &bytes[usize::from(self.start)..usize::from(self.end)])
    }
}

/// Reads the head at the start of `buffer`.
///
/// Call it again with the same bytes and more while it is [`Parsed::Incomplete`]. A head over its limits, and bytes that
/// cannot become a request, are refused at once, without waiting for an end.
///
/// # Errors
/// [`Rejection`], after which the connection closes.
#[inline]
pub fn parse_head(buffer: &[u8]) -> Result<Parsed<'_>, Rejection> {
    let window = &buffer[..buffer.len().min(HEAD_MAX_BYTES)];
    let Some(start) = skip_empty_lines(window)? else { return Ok(Parsed::Incomplete) };
    match read_head(&window[start..]) {
        Ok(Some((head, length))) => Ok(Parsed::Complete { head, consumed: start + length }),
        Ok(None) if window.len() == HEAD_MAX_BYTES => {
            Err(Rejection::new(ProblemKind::HeadTooLarge, "the request head is longer than 16384 bytes"))
        }
        Ok(None) => Ok(Parsed::Incomplete),
        Err(rejection) => Err(rejection),
    }
}

const _: () = assert!(HEAD_MAX_BYTES == 16384, "the text of the 431 names the limit");

/// Whether the request at the start of `buffer` is HEAD, as far as its first bytes tell: its answer has no body, also when
/// nothing else of it can be read, or comes (RFC 9110 section 9.3.2). What may still become HEAD counts, because no other
/// method that is registered begins so.
#[inline]
pub fn asks_for_head(buffer: &[u8]) -> bool {
    const START: &[u8] = b"HEAD ";
    match buffer {
        [b'H' | b'\r', ..] => {
            let mut request = buffer;
            while let [b'\r', b'\n', rest @ ..] = request {
                request = rest;
            }
            let length = request.len().min(START.len());
            length > 0 && request[..length] == START[..length]
        }
        _ => false,
    }
}

/// Where the request line starts, behind the empty lines that some clients send after a body; `None` when more bytes
/// have to tell.
#[inline]
fn skip_empty_lines(buffer: &[u8]) -> Result<Option<usize>, Rejection> {
    let mut at = 0;
    for _ in 0..LEADING_EMPTY_LINES_MAX {
        match buffer[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [b'\r'] | [] => return Ok(None),
            _ => break,
        }
    }
    if buffer[at..].first() == Some(&b'\r') {
        return Err(Rejection::bad_request("there are too many empty lines, or a bare CR, before the request line"));
    }
    Ok(Some(at))
}

/// Reads a head; `None` while it is incomplete.
///
/// Inlined by force, as are the functions below: a head that is moved right after its fields were written waits for each
/// of these stores, which took a fifth of the time of a plain request.
#[inline(always)]
fn read_head(input: &[u8]) -> Result<Option<(Head<'_>, usize)>, Rejection> {
    let Some(line) = request_line::read(input)? else { return Ok(None) };
    // Nearly every request has few fields, and an array for the most that are allowed would cost more to clear than
    // those take to parse.
    const FEW: usize = 16;
    match httparse::parse_headers(&input[line.length..], &mut [httparse::EMPTY_HEADER; FEW]) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete((length, fields))) => {
            collect(&line, &input[..line.length + length], fields).map(Some)
        }
        Err(httparse::Error::TooManyHeaders) => read_head_of_many_fields(&line, input),
        Err(error) => Err(refuse_fields(error)),
    }
}

#[cold]
fn read_head_of_many_fields<'a>(
    line: &RequestLine<'a>,
    input: &'a [u8],
) -> Result<Option<(Head<'a>, usize)>, Rejection> {
    match httparse::parse_headers(&input[line.length..], &mut [httparse::EMPTY_HEADER; HEADERS_MAX]) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete((length, fields))) => {
            collect(line, &input[..line.length + length], fields).map(Some)
        }
        Err(error) => Err(refuse_fields(error)),
    }
}

#[cold]
fn refuse_fields(error: httparse::Error) -> Rejection {
    match error {
        httparse::Error::TooManyHeaders => {
            Rejection::new(ProblemKind::HeadTooLarge, "the request has more than 128 header fields")
        }
        httparse::Error::HeaderName => Rejection::bad_request(
            "a header field name has a character that is not allowed, or whitespace around it (folded lines are not accepted)",
        ),
        httparse::Error::HeaderValue => {
            Rejection::bad_request("a header field value has a control character, such as NUL or a bare CR")
        }
        _ => Rejection::bad_request("the header fields do not end in CRLF"),
    }
}

const _: () = assert!(HEADERS_MAX == 128, "the text of the 431 names the limit");

/// Checks the fields together and keeps those that the server uses. `bytes` is the whole head.
#[inline(always)]
fn collect<'a>(
    line: &RequestLine<'a>,
    bytes: &'a [u8],
    fields: &[httparse::Header<'a>],
) -> Result<(Head<'a>, usize), Rejection> {
    let mut head = Head {
        method: line.method,
        version: line.version,
        path: line.path,
        query: line.query,
        authority: b"",
        framing: Framing::None,
        keep_alive: false,
        expect_continue: false,
        bytes,
        authorization: Span::default(),
        content_type: Span::default(),
        idempotency_key: Span::default(),
        content_encoding: Span::default(),
        accept_encoding: Span::default(),
        if_match: Span::default(),
        if_none_match: Span::default(),
        prefer: Span::default(),
        has_repeated_list: false,
    };
    let mut host = None;
    let mut framing = FramingFields::default();
    let mut connection = ConnectionOptions::default();
    for field in fields {
        check_line_start(bytes, field.name)?;
        let (name, value) = (field.name.as_bytes(), field.value);
        let mut take_list = |list: &mut Span| {
            if list.is_present() {
                head.has_repeated_list = true;
            } else {
                *list = Span::new(bytes, value);
            }
        };
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => take_host(&mut host, value)?,
            6 if name.eq_ignore_ascii_case(b"expect") => head.expect_continue |= read_expect(line.version, value)?,
            6 if name.eq_ignore_ascii_case(b"prefer") => take_list(&mut head.prefer),
            8 if name.eq_ignore_ascii_case(b"if-match") => take_list(&mut head.if_match),
            10 if name.eq_ignore_ascii_case(b"connection") => connection.take(value),
            12 if name.eq_ignore_ascii_case(b"content-type") => {
                take_once(&mut head.content_type, bytes, value, "Content-Type is given twice")?;
            }
            13 if name.eq_ignore_ascii_case(b"authorization") => {
                take_once(&mut head.authorization, bytes, value, "Authorization is given twice")?;
            }
            13 if name.eq_ignore_ascii_case(b"if-none-match") => take_list(&mut head.if_none_match),
            14 if name.eq_ignore_ascii_case(b"content-length") => framing.take_content_length(value)?,
            15 if name.eq_ignore_ascii_case(b"accept-encoding") => take_list(&mut head.accept_encoding),
            15 if name.eq_ignore_ascii_case(b"idempotency-key") => {
                take_once(&mut head.idempotency_key, bytes, value, "Idempotency-Key is given twice")?;
            }
            16 if name.eq_ignore_ascii_case(b"content-encoding") => take_list(&mut head.content_encoding),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => framing.take_transfer_encoding(value),
            _ => {}
        }
    }
    // The request line ends in CRLF, so this checks the end of the last field too.
    if !bytes.ends_with(b"\r\n\r\n") {
        return Err(BARE_LF);
    }
    head.authority = check_host(line, host)?;
    head.framing = framing.decide(line.version)?;
    head.keep_alive = connection.keep_alive(line.version);
    head.expect_continue &= head.framing.has_body();
    Ok((head, bytes.len()))
}

const BARE_LF: Rejection = Rejection::bad_request("a header line ends in a bare LF; CRLF is expected");

/// Whether the line before the field `name` ends in CRLF, and not in the bare LF that httparse lets pass.
#[inline]
fn check_line_start(bytes: &[u8], name: &str) -> Result<(), Rejection> {
    let at = name.as_ptr() as usize - bytes.as_ptr() as usize;
    if bytes[..at].ends_with(b"\r\n") { Ok(()) } else { Err(BARE_LF) }
}

#[inline]
fn take_host<'a>(host: &mut Option<&'a [u8]>, value: &'a [u8]) -> Result<(), Rejection> {
    match host.replace(value) {
        None => Ok(()),
        Some(_) => Err(Rejection::bad_request("Host is given twice")),
    }
}

/// Keeps the value of another field that may have one line only.
fn take_once(field: &mut Span, bytes: &[u8], value: &[u8], detail: &'static str) -> Result<(), Rejection> {
    if field.is_present() {
        return Err(Rejection::bad_request(detail));
    }
    *field = Span::new(bytes, value);
    Ok(())
}

/// RFC 9112 section 3.2: a missing, doubled or invalid `Host` is 400, also when an absolute target replaces it. An empty
/// one is valid: it is what a client sends that knows no name for this server.
#[inline]
fn check_host<'a>(line: &RequestLine<'a>, host: Option<&'a [u8]>) -> Result<&'a [u8], Rejection> {
    match host {
        None if line.version == Version::Http11 => Err(Rejection::bad_request("Host is missing")),
        Some(host) if !authority::is_valid(host) => Err(Rejection::bad_request("Host is not host or host:port")),
        _ => Ok(line.authority.or(host).unwrap_or_default()),
    }
}

/// Whether `Expect` asks for `100 Continue`. HTTP/1.0 has no such expectation: it must be ignored there (RFC 9110
/// section 10.1.1).
fn read_expect(version: Version, value: &[u8]) -> Result<bool, Rejection> {
    if version == Version::Http10 {
        return Ok(false);
    }
    let mut is_asked = false;
    for expectation in list_elements(value) {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            return Err(Rejection::new(
                ProblemKind::ExpectationFailed,
                "the only expectation known here is 100-continue",
            ));
        }
        is_asked = true;
    }
    Ok(is_asked)
}

/// The connection options that matter here, over all lines of `Connection`.
#[derive(Default)]
struct ConnectionOptions {
    close: bool,
    keep_alive: bool,
}

impl ConnectionOptions {
    fn take(&mut self, value: &[u8]) {
        for option in list_elements(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9112 section 9.3.
    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}
