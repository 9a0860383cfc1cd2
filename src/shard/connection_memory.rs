//! What the buffers of all connections may take: `CONNECTION_MEMORY_MAX_BYTES` for the process, beyond the little that each
//! connection has without asking.
//!
//! A shard takes its part from the process in lots and gives it back, so the counter that all share is written when a buffer
//! grows far, and never for a request. When most is taken, memory is short: connections answer fewer requests at a time, and
//! those that hold most without getting on are closed.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Shard;
use crate::limits::CONNECTION_MEMORY_LOT_BYTES;
use crate::observe::status::Component;

/// What all shards take lots from.
#[repr(align(128))]
#[derive(Debug)]
pub struct ConnectionMemory {
    taken_bytes: AtomicUsize,
    max_bytes: usize,
    /// The shortage has been told.
    is_told: AtomicBool,
}

impl ConnectionMemory {
    /// Memory of this size.
    pub fn new(max_bytes: usize) -> Arc<ConnectionMemory> {
        Arc::new(ConnectionMemory { taken_bytes: AtomicUsize::new(0), max_bytes, is_told: AtomicBool::new(false) })
    }

    fn is_short(&self) -> bool {
        self.taken_bytes.load(Ordering::Relaxed) > self.max_bytes / 4 * 3
    }

    fn take(&self, bytes: usize) -> bool {
        let next = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= self.max_bytes);
        self.taken_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// The part of a shard.
#[derive(Debug)]
pub struct ShardMemory {
    process: Arc<ConnectionMemory>,
    taken_bytes: Cell<usize>,
    used_bytes: Cell<usize>,
    is_short: Cell<bool>,
}

impl ShardMemory {
    /// Nothing, of this.
    pub fn new(process: Arc<ConnectionMemory>) -> ShardMemory {
        ShardMemory { process, taken_bytes: Cell::new(0), used_bytes: Cell::new(0), is_short: Cell::new(false) }
    }

    /// Bytes that the shard's connections use of it.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.get()
    }

    /// Whether connections have to make do with less.
    #[inline]
    pub fn is_short(&self) -> bool {
        self.is_short.get()
    }

    /// Changes what a connection uses. Returns whether it may; less, it always may.
    pub fn change(&self, before_bytes: usize, bytes: usize) -> bool {
        let used = self.used_bytes.get() - before_bytes + bytes;
        let missing = used.saturating_sub(self.taken_bytes.get()).next_multiple_of(CONNECTION_MEMORY_LOT_BYTES);
        let may = missing == 0 || self.process.take(missing);
        if may {
            self.taken_bytes.set(self.taken_bytes.get() + missing);
            self.used_bytes.set(used);
            self.give_back();
        }
        self.is_short.set(!may || self.process.is_short());
        may
    }

    /// Gives the lots back that are not needed, but for one, so that a connection at the edge of a lot does not move it to and
    /// fro.
    fn give_back(&self) {
        let used = self.used_bytes.get();
        let kept = if used == 0 {
            0
        } else {
            used.next_multiple_of(CONNECTION_MEMORY_LOT_BYTES) + CONNECTION_MEMORY_LOT_BYTES
        };
        if self.taken_bytes.get() > kept {
            let unneeded = self.taken_bytes.get() - kept;
            self.taken_bytes.set(kept);
            self.process.taken_bytes.fetch_sub(unneeded, Ordering::Relaxed);
        }
    }
}

impl Drop for ShardMemory {
    fn drop(&mut self) {
        self.process.taken_bytes.fetch_sub(self.taken_bytes.get(), Ordering::Relaxed);
    }
}

impl Shard {
    /// Looks whether memory is short, says so, and closes those that hold most of it without getting on; at each tick.
    pub(super) fn look_at_memory(&self) {
        let ShardMemory { process, is_short, used_bytes, .. } = &self.memory;
        is_short.set(process.is_short());
        self.metrics.connection_memory_bytes.set(used_bytes.get() as u64);
        if is_short.get() {
            let closed = self.registry.evict_largest(self.clock.ticks(), used_bytes.get() / 4);
            self.metrics.connection_memory_refused.add(closed as u64);
            if !process.is_told.swap(true, Ordering::Relaxed) {
                self.all_metrics.status.trouble(
                    Component::ConnectionMemory,
                    "clients that do not read, or do not end their requests, hold three quarters of \
                     CONNECTION_MEMORY_MAX_BYTES; requests with bodies may get 503, and the connections that hold most are \
                     closed. Raise it, or lower MAX_CONNECTIONS, if these clients are honest",
                );
            }
        } else if process.is_told.load(Ordering::Relaxed)
            && process.taken_bytes.load(Ordering::Relaxed) <= process.max_bytes / 2
            && process.is_told.swap(false, Ordering::Relaxed)
        {
            self.all_metrics.status.well(Component::ConnectionMemory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOT: usize = CONNECTION_MEMORY_LOT_BYTES;

    #[test]
    fn shards_take_what_they_need_and_no_more_than_there_is() {
        let process = ConnectionMemory::new(8 * LOT);
        let (first, second) = (ShardMemory::new(Arc::clone(&process)), ShardMemory::new(Arc::clone(&process)));
        let taken = || process.taken_bytes.load(Ordering::Relaxed) / LOT;
        assert!(first.change(0, 1) && first.change(0, LOT - 1));
        assert_eq!((taken(), first.is_short()), (1, false), "one lot for both");
        assert!(second.change(0, 6 * LOT));
        assert_eq!((taken(), second.is_short()), (7, true));
        assert!(!second.change(6 * LOT, 8 * LOT), "more than there is");
        assert_eq!(second.used_bytes(), 6 * LOT, "nothing changes then");
        assert!(second.change(6 * LOT, LOT));
        assert_eq!((taken(), second.is_short()), (3, false), "one lot is kept");
        assert!(second.change(LOT, 0));
        assert_eq!(taken(), 1);
        drop((first, second));
        assert_eq!(process.taken_bytes.load(Ordering::Relaxed), 0);
    }
}
