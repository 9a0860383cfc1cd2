//! The writes of a shard that wait for the command log.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::command_log::{Refusal, Ticket};
use crate::http::cors::Grant;
use crate::producer::ticket;
use crate::shard::registry::ConnectionState;
use crate::todo::TodoId;

/// What the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 202: the log has it.
    Accepted,
    /// 202, after the wait that the client prefers: this shard's snapshot has taken it in.
    Visible,
    /// 503: the log refused it, or did not answer in time.
    Refused(Refusal),
}

/// Which kind of write it is, for the text of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteKind {
    /// POST.
    Create,
    /// PUT.
    Update,
    /// DELETE.
    Delete,
}

/// A write whose answer holds a place in its connection's output.
pub struct PendingWrite {
    /// The todo; of an array the first.
    pub id: TodoId,
    /// The todos of an array, in its order.
    pub array: Option<Box<[TodoId]>>,
    /// What was asked.
    pub kind: WriteKind,
    /// What its answer says about the connection.
    pub connection: crate::http::Connection,
    /// What its answer says to pages of other origins.
    pub grant: Grant,
    outcome: Cell<Option<Outcome>>,
    /// Commands that are not decided.
    undecided: Cell<usize>,
    /// Whether the snapshot has taken in all that are decided.
    all_visible: Cell<bool>,
    /// Until when its answer waits for the snapshot, behind the acknowledgement; `None`: it does not.
    wait_until: Cell<Option<Instant>>,
    state: Rc<ConnectionState>,
}

impl PendingWrite {
    /// A write that has just been handed over.
    pub fn new(
        id: TodoId,
        kind: WriteKind,
        connection: crate::http::Connection,
        state: Rc<ConnectionState>,
    ) -> PendingWrite {
        PendingWrite {
            id,
            array: None,
            kind,
            connection,
            grant: Grant::NONE,
            outcome: Cell::new(None),
            undecided: Cell::new(1),
            all_visible: Cell::new(true),
            wait_until: Cell::new(None),
            state,
        }
    }

    /// Creates of an array, which have one answer.
    pub fn of_array(
        ids: Box<[TodoId]>,
        connection: crate::http::Connection,
        state: Rc<ConnectionState>,
    ) -> PendingWrite {
        let write = PendingWrite::new(ids[0], WriteKind::Create, connection, state);
        PendingWrite { undecided: Cell::new(ids.len()), array: Some(ids), ..write }
    }

    /// The same, whose answer says this to pages of other origins.
    pub fn granting(self, grant: Grant) -> PendingWrite {
        PendingWrite { grant, ..self }
    }

    /// The same, whose answer waits for the snapshot until this moment.
    pub fn waiting_until(self, until: Option<Instant>) -> PendingWrite {
        PendingWrite { wait_until: Cell::new(until), ..self }
    }

    /// Until when the answer waits for the snapshot.
    pub fn wait_until(&self) -> Option<Instant> {
        self.wait_until.get()
    }

    /// Ends the wait at this moment, if it would last longer.
    pub fn shorten_wait(&self, until: Instant) {
        self.wait_until.set(self.wait_until.get().map(|longer| longer.min(until)));
    }

    /// The outcome, once known.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.get()
    }

    /// Says what has become of a command. The first that is refused decides the answer, else the last one; what is decided stays, as
    /// the client may have been told.
    pub fn decide(&self, outcome: Outcome) {
        if self.outcome.get().is_some() {
            return;
        }
        self.undecided.set(self.undecided.get() - 1);
        self.all_visible.set(self.all_visible.get() && outcome == Outcome::Visible);
        let outcome = match outcome {
            Outcome::Refused(refusal) => Outcome::Refused(refusal),
            _ if self.undecided.get() > 0 => return,
            _ if self.all_visible.get() => Outcome::Visible,
            _ => Outcome::Accepted,
        };
        self.outcome.set(Some(outcome));
        self.state.wake();
    }
}

struct Entry {
    pending: Rc<PendingWrite>,
    bytes: usize,
    submitted_at: Instant,
}

struct Slot {
    /// Counts the uses of the slot, so that a late acknowledgement cannot meet a later write.
    generation: u32,
    entry: Option<Entry>,
}

