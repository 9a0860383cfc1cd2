//! What a shard runs on: its tasks, its timers, its sockets, and the one place where its thread waits.
//!
//! A turn polls the tasks that can run, hands the kernel what they have asked for, and waits. There are two drivers, io_uring
//! and epoll, and everything above them is the same. It is not a runtime for everybody: it has what a shard needs, and a send
//! takes the buffers of a connection and nothing else.

mod buffers;
pub mod driver;
mod epoll;
mod remote;
mod task;
mod tcp;
mod uring;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use self::driver::Driver;
use self::epoll::Epoll;
use self::remote::Remote;
use self::task::{TaskId, Tasks};
use self::uring::Uring;
use super::connection::Buffers;
use crate::limits::ACCEPTS_TURN_MAX;

/// The number of a socket in its driver.
type Slot = u32;

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

/// What answers a request from the bytes that have come alone, on the spot: the connection's task sleeps on.
pub trait FastPath {
    /// The answer to what has been received, a buffer and how much of it; `None` if the task has to look at it. Called
    /// within a turn of the reactor, which it must not use; a panic ends the shard.
    fn answer(&self, received: &[u8]) -> Option<(Rc<[u8]>, usize)>;
    /// The tick at which a connection has been idle for too long that is answered now; not 0.
    fn idle_until(&self) -> u64;
}

// One for each thread: a pointer to the larger one would be followed at each call.
#[allow(clippy::large_enum_variant)]
enum Backend {
    Uring(Uring),
    Epoll(Epoll),
}

impl Backend {
    /// A driver, and what wakes it.
    fn new(driver: Driver) -> io::Result<(Arc<Remote>, Backend)> {
        let remote = Remote::new()?;
        let backend = match driver {
            Driver::IoUring => Backend::Uring(Uring::new(remote.descriptor())?),
            Driver::Epoll => Backend::Epoll(Epoll::new(remote.descriptor())?),
        };
        Ok((remote, backend))
    }
}

/// The reactor of one thread.
pub struct Reactor {
    driver: Driver,
    backend: RefCell<Backend>,
    tasks: Tasks,
    timers: RefCell<BinaryHeap<Reverse<(Instant, TaskId)>>>,
    /// Tasks that can run from the next turn on.
    next_turn: RefCell<Vec<TaskId>>,
    /// Whoever has it keeps the reactor, so the reactor does not keep it.
    fast_path: RefCell<Option<Weak<dyn FastPath>>>,
}

/// Runs the future that `main` makes to its end on a new reactor of this thread. Tasks that are left then are dropped.
///
/// # Errors
/// The driver cannot be had, which is said with its remedy, or breaks.
pub fn block_on<F: Future>(driver: Driver, main: impl FnOnce(Rc<Reactor>) -> F) -> io::Result<F::Output> {
    task::begin_thread();
    let (remote, backend) = Backend::new(driver).map_err(|reason| driver.cannot_be_had(reason))?;
    let reactor = Rc::new(Reactor {
        driver,
        backend: RefCell::new(backend),
        tasks: Tasks::default(),
        timers: RefCell::default(),
        next_turn: RefCell::default(),
        fast_path: RefCell::default(),
    });
    let output = reactor.run(&remote, main(Rc::clone(&reactor)));
    // Tasks keep the reactor, so only this ends both.
    reactor.tasks.clear();
    output
}

