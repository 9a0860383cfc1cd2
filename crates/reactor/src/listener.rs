//! Accepting connections.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use crate::Reactor;
use crate::backend::Backend as _;

/// Connections that are accepted before others have their turn. Each takes some 25 microseconds, so a full backlog holds up
/// nobody for more than 0.2 ms.
pub const ACCEPTS_TURN_MAX: usize = 8;

/// The listener that a reactor accepts connections from; it has one at most. It yields to others after each
/// [`ACCEPTS_TURN_MAX`] connections.
pub struct Listener {
    reactor: Rc<Reactor>,
    listener: std::net::TcpListener,
    accepted_in_turn: Cell<usize>,
}

impl Listener {
    /// Takes a socket that listens.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub fn new(reactor: &Rc<Reactor>, listener: std::net::TcpListener) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        Ok(Listener { reactor: Rc::clone(reactor), listener, accepted_in_turn: Cell::new(0) })
    }

    /// The socket itself.
    pub fn as_socket(&self) -> &std::net::TcpListener {
        &self.listener
    }

    /// The descriptor of the next connection.
    ///
    /// # Errors
    /// `ECANCELED` after [`Reactor::stop_accepting`], and what accept4(2) can say.
    pub async fn accept(&self) -> io::Result<RawFd> {
        self.yield_sometimes().await;
        let accepted = poll_fn(|_| {
            let accepted = self.reactor.backend.borrow_mut().poll_accept(self.listener.as_raw_fd());
            if accepted.is_pending() {
                self.accepted_in_turn.set(0);
            }
            accepted
        })
        .await;
        self.accepted_in_turn.set(self.accepted_in_turn.get() + 1);
        accepted
    }

    /// The descriptor of the next connection that the kernel has completed already, if there is one; also after
    /// [`Reactor::stop_accepting`].
    pub async fn accept_completed(&self) -> Option<RawFd> {
        self.yield_sometimes().await;
        self.accepted_in_turn.set(self.accepted_in_turn.get() + 1);
        self.reactor.backend.borrow_mut().accept_completed(self.listener.as_raw_fd())
    }

    async fn yield_sometimes(&self) {
        if self.accepted_in_turn.get() >= ACCEPTS_TURN_MAX {
            self.reactor.next_turn().await;
            self.accepted_in_turn.set(0);
        }
    }
}

impl Reactor {
    /// Ends [`Listener::accept`].
    pub fn stop_accepting(&self) {
        self.backend.borrow_mut().stop_accepting();
    }
}