const SLOT_BITS: u32 = 24;

/// The table of writes in flight, bounded in commands and in bytes. An entry stays until its acknowledgement, also after
/// its client was told 503: until then its command takes room in the queue.
pub struct InFlight {
    shard: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
    commands_max: usize,
    bytes_max: usize,
    bytes: usize,
}

/// A write that has come back.
pub struct Returned {
    /// How long it took.
    pub latency: Duration,
    /// Its size.
    pub bytes: usize,
    /// The write, when it is durable and its client waits for the snapshot: its answer is not decided.
    pub waiting: Option<Rc<PendingWrite>>,
}

impl InFlight {
    /// An empty table with these bounds.
    pub fn new(shard: usize, commands_max: usize, bytes_max: usize) -> InFlight {
        InFlight {
            shard,
            slots: Vec::new(),
            free: Vec::new(),
            commands_max: commands_max.clamp(1, 1 << SLOT_BITS),
            bytes_max,
            bytes: 0,
        }
    }

    /// Writes in flight.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether no write is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a command of this size may be handed over now.
    pub fn admits(&self, bytes: usize) -> bool {
        self.admits_all(1, bytes)
    }

    /// Whether so many commands may be, which have these bytes together.
    pub fn admits_all(&self, commands: usize, bytes: usize) -> bool {
        self.len() + commands <= self.commands_max && self.bytes + bytes <= self.bytes_max
    }

