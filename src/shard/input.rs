//! The bytes of a connection that have been received and not yet parsed.

use monoio::buf::IoBufMut;

use crate::limits::{BODY_MAX_BYTES, HEAD_MAX_BYTES, READ_BUFFER_BYTES};

/// Capacity of a new buffer, in bytes: some sixty small requests. It grows when a read fills it.
const INITIAL_BYTES: usize = 4 * 1024;
/// A whole request with a length, head and body, has to fit; chunked bodies are taken out as they come.
const CAPACITY_MAX_BYTES: usize = HEAD_MAX_BYTES + BODY_MAX_BYTES;

/// A receive buffer: `[consumed | unread | room]`. It owns no memory until room is made.
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

    /// Makes room for the next read: moves what is unread to the front, and doubles the buffer when it is full. `false`
    /// when it holds as much as a request may have.
    pub fn make_room(&mut self) -> bool {
        if self.consumed > 0 {
            self.bytes.copy_within(self.consumed.., 0);
            self.bytes.truncate(self.bytes.len() - self.consumed);
            self.consumed = 0;
        }
        if self.bytes.len() == self.bytes.capacity() {
            if self.bytes.len() >= CAPACITY_MAX_BYTES {
                return false;
            }
            let capacity = (self.bytes.capacity() * 2).clamp(INITIAL_BYTES, CAPACITY_MAX_BYTES);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        true
    }

    /// After a read that filled the buffer there may be more: a larger one, up to [`READ_BUFFER_BYTES`], saves system
    /// calls.
    #[inline]
    pub fn grow_if_filled(&mut self) {
        if self.bytes.len() == self.bytes.capacity() && self.bytes.capacity() < READ_BUFFER_BYTES {
            self.bytes.reserve_exact(self.bytes.capacity());
        }
    }

    /// Whether the buffer has grown beyond what a shard keeps for the next connection.
    pub fn is_oversized(&self) -> bool {
        self.bytes.capacity() > READ_BUFFER_BYTES
    }
}

// SAFETY: the pointer is that of the vector's heap block behind its initialized part. The block does not move while the
// runtime owns the value, because nothing else can reach it then, and moving an `Input` does not move the block.
unsafe impl IoBufMut for Input {
    fn write_ptr(&mut self) -> *mut u8 {
        // SAFETY: `len` never exceeds the capacity, so the pointer stays within the allocation or one past its end.
        unsafe { self.bytes.as_mut_ptr().add(self.bytes.len()) }
    }

    fn bytes_total(&mut self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    unsafe fn set_init(&mut self, received: usize) {
        // SAFETY: the caller states that the kernel wrote `received` bytes at `write_ptr`, and it was given
        // `bytes_total` at most, so the new length is initialized and within the capacity.
        unsafe { self.bytes.set_len(self.bytes.len() + received) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(input: &mut Input, bytes: &[u8]) {
        assert!(bytes.len() <= input.bytes_total());
        // SAFETY: there is room for the bytes, as asserted, and they are written before they are declared.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), input.write_ptr(), bytes.len());
            input.set_init(bytes.len());
        }
    }

    #[test]
    fn unread_bytes_survive_growth_and_moves() {
        let mut input = Input::default();
        assert!(input.make_room());
        receive(&mut input, &[b'a'; INITIAL_BYTES]);
        input.consume(INITIAL_BYTES - 3);
        assert!(input.make_room());
        assert_eq!(input.unread(), b"aaa");
        let room = input.bytes_total();
        receive(&mut input, &vec![b'b'; room]);
        assert!(input.make_room(), "a full buffer grows");
        assert_eq!(&input.unread()[..4], b"aaab");
        let mut full = Input::default();
        while full.make_room() {
            let room = full.bytes_total();
            receive(&mut full, &vec![b'x'; room]);
        }
        assert_eq!(full.unread().len(), CAPACITY_MAX_BYTES, "growth is bounded");
    }
}
