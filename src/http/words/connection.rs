//! What becomes of a connection after an answer.

/// What an answer says about its connection (RFC 9112 section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It stays open, as HTTP/1.1 assumes; nothing is written.
    KeepAlive,
    /// It stays open, and an HTTP/1.0 client has to be told.
    KeepAliveStated,
    /// It closes after this answer.
    Close,
}
