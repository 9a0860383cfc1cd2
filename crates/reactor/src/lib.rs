//! What a single-threaded server runs on: its tasks, its timers, its sockets, and the one place where its thread waits.
//!
//! A turn polls the tasks that can run, hands the kernel what they have asked for, and waits. There are two drivers, io_uring
//! and epoll, and everything above them is the same. It is not a runtime for everybody: it has what the shard of a server
//! needs, it ends at bytes, and it knows nothing of what they mean.
//!
//! ```text
//!   tasks      poll_receive, send, sleep …     task.rs, timer.rs, socket.rs, detached.rs, listener.rs
//!     |  ^
//!     v  | make_ready
//!   backend    one turn: submit, wait, tell    backend/: uring/, epoll.rs, simulated/
//!     |  ^
//!     v  |
//!   kernel     sockets, and the event that other threads raise (remote.rs)
//! ```

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod backend;
mod detached;
mod listener;
mod pieces;
pub mod prefetch;
mod remote;
mod socket;
mod task;
#[cfg(test)]
mod tests;
mod timer;
mod transfer;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

pub use self::backend::UNREAD_MAX_BYTES;
#[cfg(any(test, feature = "simulation"))]
use self::backend::simulated::Simulated;
#[cfg(any(test, feature = "simulation"))]
pub use self::backend::simulated::{Chance, Ending, Script, Seen, Simulation};
use self::backend::{AnyBackend, Backend as _, Epoll, Uring};
pub use self::detached::Detached;
pub use self::listener::{ACCEPTS_TURN_MAX, Listener, Port};
pub use self::pieces::{PIECES_MAX, Pieces, PiecesOf};
use self::remote::Remote;
pub use self::socket::{Received, Socket};
use self::task::{TaskId, Tasks};
use self::timer::Timers;
pub use self::transfer::{SendManner, Unsent};

/// How a reactor does I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring (Linux 6.1).
    IoUring,
    /// epoll.
    Epoll,
}

impl Driver {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }

    /// Finds out whether this machine has it, by making one and throwing it away.
    ///
    /// # Errors
    /// The system's reason why not.
    pub fn probe(self) -> io::Result<()> {
        match self {
            Driver::IoUring => Uring::probe(),
            Driver::Epoll => Ok(()),
        }
    }
}

/// What answers a request from the bytes that have come alone, on the spot: the connection's task sleeps on.
pub trait FastPath {
    /// The answer to what has been received, a buffer and how much of it; `None` if the task has to look at it. Called
    /// within a turn of the reactor, which it must not use; a panic ends the thread.
    fn answer(&self, received: &[u8]) -> Option<(Rc<[u8]>, usize)>;
    /// A number that is noted for the connection that is answered now, for [`Socket::take_idle_until`]; not 0. It is meant for
    /// the time at which the connection will have been idle for too long.
    fn idle_until(&self) -> u64;
}

/// The reactor of one thread.
pub struct Reactor {
    driver: Driver,
    backend: RefCell<AnyBackend>,
    remote: Arc<Remote>,
    tasks: Tasks,
    timers: Timers,
    turns: Cell<u64>,
    /// Tasks that can run from the next turn on.
    next_turn: RefCell<Vec<TaskId>>,
    /// Whoever has it keeps the reactor, so the reactor does not keep it.
    fast_path: RefCell<Option<Weak<dyn FastPath>>>,
}

impl Reactor {
    /// A reactor for this thread; it takes the place of the one before.
    ///
    /// # Errors
    /// The driver cannot be had: the kernel does not know it or forbids it, or has no descriptors or memory left for it.
    pub fn new(driver: Driver) -> io::Result<Rc<Reactor>> {
        let remote = Remote::new()?;
        let backend = match driver {
            Driver::IoUring => AnyBackend::Uring(Uring::new(remote.descriptor())?),
            Driver::Epoll => AnyBackend::Epoll(Epoll::new(remote.descriptor())?),
        };
        Ok(Reactor::on(backend, driver, remote))
    }

    /// A reactor in a world without a kernel, which says that it has this driver.
    ///
    /// # Errors
    /// There is no descriptor for waking it.
    #[cfg(any(test, feature = "simulation"))]
    pub fn simulated(simulation: Simulation, driver: Driver) -> io::Result<Rc<Reactor>> {
        let remote = Remote::new()?;
        let backend = AnyBackend::Simulated(Simulated::new(simulation, Arc::clone(&remote)));
        Ok(Reactor::on(backend, driver, remote))
    }

