//! How other threads wake a reactor: an event counter of the kernel (eventfd(2)) that the reactor waits for like for a
//! socket.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

/// The waker of a reactor's main future, good from any thread.
pub struct Remote {
    event: OwnedFd,
    /// Whether the reactor has been told since it last looked: one system call for many wake-ups.
    is_signalled: AtomicBool,
}

impl Remote {
    /// A counter that nobody has raised.
    ///
    /// # Errors
    /// There is no descriptor for it.
    pub fn new() -> io::Result<Arc<Remote>> {
        // SAFETY: no pointers.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor has just been made, and nobody else knows it.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        Ok(Arc::new(Remote { event, is_signalled: AtomicBool::new(false) }))
    }

    /// The counter's descriptor.
    pub fn descriptor(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Whether somebody has called since the last [`Remote::take`].
    #[cfg(any(test, feature = "simulation"))]
    pub fn is_signalled(&self) -> bool {
        self.is_signalled.load(Ordering::Relaxed)
    }

    /// Whether somebody has called since the last time that this was asked.
    #[inline]
    pub fn take(&self) -> bool {
        // Acquire: what the caller did before it woke is seen by the main future.
        self.is_signalled.load(Ordering::Relaxed) && self.is_signalled.swap(false, Ordering::Acquire)
    }
}

impl Wake for Remote {
    fn wake(self: Arc<Remote>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Remote>) {
        if self.is_signalled.swap(true, Ordering::AcqRel) {
            return;
        }
        let one: u64 = 1;
        // SAFETY: the pointer and the length are those of `one`. The counter is read each time it has been raised, so it
        // cannot overflow, which alone would make this wait.
        unsafe {
            libc::write(self.event.as_raw_fd(), (&raw const one).cast(), size_of::<u64>());
        }
    }
}
