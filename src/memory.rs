//! Memory: what has been freed, on its way back to the system; and what is kept for long, in huge pages.

use std::collections::HashMap;

pub use reactor::prefetch::{LINE_BYTES, prefetch_line};

#[cfg(target_env = "gnu")]
use crate::limits::{C_HEAP_KEPT_BYTES, C_MMAP_MIN_BYTES};
use crate::limits::{HUGE_PAGE_BYTES, HUGE_PAGE_MIN_USED_BYTES, HUGE_PAGE_REFUSALS_MAX};

/// Lets the allocator give what this thread has freed back to the system. By itself it does so when the thread allocates
/// again, which an idle one does not. With `all`, also what the allocator would rather keep for the next: for after work that
/// a process does rarely.
pub fn give_back(all: bool) {
    // SAFETY: a plain call that may be made at any time; it concerns the calling thread's heap, and what no thread uses.
    unsafe { libmimalloc_sys::mi_collect(all) }
}

/// Has the allocator of the C libraries (librdkafka, SQLite; what is written in Rust has its own) keep what they free. As it
/// comes, glibc gives the end of a heap back as soon as 128 KiB of it are free. Commands come in bursts, are freed on another
/// thread than the one that made them, and each burst would ask the kernel for the same pages again. To be called once, before
/// there are other threads.
pub fn keep_what_c_frees() {
    #[cfg(target_env = "gnu")]
    for (option, bytes) in [(libc::M_TRIM_THRESHOLD, C_HEAP_KEPT_BYTES), (libc::M_MMAP_THRESHOLD, C_MMAP_MIN_BYTES)] {
        // SAFETY: no pointers, and nobody else is in malloc, as said above.
        unsafe { libc::mallopt(option, bytes) };
    }
}

/// How much of the memory around them some pieces fill, each as large as a huge page and where one could be.
#[derive(Debug, Default)]
pub struct Occupancy {
    /// Bytes, by the number of the huge page: its address divided by its size.
    used_bytes: HashMap<usize, usize>,
}

impl Occupancy {
    /// Counts the piece of `bytes` bytes at `address`.
    pub fn add(&mut self, address: usize, bytes: usize) {
        let end = address + bytes;
        let mut at = address;
        while at < end {
            let page = at / HUGE_PAGE_BYTES;
            let through = end.min((page + 1) * HUGE_PAGE_BYTES);
            *self.used_bytes.entry(page).or_default() += through - at;
            at = through;
        }
    }

    /// Has the system put into huge pages what is nearly full of these pieces, and returns how many such pages it is now.
    ///
    /// A CPU remembers where some thousand pages lie. A list of a million is some ten thousand times 4 KiB, and each look at
    /// the table of pages is itself several looks into memory, twice as many on a virtual machine. Memory that is freed later
    /// goes back to the system in pages of 4 KiB as before, and so does none of it become huge that is asked for later:
    /// this is no `MADV_HUGEPAGE`, which would make 2 MiB of each 4 KiB that is touched.
    pub fn into_huge_pages(self) -> usize {
        let mut huge = 0;
        let mut refusals = 0;
        for (page, used_bytes) in self.used_bytes {
            if used_bytes < HUGE_PAGE_MIN_USED_BYTES {
                continue;
            }
            if collapse(page * HUGE_PAGE_BYTES) {
                huge += 1;
            } else {
                refusals += 1;
                if refusals == HUGE_PAGE_REFUSALS_MAX {
                    break;
                }
            }
        }
        huge
    }
}

/// Makes one huge page of the memory from `address` on; one that is huge already stays so. `false` when the system cannot: it is
/// older than Linux 6.1, has no huge page to spare, or the memory there is no longer of one kind.
fn collapse(address: usize) -> bool {
    let start = std::ptr::without_provenance_mut(address);
    // SAFETY: the call changes no byte that can be read and frees nothing; an address that is not mapped is an error.
    unsafe { libc::madvise(start, HUGE_PAGE_BYTES, libc::MADV_COLLAPSE) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_count_where_they_lie() {
        let mut occupancy = Occupancy::default();
        occupancy.add(3 * HUGE_PAGE_BYTES - 10, 30);
        occupancy.add(3 * HUGE_PAGE_BYTES + 100, 5);
        occupancy.add(7 * HUGE_PAGE_BYTES, 2 * HUGE_PAGE_BYTES);
        let expected = [(2, 10), (3, 25), (7, HUGE_PAGE_BYTES), (8, HUGE_PAGE_BYTES)];
        assert_eq!(occupancy.used_bytes, HashMap::from(expected));
    }

    #[test]
    fn what_is_put_into_huge_pages_keeps_its_content() {
        let memory: Vec<u8> = (0..3 * HUGE_PAGE_BYTES).map(|at| (at % 251) as u8).collect();
        let mut occupancy = Occupancy::default();
        occupancy.add(memory.as_ptr().addr(), memory.len());
        // Whether the system has huge pages is not the test's matter, nor whether the memory begins with one.
        assert!(occupancy.into_huge_pages() <= 3);
        assert!(memory.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    }
}
