//! Where the pieces of a snapshot lie, and asking the CPU for their memory before it is needed.
//!
//! A change far down in a long list meets memory that is in none of the CPU's caches, and each step of a search waits for the
//! one before. A batch knows all its places beforehand: asked for together, their memory comes at the same time.

use std::sync::Arc;

use crate::memory::{LINE_BYTES, prefetch_line};

/// The counts of references stand before what an `Arc` shares.
const COUNTS_BYTES: usize = 2 * size_of::<usize>();

/// Where something shared lies. Only to be asked for, never to be read: it may be gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    start: *const u8,
    bytes: usize,
}

impl Memory {
    /// What `shared` points to, and the counts before it.
    pub fn of<T>(shared: &Arc<[T]>) -> Memory {
        let start = Arc::as_ptr(shared).cast::<u8>().wrapping_sub(COUNTS_BYTES);
        Memory { start, bytes: COUNTS_BYTES + size_of_val(&**shared) }
    }

    /// Its first byte.
    pub fn address(self) -> usize {
        self.start.addr()
    }

    /// How long it is.
    pub fn bytes(self) -> usize {
        self.bytes
    }

    /// Asks for all of it.
    pub fn prefetch(self) {
        self.prefetch_each(LINE_BYTES);
    }

    /// Asks for enough that a search in it is not held up: each second line, because CPUs fetch the one beside it too.
    pub fn prefetch_for_search(self) {
        self.prefetch_each(2 * LINE_BYTES);
    }

    /// Asks for the counts of references alone.
    pub fn prefetch_counts(self) {
        prefetch_line(self.start);
    }

    fn prefetch_each(self, step_bytes: usize) {
        (0..self.bytes).step_by(step_bytes).for_each(|at| prefetch_line(self.start.wrapping_add(at)));
    }
}
