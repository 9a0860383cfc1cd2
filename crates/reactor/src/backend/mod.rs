//! What does a reactor's I/O: one trait, and who implements it. Everything above is the same for all of them.

mod epoll;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;
mod tcp;
pub mod uring;

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Instant, SystemTime};

pub use self::epoll::Epoll;
#[cfg(test)]
pub use self::epoll::RECEIVES_TURN_MAX;
pub use self::uring::Uring;
#[cfg(test)]
pub use self::uring::{BUFFER_BYTES, PAGE_BYTES};
use crate::FastPath;
use crate::pieces::Pieces;
use crate::task::TaskId;
use crate::transfer::Bytes;
use crate::transfer::{SendManner, Unsent};

/// The number of a socket in its backend.
pub type Slot = u32;

/// Bytes that may have come on a connection without that its task takes them; then it is received from no more until the task
/// has. Also what is received at a time where a buffer is not the kernel's choice.
pub const UNREAD_MAX_BYTES: usize = 16 * 1024;

/// The sockets of one reactor, its one listener, and its clock.
///
/// A slot is what [`Backend::add`] gave, until [`Backend::close`]; no call is made with any other. The `poll_` calls are made by
/// tasks: when they are pending, the task that called last is made ready as soon as it is worth calling again, and now and then
/// for nothing. Tasks are made ready in [`Backend::turn`], or in a call that another task makes.
pub trait Backend {
    /// Adds the socket of a connection, whose descriptor is the backend's from now on.
    ///
    /// # Errors
    /// No more sockets can be watched; the descriptor is closed.
    fn add(&mut self, descriptor: RawFd) -> io::Result<Slot>;

    /// Closes a socket, and whatever is under way on it. Pieces that are being sent are let go of when nobody reads them any more.
    fn close(&mut self, slot: Slot);

    /// Bytes that have come, in the order in which they came; none is the end, again and again. Once [`UNREAD_MAX_BYTES`] have
    /// not been taken, no more are received, but for what is on its way. With `may_be_answered`, and as long as the task waits,
    /// the fast path of [`Backend::turn`] is asked first about what comes; not every backend does. After a [`Backend::send_shared`]
    /// there may be nothing to be had until it is known what has left of it, so [`Backend::take_unsent`] is asked before.
    fn poll_receive(&mut self, slot: Slot, may_be_answered: bool) -> Poll<io::Result<Bytes>>;

    /// Takes received bytes back, also those of a socket that has been closed.
    fn give_back(&mut self, bytes: Bytes);

    /// Whether bytes, or the end, have come that nobody has taken.
    fn has_received(&self, slot: Slot) -> bool;

    /// The last [`FastPath::idle_until`] of this connection; asked again, and not answered meanwhile, 0.
    fn take_idle_until(&mut self, slot: Slot) -> u64;

    /// Begins to send pieces. One send of a socket at a time.
    fn begin_send(&mut self, slot: Slot, pieces: Box<Pieces>, manner: SendManner);

    /// How many bytes have been sent, and the pieces, of which nobody reads any more. With patience, at least one byte or an
    /// error; otherwise also 0, and fewer than all mean that the socket is full.
    fn poll_sent(&mut self, slot: Slot) -> Poll<(io::Result<usize>, Box<Pieces>)>;

    /// Sends the first `length` bytes of a buffer that others share. The task goes on, and asks [`Backend::take_unsent`] whenever
    /// it is polled.
    fn send_shared(&mut self, slot: Slot, bytes: Rc<[u8]>, length: usize);

    /// What the socket has not taken of the last [`Backend::send_shared`], if it was not all.
    fn take_unsent(&mut self, slot: Slot) -> Option<Unsent>;

    /// The task that waits for a socket.
    fn task(&self, slot: Slot) -> TaskId;

    /// The next connection of the listener, which is the only one.
    fn poll_accept(&mut self, listener: RawFd) -> Poll<io::Result<RawFd>>;

    /// The next connection of the listener that is there already, if there is one; also when accepting has been stopped.
    fn accept_completed(&mut self, listener: RawFd) -> Option<RawFd> {
        tcp::accept(listener).ok()
    }

    /// Ends accepting: [`Backend::poll_accept`] gives `ECANCELED` from now on, as soon as the kernel has let go of the listener.
    fn stop_accepting(&mut self);

