//! Bytes that have come, as their receiver has them.

use std::ops::Deref;

use crate::Socket;
use crate::backend::uring::LentBuffer;

/// Where received bytes are.
pub(crate) enum Bytes {
    /// Nowhere: it is the end.
    None,
    /// In a buffer of the ring, which the kernel has filled.
    Lent(LentBuffer),
    /// At the beginning of a buffer of our own, this many.
    Own(Vec<u8>, usize),
}

/// Bytes that have come on a connection; none is the end of what its client sends. The buffer that they are in goes back to the
/// backend when this is dropped.
#[must_use = "what has been received is gone when this is dropped"]
pub struct Received<'socket> {
    socket: &'socket Socket,
    bytes: Bytes,
}

impl<'socket> Received<'socket> {
    #[inline]
    pub(crate) fn new(socket: &'socket Socket, bytes: Bytes) -> Received<'socket> {
        Received { socket, bytes }
    }
}

impl Deref for Received<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::None => &[],
            Bytes::Lent(buffer) => buffer.bytes(),
            Bytes::Own(bytes, length) => &bytes[..*length],
        }
    }
}

impl Drop for Received<'_> {
    #[inline]
    fn drop(&mut self) {
        match std::mem::replace(&mut self.bytes, Bytes::None) {
            Bytes::None => {}
            bytes => self.socket.give_back(bytes),
        }
    }
}