    /// Whether all sockets of a simulated world are closed, and all received bytes have come back, each once.
    #[cfg(any(test, feature = "simulation"))]
    pub fn is_at_rest(&self) -> bool {
        matches!(&*self.backend.borrow(), AnyBackend::Simulated(simulated) if simulated.is_at_rest())
    }

    fn on(backend: AnyBackend, driver: Driver, remote: Arc<Remote>) -> Rc<Reactor> {
        task::begin_thread();
        Rc::new(Reactor {
            driver,
            backend: RefCell::new(backend),
            remote,
            tasks: Tasks::default(),
            timers: Timers::default(),
            turns: Cell::default(),
            next_turn: RefCell::default(),
            fast_path: RefCell::default(),
        })
    }

    /// Runs a future to its end. Tasks that are left then are dropped.
    ///
    /// # Errors
    /// The driver breaks.
    pub fn block_on<F: Future>(&self, main: F) -> io::Result<F::Output> {
        let output = self.run(main);
        // Tasks keep the reactor, so only this ends both.
        self.tasks.clear();
        output
    }

    fn run<F: Future>(&self, main: F) -> io::Result<F::Output> {
        let waker = Waker::from(Arc::clone(&self.remote));
        let mut main = pin!(main);
        let mut is_woken = true;
        loop {
            if is_woken && let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Ok(output);
            }
            self.tasks.run_ready();
            self.turn()?;
            is_woken = self.remote.take();
        }
    }

    fn turn(&self) -> io::Result<()> {
        self.turns.set(self.turns.get() + 1);
        let waits = self.next_turn.borrow().is_empty() && !task::is_any_ready();
        let wake_at = self.timers.next();
        let fast_path = self.fast_path.borrow().as_ref().and_then(Weak::upgrade);
        // The fast path is called under this borrow.
        let looks_at_timers = self.backend.borrow_mut().turn(waits, wake_at, fast_path.as_deref())?;
        if looks_at_timers {
            self.timers.expire(self.now());
        }
        self.next_turn.borrow_mut().drain(..).for_each(task::make_ready);
        Ok(())
    }

    /// What answers requests that come while tasks wait in [`Socket::poll_request`]. The epoll driver does not ask it.
    pub fn set_fast_path(&self, fast_path: Weak<dyn FastPath>) {
        *self.fast_path.borrow_mut() = Some(fast_path);
    }

    /// Turns so far: the number of the present one.
    #[inline]
    pub fn turns(&self) -> u64 {
        self.turns.get()
    }

    /// How it does I/O.
    #[inline]
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// What time it is.
    #[inline]
    pub fn now(&self) -> Instant {
        self.backend.borrow().now()
    }

    /// What time it is by the clock on the wall.
    pub fn wall_time(&self) -> SystemTime {
        self.backend.borrow().wall_time()
    }

    /// Fills this with numbers that nobody can guess.
    ///
    /// # Errors
    /// The system has none to give.
    pub fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.backend.borrow_mut().fill_random(bytes)
    }

    /// Frees memory that has not been needed since the last call.
    pub fn trim(&self) {
        self.backend.borrow_mut().trim();
    }

    /// Adds a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.spawn(Box::pin(task));
    }

    /// Waits; in a task only.
    pub async fn sleep(&self, time: Duration) {
        let until = self.now() + time;
        let mut is_set = false;
        poll_fn(|_| {
            if self.now() >= until {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut is_set, true) {
                self.timers.add(until, task::current());
            }
            Poll::Pending
        })
        .await;
    }

    /// Waits until the kernel has been given what has been asked for, and has been asked what has happened; in a task only. A
    /// task that is woken by something else meanwhile waits on.
    pub async fn next_turn(&self) {
        let mut asked_in = None;
        poll_fn(|_| match asked_in {
            Some(turn) if turn != self.turns.get() => Poll::Ready(()),
            Some(_) => Poll::Pending,
            None => {
                asked_in = Some(self.turns.get());
                self.next_turn.borrow_mut().push(task::current());
                Poll::Pending
            }
        })
        .await;
    }
}