impl Reactor {
    fn run<F: Future>(&self, remote: &Arc<Remote>, main: F) -> io::Result<F::Output> {
        let waker = Waker::from(Arc::clone(remote));
        let mut main = pin!(main);
        let mut is_woken = true;
        loop {
            if is_woken && let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Ok(output);
            }
            self.tasks.run_ready();
            self.turn()?;
            is_woken = remote.take();
        }
    }

    fn turn(&self) -> io::Result<()> {
        let waits = self.next_turn.borrow().is_empty() && !task::is_any_ready();
        let wake_at = self.timers.borrow().peek().map(|Reverse((at, _))| *at);
        let fast_path = self.fast_path.borrow().as_ref().and_then(Weak::upgrade);
        let looks_at_timers = match &mut *self.backend.borrow_mut() {
            Backend::Uring(uring) => uring.turn(waits, wake_at, fast_path.as_deref())?.timer,
            Backend::Epoll(epoll) => {
                epoll.turn(waits, wake_at)?;
                wake_at.is_some()
            }
        };
        if looks_at_timers {
            self.expire_timers();
        }
        self.next_turn.borrow_mut().drain(..).for_each(task::make_ready);
        Ok(())
    }

    fn expire_timers(&self) {
        let now = Instant::now();
        let mut timers = self.timers.borrow_mut();
        while let Some(Reverse((at, task))) = timers.peek()
            && *at <= now
        {
            task::make_ready(*task);
            timers.pop();
        }
    }

    /// What answers requests that come while tasks wait in [`Socket::poll_request`]. The epoll driver does not ask it.
    pub fn set_fast_path(&self, fast_path: Weak<dyn FastPath>) {
        *self.fast_path.borrow_mut() = Some(fast_path);
    }

    /// How it does I/O.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// Frees memory that has not been needed since the last call.
    pub fn trim(&self) {
        if let Backend::Uring(uring) = &mut *self.backend.borrow_mut() {
            uring.trim();
        }
    }

    /// Adds a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.spawn(Box::pin(task));
    }

    /// Waits; in a task only.
    pub async fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut is_set = false;
        poll_fn(|_| {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut is_set, true) {
                self.timers.borrow_mut().push(Reverse((until, task::current())));
            }
            Poll::Pending
        })
        .await;
    }

    /// Waits until the kernel has been given what has been asked for, and has been asked what has happened; in a task only.
    pub async fn next_turn(&self) {
        let mut has_asked = false;
        poll_fn(|_| {
            if has_asked {
                return Poll::Ready(());
            }
            has_asked = true;
            self.next_turn.borrow_mut().push(task::current());
            Poll::Pending
        })
        .await;
    }
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
    descriptor: RawFd,
    is_open: Cell<bool>,
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

    /// A socket that is not connected.
    #[cfg(test)]
    pub fn unconnected() -> Socket {
        Socket { reactor: None, slot: 0, descriptor: -1, is_open: Cell::new(false) }
    }

    /// The backend, as long as the socket is open.
    #[inline]
    fn with<R>(&self, use_backend: impl FnOnce(&mut Backend) -> R) -> Option<R> {
        let reactor = self.reactor.as_ref().filter(|_| self.is_open.get())?;
        Some(use_backend(&mut reactor.backend.borrow_mut()))
    }

    /// Gives `take` bytes that have come, and says how many; 0 is the end.
    #[inline]
    pub fn poll_receive(&self, take: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
        self.poll_received(take, false)
    }

    /// The same for a task that has nothing to do before and nothing to tell: as long as it waits, the reactor's
    /// [`FastPath`] may answer what comes.
    #[inline]
    pub fn poll_request(&self, take: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
        self.poll_received(take, true)
    }

    #[inline]
    fn poll_received(&self, take: impl FnOnce(&[u8]), may_be_answered: bool) -> Poll<io::Result<usize>> {
        let received = self.with(|backend| match backend {
            Backend::Uring(uring) => uring.poll_receive(self.slot, take, may_be_answered),
            Backend::Epoll(epoll) => epoll.poll_receive(self.slot, take),
        });
        received.unwrap_or(Poll::Ready(Ok(0)))
    }

    /// The last [`FastPath::idle_until`] of this connection; asked again, and not answered meanwhile, 0.
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

    /// Sends the unsent pieces of the batch, and says how many bytes have left; the buffers come back.
    #[inline]
    pub async fn send(&self, buffers: Box<Buffers>, manner: SendManner) -> (io::Result<usize>, Box<Buffers>) {
        let mut unsent = Some(buffers);
        let begun = self.with(|backend| {
            let buffers = unsent.take().unwrap_or_default();
            match backend {
                Backend::Uring(uring) => uring.begin_send(self.slot, buffers, manner),
                Backend::Epoll(epoll) => epoll.begin_send(self.slot, buffers),
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

/// The next connection of a non-blocking listener, non-blocking itself.
fn accept(listener: RawFd) -> io::Result<RawFd> {
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
            let accepted = match &mut *self.reactor.backend.borrow_mut() {
                Backend::Uring(uring) => uring.poll_accept(self.listener.as_raw_fd()),
                Backend::Epoll(epoll) => epoll.poll_accept(self.listener.as_raw_fd()),
            };
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
        accept(self.listener.as_raw_fd()).ok()
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
        match &mut *self.backend.borrow_mut() {
            Backend::Uring(uring) => uring.stop_accepting(),
            Backend::Epoll(epoll) => epoll.stop_accepting(),
        }
    }
}

#[cfg(test)]
mod tests;
