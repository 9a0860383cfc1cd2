//! The head of an answer, written straight into the bytes that leave (RFC 9110, RFC 9112).

use std::time::{Duration, SystemTime};

use super::words::coding::Coding;
use super::words::connection::Connection;
use super::words::cursor::encode_cursor;
use super::words::entity_tag::{encoded_entity_tag, entity_tag};
use super::words::event_position::Position;
use super::words::filter::Filter;
use super::words::method::Methods;
use super::words::status::Status;
use crate::todo::{TODO_ID_TEXT_BYTES, TodoId, TodoKey};

/// The interim answer that lets a client send the body it holds back (RFC 9110 section 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Length of a written date, in bytes.
pub const DATE_BYTES: usize = 29;

/// The value of `Date`, as in `Sun, 06 Nov 1994 08:49:37 GMT`. It changes once a second: callers keep it that long.
pub fn date(now: SystemTime) -> [u8; DATE_BYTES] {
    // What can be written ends with the year 9999.
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let written = httpdate::fmt_http_date(now.clamp(SystemTime::UNIX_EPOCH, last));
    *written.as_bytes().first_chunk().expect("a date has 29 bytes")
}

/// The media types that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// Todos.
    Json,
    /// Errors, RFC 9457.
    ProblemJson,
    /// Prometheus' text format, version 0.0.4.
    Metrics,
    /// Words for people.
    Text,
    /// A page.
    Html,
    /// Events, one after the other.
    EventStream,
}

impl ContentType {
    const fn value(self) -> &'static [u8] {
        match self {
            ContentType::Json => b"application/json",
            ContentType::ProblemJson => b"application/problem+json",
            ContentType::Metrics => b"text/plain; version=0.0.4; charset=utf-8",
            ContentType::Text => b"text/plain; charset=utf-8",
            ContentType::Html => b"text/html; charset=utf-8",
            ContentType::EventStream => b"text/event-stream",
        }
    }
}

/// What caches may do (RFC 9111).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheControl {
    /// Keep it, but ask each time whether it still holds: for todos, which carry an entity tag.
    NoCache,
    /// The same for one client alone: for what depends on who asks.
    Private,
    /// Keep nothing: for errors, answers to writes, and the state of the server.
    NoStore,
}

/// Why a token is needed or was refused (RFC 6750 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// None was sent.
    Missing,
    /// The one that was sent does not do. The text is shown to the client, and has neither quotes nor backslashes.
    InvalidToken(&'static str),
    /// The one that was sent is good, but not for this.
    InsufficientScope,
}