    /// Waits for something to happen if `waits`, until `wake_at` at the longest, and makes ready whom it concerns. Sends that were
    /// begun as urgent, and what else cannot wait, end the wait at once. Returns whether timers are to be looked at.
    ///
    /// # Errors
    /// The backend is broken, and with it the reactor.
    fn turn(&mut self, waits: bool, wake_at: Option<Instant>, fast_path: Option<&dyn FastPath>) -> io::Result<bool>;

    /// What time it is.
    #[inline]
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// What time it is by the clock on the wall.
    #[inline]
    fn wall_time(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Fills this with numbers that nobody can guess.
    ///
    /// # Errors
    /// The system has none to give.
    fn fill_random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        tcp::fill_random(bytes)
    }

    /// Frees memory that has not been needed since the last call.
    fn trim(&mut self) {}

    // ---- connections that are in no slot: their descriptors are good for this backend, and the caller's ----------------

    /// See [`Detached::send`](crate::Detached::send).
    ///
    /// # Errors
    /// The same.
    fn send_detached(&mut self, descriptor: RawFd, bytes: &[u8]) -> io::Result<usize> {
        tcp::send(descriptor, bytes)
    }

    /// See [`tcp::shut_down`].
    fn shut_down_detached(&mut self, descriptor: RawFd, how: libc::c_int) {
        tcp::shut_down(descriptor, how);
    }

    /// See [`Detached::drop_received`](crate::Detached::drop_received).
    ///
    /// # Errors
    /// The same.
    fn drop_received(&mut self, descriptor: RawFd, max_bytes: usize) -> io::Result<usize> {
        tcp::drop_received(descriptor, max_bytes)
    }

    /// Closes a descriptor.
    fn close_detached(&mut self, descriptor: RawFd) {
        tcp::close(descriptor);
    }

    // ---- what a kernel is asked, and told, about a connection ----------------------------------------------------------

    /// The descriptor of a socket.
    fn descriptor(&self, slot: Slot) -> RawFd;

    /// See [`tcp::peer`].
    fn peer(&self, slot: Slot) -> Option<SocketAddr> {
        tcp::peer(self.descriptor(slot))
    }

    /// See [`tcp::shut_down`].
    fn shut_down(&mut self, slot: Slot, how: libc::c_int) {
        tcp::shut_down(self.descriptor(slot), how);
    }

    /// See [`tcp::unacknowledged_bytes`].
    fn unacknowledged_bytes(&self, slot: Slot) -> Option<u64> {
        tcp::unacknowledged_bytes(self.descriptor(slot))
    }

    /// See [`tcp::segment_bytes`].
    fn segment_bytes(&self, slot: Slot) -> u64 {
        tcp::segment_bytes(self.descriptor(slot))
    }

    /// See [`tcp::acknowledged_bytes`].
    fn acknowledged_bytes(&self, slot: Slot) -> u64 {
        tcp::acknowledged_bytes(self.descriptor(slot))
    }

    /// See [`tcp::lift_send_bound`].
    fn lift_send_bound(&mut self, slot: Slot, first_bytes: usize) {
        tcp::lift_send_bound(self.descriptor(slot), first_bytes);
    }

    /// See [`tcp::drop_unsent_at_close`].
    fn drop_unsent_at_close(&mut self, slot: Slot) {
        tcp::drop_unsent_at_close(self.descriptor(slot));
    }

    /// Another descriptor of a socket, which stays when the socket is closed here.
    ///
    /// # Errors
    /// No descriptor is free.
    fn duplicate(&mut self, slot: Slot) -> io::Result<RawFd> {
        tcp::duplicate(self.descriptor(slot))
    }
}

/// The backend of a reactor. Which one it is costs a branch at each call, and no table of functions.
// One for each thread: a pointer to the larger one would be followed at each call.
#[allow(clippy::large_enum_variant)]
pub enum AnyBackend {
    Uring(Uring),
    Epoll(Epoll),
    #[cfg(any(test, feature = "simulation"))]
    Simulated(self::simulated::Simulated),
}

/// Calls the backend that there is.
macro_rules! each {
    ($self:ident.$call:ident($($argument:expr),*)) => {
        match $self {
            AnyBackend::Uring(uring) => Backend::$call(uring, $($argument),*),
            AnyBackend::Epoll(epoll) => Backend::$call(epoll, $($argument),*),
            #[cfg(any(test, feature = "simulation"))]
            AnyBackend::Simulated(simulated) => Backend::$call(simulated, $($argument),*),
        }
    };
}

