//! The buffers that the kernel receives into: a ring of them, shared by all connections of a shard
//! (io_uring_register_buf_ring(3), Linux 5.19). A connection has one only between a receive and the end of its turn.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{IoUring, types};

use crate::memory::LINE_BYTES;

/// Most buffers; a power of two. So many connections can receive in one turn; with more, the rest receive in the next.
const BUFFERS_MAX: u16 = 1024;
/// Buffers that the kernel has at first. Each time they did not suffice it gets twice as many: the ring goes round all of
/// them, and few stay in the CPU's caches.
const BUFFERS_AT_FIRST: u16 = 64;
/// Bytes of one buffer: a page, some sixty small requests.
pub const BUFFER_BYTES: usize = 4096;
/// From one buffer to the next: an odd number of the CPU's lines. Small requests fill the first lines of their buffers, and at
/// a distance of a page those would all compete for the same few places of its caches.
const STRIDE_BYTES: usize = BUFFER_BYTES + LINE_BYTES;
/// The only group of buffers.
pub const BUFFER_GROUP: u16 = 0;

/// A ring of buffers. One page-aligned mapping holds the ring of entries and behind it the buffers.
pub struct BufferRing {
    entries: NonNull<types::BufRingEntry>,
    bytes: NonNull<u8>,
    /// Where the next entry goes; the kernel sees it after [`BufferRing::publish`].
    tail: u16,
    published: u16,
    /// Buffers in use, by the kernel or by us; the others have never been touched.
    in_use: u16,
}

impl BufferRing {
    /// Registers the buffers with a ring.
    ///
    /// # Errors
    /// The kernel does not know such buffers (before Linux 5.19), or there is no memory.
    pub fn register(ring: &IoUring) -> io::Result<BufferRing> {
        let entries_bytes = (usize::from(BUFFERS_MAX) * size_of::<types::BufRingEntry>()).next_multiple_of(4096);
        let length = entries_bytes + usize::from(BUFFERS_MAX) * STRIDE_BYTES;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, of no file. It is never unmapped, because the kernel may still write into it for a moment
        // after the ring has been closed; there is one for each shard of a process.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        let start = NonNull::new(mapping.cast::<u8>()).filter(|_| mapping != libc::MAP_FAILED);
        let start = start.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the mapping is page-aligned, larger than the entries, and never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(start.as_ptr() as u64, BUFFERS_MAX, BUFFER_GROUP, 0)? };
        // SAFETY: the mapping is longer than `entries_bytes`.
        let bytes = unsafe { start.add(entries_bytes) };
        let mut buffers = BufferRing { entries: start.cast(), bytes, tail: 0, published: 0, in_use: 0 };
        buffers.extend_to(BUFFERS_AT_FIRST);
        buffers.publish();
        Ok(buffers)
    }

    /// Bytes of the buffers in use.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        usize::from(self.in_use) * STRIDE_BYTES
    }

    fn extend_to(&mut self, buffers: u16) {
        for buffer in self.in_use..buffers.min(BUFFERS_MAX) {
            self.give_back(buffer);
            self.in_use = buffer + 1;
        }
    }

    /// The buffers did not suffice: twice as many from now on.
    pub fn grow(&mut self) {
        self.extend_to(self.in_use.saturating_mul(2));
    }

    /// What the kernel has put into a buffer.
    #[inline]
    pub fn filled(&self, buffer: u16, length: usize) -> &[u8] {
        assert!(buffer < BUFFERS_MAX && length <= BUFFER_BYTES, "the kernel knows its buffers");
        // SAFETY: within the mapping, as just checked; the kernel does not touch the buffer until it is given back.
        unsafe { std::slice::from_raw_parts(self.bytes.add(usize::from(buffer) * STRIDE_BYTES).as_ptr(), length) }
    }

    /// Puts a buffer at the end of the ring.
    #[inline]
    pub fn give_back(&mut self, buffer: u16) {
        // SAFETY: the index is within the entries, and the kernel reads an entry only behind the published tail. The
        // entry's last field overlays the tail (io_uring.h) and is not written here.
        unsafe {
            let entry = self.entries.add(usize::from(self.tail % BUFFERS_MAX)).as_mut();
            entry.set_addr(self.bytes.add(usize::from(buffer) * STRIDE_BYTES).as_ptr() as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel all buffers that have been given back.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.tail {
            self.published = self.tail;
            // SAFETY: the tail is in the first entry, which is part of the mapping; the kernel reads it with acquire order.
            let tail = unsafe { AtomicU16::from_ptr(types::BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
            tail.store(self.tail, Ordering::Release);
        }
    }
}
