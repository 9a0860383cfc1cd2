//! The connections of a shard, as its sweeper sees them: which deadline each is under, and how to end its wait.
//!
//! A sweep now and then replaces a timer for every operation: at the tick at which the first deadline can have passed. A task
//! that waits for a request is woken then, and answers 408 or leaves. Its socket is not shut down for reading: the kernel would
//! answer what still comes with a reset, and the client lose the 408. Of other waits the socket is shut down, which completes
//! the send that the kernel holds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use reactor::Socket;

use super::clock::TICK;
use super::write_watch::{SPEED_KNOWN_TICKS, WriteLimits, WriteWatch};
use crate::auth::FailedChecks;
use crate::limits::MEMORY_HELD_MIN_MS;
use crate::observe::expiry::Expiry;

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
    /// Waiting for the command log, which has deadlines of its own.
    Log,
    /// Waiting for changes to tell the client of.
    Follow,
    /// Waiting for the change that ends a read's wait; the shard has its deadline.
    Change,
    /// The last answer has been sent; what the client still sends is read and dropped, so that the answer arrives.
    Linger,
}

/// The part of a connection that the sweeper and the acknowledgements reach.
pub struct ConnectionState {
    /// The connection's own; here, because the sweeper ends what it waits for.
    pub socket: Socket,
    phase: Cell<Phase>,
    /// Ticks of the shard's clock at which the phase has lasted too long.
    deadline: Cell<u64>,
    expired: Cell<bool>,
    /// Bytes that it holds of the memory of connections, and the tick since when it holds any.
    held_bytes: Cell<usize>,
    held_since: Cell<u64>,
    /// Its wait was ended because it holds most of that memory.
    is_evicted: Cell<bool>,
    waker: Cell<Option<Waker>>,
    /// Of its tokens.
    pub failed_checks: FailedChecks,
    /// While an answer is being sent that did not fit into the socket.
    watch: Cell<Option<Box<WriteWatch>>>,
}

/// A tick that is never reached.
pub const NEVER: u64 = u64::MAX;

impl ConnectionState {
    /// The state of a connection on this socket.
    pub fn new(socket: Socket) -> ConnectionState {
        ConnectionState {
            socket,
            phase: Cell::new(Phase::New),
            deadline: Cell::new(NEVER),
            expired: Cell::new(false),
            held_bytes: Cell::new(0),
            held_since: Cell::new(NEVER),
            is_evicted: Cell::new(false),
            waker: Cell::new(None),
            failed_checks: FailedChecks::default(),
            watch: Cell::new(None),
        }
    }

    /// What the connection is doing.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Enters a phase that has to end before `deadline`; all answers so far have been sent.
    #[inline]
    pub fn enter(&self, phase: Phase, deadline: u64) {
        self.phase.set(phase);
        self.deadline.set(deadline);
        self.watch.set(None);
    }

    /// Enters [`Phase::Send`]. What is sent most likely fits into the socket, and has if this phase ends before `deadline`.
    #[inline]
    pub fn enter_send(&self, deadline: u64) {
        self.phase.set(Phase::Send);
        self.deadline.set(deadline);
    }

    /// The same for what most likely does not fit: from now on, as long as the connection sends, it is watched how the client
    /// takes it.
    pub fn watch_send(&self, now: u64, oldest_list: Option<u64>, limits: &WriteLimits) {
        self.enter_send(now + limits.look_ticks());
        let mut watch = self.watch.take().unwrap_or_else(|| Box::new(WriteWatch::new(now)));
        watch.go_on(now, oldest_list);
        self.watch.set(Some(watch));
    }

    /// The socket of a connection that is watched has taken so much more.
    pub fn hand_over(&self, bytes: usize) {
        if let Some(mut watch) = self.watch.take() {
            watch.hand_over(bytes);
            self.watch.set(Some(watch));
        }
    }

    /// Whether the sweeper has ended the connection's wait.
    #[inline]
    pub fn expired(&self) -> bool {
        self.expired.get()
    }

    /// The same; from then on the connection has deadlines again.
    #[inline]
    pub fn take_expired(&self) -> bool {
        self.expired.replace(false)
    }