impl Backend for AnyBackend {
    fn add(&mut self, descriptor: RawFd) -> io::Result<Slot> {
        each!(self.add(descriptor))
    }

    fn close(&mut self, slot: Slot) {
        each!(self.close(slot));
    }

    #[inline]
    fn poll_receive(&mut self, slot: Slot, may_be_answered: bool) -> Poll<io::Result<Bytes>> {
        each!(self.poll_receive(slot, may_be_answered))
    }

    #[inline]
    fn give_back(&mut self, bytes: Bytes) {
        each!(self.give_back(bytes));
    }

    fn has_received(&self, slot: Slot) -> bool {
        each!(self.has_received(slot))
    }

    #[inline]
    fn take_idle_until(&mut self, slot: Slot) -> u64 {
        each!(self.take_idle_until(slot))
    }

    #[inline]
    fn begin_send(&mut self, slot: Slot, pieces: Box<Pieces>, manner: SendManner) {
        each!(self.begin_send(slot, pieces, manner));
    }

    #[inline]
    fn poll_sent(&mut self, slot: Slot) -> Poll<(io::Result<usize>, Box<Pieces>)> {
        each!(self.poll_sent(slot))
    }

    #[inline]
    fn send_shared(&mut self, slot: Slot, bytes: Rc<[u8]>, length: usize) {
        each!(self.send_shared(slot, bytes, length));
    }

    #[inline]
    fn take_unsent(&mut self, slot: Slot) -> Option<Unsent> {
        each!(self.take_unsent(slot))
    }

    #[inline]
    fn task(&self, slot: Slot) -> TaskId {
        each!(self.task(slot))
    }

    fn poll_accept(&mut self, listener: RawFd) -> Poll<io::Result<RawFd>> {
        each!(self.poll_accept(listener))
    }

    fn accept_completed(&mut self, listener: RawFd) -> Option<RawFd> {
        each!(self.accept_completed(listener))
    }

    fn stop_accepting(&mut self) {
        each!(self.stop_accepting());
    }

    #[inline]
    fn turn(&mut self, waits: bool, wake_at: Option<Instant>, fast_path: Option<&dyn FastPath>) -> io::Result<bool> {
        each!(self.turn(waits, wake_at, fast_path))
    }

    #[inline]
    fn now(&self) -> Instant {
        each!(self.now())
    }

    #[inline]
    fn wall_time(&self) -> SystemTime {
        each!(self.wall_time())
    }

    fn fill_random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        each!(self.fill_random(bytes))
    }

    fn trim(&mut self) {
        each!(self.trim());
    }

    fn send_detached(&mut self, descriptor: RawFd, bytes: &[u8]) -> io::Result<usize> {
        each!(self.send_detached(descriptor, bytes))
    }

    fn shut_down_detached(&mut self, descriptor: RawFd, how: libc::c_int) {
        each!(self.shut_down_detached(descriptor, how));
    }

    fn drop_received(&mut self, descriptor: RawFd, max_bytes: usize) -> io::Result<usize> {
        each!(self.drop_received(descriptor, max_bytes))
    }

    fn close_detached(&mut self, descriptor: RawFd) {
        each!(self.close_detached(descriptor));
    }

    fn descriptor(&self, slot: Slot) -> RawFd {
        each!(self.descriptor(slot))
    }

    fn peer(&self, slot: Slot) -> Option<SocketAddr> {
        each!(self.peer(slot))
    }

    fn shut_down(&mut self, slot: Slot, how: libc::c_int) {
        each!(self.shut_down(slot, how));
    }

    fn unacknowledged_bytes(&self, slot: Slot) -> Option<u64> {
        each!(self.unacknowledged_bytes(slot))
    }

    fn segment_bytes(&self, slot: Slot) -> u64 {
        each!(self.segment_bytes(slot))
    }

    fn acknowledged_bytes(&self, slot: Slot) -> u64 {
        each!(self.acknowledged_bytes(slot))
    }

    fn lift_send_bound(&mut self, slot: Slot, first_bytes: usize) {
        each!(self.lift_send_bound(slot, first_bytes));
    }

    fn drop_unsent_at_close(&mut self, slot: Slot) {
        each!(self.drop_unsent_at_close(slot));
    }

    fn duplicate(&mut self, slot: Slot) -> io::Result<RawFd> {
        each!(self.duplicate(slot))
    }
}
