//! The connections of a shard, as its sweeper sees them: which deadline each is under, and how to end its wait.
//!
//! One sweep a tick replaces a timer for every operation. An expired deadline shuts the socket down, which completes the
//! receive or send that the kernel holds; the connection's task then sees why and answers 408 or leaves. Nothing is
//! cancelled while data may be in flight, so nothing is lost.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use monoio::io::Canceller;

/// How often deadlines are looked at: the precision of every timeout.
pub const TICK: Duration = Duration::from_millis(100);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Just accepted.
    New,
    /// Nothing of a request has come.
    Idle,
    /// A request has begun.
    Head,
    /// The head is complete, the body is not.
    Body,
    /// The client has to take what is being sent.
    Send,
    /// Waiting for the command log, which has deadlines of its own: at this one, the connection's task is woken.
    Log,
    /// The last answer has been sent; what the client still sends is read and dropped, so that the answer arrives.
    Linger,
}

/// The part of a connection that the sweeper and the acknowledgements reach.
pub struct ConnectionState {
    fd: RawFd,
    phase: Cell<Phase>,
    /// Ticks of the shard's clock at which the phase has lasted too long.
    deadline: Cell<u64>,
    expired: Cell<bool>,
    /// Ticks at which a receive that nothing has come for gives its buffer back; [`NEVER`] when there is none.
    park_at: Cell<u64>,
    canceller: RefCell<Option<Canceller>>,
    waker: Cell<Option<Waker>>,
}

/// A tick that is never reached.
pub const NEVER: u64 = u64::MAX;

impl ConnectionState {
    /// The state of a connection on this socket.
    pub fn new(fd: RawFd) -> ConnectionState {
        ConnectionState {
            fd,
            phase: Cell::new(Phase::New),
            deadline: Cell::new(NEVER),
            expired: Cell::new(false),
            park_at: Cell::new(NEVER),
            canceller: RefCell::new(None),
            waker: Cell::new(None),
        }
    }

    /// What the connection is doing.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Enters a phase that has to end before `deadline`.
    #[inline]
    pub fn enter(&self, phase: Phase, deadline: u64) {
        self.phase.set(phase);
        self.deadline.set(deadline);
    }

    /// Whether the sweeper has ended the connection's wait.
    #[inline]
    pub fn expired(&self) -> bool {
        self.expired.get()
    }

    /// Lets the sweeper cancel the receive that `canceller` belongs to from `park_at` on.
    #[inline]
    pub fn park_at(&self, park_at: u64, canceller: Option<Canceller>) {
        self.park_at.set(park_at);
        *self.canceller.borrow_mut() = canceller;
    }

    /// Notes that the receive has ended; gives the canceller back for the next.
    #[inline]
    pub fn unpark(&self) -> Option<Canceller> {
        self.park_at.set(NEVER);
        self.canceller.borrow_mut().take()
    }

    /// Whether the wait for the log has lasted long enough for the sweeper to see it.
    pub fn is_log_slow(&self) -> bool {
        self.deadline.get() == NEVER
    }

    /// Remembers the task that waits for an acknowledgement.
    pub fn set_waker(&self, waker: &Waker) {
        self.waker.set(Some(waker.clone()));
    }

    /// Wakes it.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn sweep(&self, now: u64) -> bool {
        if self.park_at.get() <= now
            && let Some(canceller) = self.unpark()
        {
            canceller.cancel();
        }
        if self.deadline.get() > now || self.expired.get() {
            return false;
        }
        if self.phase.get() == Phase::Log {
            self.deadline.set(NEVER);
            self.wake();
            return false;
        }
        if self.phase.get() == Phase::Idle && self.has_bytes_waiting() {
            // The client was in time; it is the shard that has not come to read.
            return false;
        }
        self.expired.set(true);
        let how = match self.phase.get() {
            // The answer 408 can still be sent.
            Phase::Idle | Phase::Head | Phase::Body => libc::SHUT_RD,
            Phase::New | Phase::Send | Phase::Log | Phase::Linger => libc::SHUT_RDWR,
        };
        self.shut_down(how);
        true
    }

    /// Whether the socket holds bytes that have not been received.
    pub fn has_bytes_waiting(&self) -> bool {
        let mut waiting: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int, into `waiting`, which outlives the call.
        unsafe { libc::ioctl(self.fd, libc::FIONREAD, &raw mut waiting) == 0 && waiting > 0 }
    }

    /// Ends the connection's receive or send at once.
    pub fn shut_down(&self, how: libc::c_int) {
        // SAFETY: a plain system call. The descriptor is open: a connection leaves the registry before its socket is
        // closed, and only registered states are swept.
        unsafe {
            libc::shutdown(self.fd, how);
        }
    }
}

/// All connections of a shard.
#[derive(Default)]
pub struct Registry {
    states: RefCell<Vec<Option<Rc<ConnectionState>>>>,
    free: RefCell<Vec<usize>>,
}

impl Registry {
    /// Enters a connection; it leaves when the guard is dropped.
    pub fn enter(self: &Rc<Registry>, state: Rc<ConnectionState>) -> Registration {
        let mut states = self.states.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            states.push(None);
            states.len() - 1
        });
        states[slot] = Some(state);
        Registration { registry: Rc::clone(self), slot }
    }

    /// Connections now.
    pub fn len(&self) -> usize {
        self.states.borrow().len() - self.free.borrow().len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends every wait whose deadline has passed; returns how many.
    pub fn sweep(&self, now: u64) -> usize {
        self.states.borrow().iter().flatten().filter(|state| state.sweep(now)).count()
    }

    /// Calls `visit` for each connection.
    pub fn each(&self, visit: impl Fn(&ConnectionState)) {
        self.states.borrow().iter().flatten().for_each(|state| visit(state));
    }
}

/// A connection's entry in the registry.
pub struct Registration {
    registry: Rc<Registry>,
    slot: usize,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.states.borrow_mut()[self.slot] = None;
        self.registry.free.borrow_mut().push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again() {
        let registry = Rc::new(Registry::default());
        let first = registry.enter(Rc::new(ConnectionState::new(-1)));
        let second = registry.enter(Rc::new(ConnectionState::new(-1)));
        assert_eq!(registry.len(), 2);
        drop(first);
        assert_eq!(registry.len(), 1);
        let third = registry.enter(Rc::new(ConnectionState::new(-1)));
        assert_eq!((registry.len(), registry.states.borrow().len()), (2, 2));
        drop((second, third));
        assert!(registry.is_empty());
    }

    #[test]
    fn a_wait_for_the_log_that_lasts_is_woken_and_goes_on() {
        struct Woken(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Woken {
            fn wake(self: std::sync::Arc<Woken>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let woken = std::sync::Arc::new(Woken(0.into()));
        let state = ConnectionState::new(-1);
        state.enter(Phase::Log, 5);
        state.set_waker(&Waker::from(std::sync::Arc::clone(&woken)));
        assert!(!state.sweep(4) && !state.is_log_slow());
        for now in 5..8 {
            assert!(!state.sweep(now) && state.is_log_slow() && !state.expired());
        }
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    #[test]
    fn a_deadline_expires_once() {
        let registry = Rc::new(Registry::default());
        let state = Rc::new(ConnectionState::new(-1));
        let _registration = registry.enter(Rc::clone(&state));
        state.enter(Phase::Head, 5);
        assert_eq!(registry.sweep(4), 0);
        assert_eq!(registry.sweep(5), 1);
        assert!(state.expired());
        assert_eq!(registry.sweep(6), 0);
    }
}
