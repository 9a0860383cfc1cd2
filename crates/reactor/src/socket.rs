//! A connection's socket: what its task asks of it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::task::Poll;

use crate::backend::{AnyBackend, Backend as _, Slot};
use crate::pieces::Pieces;
use crate::transfer::{Bytes, SendManner, Unsent};
use crate::{Detached, Reactor, task};

/// A connection's socket. One task receives and sends; the rest may be called by any of the thread. When it has been closed, it
/// receives the end, and sends nothing.
pub struct Socket {
    /// `None`: not connected.
    reactor: Option<Rc<Reactor>>,
    slot: Slot,
    is_open: Cell<bool>,
}

impl Socket {
    /// The socket of an accepted connection.
    ///
    /// # Errors
    /// The kernel watches no more sockets; the connection is closed.
    pub fn new(accepted: Detached) -> io::Result<Socket> {
        let (reactor, descriptor) = accepted.into_parts();
        let slot = reactor.backend.borrow_mut().add(descriptor)?;
        Ok(Socket { reactor: Some(reactor), slot, is_open: Cell::new(true) })
    }

    /// A socket that is not connected: for tests of what keeps one.
    pub fn unconnected() -> Socket {
        Socket { reactor: None, slot: 0, is_open: Cell::new(false) }
    }

    /// Asks the backend something, as long as the socket is open.
    #[inline]
    fn with<R>(&self, ask: impl FnOnce(&mut AnyBackend, Slot) -> R) -> Option<R> {
        let reactor = self.reactor.as_ref().filter(|_| self.is_open.get())?;
        Some(ask(&mut reactor.backend.borrow_mut(), self.slot))
    }

