//! An answer with a first page, on its way to the output.

use std::rc::Rc;

use super::{LocalBody, LocalSnapshot};
use crate::snapshot::Run;

/// Largest body that is always copied behind its head into one piece: one plain send then beats a vectored write.
pub const WHOLE_BODY_MAX_BYTES: u64 = 16 * 1024;

/// What an answer may consist of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One piece that answers all requests: it is sent on the spot.
    OnePiece,
    /// Any pieces. They answer fewer requests than were asked, where more would be longer than these bytes.
    Pieces { bytes_max: usize },
}

/// Answers with a first page: what is sent, and how many requests it answers.
pub struct Served {
    /// The heads, with their bodies if these are copied: the first `length` bytes.
    pub bytes: Rc<[u8]>,
    /// See `bytes`.
    pub length: usize,
    /// Requests that are answered.
    pub answers: usize,
    /// The body, where it is not copied.
    pub body: ServedBody,
}

/// Where the body of an answer is.
pub enum ServedBody {
    /// Behind its head, or there is none.
    Copied,
    /// In the list.
    Todos(Rc<LocalSnapshot>, Run),
    /// In what the encoder has made.
    Encoded(Rc<LocalBody>),
}
