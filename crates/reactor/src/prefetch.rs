//! Asking the CPU for memory before it is read.

/// What a CPU fetches at a time.
pub const LINE_BYTES: usize = 64;

/// Asks the CPU for the line of memory at this address, which need not be there.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn prefetch_line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every x86-64 CPU has the instruction; it reads nothing and never faults, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

/// Other CPUs are not asked: it is all about time.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub fn prefetch_line(_: *const u8) {}

/// Asks the CPU for the first lines of something.
#[inline]
pub fn prefetch_lines(start: *const u8, bytes: usize) {
    (0..bytes).step_by(LINE_BYTES).for_each(|at| prefetch_line(start.wrapping_add(at)));
}
