//! The buffers that the kernel receives into: a ring of them, shared by all connections of a reactor
//! (io_uring_register_buf_ring(3), Linux 5.19). A connection has one only between a receive and the end of its turn.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{IoUring, types};

use crate::prefetch::LINE_BYTES;

/// Most buffers; a power of two. So many connections can receive in one turn; with more, the rest receive in the next.
const BUFFERS_MAX: u16 = 1024;
/// Buffers that the kernel has at first. Each time they did not suffice it gets twice as many, and half as many when few of
/// them have been needed for a while: the ring goes round all of them, and few stay in the CPU's caches.
const BUFFERS_AT_FIRST: u16 = 64;
/// Bytes of one buffer: a page, some sixty small requests.
pub const BUFFER_BYTES: usize = 4096;
/// From one buffer to the next: an odd number of the CPU's lines. Small requests fill the first lines of their buffers, and at
/// a distance of a page those would all compete for the same few places of its caches.
const STRIDE_BYTES: usize = BUFFER_BYTES + LINE_BYTES;
/// What memory is freed by.
pub const PAGE_BYTES: usize = 4096;
/// The only group of buffers.
pub const BUFFER_GROUP: u16 = 0;

const _: () =
    assert!(BUFFER_BYTES <= u16::MAX as usize && BUFFERS_AT_FIRST <= BUFFERS_MAX && BUFFERS_MAX.is_power_of_two());

/// A buffer that the kernel has filled and does not touch until it is given back. There is one such for each time that the kernel
/// has filled a buffer, so nobody gives one back twice, or reads it afterwards.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a buffer that is not given back is lost to its ring"]
pub struct FilledBuffer {
    number: u16,
    length: u16,
}

impl FilledBuffer {
    /// How many bytes there are in it.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.length)
    }
}

/// The same, together with the place where it is, for those who do not know its ring.
pub struct LentBuffer {
    buffer: FilledBuffer,
    start: NonNull<u8>,
}

impl LentBuffer {
    /// What the kernel has put into it.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping stays for ever, and the kernel does not touch the buffer as long as this is here.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.buffer.len()) }
    }
}

/// A ring of buffers. One page-aligned mapping holds the ring of entries and behind it the buffers.
pub struct BufferRing {
    entries: NonNull<types::BufRingEntry>,
    bytes: NonNull<u8>,
    /// Where the next entry goes; the kernel sees it after [`BufferRing::publish`].
    tail: u16,
    published: u16,
    /// Buffers that take part: those of smaller numbers.
    size: u16,
    /// Buffers that have memory; those from here on have never been touched, or no more since their memory was freed.
    touched: u16,
    /// Buffers from `size` to `touched` that have come back and do not go to the kernel any more.
    withheld: Vec<u16>,
    /// Most that came back between two publications since the last [`BufferRing::trim`]: so many were needed at a time.
    needed: u16,
}

