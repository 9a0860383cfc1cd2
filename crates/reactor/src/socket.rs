//! A connection's socket: what its task asks of it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Poll;

use crate::backend::{Backend, Slot};
use crate::pieces::Pieces;
use crate::received::{Bytes, Received};
use crate::{Reactor, task};

/// How a send goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendManner {
    /// It most likely fits into the socket; what does not is the caller's to send again. The caller has nothing to do but wait
    /// for the client: it hears of a success at the end of the next wait, whatever ends that.
    Expected,
    /// The same, and the caller has more to do: the next wait ends at once.
    Urgent,
    /// Wait until the socket takes something. Nothing of that wait is in the kernel.
    Patient,
}

/// What the socket has not taken of an answer that others share.
pub struct Unsent {
    /// The buffer, the first `length` bytes of which are the answer.
    pub bytes: Rc<[u8]>,
    /// See `bytes`.
    pub length: usize,
    /// How many bytes it has taken.
    pub sent: io::Result<usize>,
}

/// A connection's socket. All its calls are made by one task.
pub struct Socket {
    /// `None`: not connected.
    reactor: Option<Rc<Reactor>>,
    slot: Slot,
    pub(crate) descriptor: RawFd,
    pub(crate) is_open: Cell<bool>,
}

impl Socket {
    /// The socket of an accepted connection; its descriptor is closed with it.
    ///
    /// # Errors
    /// The kernel watches no more sockets; the descriptor is closed.
    pub fn new(reactor: &Rc<Reactor>, descriptor: RawFd) -> io::Result<Socket> {
        let slot = match &mut *reactor.backend.borrow_mut() {
            Backend::Uring(uring) => uring.add(descriptor),
            Backend::Epoll(epoll) => epoll.add(descriptor).inspect_err(|_| {
                // SAFETY: no pointers; the descriptor is the caller's gift.
                unsafe { libc::close(descriptor) };
            })?,
        };
        Ok(Socket { reactor: Some(Rc::clone(reactor)), slot, descriptor, is_open: Cell::new(true) })
    }

    /// A socket that is not connected: for tests of what keeps one.
    pub fn unconnected() -> Socket {
        Socket { reactor: None, slot: 0, descriptor: -1, is_open: Cell::new(false) }
    }

    /// The backend, as long as the socket is open.
    #[inline]
    fn with<R>(&self, use_backend: impl FnOnce(&mut Backend) -> R) -> Option<R> {
        let reactor = self.reactor.as_ref().filter(|_| self.is_open.get())?;
        Some(use_backend(&mut reactor.backend.borrow_mut()))
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
        let received = self.with(|backend| match backend {
            Backend::Uring(uring) => uring.poll_receive(self.slot, may_be_answered),
            Backend::Epoll(epoll) => epoll.poll_receive(self.slot),
        });
        received.unwrap_or(Poll::Ready(Ok(Bytes::None))).map_ok(|bytes| Received::new(self, bytes))
    }

    /// Takes received bytes back, also when the socket has been closed meanwhile.
    #[inline]
    pub(crate) fn give_back(&self, bytes: Bytes) {
        let Some(reactor) = &self.reactor else { return };
        match &mut *reactor.backend.borrow_mut() {
            Backend::Uring(uring) => uring.give_back(bytes),
            Backend::Epoll(epoll) => epoll.give_back(bytes),
        }
    }

    /// The last [`FastPath::idle_until`](crate::FastPath::idle_until) of this connection; asked again, and not answered meanwhile, 0.
    pub fn take_idle_until(&self) -> u64 {
        let idle_until = self.with(|backend| match backend {
            Backend::Uring(uring) => uring.take_idle_until(self.slot),
            Backend::Epoll(_) => 0,
        });
        idle_until.unwrap_or(0)
    }

    /// Whether bytes, or the end, have come that nobody has taken.
    pub fn has_received(&self) -> bool {
        let has_received = self.with(|backend| match backend {
            Backend::Uring(uring) => uring.has_received(self.slot),
            Backend::Epoll(_) => false,
        });
        has_received == Some(true) || self.is_open.get() && self.has_bytes_waiting()
    }

