//! What does a reactor's I/O.

mod epoll;
pub mod uring;

use std::io;
use std::os::fd::RawFd;

pub use self::epoll::Epoll;
#[cfg(test)]
pub use self::epoll::RECEIVES_TURN_MAX;
#[cfg(test)]
pub use self::uring::PAGE_BYTES;
pub use self::uring::Uring;

/// The number of a socket in its backend.
pub type Slot = u32;

/// Bytes that may have come on a connection without that its task takes them; then it is received from no more until the task
/// has. Also what is received at a time where a buffer is not the kernel's choice.
pub const UNREAD_MAX_BYTES: usize = 16 * 1024;

// One for each thread: a pointer to the larger one would be followed at each call.
#[allow(clippy::large_enum_variant)]
pub enum Backend {
    Uring(Uring),
    Epoll(Epoll),
}

/// The next connection of a non-blocking listener, non-blocking itself.
pub fn accept(listener: RawFd) -> io::Result<RawFd> {
    // An accept that finds nobody has made a socket and a file by then, and frees them again: to ask before is cheaper.
    let mut asked = libc::pollfd { fd: listener, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which outlives the call; it does not wait.
    if unsafe { libc::poll(&raw mut asked, 1, 0) } == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let (no_address, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the kernel writes no address to null pointers.
    let accepted = unsafe { libc::accept4(listener, no_address, no_length, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) };
    if accepted < 0 { Err(io::Error::last_os_error()) } else { Ok(accepted) }
}