    /// Notes what it holds of the memory of connections.
    pub fn hold(&self, bytes: usize, now: u64) {
        if self.held_bytes.replace(bytes) == 0 {
            self.held_since.set(now);
        }
    }

    /// Whether its wait was ended because others need its memory.
    pub fn take_evicted(&self) -> bool {
        self.is_evicted.replace(false)
    }

    /// Whether it has held memory for so long that it may be closed for others.
    fn is_evictable(&self, now: u64) -> bool {
        let min_ticks = MEMORY_HELD_MIN_MS / TICK.as_millis() as u64;
        let waits_for_client = matches!(self.phase.get(), Phase::Head | Phase::Body | Phase::Send);
        self.held_bytes.get() > 0 && now >= self.held_since.get() + min_ticks && waits_for_client && !self.expired.get()
    }

    /// Ends its wait.
    fn end_wait(&self) {
        match self.phase.get() {
            Phase::Send => self.cut_off(),
            Phase::Idle | Phase::Head | Phase::Body => {
                self.expired.set(true);
                self.socket.wake();
            }
            Phase::New | Phase::Log | Phase::Follow | Phase::Change | Phase::Linger => {
                self.expired.set(true);
                self.socket.shut_down(libc::SHUT_RDWR);
            }
        }
    }

    /// Remembers the task that waits for an acknowledgement.
    pub fn set_waker(&self, waker: &Waker) {
        self.waker.set(Some(waker.clone()));
    }

    /// Wakes it.
    pub fn wake(&self) {
        let waker = self.waker.take();
        #[cfg(test)]
        let waker = waker.filter(|_| !super::histories::Fault::LostWaker.is_planted());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the wait if the deadline has passed.
    fn sweep(&self, now: u64, limits: &WriteLimits) -> Swept {
        if self.expired.get() {
            return Swept::Until(NEVER);
        }
        if self.deadline.get() <= now && self.phase.get() == Phase::Idle {
            if self.socket.has_received() {
                // The client was in time; it is the shard that has not come to read.
                return Swept::Until(now);
            }
            // Requests may have been answered that the task does not know of.
            self.deadline.set(self.deadline.get().max(self.socket.take_idle_until()));
        }
        if self.deadline.get() > now {
            return Swept::Until(self.deadline.get());
        }
        let mut expiry = match self.phase.get() {
            Phase::New | Phase::Idle | Phase::Follow | Phase::Change => Expiry::Idle,
            Phase::Head => Expiry::Head,
            Phase::Body => Expiry::Body,
            Phase::Send | Phase::Log => Expiry::Stalled,
            Phase::Linger => Expiry::Linger,
        };
        if self.phase.get() == Phase::Send
            && let Some(watch) = self.watch.take()
        {
            match self.look(watch, now, limits) {
                Ok(()) => {
                    self.deadline.set(now + limits.look_ticks());
                    return Swept::Until(self.deadline.get());
                }
                Err(reason) => expiry = reason,
            }
        }
        self.end_wait();
        Swept::Ended(expiry)
    }

    /// Ends sending: the client does not get the rest of its answer.
    pub fn cut_off(&self) {
        self.expired.set(true);
        self.socket.drop_unsent_at_close();
        self.socket.shut_down(libc::SHUT_RDWR);
    }

    /// How fast the client takes its answer, if that is of a list older than this version, and if it can be said.
    fn speed_of_holder(&self, now: u64, version: u64) -> Option<Option<u64>> {
        let is_sending = self.phase.get() == Phase::Send && !self.expired.get();
        let mut watch = self.watch.take()?;
        let speed_of = |watch: &mut WriteWatch| {
            let is_holder = is_sending && watch.holds_older_than(version);
            is_holder.then(|| Some(watch.bytes_per_sec(now, self.socket.unacknowledged_bytes()?)))?
        };
        let speed = speed_of(&mut watch);
        self.watch.set(Some(watch));
        speed
    }

    fn look(&self, mut watch: Box<WriteWatch>, now: u64, limits: &WriteLimits) -> Result<(), Expiry> {
        // Nobody takes anything of a socket that cannot be asked.
        let unacknowledged_bytes = self.socket.unacknowledged_bytes().ok_or(Expiry::Stalled)?;
        let verdict = watch.look(now, unacknowledged_bytes, || self.socket.segment_bytes(), limits);
        self.watch.set(Some(watch));
        verdict
    }
}

/// What the sweep of a connection has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Swept {
    /// It has ended the connection's wait.
    Ended(Expiry),
    /// Nothing to do before this tick, as things are.
    Until(u64),
}