    fn has_bytes_waiting(&self) -> bool {
        let mut waiting: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int, into `waiting`, which outlives the call.
        unsafe { libc::ioctl(self.descriptor, libc::FIONREAD, &raw mut waiting) == 0 && waiting > 0 }
    }

    /// Sends the pieces that have not been sent, and says how many bytes have left; the pieces come back.
    #[inline]
    pub async fn send(&self, pieces: Box<Pieces>, manner: SendManner) -> (io::Result<usize>, Box<Pieces>) {
        let mut unsent = Some(pieces);
        let begun = self.with(|backend| {
            let pieces = unsent.take().unwrap_or_default();
            match backend {
                Backend::Uring(uring) => uring.begin_send(self.slot, pieces, manner),
                Backend::Epoll(epoll) => epoll.begin_send(self.slot, pieces),
            }
        });
        if begun.is_none() {
            return (Err(io::ErrorKind::NotConnected.into()), unsent.unwrap_or_default());
        }
        poll_fn(|_| {
            let sent = self.with(|backend| match backend {
                Backend::Uring(uring) => uring.poll_sent(self.slot),
                Backend::Epoll(epoll) => epoll.poll_send(self.slot),
            });
            sent.unwrap_or_else(|| Poll::Ready((Err(io::ErrorKind::NotConnected.into()), Box::default())))
        })
        .await
    }

    /// Sends the first `length` bytes of a buffer that others share, which most likely fit into the socket. The task goes on
    /// to receive, and asks [`Socket::take_unsent`] each time before it does.
    #[inline]
    pub fn send_shared(&self, bytes: Rc<[u8]>, length: usize) {
        self.with(|backend| match backend {
            Backend::Uring(uring) => uring.begin_send_shared(self.slot, bytes, length),
            Backend::Epoll(epoll) => epoll.send_shared(self.slot, bytes, length),
        });
    }

    /// What the socket has not taken of the last [`Socket::send_shared`], if it was not all.
    #[inline]
    pub fn take_unsent(&self) -> Option<Unsent> {
        self.with(|backend| match backend {
            Backend::Uring(uring) => uring.take_unsent(self.slot),
            Backend::Epoll(epoll) => epoll.take_unsent(self.slot),
        })
        .flatten()
    }

    /// Where the other end is; `None` when it is not connected any more.
    pub fn peer(&self) -> Option<SocketAddr> {
        if !self.is_open.get() {
            return None;
        }
        // SAFETY: the descriptor is open, and is closed by this thread alone.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.descriptor) };
        socket2::SockRef::from(&descriptor).peer_addr().ok()?.as_socket()
    }

    /// Ends receiving, sending, or both, also for the task that waits for it.
    pub fn shut_down(&self, how: libc::c_int) {
        if self.is_open.get() {
            // SAFETY: a plain system call, and the descriptor is open.
            unsafe { libc::shutdown(self.descriptor, how) };
        }
    }

    /// Wakes the task that waits for the socket, to look at something else.
    pub fn wake(&self) {
        let task = self.with(|backend| match backend {
            Backend::Uring(uring) => uring.task(self.slot),
            Backend::Epoll(epoll) => epoll.task(self.slot),
        });
        task.into_iter().for_each(task::make_ready);
    }

    /// Closes the socket here, and gives a descriptor of it that the reactor knows nothing of. Bytes that have come and were not
    /// taken are lost.
    ///
    /// # Errors
    /// No descriptor is free; the socket is closed all the same.
    pub fn detach(&self) -> io::Result<OwnedFd> {
        // SAFETY: no pointers; a descriptor that is not open is an error.
        let copy = unsafe { libc::fcntl(self.descriptor, libc::F_DUPFD_CLOEXEC, 0) };
        // SAFETY: it has just been made, and nobody else knows it.
        let copy = if copy < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(copy) }) };
        self.with(|backend| {
            if let Backend::Epoll(epoll) = backend {
                epoll.forget(self.slot);
            }
        });
        self.close();
        copy
    }

    /// Closes the socket.
    pub fn close(&self) {
        self.with(|backend| match backend {
            Backend::Uring(uring) => uring.close(self.slot),
            Backend::Epoll(epoll) => epoll.close(self.slot),
        });
        self.is_open.set(false);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close();
    }
}