    /// Bytes that have come; none is the end.
    #[inline]
    pub fn poll_receive(&self) -> Poll<io::Result<Received<'_>>> {
        self.poll_received(false)
    }

    /// The same for a task that has nothing to do before and nothing to tell: as long as it waits, the reactor's
    /// [`FastPath`](crate::FastPath) may answer what comes.
    #[inline]
    pub fn poll_request(&self) -> Poll<io::Result<Received<'_>>> {
        self.poll_received(true)
    }

    #[inline]
    fn poll_received(&self, may_be_answered: bool) -> Poll<io::Result<Received<'_>>> {
        let received = self.with(|backend, slot| backend.poll_receive(slot, may_be_answered));
        received.unwrap_or(Poll::Ready(Ok(Bytes::None))).map_ok(|bytes| Received::new(self, bytes))
    }

    /// Takes received bytes back, also when the socket has been closed meanwhile.
    #[inline]
    pub(crate) fn give_back(&self, bytes: Bytes) {
        if let Some(reactor) = &self.reactor {
            reactor.backend.borrow_mut().give_back(bytes);
        }
    }

    /// The last [`FastPath::idle_until`](crate::FastPath::idle_until) of this connection; asked again, and not answered meanwhile, 0.
    #[inline]
    pub fn take_idle_until(&self) -> u64 {
        self.with(|backend, slot| backend.take_idle_until(slot)).unwrap_or(0)
    }

    /// Whether bytes, or the end, have come that nobody has taken.
    pub fn has_received(&self) -> bool {
        self.with(|backend, slot| backend.has_received(slot)) == Some(true)
    }

    /// Sends the pieces that have not been sent, and says how many bytes have left; the pieces come back.
    #[inline]
    pub async fn send(&self, pieces: Box<Pieces>, manner: SendManner) -> (io::Result<usize>, Box<Pieces>) {
        let mut unsent = Some(pieces);
        let begun = self.with(|backend, slot| {
            backend.begin_send(slot, unsent.take().unwrap_or_default(), manner);
        });
        if begun.is_none() {
            return (Err(io::ErrorKind::NotConnected.into()), unsent.unwrap_or_default());
        }
        poll_fn(|_| {
            let sent = self.with(|backend, slot| backend.poll_sent(slot));
            sent.unwrap_or_else(|| Poll::Ready((Err(io::ErrorKind::NotConnected.into()), Box::default())))
        })
        .await
    }

    /// Sends the first `length` bytes of a buffer that others share, which most likely fit into the socket. The task goes on
    /// to receive, and asks [`Socket::take_unsent`] each time before it does.
    #[inline]
    pub fn send_shared(&self, bytes: Rc<[u8]>, length: usize) {
        self.with(|backend, slot| backend.send_shared(slot, bytes, length));
    }

    /// What the socket has not taken of the last [`Socket::send_shared`], if it was not all.
    #[inline]
    pub fn take_unsent(&self) -> Option<Unsent> {
        self.with(|backend, slot| backend.take_unsent(slot)).flatten()
    }

    /// Where the other end is; `None` when it is not connected any more.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.with(|backend, slot| backend.peer(slot)).flatten()
    }

    /// Ends receiving, sending, or both (shutdown(2)), also for the task that waits for it.
    pub fn shut_down(&self, how: libc::c_int) {
        self.with(|backend, slot| backend.shut_down(slot, how));
    }

    /// Bytes that the socket has taken and the client's system has not acknowledged; `None` if it cannot be asked.
    pub fn unacknowledged_bytes(&self) -> Option<u64> {
        self.with(|backend, slot| backend.unacknowledged_bytes(slot)).flatten()
    }

    /// Bytes of the largest segments that are sent to the client; 0 if it cannot be asked.
    pub fn segment_bytes(&self) -> u64 {
        self.with(|backend, slot| backend.segment_bytes(slot)).unwrap_or(0)
    }

    /// Bytes that the client's system has acknowledged since the connection began; 0 if it cannot be asked.
    pub fn acknowledged_bytes(&self) -> u64 {
        self.with(|backend, slot| backend.acknowledged_bytes(slot)).unwrap_or(0)
    }

    /// Lets the system decide how much of what is sent it keeps for the client, where that was bounded before: `first_bytes` at
    /// first, or as much as any program may ask for.
    pub fn lift_send_bound(&self, first_bytes: usize) {
        self.with(|backend, slot| backend.lift_send_bound(slot, first_bytes));
    }

    /// Has what was not sent dropped when the socket is closed. Otherwise the system would go on to send it, and keep some
    /// megabytes for a client that takes little or nothing.
    pub fn drop_unsent_at_close(&self) {
        self.with(|backend, slot| backend.drop_unsent_at_close(slot));
    }

    /// Wakes the task that waits for the socket, to look at something else.
    pub fn wake(&self) {
        self.with(|backend, slot| backend.task(slot)).into_iter().for_each(task::make_ready);
    }

    /// Closes the socket here, and gives the connection, which the reactor does not watch any more. Bytes that have come and were
    /// not taken are lost.
    ///
    /// # Errors
    /// No descriptor is free, or the socket has been closed before; it is closed all the same.
    pub fn detach(&self) -> io::Result<Detached> {
        let copy = self.with(|backend, slot| backend.duplicate(slot));
        self.close();
        match (&self.reactor, copy) {
            (Some(reactor), Some(copy)) => copy.map(|descriptor| Detached::of(reactor, descriptor)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Closes the socket.
    pub fn close(&self) {
        self.with(|backend, slot| backend.close(slot));
        self.is_open.set(false);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close();
    }
}

/// Bytes that have come on a connection; none is the end of what its client sends. The buffer that they are in goes back to the
/// backend when this is dropped.
#[must_use = "what has been received is gone when this is dropped"]
pub struct Received<'socket> {
    socket: &'socket Socket,
    bytes: Bytes,
}

impl<'socket> Received<'socket> {
    #[inline]
    fn new(socket: &'socket Socket, bytes: Bytes) -> Received<'socket> {
        Received { socket, bytes }
    }
}

impl Deref for Received<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::None => &[],
            Bytes::Lent(buffer) => buffer.bytes(),
            Bytes::Own(bytes, length) => &bytes[..*length],
        }
    }
}

impl Drop for Received<'_> {
    #[inline]
    fn drop(&mut self) {
        match std::mem::replace(&mut self.bytes, Bytes::None) {
            Bytes::None => {}
            bytes => self.socket.give_back(bytes),
        }
    }
}