/// All connections of a shard.
pub struct Registry {
    states: RefCell<Vec<Option<Rc<ConnectionState>>>>,
    free: RefCell<Vec<usize>>,
    /// Every deadline is set at least so many ticks ahead.
    shortest_ticks: Cell<u64>,
    /// Before this tick, no deadline passes.
    sweep_at: Cell<u64>,
    write_limits: WriteLimits,
    /// See [`Registry::cut_off_slowest`].
    waited_ticks: Cell<u64>,
}

impl Registry {
    /// An empty one for connections whose deadlines are set at least this far ahead, and whose clients have to take answers like
    /// this.
    pub fn new(shortest: Duration, write_limits: WriteLimits) -> Registry {
        let registry = Registry {
            states: RefCell::default(),
            free: RefCell::default(),
            shortest_ticks: Cell::new(0),
            sweep_at: Cell::new(0),
            write_limits,
            waited_ticks: Cell::new(0),
        };
        registry.shorten(shortest);
        registry
    }

    /// From now on, deadlines are set at least this far ahead.
    pub fn shorten(&self, shortest: Duration) {
        self.shortest_ticks.set(shortest.as_millis() as u64 / TICK.as_millis() as u64);
        self.sweep_at.set(0);
    }

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

    /// Ends every wait whose deadline has passed, and calls `count` with the reason. Connections are looked at only when there can be one:
    /// thousands of them are in none of the CPU's caches, and would throw out what is.
    pub fn sweep(&self, now: u64, count: impl Fn(Expiry)) {
        if now < self.sweep_at.get() {
            return;
        }
        let mut first = now + self.shortest_ticks.get();
        for state in self.states.borrow().iter().flatten() {
            match state.sweep(now, &self.write_limits) {
                Swept::Ended(expiry) => count(expiry),
                Swept::Until(tick) => first = first.min(tick),
            }
        }
        self.sweep_at.set(first.max(now + 1));
    }

    /// Cuts off the slowest quarter, at least one, of the clients that read a list older than this version, unless those of other
    /// shards are far slower; calls `count` for each. `agree` is given the speed of the slowest here, and gives that of all shards.
    /// It begins with a look, so that the shards know of each other, and newcomers have a moment in which it shows how fast they
    /// are. To be called at each tick at which such lists take too much.
    pub fn cut_off_slowest(&self, now: u64, version: u64, agree: impl FnOnce(u64) -> u64, count: impl Fn(Expiry)) {
        let states = self.states.borrow();
        let holders = states.iter().flatten().filter_map(|state| Some((state.speed_of_holder(now, version)?, state)));
        let mut holders: Vec<(Option<u64>, &Rc<ConnectionState>)> = holders.collect();
        holders.sort_by_key(|(speed, _)| speed.unwrap_or(u64::MAX));
        let waited_ticks = self.waited_ticks.get();
        let has_newcomers = holders.iter().any(|(speed, _)| speed.is_none());
        let waits_for_newcomers = has_newcomers && waited_ticks <= SPEED_KNOWN_TICKS;
        // Who is not known may be the slowest of all.
        let own_slowest = holders.first().and_then(|(speed, _)| *speed).unwrap_or(u64::MAX);
        let slowest = agree(if waits_for_newcomers { 0 } else { own_slowest });
        if waited_ticks < SPEED_KNOWN_TICKS || waits_for_newcomers {
            return self.waited_ticks.set(waited_ticks + 1);
        }
        self.waited_ticks.set(0);
        for (speed, state) in &holders[..holders.len().div_ceil(4)] {
            if speed.unwrap_or(u64::MAX) <= slowest.saturating_mul(2) {
                state.cut_off();
                count(Expiry::OldList);
            }
        }
    }

