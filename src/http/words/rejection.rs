//! Why a request is refused before it is routed.

use super::status::Status;

/// A request that is refused before it is routed. The connection closes after the answer, because where the next
/// request starts is not known, or not worth reading on for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// The status of the answer.
    pub status: Status,
    /// What is wrong.
    pub detail: &'static str,
}

impl Rejection {
    /// The answer to a body over the limit, in short: [`Problem::body_too_large`](crate::http::Problem::body_too_large) names it.
    pub const BODY_TOO_LARGE: Rejection = Rejection::new(Status::ContentTooLarge, "the body is longer than allowed");

    pub(in crate::http) const fn new(status: Status, detail: &'static str) -> Rejection {
        Rejection { status, detail }
    }

    pub(in crate::http) const fn bad_request(detail: &'static str) -> Rejection {
        Rejection::new(Status::BadRequest, detail)
    }
}
