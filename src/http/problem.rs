//! Errors: `application/problem+json` (RFC 9457), with the original's member `error` beside.

use std::borrow::Cow;

use super::response::{CacheControl, Challenge, ContentType, DATE_BYTES, ResponseHead};
use super::words::connection::Connection;
use super::words::method::Methods;
use super::words::problem_kind::ProblemKind;
use super::words::rejection::Rejection;
use super::words::status::Status;
use crate::todo::{BodyError, write_json_string};

/// An error, as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind of problem it is: the status, the title, and where its page is.
    pub kind: ProblemKind,
    /// What is wrong with this request, and what to do about it.
    pub detail: Cow<'static, str>,
    /// The member `error`: the original's text where it has one, for its clients; else the detail.
    pub error: Option<&'static str>,
    /// The header field that belongs to the error.
    pub hint: Option<Hint>,
}

/// A header field that tells the client how to do better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// `Allow`, which a 405 must have (RFC 9110 section 15.5.6).
    Allow(Methods),
    /// `Retry-After`, in seconds.
    RetryAfterSeconds(u32),
    /// `WWW-Authenticate`, which a 401 must have (RFC 9110 section 15.5.2).
    Challenge(Challenge),
    /// `Accept-Encoding: identity`
    AcceptEncodingIdentity,
}