/// Writes the head of one answer: make it with [`ResponseHead::start`], add fields, then [`ResponseHead::end`].
///
/// No method takes text from a request, but for the filter of a list, which is percent-encoded: so nothing that a client sends can add
/// a field.
#[must_use = "a head ends with `end`"]
pub struct ResponseHead<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> ResponseHead<'a> {
    /// Room that a usual head takes, in bytes.
    const USUAL_BYTES: usize = 320;

    /// Writes the status line and `Date`.
    #[inline]
    pub fn start(out: &'a mut Vec<u8>, status: Status, date: &[u8; DATE_BYTES]) -> ResponseHead<'a> {
        out.reserve(Self::USUAL_BYTES);
        out.extend_from_slice(status.line());
        ResponseHead { out }.field(b"Date: ", date)
    }

    /// Writes a field; `name` with its colon and space.
    #[inline]
    fn field(self, name: &[u8], value: &[u8]) -> Self {
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// `Content-Type`
    #[inline]
    pub fn content_type(self, content_type: ContentType) -> Self {
        self.field(b"Content-Type: ", content_type.value())
    }

    /// `Content-Length`, in bytes. To HEAD it is the length that GET would send; 204 and 304 go without.
    #[inline]
    pub fn content_length(self, bytes: u64) -> Self {
        self.field(b"Content-Length: ", itoa::Buffer::new().format(bytes).as_bytes())
    }

    /// `ETag`
    #[inline]
    pub fn etag(self, tag: u64) -> Self {
        self.field(b"ETag: ", &entity_tag(tag))
    }

    /// `ETag` of what has this coding: other bytes need another strong tag (RFC 9110 section 8.8.3.3).
    #[inline]
    pub fn etag_in(self, tag: u64, coding: Coding) -> Self {
        self.field(b"ETag: ", &encoded_entity_tag(tag, coding))
    }

    /// `Event-Position`, from which the change feed goes on with what changes in the answer.
    #[inline]
    pub fn event_position(self, position: Position) -> Self {
        self.out.extend_from_slice(b"Event-Position: ");
        position.write(self.out);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// `Transfer-Encoding: chunked`
    pub fn chunked(self) -> Self {
        self.field(b"Transfer-Encoding: ", b"chunked")
    }

    /// `X-Accel-Buffering: no`, which has nginx pass on what comes as it comes.
    pub fn unbuffered(self) -> Self {
        self.field(b"X-Accel-Buffering: ", b"no")
    }

    /// `Cache-Control`
    #[inline]
    pub fn cache_control(self, cache_control: CacheControl) -> Self {
        self.field(
            b"Cache-Control: ",
            match cache_control {
                CacheControl::NoCache => b"no-cache",
                CacheControl::Private => b"private, no-cache",
                CacheControl::NoStore => b"no-store",
            },
        )
    }

    /// `Vary: Accept-Encoding`, on every answer whose encoding depends on that field, and on its 304.
    #[inline]
    pub fn vary_accept_encoding(self) -> Self {
        self.field(b"Vary: ", b"Accept-Encoding")
    }

    /// `Content-Encoding`, where there is one.
    #[inline]
    pub fn content_encoding(self, coding: Coding) -> Self {
        match coding {
            Coding::Identity => self,
            _ => self.field(b"Content-Encoding: ", coding.name().as_bytes()),
        }
    }

    /// `Link` to the next page (RFC 8288), which starts behind `last`, the last todo of this one.
    pub fn next_page(self, filter: &Filter<'_>, limit: usize, last: TodoKey) -> Self {
        self.out.extend_from_slice(b"Link: </todos?");
        filter.write(self.out);
        self.out.extend_from_slice(b"limit=");
        self.out.extend_from_slice(itoa::Buffer::new().format(limit).as_bytes());
        self.out.extend_from_slice(b"&cursor=");
        self.out.extend_from_slice(&encode_cursor(last));
        self.out.extend_from_slice(b">; rel=\"next\"\r\n");
        self
    }

    /// `Location` of a todo.
    pub fn location(self, id: TodoId) -> Self {
        self.out.extend_from_slice(b"Location: /todos/");
        self.out.extend_from_slice(id.write_text(&mut [0; TODO_ID_TEXT_BYTES]).as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// `Preference-Applied: wait` (RFC 7240 section 3)
    pub fn preference_applied_wait(self) -> Self {
        self.field(b"Preference-Applied: ", b"wait")
    }

    /// The same with the seconds that were waited: fewer than asked for, where that was more than may be.
    pub fn preference_applied_wait_s(self, seconds: u64) -> Self {
        self.out.extend_from_slice(b"Preference-Applied: wait=");
        self.out.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// `Allow`, from [`crate::http::Route::allow`].
    pub fn allow(self, methods: Methods) -> Self {
        self.field(b"Allow: ", methods.to_string().as_bytes())
    }

    /// `Retry-After`, in seconds.
    pub fn retry_after_s(self, seconds: u32) -> Self {
        self.field(b"Retry-After: ", itoa::Buffer::new().format(seconds).as_bytes())
    }

    /// `WWW-Authenticate`
    pub fn www_authenticate(self, challenge: Challenge) -> Self {
        self.out.extend_from_slice(b"WWW-Authenticate: Bearer realm=\"million-rps\"");
        if let Challenge::InvalidToken(reason) = challenge {
            debug_assert!(reason.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'));
            self.out.extend_from_slice(b", error=\"invalid_token\", error_description=\"");
            self.out.extend_from_slice(reason.as_bytes());
            self.out.push(b'"');
        } else if challenge == Challenge::InsufficientScope {
            self.out.extend_from_slice(b", error=\"insufficient_scope\"");
        }
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// `Accept-Encoding: identity`, with a 415 for an encoded body (RFC 9110 section 12.5.3).
    pub fn accept_encoding_identity(self) -> Self {
        self.field(b"Accept-Encoding: ", b"identity")
    }

    /// `Connection`, where it has to be said.
    #[inline]
    pub fn connection(self, connection: Connection) -> Self {
        match connection {
            Connection::KeepAlive => self,
            Connection::KeepAliveStated => self.field(b"Connection: ", b"keep-alive"),
            Connection::Close => self.field(b"Connection: ", b"close"),
        }
    }

    /// What browsers keep to while they show the document: its policy, its type as sent, and no window or page of another origin
    /// that could reach into it.
    pub fn document_policy(self, policy: &str) -> Self {
        debug_assert!(policy.bytes().all(|byte| matches!(byte, b' '..=b'~')), "a field is one line");
        self.field(b"Content-Security-Policy: ", policy.as_bytes())
            .as_typed()
            .field(b"Referrer-Policy: ", b"no-referrer")
            .field(b"Cross-Origin-Opener-Policy: ", b"same-origin")
            .field(b"Cross-Origin-Resource-Policy: ", b"same-origin")
    }

    /// `X-Content-Type-Options: nosniff`: the document is of the type that it is sent with, whatever it looks like.
    pub fn as_typed(self) -> Self {
        self.field(b"X-Content-Type-Options: ", b"nosniff")
    }

    /// Lines that have been made from the settings, each with its end; see [`crate::http::cors::Cors::lines`].
    #[inline]
    pub fn lines(self, lines: &[u8]) -> Self {
        self.out.extend_from_slice(lines);
        self
    }

    /// What a script of another origin may send to a resource that allows these methods. Browsers keep it for two hours at most.
    pub fn preflight(self, methods: Methods, fields: &str) -> Self {
        self.field(b"Access-Control-Allow-Methods: ", methods.to_string().as_bytes())
            .field(b"Access-Control-Allow-Headers: ", fields.as_bytes())
            .field(b"Access-Control-Max-Age: ", b"7200")
    }

    /// Ends the head; the body follows.
    #[inline]
    pub fn end(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::words::method::Method;
    use crate::todo::Timestamp;

    const DATE: &[u8; DATE_BYTES] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn dates() {
        let at = |seconds| date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(&at(784_111_777), DATE);
        assert_eq!(&at(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&at(253_402_300_800), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(date(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), at(0));
    }

    #[test]
    fn a_page_of_todos() {
        let last = TodoKey { created_at: Timestamp::from_micros(1), id: TodoId::from_u128(2) };
        let mut out = b"before".to_vec();
        ResponseHead::start(&mut out, Status::Ok, DATE)
            .content_type(ContentType::Json)
            .content_length(1234)
            .etag(0xab)
            .cache_control(CacheControl::NoCache)
            .vary_accept_encoding()
            .next_page(&Filter::default(), 10, last)
            .connection(Connection::KeepAliveStated)
            .end();
        let cursor = String::from_utf8(encode_cursor(last).to_vec()).expect("ASCII");
        let expected = format!(
            "beforeHTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: application/json\r\n\
             Content-Length: 1234\r\nETag: \"00000000000000ab\"\r\nCache-Control: no-cache\r\nVary: Accept-Encoding\r\n\
             Link: </todos?limit=10&cursor={cursor}>; rel=\"next\"\r\nConnection: keep-alive\r\n\r\n"
        );
        assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
    }

    #[test]
    fn the_other_fields() {
        let mut out = Vec::new();
        ResponseHead::start(&mut out, Status::Accepted, DATE)
            .content_type(ContentType::Metrics)
            .content_encoding(Coding::Identity)
            .content_encoding(Coding::Gzip)
            .content_encoding(Coding::Brotli)
            .content_encoding(Coding::Zstd)
            .etag_in(0xab, Coding::Identity)
            .etag_in(0xab, Coding::Zstd)
            .location(TodoId::from_u128(0xa))
            .allow(Methods::NONE.with(Method::Get).with(Method::Head))
            .retry_after_s(3)
            .www_authenticate(Challenge::Missing)
            .www_authenticate(Challenge::InvalidToken("the token has expired"))
            .www_authenticate(Challenge::InsufficientScope)
            .accept_encoding_identity()
            .cache_control(CacheControl::NoStore)
            .connection(Connection::KeepAlive)
            .connection(Connection::Close)
            .end();
        let expected = "HTTP/1.1 202 Accepted\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
            Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Encoding: gzip\r\nContent-Encoding: br\r\n\
            Content-Encoding: zstd\r\nETag: \"00000000000000ab\"\r\nETag: \"00000000000000ab-zstd\"\r\n\
            Location: /todos/00000000-0000-0000-0000-00000000000a\r\nAllow: GET, HEAD\r\nRetry-After: 3\r\n\
            WWW-Authenticate: Bearer realm=\"million-rps\"\r\n\
            WWW-Authenticate: Bearer realm=\"million-rps\", error=\"invalid_token\", error_description=\"the token has expired\"\r\n\
            WWW-Authenticate: Bearer realm=\"million-rps\", error=\"insufficient_scope\"\r\n\
            Accept-Encoding: identity\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
    }
}
