//! How bytes go out, and where they are that have come: what sockets and backends tell each other.

use std::io;
use std::rc::Rc;

use crate::backend::uring::LentBuffer;

/// How a send goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendManner {
    /// It most likely fits into the socket; what does not is the caller's to send again. The caller has nothing to do but wait
    /// for the client: it hears of a success at the end of the next wait, whatever ends that.
    Expected,
    /// The same, and the caller has more to do: the next wait ends at once.
    Urgent,
    /// Wait until the socket takes something. Nothing of that wait is in the kernel.
    Patient,
}

/// What the socket has not taken of an answer that others share.
pub struct Unsent {
    /// The buffer, the first `length` bytes of which are the answer.
    pub bytes: Rc<[u8]>,
    /// See `bytes`.
    pub length: usize,
    /// How many bytes it has taken.
    pub sent: io::Result<usize>,
}

/// Where received bytes are.
pub(crate) enum Bytes {
    /// Nowhere: it is the end.
    None,
    /// In a buffer of the ring, which the kernel has filled.
    Lent(LentBuffer),
    /// At the beginning of a buffer of our own, this many.
    Own(Vec<u8>, usize),
}
