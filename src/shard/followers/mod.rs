//! The clients of the change feed on one shard: what they have been sent, and who is woken when something changes.
//!
//! A follower is a connection that has got the head of an event stream and asks for nothing more. It waits without buffers and
//! without a timer: new batches wake it, and heartbeats go round the followers by the numbers of their places, each at its own
//! tick ([`Followers::tick`]).
//!
//! The batches of the history and the shard's snapshot change together, within one call, so a list that is read between two
//! batches is that of the position between them.

pub(super) mod answer;
mod follow;
mod request_waits;
pub(super) mod waiting_reads;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use self::follow::{Filter, Follow, Start, Wants};
use self::waiting_reads::WaitingReads;
use super::clock::TICK;
use super::places::{Place, Places};
use super::registry::ConnectionState;
use crate::change_feed::{Framing, History, HistoryLimits, News, ResetReason, write_heartbeat};
use crate::http::Position;
use crate::limits::{EVENTS_FAREWELL_MIN_MS, EVENTS_FAREWELL_SPREAD_MS};
use crate::snapshot::Snapshot;

/// What is set for the change feed.
#[derive(Debug, Clone)]
pub struct EventSettings {
    /// Between two signs of life.
    pub heartbeat: Duration,
    /// Memory of the changes that are kept.
    pub history_max_bytes: u64,
    /// How long they are kept.
    pub history_age: Duration,
    /// Bytes that may wait for a follower behind what is being sent.
    pub unsent_max_bytes: u64,
}

/// The followers of a shard.
pub struct Followers {
    settings: EventSettings,
    places: Arc<Places>,
    pub(super) history: RefCell<History>,
    slots: RefCell<Vec<Option<Rc<Follower>>>>,
    free: RefCell<Vec<usize>>,
    /// Followers that wait for a position.
    awaiting: Cell<usize>,
    /// The newest batch, copied once for this shard, with its number.
    newest: RefCell<Option<(u64, Rc<[u8]>)>>,
    /// The heartbeat for the present position.
    heartbeat: RefCell<Option<(Position, Rc<[u8]>)>>,
    /// The last tick whose heartbeats are out.
    ticked: Cell<u64>,
    /// Those that wait for one change alone.
    pub(super) waiting_reads: Rc<WaitingReads>,
}

/// A follower, as the shard sees it.
pub struct Follower {
    state: Rc<ConnectionState>,
    pub(super) wants: Wants,
    /// The number of its place on the shard.
    slot: Cell<usize>,
    /// The next batch to send.
    pub(super) next: Cell<u64>,
    /// Bytes of its own in the batches from there on, where it has a filter.
    pub(super) filtered_bytes: Cell<u64>,
    pub(super) awaited: Cell<Option<(Position, u64)>>,
    pub(super) is_heartbeat_due: Cell<bool>,
    /// It has to read the list again.
    pub(super) reset: Cell<Option<ResetReason>>,
    /// Too much waits for it.
    pub(super) is_too_slow: Cell<bool>,
    /// The turn of the reactor in which it was sent something that it did not wait for.
    pub(super) shared_in: Cell<Option<u64>>,
}

impl Followers {
    /// No followers, of whom each takes one of these places.
    pub fn new(settings: EventSettings, places: Arc<Places>) -> Followers {
        let limits = HistoryLimits { bytes_max: settings.history_max_bytes, ticks_max: ticks(settings.history_age) };
        Followers {
            settings,
            places,
            history: RefCell::new(History::new(limits)),
            slots: RefCell::default(),
            free: RefCell::default(),
            awaiting: Cell::new(0),
            newest: RefCell::default(),
            heartbeat: RefCell::default(),
            ticked: Cell::new(0),
            waiting_reads: Rc::default(),
        }
    }

