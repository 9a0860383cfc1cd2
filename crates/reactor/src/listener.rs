//! Accepting connections.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use crate::backend::Backend as _;
use crate::{Detached, Reactor};

/// Connections that are accepted before others have their turn. Each takes some 25 microseconds, so a full backlog holds up
/// nobody for more than 0.2 ms.
pub const ACCEPTS_TURN_MAX: usize = 8;

/// What connections are accepted from.
pub enum Port {
    /// A socket that listens.
    Socket(std::net::TcpListener),
    /// The clients of a simulated world.
    #[cfg(any(test, feature = "simulation"))]
    Simulated,
}

impl Port {
    /// The socket, if there is one.
    pub fn socket(&self) -> Option<&std::net::TcpListener> {
        match self {
            Port::Socket(socket) => Some(socket),
            #[cfg(any(test, feature = "simulation"))]
            Port::Simulated => None,
        }
    }
}

impl From<std::net::TcpListener> for Port {
    fn from(socket: std::net::TcpListener) -> Port {
        Port::Socket(socket)
    }
}

/// The listener that a reactor accepts connections from; it has one at most. It yields to others after each
/// [`ACCEPTS_TURN_MAX`] connections.
pub struct Listener {
    reactor: Rc<Reactor>,
    port: Port,
    accepted_in_turn: Cell<usize>,
}

impl Listener {
    /// Takes a port that listens.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub fn new(reactor: &Rc<Reactor>, port: impl Into<Port>) -> io::Result<Listener> {
        let port = port.into();
        if let Some(socket) = port.socket() {
            socket.set_nonblocking(true)?;
        }
        Ok(Listener { reactor: Rc::clone(reactor), port, accepted_in_turn: Cell::new(0) })
    }

    /// The port itself.
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// The descriptor of the socket; in a simulated world there is none, and it is not looked at.
    fn descriptor(&self) -> RawFd {
        self.port.socket().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// The next connection.
    ///
    /// # Errors
    /// `ECANCELED` after [`Reactor::stop_accepting`], and what accept4(2) can say.
    pub async fn accept(&self) -> io::Result<Detached> {
        self.yield_sometimes().await;
        let accepted = poll_fn(|_| {
            let accepted = self.reactor.backend.borrow_mut().poll_accept(self.descriptor());
            if accepted.is_pending() {
                self.accepted_in_turn.set(0);
            }
            accepted
        })
        .await;
        self.accepted_in_turn.set(self.accepted_in_turn.get() + 1);
        accepted.map(|descriptor| Detached::of(&self.reactor, descriptor))
    }

    /// The next connection that the kernel has completed already, if there is one; also after
    /// [`Reactor::stop_accepting`].
    pub async fn accept_completed(&self) -> Option<Detached> {
        self.yield_sometimes().await;
        self.accepted_in_turn.set(self.accepted_in_turn.get() + 1);
        let completed = self.reactor.backend.borrow_mut().accept_completed(self.descriptor());
        completed.map(|descriptor| Detached::of(&self.reactor, descriptor))
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