/// How an error is sent.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The value of `Date`.
    pub date: &'a [u8; DATE_BYTES],
    /// What becomes of the connection.
    pub connection: Connection,
    /// Whether the request was HEAD: then the body is left out, but not its length (RFC 9110 section 9.3.2).
    pub is_head: bool,
    /// Lines of the head that belong to the request: see [`crate::http::cors::Cors::lines`].
    pub lines: &'a [u8],
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem { kind, detail: detail.into(), error: None, hint: None }
    }

    /// The status of the answer.
    pub const fn status(&self) -> Status {
        self.kind.status()
    }

    /// The problem, with this text as the member `error`.
    pub fn with_error(self, error: &'static str) -> Problem {
        Problem { error: Some(error), ..self }
    }

    /// The problem, with a header field.
    pub fn with_hint(self, hint: Hint) -> Problem {
        Problem { hint: Some(hint), ..self }
    }

    /// 400: a parameter of the query, or a field, is wrong.
    pub fn invalid_parameter(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(ProblemKind::InvalidParameter, detail).with_error("Invalid request")
    }

    /// 400: the body is wrong.
    pub fn invalid_body(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(ProblemKind::InvalidBody, detail).with_error("Invalid request")
    }

    /// 400: the path has no id, or one that is none.
    pub fn invalid_todo_id() -> Problem {
        let detail = "the id of a todo is a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
        Problem::new(ProblemKind::InvalidTodoId, detail).with_error("Missing todo id")
    }

    /// 401: no token, or one that does not do.
    pub fn unauthorized(challenge: Challenge) -> Problem {
        let (kind, detail) = match challenge {
            Challenge::Missing => (ProblemKind::TokenMissing, "a token is needed: send Authorization: Bearer <token>"),
            Challenge::InvalidToken(reason) => (ProblemKind::TokenInvalid, reason),
            Challenge::InsufficientScope => {
                (ProblemKind::TokenInvalid, "the token does not have the scope that this needs")
            }
        };
        Problem::new(kind, detail).with_error("Unauthorized").with_hint(Hint::Challenge(challenge))
    }

    /// 403: the token may not be used for this (RFC 6750 section 3.1).
    pub fn insufficient_scope() -> Problem {
        let detail = "the token does not have the scope that writes need (JWT_WRITE_SCOPE)";
        Problem::new(ProblemKind::InsufficientScope, detail).with_hint(Hint::Challenge(Challenge::InsufficientScope))
    }

    /// 403: the todo belongs to another user.
    pub fn forbidden() -> Problem {
        Problem::new(ProblemKind::NotOwner, "only the user who created a todo may change it")
    }

    /// 404: there is nothing at this path.
    pub fn no_such_path(detail: &'static str) -> Problem {
        Problem::new(ProblemKind::NoSuchPath, detail)
    }

    /// 404: the list has no such todo.
    pub fn no_such_todo() -> Problem {
        Problem::new(ProblemKind::NoSuchTodo, "there is no todo with this id")
    }

    /// 405: the resource allows other methods; `allow` is [`crate::http::Route::allow`].
    pub fn method_not_allowed(allow: Methods) -> Problem {
        let detail = format!("this resource allows {allow}");
        Problem::new(ProblemKind::MethodNotAllowed, detail).with_hint(Hint::Allow(allow))
    }

    /// The problem of a path that would mean something without the slash at its end.
    pub fn with_slash_too_many(self) -> Problem {
        let detail = format!("{}; this path ends in a slash: leave it out", self.detail);
        Problem { detail: detail.into(), ..self }
    }

    /// 408: the request did not arrive in time.
    pub fn request_timeout(detail: &'static str) -> Problem {
        Problem::new(ProblemKind::RequestTimeout, detail)
    }

    /// 412: a condition of the request does not hold.
    pub fn precondition_failed() -> Problem {
        Problem::new(ProblemKind::PreconditionFailed, "If-Match or If-None-Match does not hold; nothing was changed")
    }

    /// 413: the body is longer than this server takes.
    pub fn body_too_large((max_bytes, setting): (usize, &'static str)) -> Problem {
        let detail = format!("the body is longer than {max_bytes} bytes ({setting})");
        Problem::new(ProblemKind::BodyTooLarge, detail)
    }

    /// 429: the client is over its limit.
    pub fn too_many_requests(kind: ProblemKind, detail: &'static str, retry_after_s: u32) -> Problem {
        Problem::new(kind, detail).with_hint(Hint::RetryAfterSeconds(retry_after_s))
    }

    /// 500: our fault.
    pub fn internal() -> Problem {
        Problem::new(ProblemKind::InternalError, "the request failed for a reason of the server's own")
    }

    /// 501: the method is not known.
    pub fn unknown_method() -> Problem {
        Problem::new(ProblemKind::NotImplemented, "the method is not known here; names of methods are case-sensitive")
    }

    /// 503: the command was not made durable, or is not known to be.
    pub fn queue_failed(kind: ProblemKind, detail: &'static str, retry_after_s: u32) -> Problem {
        Problem::unavailable(kind, detail, retry_after_s).with_error("Request queued failed")
    }

    /// 503: a part of the server is full or away.
    pub fn unavailable(kind: ProblemKind, detail: impl Into<Cow<'static, str>>, retry_after_s: u32) -> Problem {
        Problem::new(kind, detail).with_hint(Hint::RetryAfterSeconds(retry_after_s))
    }

    /// Appends the problem as JSON.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":");
        write_json_string(out, self.kind.reference());
        out.extend_from_slice(b",\"title\":");
        write_json_string(out, self.kind.title());
        out.extend_from_slice(b",\"status\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.status().code()).as_bytes());
        out.extend_from_slice(b",\"detail\":");
        write_json_string(out, &self.detail);
        out.extend_from_slice(b",\"error\":");
        write_json_string(out, self.error.unwrap_or(&self.detail));
        out.push(b'}');
    }

    /// Appends the whole answer.
    pub fn write_response(&self, out: &mut Vec<u8>, delivery: Delivery<'_>) {
        let mut body = Vec::with_capacity(256);
        self.write_json(&mut body);
        let head = ResponseHead::start(out, self.status(), delivery.date)
            .lines(delivery.lines)
            .content_type(ContentType::ProblemJson)
            .content_length(body.len() as u64)
            .cache_control(CacheControl::NoStore);
        let head = match self.hint {
            None => head,
            Some(Hint::Allow(methods)) => head.allow(methods),
            Some(Hint::RetryAfterSeconds(seconds)) => head.retry_after_s(seconds),
            Some(Hint::Challenge(challenge)) => head.www_authenticate(challenge),
            Some(Hint::AcceptEncodingIdentity) => head.accept_encoding_identity(),
        };
        head.connection(delivery.connection).end();
        if !delivery.is_head {
            out.extend_from_slice(&body);
        }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Problem {
        let problem = Problem::new(rejection.kind, rejection.detail);
        if problem.status() == Status::BadRequest { problem.with_error("Invalid request") } else { problem }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Problem {
        Problem::invalid_body(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::words::method::Method;

    const DATE: &[u8; DATE_BYTES] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    fn response(problem: &Problem, connection: Connection, is_head: bool) -> String {
        let mut out = Vec::new();
        problem.write_response(&mut out, Delivery { date: DATE, connection, is_head, lines: b"" });
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_whole_answer() {
        let problem = Problem::method_not_allowed(Methods::NONE.with(Method::Get).with(Method::Head));
        let body = "{\"type\":\"/docs/problems/method-not-allowed\",\
            \"title\":\"The resource does not allow this method\",\"status\":405,\"detail\":\"this resource allows GET, HEAD\",\"error\":\"this resource allows GET, HEAD\"}";
        let head = format!(
            "HTTP/1.1 405 Method Not Allowed\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: application/problem+json\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             Allow: GET, HEAD\r\nConnection: close\r\n\r\n",
            body.len()
        );
        assert_eq!(response(&problem, Connection::Close, false), format!("{head}{body}"));
        assert_eq!(response(&problem, Connection::Close, true), head);
    }

    #[test]
    fn statuses_have_the_fields_that_they_must_have() {
        let challenge = Challenge::InvalidToken("the token has expired");
        let cases = [
            (Problem::method_not_allowed(Methods::NONE.with(Method::Get)), 405, "\r\nAllow: GET\r\n"),
            (Problem::unauthorized(Challenge::Missing), 401, "\r\nWWW-Authenticate: Bearer realm="),
            (Problem::unauthorized(challenge), 401, "error_description=\"the token has expired\"\r\n"),
            (Problem::queue_failed(ProblemKind::WriteNotTaken, "the log is full", 2), 503, "\r\nRetry-After: 2\r\n"),
            (Problem::too_many_requests(ProblemKind::WriteRateExceeded, "slow down", 7), 429, "\r\nRetry-After: 7\r\n"),
            (
                Problem::new(ProblemKind::UnsupportedMediaType, "gzip").with_hint(Hint::AcceptEncodingIdentity),
                415,
                "\r\nAccept-Encoding: identity\r\n",
            ),
        ];
        for (problem, code, field) in cases {
            let answer = response(&problem, Connection::KeepAlive, false);
            assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
            assert!(answer.contains(field), "{answer}");
            assert!(!answer.contains("Connection:"), "{answer}");
        }
    }

    #[test]
    fn the_originals_texts_stand_in_error() {
        let error = |problem: Problem| {
            let mut json = Vec::new();
            problem.write_json(&mut json);
            let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            assert_eq!(json["status"], problem.status().code());
            assert_eq!(json["title"], problem.kind.title());
            assert_eq!(json["type"], problem.kind.reference());
            assert_eq!(json["detail"], *problem.detail);
            json["error"].as_str().expect("a text").to_owned()
        };
        assert_eq!(error(Problem::unauthorized(Challenge::Missing)), "Unauthorized");
        assert_eq!(error(Problem::invalid_body("a \"quoted\"\n text")), "Invalid request");
        assert_eq!(error(Problem::invalid_todo_id()), "Missing todo id");
        assert_eq!(error(Problem::queue_failed(ProblemKind::WriteNotTaken, "full", 1)), "Request queued failed");
        assert_eq!(error(Rejection::bad_request("no Host").into()), "Invalid request");
        assert_eq!(error(Rejection::BODY_TOO_LARGE.into()), Rejection::BODY_TOO_LARGE.detail);
        let title_missing = BodyError { index: None, field: Some("title"), reason: "is required".into() };
        let problem = Problem::from(title_missing);
        assert_eq!(problem.detail, "title is required");
        assert_eq!(error(problem), "Invalid request");
    }
}
