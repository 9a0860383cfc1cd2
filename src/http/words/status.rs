//! The status codes that this server sends.

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal $reason:literal,)+) => {
        /// A status code that this server sends (RFC 9110 section 15, RFC 6585).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Status {
            $($(#[$doc])* $name = $code,)+
        }

        impl Status {
            /// Every status.
            pub const ALL: &[Status] = &[$(Status::$name,)+];

            /// The reason phrase; also the title of a problem.
            pub const fn reason(self) -> &'static str {
                match self {
                    $(Status::$name => $reason,)+
                }
            }

            /// The whole status line, with its CRLF.
            pub const fn line(self) -> &'static [u8] {
                match self {
                    $(Status::$name => concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n").as_bytes(),)+
                }
            }
        }
    };
}

statuses! {
    /// Here it is.
    Ok = 200 "OK",
    /// The command is durable and will be applied.
    Accepted = 202 "Accepted",
    /// Done, and there is nothing to show.
    NoContent = 204 "No Content",
    /// The client has it already.
    NotModified = 304 "Not Modified",
    /// The request is malformed.
    BadRequest = 400 "Bad Request",
    /// No valid token.
    Unauthorized = 401 "Unauthorized",
    /// The todo belongs to another user.
    Forbidden = 403 "Forbidden",
    /// No such resource.
    NotFound = 404 "Not Found",
    /// The resource does not know this method.
    MethodNotAllowed = 405 "Method Not Allowed",
    /// What there is is not what the client takes.
    NotAcceptable = 406 "Not Acceptable",
    /// The request did not arrive in time.
    RequestTimeout = 408 "Request Timeout",
    /// If-Match or If-None-Match forbids the change.
    PreconditionFailed = 412 "Precondition Failed",
    /// The body is too long.
    ContentTooLarge = 413 "Content Too Large",
    /// The request target is too long.
    UriTooLong = 414 "URI Too Long",
    /// The body is not JSON, or is encoded.
    UnsupportedMediaType = 415 "Unsupported Media Type",
    /// Expect asks for something else than 100-continue.
    ExpectationFailed = 417 "Expectation Failed",
    /// The target belongs to another origin, such as an `https` one.
    MisdirectedRequest = 421 "Misdirected Request",
    /// The client is over its limit.
    TooManyRequests = 429 "Too Many Requests",
    /// The head is too long, or has too many fields.
    HeaderFieldsTooLarge = 431 "Request Header Fields Too Large",
    /// Our fault.
    InternalServerError = 500 "Internal Server Error",
    /// An unknown method or transfer coding.
    NotImplemented = 501 "Not Implemented",
    /// The command log or another part is full or away; worth a retry.
    ServiceUnavailable = 503 "Service Unavailable",
    /// Not HTTP/1.
    VersionNotSupported = 505 "HTTP Version Not Supported",
    /// The list has as many bytes as it may (RFC 4918 section 11.5).
    InsufficientStorage = 507 "Insufficient Storage",
}

impl Status {
    /// The three digits.
    pub const fn code(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_follow_from_code_and_reason() {
        for status in Status::ALL {
            let expected = format!("HTTP/1.1 {} {}\r\n", status.code(), status.reason());
            assert_eq!(status.line(), expected.as_bytes());
        }
    }
}