impl BufferRing {
    /// Registers the buffers with a ring.
    ///
    /// # Errors
    /// The kernel does not know such buffers (before Linux 5.19), or there is no memory.
    pub fn register(ring: &IoUring) -> io::Result<BufferRing> {
        let entries_bytes = (usize::from(BUFFERS_MAX) * size_of::<types::BufRingEntry>()).next_multiple_of(PAGE_BYTES);
        let length = entries_bytes + usize::from(BUFFERS_MAX) * STRIDE_BYTES;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, of no file. It is never unmapped, because the kernel may still write into it for a moment
        // after the ring has been closed; there is one for each reactor of a process.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        let start = NonNull::new(mapping.cast::<u8>()).filter(|_| mapping != libc::MAP_FAILED);
        let start = start.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the mapping is page-aligned, larger than the entries, and never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(start.as_ptr() as u64, BUFFERS_MAX, BUFFER_GROUP, 0)? };
        // SAFETY: the mapping is longer than `entries_bytes`.
        let bytes = unsafe { start.add(entries_bytes) };
        let mut buffers = BufferRing {
            entries: start.cast(),
            bytes,
            tail: 0,
            published: 0,
            size: 0,
            touched: 0,
            withheld: Vec::new(),
            needed: 0,
        };
        buffers.extend_to(BUFFERS_AT_FIRST);
        buffers.publish();
        Ok(buffers)
    }

    /// Bytes of the buffers that have memory.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        usize::from(self.touched) * STRIDE_BYTES
    }

    /// Buffers that were ever given to the kernel, counted round and round.
    #[cfg(test)]
    pub fn given(&self) -> u16 {
        self.tail
    }

    /// Bytes of the buffers that the system has memory for (mincore(2)).
    #[cfg(test)]
    pub fn resident_bytes(&self) -> usize {
        let length = usize::from(BUFFERS_MAX) * STRIDE_BYTES;
        let mut pages = vec![0_u8; length.div_ceil(PAGE_BYTES)];
        // SAFETY: the range is mapped, and there is a byte for each of its pages.
        let result = unsafe { libc::mincore(self.bytes.as_ptr().cast(), length, pages.as_mut_ptr()) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        pages.iter().filter(|page| **page & 1 == 1).count() * PAGE_BYTES
    }

    fn extend_to(&mut self, buffers: u16) {
        self.size = buffers.min(BUFFERS_MAX);
        for buffer in std::mem::take(&mut self.withheld) {
            self.put(buffer);
        }
        for buffer in self.touched..self.size {
            self.touched = buffer + 1;
            self.put(buffer);
        }
    }

    /// Buffers that take part.
    pub fn len(&self) -> usize {
        usize::from(self.size)
    }

    /// The buffers did not suffice: twice as many from now on.
    pub fn grow(&mut self) {
        self.extend_to(self.size.saturating_mul(2));
    }

    /// Takes half of the buffers out, if no more than a quarter has been needed at a time since the last call. Their memory is
    /// freed when the last of them has come back, which takes a round of the ring.
    pub fn trim(&mut self) {
        if std::mem::take(&mut self.needed) <= self.size / 4 && self.size > BUFFERS_AT_FIRST {
            self.size /= 2;
            self.free_withheld();
        }
    }

    #[cold]
    fn withhold(&mut self, buffer: u16) {
        self.withheld.push(buffer);
        self.free_withheld();
    }

    /// Gives the memory of the buffers that take no part back to the system, as soon as the kernel has none of them.
    fn free_withheld(&mut self) {
        if self.withheld.len() < usize::from(self.touched - self.size) {
            return;
        }
        let end_of = |buffers: u16| (usize::from(buffers) * STRIDE_BYTES).next_multiple_of(PAGE_BYTES);
        let (start, end) = (end_of(self.size), end_of(self.touched));
        // SAFETY: whole pages of the mapping, whose length the kernel rounds up too; no buffer that takes part reaches into
        // them, and neither the kernel nor we have any of the others. Where pages are larger than thought, the call fails and
        // the memory stays.
        unsafe { libc::madvise(self.bytes.as_ptr().add(start).cast(), end - start, libc::MADV_DONTNEED) };
        self.withheld = Vec::new();
        self.touched = self.size;
    }

    /// The buffer of this number, into which the kernel has put `length` bytes.
    ///
    /// # Safety
    /// The kernel has said so in a completion of this ring, for which this has not been called before.
    #[inline]
    pub unsafe fn filled(&mut self, number: u16, length: usize) -> FilledBuffer {
        assert!(number < BUFFERS_MAX && length <= BUFFER_BYTES, "the kernel knows its buffers");
        FilledBuffer { number, length: length as u16 }
    }

    #[inline]
    fn start_of(&self, number: u16) -> NonNull<u8> {
        debug_assert!(number < BUFFERS_MAX);
        // SAFETY: within the mapping, because numbers are less than `BUFFERS_MAX`: those of filled buffers have been checked, and
        // the others are counted here.
        unsafe { self.bytes.add(usize::from(number) * STRIDE_BYTES) }
    }

    /// What the kernel has put into a buffer of this ring.
    #[inline]
    pub fn bytes_of<'a>(&'a self, buffer: &'a FilledBuffer) -> &'a [u8] {
        // SAFETY: within the mapping; the kernel does not touch the buffer until it is given back, which takes it by value.
        unsafe { std::slice::from_raw_parts(self.start_of(buffer.number).as_ptr(), buffer.len()) }
    }

    /// The buffer for somebody else to read, who gives it back.
    #[inline]
    pub fn lend(&self, buffer: FilledBuffer) -> LentBuffer {
        let start = self.start_of(buffer.number);
        LentBuffer { buffer, start }
    }

    /// Takes back what was lent.
    #[inline]
    pub fn take_back(&mut self, lent: LentBuffer) {
        self.give_back(lent.buffer);
    }

    /// Gives a buffer back to the kernel.
    #[inline]
    pub fn give_back(&mut self, buffer: FilledBuffer) {
        self.put(buffer.number);
    }

    /// Puts a buffer at the end of the ring, unless it takes no part any more.
    #[inline]
    fn put(&mut self, buffer: u16) {
        if buffer >= self.size {
            return self.withhold(buffer);
        }
        let start = self.start_of(buffer);
        // SAFETY: the index is within the entries, and the kernel reads an entry only behind the published tail. The
        // entry's last field overlays the tail (io_uring.h) and is not written here.
        unsafe {
            let entry = self.entries.add(usize::from(self.tail % BUFFERS_MAX)).as_mut();
            entry.set_addr(start.as_ptr() as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel all buffers that have been given back.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.tail {
            self.needed = self.needed.max(self.tail.wrapping_sub(self.published));
            self.published = self.tail;
            // SAFETY: the tail is in the first entry, which is part of the mapping; the kernel reads it with acquire order.
            let tail = unsafe { AtomicU16::from_ptr(types::BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
            tail.store(self.tail, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl BufferRing {
        /// The numbers of the buffers that were put into the ring since the tail stood there.
        fn given_since(&self, tail: u16) -> Vec<u16> {
            let places = (0..self.tail.wrapping_sub(tail)).map(|ahead| tail.wrapping_add(ahead) % BUFFERS_MAX);
            // SAFETY: within the entries, which nobody writes meanwhile.
            let number = |place: u16| unsafe { self.entries.add(usize::from(place)).as_ref().bid() };
            let mut numbers: Vec<u16> = places.map(number).collect();
            numbers.sort_unstable();
            numbers
        }

        /// As if the kernel had filled all of these, and each had been read.
        fn use_once(&mut self, buffers: impl Iterator<Item = u16>) {
            buffers.for_each(|buffer| self.put(buffer));
            self.publish();
        }
    }

    #[test]
    fn half_of_the_buffers_leave_when_a_quarter_sufficed_and_come_back_when_they_are_needed() {
        // Without io_uring there are no such buffers. The kernel takes nothing out of a ring that nobody receives with.
        let Ok(ring) = IoUring::new(8) else { return };
        let Ok(mut buffers) = BufferRing::register(&ring) else { return };
        buffers.grow();
        buffers.grow();
        assert_eq!((buffers.size, buffers.touched), (256, 256));
        buffers.publish();
        buffers.trim();
        assert_eq!(buffers.size, 256, "all of them came in this time");

        buffers.use_once(0..65);
        buffers.trim();
        assert_eq!(buffers.size, 256, "more than a quarter");
        buffers.use_once(0..64);
        buffers.trim();
        assert_eq!((buffers.size, buffers.touched), (128, 256), "the kernel still has the others");
        let tail = buffers.tail;
        buffers.use_once(100..200);
        assert_eq!(buffers.given_since(tail), (100..128).collect::<Vec<_>>());
        assert_eq!(buffers.withheld.len(), 72);

        // Before the others have come: those that had are given again, and none twice.
        let tail = buffers.tail;
        buffers.grow();
        assert_eq!(buffers.given_since(tail), (128..200).collect::<Vec<_>>());
        assert_eq!((buffers.size, buffers.touched, buffers.withheld.len()), (256, 256, 0));

        for size in [128, 64, 64] {
            buffers.publish();
            buffers.needed = 0;
            buffers.trim();
            assert_eq!(buffers.size, size);
        }
        buffers.use_once(0..256);
        assert_eq!((buffers.touched, buffers.withheld.len()), (64, 0));
        let tail = buffers.tail;
        buffers.grow();
        assert_eq!(buffers.given_since(tail), (64..128).collect::<Vec<_>>());
    }
}
