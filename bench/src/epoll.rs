//! epoll, as the loads and the floors use it.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

/// An instance. What it watches is known by numbers.
pub struct Epoll(OwnedFd);

impl Epoll {
    /// A new one, which watches nothing.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers.
        let descriptor = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was made above and is nobody else's; it is closed when this is dropped.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Watches a descriptor for these events, which are told with this number.
    ///
    /// # Errors
    /// The kernel refuses: the descriptor is watched already, or cannot be.
    pub fn add(&self, descriptor: RawFd, events: libc::c_int, number: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor, events, number)
    }

    /// Watches a descriptor for other events.
    ///
    /// # Errors
    /// It is not watched.
    pub fn change(&self, descriptor: RawFd, events: libc::c_int, number: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, descriptor, events, number)
    }

    fn control(&self, operation: libc::c_int, descriptor: RawFd, events: libc::c_int, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: number };
        // SAFETY: the pointer is to a value on the stack that lives through the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, descriptor, &raw mut event) }).map(drop)
    }

    /// Waits for events, for so many milliseconds at most; -1: for ever. None come when a signal does.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn wait<'e>(
        &self,
        events: &'e mut [libc::epoll_event],
        timeout_ms: libc::c_int,
    ) -> io::Result<&'e [libc::epoll_event]> {
        let most = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the pointer and the number are those of `events`.
        let ready = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), most, timeout_ms) };
        match check(ready) {
            Ok(ready) => Ok(&events[..ready as usize]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(&[]),
            Err(error) => Err(error),
        }
    }
}

/// Room for so many events.
pub fn room_for_events(count: usize) -> Vec<libc::epoll_event> {
    vec![libc::epoll_event { events: 0, u64: 0 }; count.max(1)]
}

/// The result of a system call.
///
/// # Errors
/// It is negative.
pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
