//! The bytes of a connection that have been received and not yet parsed.

use crate::limits::READ_BUFFER_BYTES;

const _: () = assert!(READ_BUFFER_BYTES == reactor::UNREAD_MAX_BYTES, "what comes at once fits");

/// `[consumed | unread]`. It owns no memory until bytes come.
#[derive(Default)]
pub struct Input {
    bytes: Vec<u8>,
    consumed: usize,
}

impl Input {
    /// What has not been parsed yet.
    #[inline]
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.consumed..]
    }

    /// Whether everything has been parsed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.consumed == self.bytes.len()
    }

    /// Marks the first `count` unread bytes as parsed.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.consumed += count;
        debug_assert!(self.consumed <= self.bytes.len());
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.consumed = 0;
    }

    /// Whether it holds so many bytes, as a request may have at most, so that more cannot help.
    pub fn is_full(&self, request_max_bytes: usize) -> bool {
        self.unread().len() >= request_max_bytes
    }

    /// Appends what has been received; what is unread moves to the front.
    #[inline]
    pub fn append(&mut self, received: &[u8]) {
        if self.consumed > 0 {
            self.bytes.drain(..self.consumed);
            self.consumed = 0;
        }
        let wanted = self.bytes.len() + received.len();
        if wanted > READ_BUFFER_BYTES && wanted > self.bytes.capacity() {
            // A large body need not have twice its memory.
            self.bytes.reserve_exact(wanted.next_multiple_of(READ_BUFFER_BYTES) - self.bytes.len());
        }
        self.bytes.extend_from_slice(received);
    }

    /// Bytes of memory that it holds for its connection alone; none when nothing is there, as it goes back then.
    pub fn held_bytes(&self) -> usize {
        if self.is_empty() { 0 } else { self.bytes.capacity() }
    }

    /// Forgets everything, and frees its memory.
    pub fn free(&mut self) {
        *self = Input::default();
    }

    /// Whether the buffer has grown beyond what a shard keeps for the next connection.
    pub fn is_oversized(&self) -> bool {
        self.bytes.capacity() > READ_BUFFER_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_bytes_move_to_the_front() {
        let mut input = Input::default();
        input.append(b"abcdef");
        input.consume(3);
        input.append(b"gh");
        assert_eq!(input.unread(), b"defgh");
        input.consume(5);
        assert!(input.is_empty() && input.bytes.is_empty());
        input.append(&vec![b'x'; 2 * READ_BUFFER_BYTES - 1]);
        assert!(!input.is_full(2 * READ_BUFFER_BYTES));
        input.append(b"x");
        assert!(input.is_full(2 * READ_BUFFER_BYTES) && input.is_oversized());
    }
}
