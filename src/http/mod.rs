//! HTTP/1.1 (RFC 9110, RFC 9112), pure: bytes in, values out.
//!
//! The way of a request, top to bottom:
//!
//! ```text
//! bytes ─ head ──────────── request_line   method, target, version
//!           │               authority      Host, and the authority of an absolute target
//!           │               framing        how long the body is
//!           ├─ chunked      takes a chunked body apart
//!           ├─ content      may this body be read as JSON?
//!           ├─ route        which resource is meant
//!           ├─ query        which page of the list
//!           ├─ accept_encoding  how may the answer be compressed?
//!           ├─ prefer       does the client wait until its write shows?
//!           ├─ idempotency_key  is it sent again?
//!           └─ conditional  does the client have it already?
//! bytes ─ response          status line and header fields
//!         problem           every error: status, text, JSON
//! ```
//!
//! What both share (method, status, field lines, codings, entity tags, cursors) stands below them, in `words`.
//!
//! Architecture invariant: nothing in this room reads a socket, a clock or a snapshot, and parsing a request allocates
//! nothing. A message is read the same way however its bytes were split: every check looks at the bytes from the left to
//! the right, so what is an error in a prefix is the same error in the whole.
//!
//! Where the RFCs let a recipient choose between leniency and refusal, this server refuses: a request that two parsers
//! can read differently is how requests are smuggled past a proxy. So lines end in CRLF only (RFC 9112 section 2.2 would
//! allow a bare LF), lines are not folded (section 5.2), and a repeated Content-Length is an error even when all its
//! values agree (RFC 9110 section 8.6).

pub mod accept;
pub mod accept_encoding;
pub mod asker;
mod authority;
pub mod chunked;
pub mod conditional;
pub mod content;
pub mod cors;
pub mod events_query;
pub mod framing;
pub mod head;
pub mod idempotency_key;
pub mod prefer;
pub mod problem;
pub mod query;
mod request_line;
pub mod response;
pub mod route;
pub mod words;

pub use framing::Framing;
pub use head::{Head, Parsed, asks_for_head, parse_head};
pub use problem::Problem;
pub use response::ResponseHead;
pub use route::Route;
pub use words::coding::Coding;
pub use words::connection::Connection;
pub use words::event_position::Position;
pub use words::field_lines::FieldLines;
pub use words::method::{Method, Methods};
pub use words::problem_kind::ProblemKind;
pub use words::rejection::Rejection;
pub use words::status::Status;
pub use words::version::Version;

#[cfg(test)]
mod head_tests;