    /// Old lists take no more than they may.
    pub fn stop_waiting(&self) {
        self.waited_ticks.set(0);
    }

    /// Ends the waits of those that have held most of the memory of connections for a while, until `bytes` come back or none is
    /// left; returns how many.
    pub fn evict_largest(&self, now: u64, bytes: usize) -> usize {
        let states = self.states.borrow();
        let mut candidates: Vec<_> = states.iter().flatten().filter(|state| state.is_evictable(now)).collect();
        candidates.sort_unstable_by_key(|state| std::cmp::Reverse(state.held_bytes.get()));
        let mut coming = 0;
        let mut ended = 0;
        for state in candidates {
            if coming >= bytes {
                break;
            }
            coming += state.held_bytes.get();
            ended += 1;
            state.is_evicted.set(true);
            state.end_wait();
        }
        ended
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

    fn registry(shortest: Duration) -> Registry {
        Registry::new(shortest, WriteLimits::new(TICK * 10, 1_000, TICK * 30))
    }

    fn sweep(registry: &Registry, now: u64) -> Vec<Expiry> {
        let expired = RefCell::new(Vec::new());
        registry.sweep(now, |expiry| expired.borrow_mut().push(expiry));
        expired.into_inner()
    }

    #[test]
    fn slots_are_used_again() {
        let registry = Rc::new(registry(Duration::ZERO));
        let first = registry.enter(Rc::new(ConnectionState::new(Socket::unconnected())));
        let second = registry.enter(Rc::new(ConnectionState::new(Socket::unconnected())));
        assert_eq!(registry.len(), 2);
        drop(first);
        assert_eq!(registry.len(), 1);
        let third = registry.enter(Rc::new(ConnectionState::new(Socket::unconnected())));
        assert_eq!((registry.len(), registry.states.borrow().len()), (2, 2));
        drop((second, third));
        assert!(registry.is_empty());
    }

    #[test]
    fn a_deadline_expires_once() {
        let registry = Rc::new(registry(Duration::ZERO));
        let state = Rc::new(ConnectionState::new(Socket::unconnected()));
        let _registration = registry.enter(Rc::clone(&state));
        state.enter(Phase::Head, 5);
        assert_eq!(sweep(&registry, 4), []);
        assert_eq!(sweep(&registry, 5), [Expiry::Head]);
        assert!(state.expired());
        assert_eq!(sweep(&registry, 6), []);
    }

    #[test]
    fn no_deadline_is_missed_where_sweeps_are_rare() {
        const SHORTEST_TICKS: u64 = 7;
        let registry = Rc::new(registry(TICK * SHORTEST_TICKS as u32));
        let states: Vec<_> = (0..50).map(|_| Rc::new(ConnectionState::new(Socket::unconnected()))).collect();
        let _registrations: Vec<_> = states.iter().map(|state| registry.enter(Rc::clone(state))).collect();
        let mut due = vec![NEVER; states.len()];
        let mut chance = 1_u64;
        for now in 0..2_000 {
            sweep(&registry, now);
            for (state, due) in states.iter().zip(&due) {
                assert_eq!(state.expired(), *due <= now, "tick {now}, due {due}");
            }
            // What the clock of a shard says: no deadline is nearer than the shortest.
            for (state, due) in states.iter().zip(&mut due) {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if *due > now && (chance >> 33).is_multiple_of(50) {
                    *due = now + SHORTEST_TICKS + (chance >> 40) % 60;
                    state.enter(Phase::Head, *due);
                }
            }
        }
        assert!(states.iter().any(|state| state.expired()) && registry.sweep_at.get() > 2_000);
    }

    #[test]
    fn a_shorter_deadline_is_looked_for_at_once() {
        let registry = Rc::new(registry(TICK * 100));
        let state = Rc::new(ConnectionState::new(Socket::unconnected()));
        let _registration = registry.enter(Rc::clone(&state));
        assert_eq!(sweep(&registry, 1), []);
        registry.shorten(TICK * 5);
        state.enter(Phase::Idle, 6);
        assert_eq!((2..7).map(|now| sweep(&registry, now).len()).collect::<Vec<_>>(), [0, 0, 0, 0, 1]);
    }
}
