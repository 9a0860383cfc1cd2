//! Connections that a reactor does not watch.

use std::fmt;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::Reactor;
use crate::backend::Backend as _;

/// No descriptor.
const NONE: RawFd = -1;

/// A connection that its reactor does not watch: one that has just been accepted, or one that nobody answers any more. No call waits.
/// It is closed when this is dropped.
pub struct Detached {
    reactor: Rc<Reactor>,
    descriptor: RawFd,
}

impl Detached {
    /// The connection of this descriptor.
    pub fn new(reactor: &Rc<Reactor>, descriptor: OwnedFd) -> Detached {
        Detached::of(reactor, descriptor.into_raw_fd())
    }

    /// The same for a descriptor that is good for the reactor's backend, and nobody else's.
    pub(crate) fn of(reactor: &Rc<Reactor>, descriptor: RawFd) -> Detached {
        Detached { reactor: Rc::clone(reactor), descriptor }
    }

    /// The reactor and the descriptor, which is the caller's to close.
    pub(crate) fn into_parts(self) -> (Rc<Reactor>, RawFd) {
        let mut detached = self;
        (Rc::clone(&detached.reactor), std::mem::replace(&mut detached.descriptor, NONE))
    }

    /// Sends as much of this as the socket takes.
    ///
    /// # Errors
    /// It takes nothing now, or the connection is broken.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.reactor.backend.borrow_mut().send_detached(self.descriptor, bytes)
    }

    /// Ends receiving, sending, or both (shutdown(2)).
    pub fn shut_down(&self, how: libc::c_int) {
        self.reactor.backend.borrow_mut().shut_down_detached(self.descriptor, how);
    }

    /// Drops at most `max_bytes` of what has come, and says how many it were: 0 is the end.
    ///
    /// # Errors
    /// Nothing has come (`WouldBlock`), or the connection is broken.
    pub fn drop_received(&self, max_bytes: usize) -> io::Result<usize> {
        self.reactor.backend.borrow_mut().drop_received(self.descriptor, max_bytes)
    }
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Detached").field(&self.descriptor).finish()
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if self.descriptor != NONE {
            self.reactor.backend.borrow_mut().close_detached(self.descriptor);
        }
    }
}
