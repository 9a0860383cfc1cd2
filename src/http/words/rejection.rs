//! Why a request is refused before it is routed.

use super::problem_kind::ProblemKind;
use super::status::Status;

/// A request that is refused before it is routed. The connection closes after the answer, because where the next
/// request starts is not known, or not worth reading on for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of problem that it is answered with.
    pub kind: ProblemKind,
    /// What is wrong.
    pub detail: &'static str,
}

impl Rejection {
    /// The answer to a body over the limit, in short: [`Problem::body_too_large`](crate::http::Problem::body_too_large) names it.
    pub const BODY_TOO_LARGE: Rejection = Rejection::new(ProblemKind::BodyTooLarge, "the body is longer than allowed");

    pub(in crate::http) const fn new(kind: ProblemKind, detail: &'static str) -> Rejection {
        Rejection { kind, detail }
    }

    pub(in crate::http) const fn bad_request(detail: &'static str) -> Rejection {
        Rejection::new(ProblemKind::MalformedRequest, detail)
    }

    /// The status of the answer.
    pub const fn status(self) -> Status {
        self.kind.status()
    }
}
