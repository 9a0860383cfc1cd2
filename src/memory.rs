//! Memory that has been freed, on its way back to the system.

/// Lets the allocator give what this thread has freed back to the system. By itself it does so when the thread allocates
/// again, which an idle one does not. With `all`, also what the allocator would rather keep for the next: for after work that
/// a process does rarely.
pub fn give_back(all: bool) {
    // SAFETY: a plain call that may be made at any time; it concerns the calling thread's heap, and what no thread uses.
    unsafe { libmimalloc_sys::mi_collect(all) }
}