    /// Enters a write that is handed over `now`, and gives it its ticket.
    pub fn insert(&mut self, pending: Rc<PendingWrite>, bytes: usize, now: Instant) -> Ticket {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, entry: None });
            (self.slots.len() - 1) as u32
        });
        self.bytes += bytes;
        let entry = &mut self.slots[slot as usize];
        entry.entry = Some(Entry { pending, bytes, submitted_at: now });
        ticket::new(self.shard, u64::from(entry.generation) << SLOT_BITS | u64::from(slot))
    }

    /// Takes out the write of this ticket, that comes back `now`, and decides its answer, unless that is to wait for the
    /// snapshot.
    pub fn acknowledge(&mut self, ticket: Ticket, result: Result<(), Refusal>, now: Instant) -> Option<Returned> {
        let sequence = ticket::sequence(ticket);
        let (slot, generation) = ((sequence & ((1 << SLOT_BITS) - 1)) as u32, (sequence >> SLOT_BITS) as u32);
        let found = self.slots.get_mut(slot as usize).filter(|found| found.generation == generation)?;
        let entry = found.entry.take()?;
        // The generation has as many bits as a ticket leaves for it.
        found.generation = (generation + 1) & ((1 << (ticket::SEQUENCE_BITS - SLOT_BITS)) - 1);
        self.free.push(slot);
        self.bytes -= entry.bytes;
        let latency = now.saturating_duration_since(entry.submitted_at);
        let is_waiting = result.is_ok() && entry.pending.wait_until().is_some() && entry.pending.outcome().is_none();
        if is_waiting {
            return Some(Returned { latency, bytes: entry.bytes, waiting: Some(entry.pending) });
        }
        entry.pending.decide(result.map_or_else(Outcome::Refused, |()| Outcome::Accepted));
        Some(Returned { latency, bytes: entry.bytes, waiting: None })
    }

    /// How long the oldest write has been in flight `now`; `None` without one.
    pub fn oldest_age(&self, now: Instant) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        let entries = self.slots.iter().filter_map(|slot| slot.entry.as_ref());
        entries.map(|entry| entry.submitted_at).min().map(|submitted_at| now.saturating_duration_since(submitted_at))
    }

    /// Tells the clients of writes older than `timeout` that the log does not answer; returns how many.
    pub fn expire(&mut self, now: Instant, timeout: Duration) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut expired = 0;
        for entry in self.slots.iter().filter_map(|slot| slot.entry.as_ref()) {
            if entry.pending.outcome().is_none() && now.duration_since(entry.submitted_at) >= timeout {
                entry.pending.decide(Outcome::Refused(Refusal::Unconfirmed));
                expired += 1;
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use reactor::Socket;

    use super::*;
    use crate::http::Connection;

    fn pending() -> Rc<PendingWrite> {
        let state = Rc::new(ConnectionState::new(Socket::unconnected()));
        Rc::new(PendingWrite::new(TodoId::new(), WriteKind::Create, Connection::KeepAlive, state))
    }

    #[test]
    fn both_bounds_hold_and_are_released_by_acknowledgements() {
        let mut in_flight = InFlight::new(3, 2, 100);
        assert!(in_flight.admits(100) && !in_flight.admits(101));
        let first = in_flight.insert(pending(), 60, Instant::now());
        assert!(!in_flight.admits(41) && in_flight.admits(40));
        in_flight.insert(pending(), 10, Instant::now());
        assert!(!in_flight.admits(1), "as many commands as allowed");
        assert_eq!(in_flight.acknowledge(first, Ok(()), Instant::now()).map(|returned| returned.bytes), Some(60));
        assert!(in_flight.admits(90) && !in_flight.admits(91));
    }

    #[test]
    fn a_late_acknowledgement_does_not_meet_a_later_write() {
        let mut in_flight = InFlight::new(0, 10, 1000);
        let first = in_flight.insert(pending(), 1, Instant::now());
        assert!(in_flight.acknowledge(first, Ok(()), Instant::now()).is_some());
        let second_write = pending();
        let second = in_flight.insert(Rc::clone(&second_write), 1, Instant::now());
        assert!(in_flight.acknowledge(first, Err(Refusal::Full), Instant::now()).is_none(), "the ticket was used up");
        assert_eq!(second_write.outcome(), None);
        assert!(in_flight.acknowledge(second, Ok(()), Instant::now()).is_some());
        assert_eq!(second_write.outcome(), Some(Outcome::Accepted));
    }

    #[test]
    fn an_expired_write_is_answered_once_and_keeps_its_room() {
        let mut in_flight = InFlight::new(0, 1, 1000);
        let write = pending();
        let ticket = in_flight.insert(Rc::clone(&write), 1, Instant::now());
        assert_eq!(in_flight.expire(Instant::now(), Duration::from_secs(60)), 0);
        assert_eq!(in_flight.expire(Instant::now(), Duration::ZERO), 1);
        assert_eq!(in_flight.expire(Instant::now(), Duration::ZERO), 0, "told once");
        assert!(!in_flight.admits(1), "the command may still be in the queue");
        in_flight.acknowledge(ticket, Ok(()), Instant::now());
        assert_eq!(write.outcome(), Some(Outcome::Refused(Refusal::Unconfirmed)), "the client was told 503");
        assert!(in_flight.admits(1));
    }

    fn array(todos: usize) -> Rc<PendingWrite> {
        let state = Rc::new(ConnectionState::new(Socket::unconnected()));
        let ids = std::iter::repeat_with(TodoId::new).take(todos).collect();
        Rc::new(PendingWrite::of_array(ids, Connection::KeepAlive, state))
    }

    #[test]
    fn an_array_is_answered_when_all_of_it_is_known_or_one_is_refused() {
        for (last, expected) in [
            (Outcome::Visible, Outcome::Visible),
            (Outcome::Accepted, Outcome::Accepted),
            (Outcome::Refused(Refusal::Unavailable), Outcome::Refused(Refusal::Unavailable)),
        ] {
            let write = array(3);
            write.decide(Outcome::Visible);
            write.decide(Outcome::Visible);
            assert_eq!(write.outcome(), None);
            write.decide(last);
            assert_eq!(write.outcome(), Some(expected));
        }
        let write = array(3);
        write.decide(Outcome::Accepted);
        write.decide(Outcome::Refused(Refusal::Unconfirmed));
        assert_eq!(write.outcome(), Some(Outcome::Refused(Refusal::Unconfirmed)));
        write.decide(Outcome::Accepted);
        write.decide(Outcome::Accepted);
        assert_eq!(write.outcome(), Some(Outcome::Refused(Refusal::Unconfirmed)), "the client was told 503");
    }

    #[test]
    fn room_for_an_array_is_for_all_of_it() {
        let in_flight = InFlight::new(0, 3, 100);
        assert!(in_flight.admits_all(3, 100));
        assert!(!in_flight.admits_all(4, 1) && !in_flight.admits_all(1, 101));
    }
}