    /// Enters a follower, unless its stream has ended; it leaves when the guard is dropped.
    pub fn enter(self: &Rc<Followers>, state: Rc<ConnectionState>, follow: Follow) -> Option<Following> {
        let Follow { place, wants, start } = follow;
        let (next, awaited) = match start {
            Start::At(next) => (next, None),
            Start::Awaited(position, until) => (0, Some((position, until))),
            Start::Ended => return None,
        };
        let filtered_bytes = wants.filter.as_ref().map_or(0, |filter| self.bytes_of(filter.owner.get(), next));
        let follower = Rc::new(Follower {
            state,
            wants,
            slot: Cell::new(0),
            next: Cell::new(next),
            filtered_bytes: Cell::new(filtered_bytes),
            awaited: Cell::new(awaited),
            is_heartbeat_due: Cell::new(false),
            reset: Cell::new(None),
            is_too_slow: Cell::new(false),
            shared_in: Cell::new(None),
        });
        self.awaiting.set(self.awaiting.get() + usize::from(awaited.is_some()));
        let mut slots = self.slots.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(None);
            slots.len() - 1
        });
        follower.slot.set(slot);
        slots[slot] = Some(Rc::clone(&follower));
        Some(Following { followers: Rc::clone(self), follower, _place: place })
    }

    fn bytes_of(&self, owner: u64, from: u64) -> u64 {
        let history = self.history.borrow();
        (from.max(history.first())..history.end())
            .filter_map(|number| history.get(number))
            .map(|kept| kept.bytes_of(owner) as u64)
            .sum()
    }

    /// Takes in what a new snapshot brings, and wakes those for whom there is something.
    pub fn take(&self, news: &News, snapshot: &Snapshot, now: u64) {
        self.newest.take();
        self.waiting_reads.look(snapshot);
        let mut history = self.history.borrow_mut();
        if let Some(reason) = news.reset {
            history.begin_anew(news.base);
            for follower in self.slots.borrow().iter().flatten() {
                follower.begin_anew(reason, snapshot);
            }
        }
        let before = history.end();
        for batch in &news.batches {
            history.push(Arc::clone(batch), now);
        }
        history.forget_old(now);
        for follower in self.slots.borrow().iter().flatten() {
            if follower.notice(&history, before, news, self.settings.unsent_max_bytes) {
                follower.state.socket.wake();
            }
        }
    }

    /// Lets the heartbeats go out that are due, ends waits, and forgets what is too old; at each tick.
    pub fn tick(&self, now: u64, snapshot: Option<&Snapshot>) {
        snapshot.into_iter().for_each(|snapshot| self.waiting_reads.catch_up(snapshot));
        self.waiting_reads.expire(now);
        let period = ticks(self.settings.heartbeat).max(1);
        let slots = self.slots.borrow();
        for tick in self.ticked.replace(now) + 1..=now {
            let due = (tick % period) as usize;
            for follower in slots.iter().skip(due).step_by(period as usize).flatten() {
                follower.is_heartbeat_due.set(true);
                follower.state.socket.wake();
            }
        }
        if self.awaiting.get() > 0 {
            let awaiting = slots.iter().flatten().filter(|follower| follower.awaited.get().is_some());
            awaiting.for_each(|follower| follower.state.socket.wake());
        }
        self.history.borrow_mut().forget_old(now);
    }

    /// Wakes all of them, to look at something else.
    pub fn wake_all(&self) {
        self.slots.borrow().iter().flatten().for_each(|follower| follower.state.socket.wake());
        self.waiting_reads.wake_all();
    }

    /// The batch of this number, which is the newest and no larger than a shard copies.
    pub(super) fn newest(&self, number: u64, chunk: &[u8]) -> Rc<[u8]> {
        let mut newest = self.newest.borrow_mut();
        match &*newest {
            Some((of, copy)) if *of == number => Rc::clone(copy),
            _ => Rc::clone(&newest.insert((number, chunk.into())).1),
        }
    }

    /// The heartbeat for this position, in a chunk.
    pub(super) fn heartbeat(&self, position: Position) -> Rc<[u8]> {
        let mut heartbeat = self.heartbeat.borrow_mut();
        match &*heartbeat {
            Some((of, bytes)) if *of == position => Rc::clone(bytes),
            _ => {
                let mut bytes = Vec::new();
                write_heartbeat(Framing::Chunked, &mut bytes, position);
                Rc::clone(&heartbeat.insert((position, bytes.into())).1)
            }
        }
    }
}

fn ticks(time: Duration) -> u64 {
    (time.as_millis() / TICK.as_millis()) as u64
}

impl Follower {
    /// Nothing goes on from where it stands.
    fn begin_anew(&self, reason: ResetReason, snapshot: &Snapshot) {
        if let Some(filter) = &self.wants.filter {
            // Another store has other keys.
            filter.owner.set(snapshot.owner_number(&filter.user_id));
        }
        self.filtered_bytes.set(0);
        // Who waits for a position may have it from elsewhere, and it may still come.
        if self.awaited.get().is_none() {
            self.reset.set(Some(reason));
        }
    }

    /// Batches have come behind number `before`; whether there is something for it.
    fn notice(&self, history: &History, before: u64, news: &News, unsent_max_bytes: u64) -> bool {
        if self.reset.get().is_some() || self.awaited.get().is_some() {
            return true;
        }
        let is_current = self.next.get() == before;
        let (waiting_bytes, has_more) = match &self.wants.filter {
            None => {
                let new_bytes = history.bytes_from(before);
                (history.bytes_from(self.next.get()).saturating_sub(new_bytes), new_bytes > 0)
            }
            Some(filter) => {
                let new_bytes = news.batches.iter().map(|batch| batch.bytes_of(filter.owner.get()) as u64).sum::<u64>();
                let waiting_bytes = self.filtered_bytes.get();
                self.filtered_bytes.set(waiting_bytes + new_bytes);
                (waiting_bytes, new_bytes > 0)
            }
        };
        if !has_more {
            if is_current {
                self.next.set(history.end());
            }
            return false;
        }
        if waiting_bytes > unsent_max_bytes {
            self.is_too_slow.set(true);
            self.state.cut_off();
        }
        true
    }

    /// After what time it connects again when the process leaves: each after another, in no order.
    pub(super) fn farewell_ms(&self) -> u64 {
        // Multiples of the golden ratio are spread evenly, however many they are.
        let spread = (self.slot.get() as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        EVENTS_FAREWELL_MIN_MS + ((spread * EVENTS_FAREWELL_SPREAD_MS) >> 32)
    }
}

/// A follower's entry among those of its shard.
pub struct Following {
    followers: Rc<Followers>,
    follower: Rc<Follower>,
    _place: Place,
}

impl Following {
    /// It has come to the position that it waited for, or does not wait any more.
    pub(super) fn stop_awaiting(&self) {
        if self.follower.awaited.take().is_some() {
            self.followers.awaiting.set(self.followers.awaiting.get() - 1);
        }
    }

    /// It goes on with the batch of this number.
    pub(super) fn go_on_from(&self, number: u64) {
        self.follower.next.set(number);
        if let Some(filter) = &self.follower.wants.filter {
            self.follower.filtered_bytes.set(self.followers.bytes_of(filter.owner.get(), number));
        }
    }
}

impl std::ops::Deref for Following {
    type Target = Follower;

    fn deref(&self) -> &Follower {
        &self.follower
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop_awaiting();
        let slot = self.follower.slot.get();
        self.followers.slots.borrow_mut()[slot] = None;
        self.followers.free.borrow_mut().push(slot);
    }
}
