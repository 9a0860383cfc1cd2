//! Long polling: the reads of a shard that wait until what they ask for is another (`If-None-Match` with `Prefer: wait`).
//!
//! A read that would be answered with 304 waits with its connection instead, and holds one of the followers' places. With each
//! snapshot the shard looks once at everything that is waited for, however many wait for it, and wakes those alone whose answer
//! is another; where that is much, it looks at each tick. Deadlines are in one order, so a tick looks at those that are due and
//! at no others.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::Shard;
use super::super::places::Place;
use super::super::reads::Subject;
use super::super::registry::ConnectionState;
use crate::limits::WATCHED_AT_ONCE_MAX;
use crate::snapshot::Snapshot;

impl Subject {
    /// The entity tag that it has now; `None` where there is nothing.
    fn entity_tag(self, snapshot: &Snapshot) -> Option<u64> {
        match self {
            Subject::Page { cursor, limit } => Some(snapshot.page(cursor, limit).entity_tag),
            Subject::Todo(id) => snapshot.get(id).map(|entry| entry.entity_tag()),
            Subject::Selected { selection, cursor, limit } => {
                Some(snapshot.selected_page(selection, cursor, Some(limit)).page.entity_tag)
            }
            Subject::Selection(selection) => Some(snapshot.selection_tag(selection)),
        }
    }
}

/// Whether a read waits.
pub enum ReadWait {
    /// It may, if it has to.
    May,
    /// It does.
    Waits(WaitingRead),
    /// What it waits for was another, and is looked at again.
    LooksAgain(WaitingRead),
    /// It does not, any more; with the seconds that it has waited where these were as many as were asked for.
    Over(Option<u64>),
}

/// Why a wait ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// What it waits for has changed.
    Changed,
    /// Its time is over.
    Elapsed,
    /// The client sends nothing more, and may have gone.
    Left,
}

/// A wait, as the shard sees it.
struct Wait {
    state: Rc<ConnectionState>,
    end: Cell<Option<End>>,
}

impl Wait {
    fn end(&self, end: End) {
        self.end.set(Some(end));
        self.state.socket.wake();
    }
}

/// What some reads wait for.
struct Watched {
    /// The tag that it was last seen with, by the shard or by a read that waits.
    entity_tag: Option<u64>,
    waits: BTreeMap<u64, Rc<Wait>>,
}

impl Watched {
    /// It has this tag: wakes those that wait where it had another.
    fn see(&mut self, entity_tag: Option<u64>) {
        if self.entity_tag != entity_tag {
            self.entity_tag = entity_tag;
            self.waits.values().for_each(|wait| wait.end(End::Changed));
        }
    }
}

/// The reads of a shard that wait.
#[derive(Default)]
pub struct WaitingReads {
    watched: RefCell<BTreeMap<Subject, Watched>>,
    /// By the tick at which they are over, and the number of the wait.
    due: RefCell<BTreeMap<(u64, u64), Rc<Wait>>>,
    /// Waits that have begun.
    begun: Cell<u64>,
    /// A snapshot has come that was not looked at.
    is_behind: Cell<bool>,
}

impl WaitingReads {
    /// Reads that wait.
    pub fn len(&self) -> usize {
        self.due.borrow().len()
    }

    /// Begins to wait until the subject has another tag than this one, which it has now, or until this tick.
    pub(super) fn begin(
        self: &Rc<WaitingReads>,
        subject: Subject,
        entity_tag: u64,
        state: Rc<ConnectionState>,
        until: u64,
    ) -> Registration {
        let number = self.begun.get();
        self.begun.set(number + 1);
        let wait = Rc::new(Wait { state, end: Cell::new(None) });
        let mut watched = self.watched.borrow_mut();
        let watched =
            watched.entry(subject).or_insert_with(|| Watched { entity_tag: Some(entity_tag), waits: BTreeMap::new() });
        // Snapshots that the shard has not looked at may lie between.
        watched.see(Some(entity_tag));
        watched.waits.insert(number, Rc::clone(&wait));
        self.due.borrow_mut().insert((until, number), Rc::clone(&wait));
        Registration { reads: Rc::clone(self), wait, subject, until, number }
    }

    /// A new snapshot has come: wakes those for whom there is something else, at once or at the next tick.
    pub fn look(&self, snapshot: &Snapshot) {
        if self.watched.borrow().len() > WATCHED_AT_ONCE_MAX {
            return self.is_behind.set(true);
        }
        self.look_at_all(snapshot);
    }

    /// Looks at what was left for this tick.
    pub fn catch_up(&self, snapshot: &Snapshot) {
        if self.is_behind.get() {
            self.look_at_all(snapshot);
        }
    }

    fn look_at_all(&self, snapshot: &Snapshot) {
        self.is_behind.set(false);
        for (subject, watched) in self.watched.borrow_mut().iter_mut() {
            watched.see(subject.entity_tag(snapshot));
        }
    }

    /// Wakes those whose time is over at this tick.
    pub fn expire(&self, now: u64) {
        let is_due = |(until, _): &(u64, u64)| *until <= now;
        // They leave when their tasks have looked at it.
        self.due.borrow().iter().take_while(|(at, _)| is_due(at)).for_each(|(_, wait)| wait.end(End::Elapsed));
    }

    /// Wakes all of them, to look at something else.
    pub fn wake_all(&self) {
        self.due.borrow().values().for_each(|wait| wait.state.socket.wake());
    }
}

/// A wait's entry among those of its shard; it leaves when this is dropped.
pub(super) struct Registration {
    reads: Rc<WaitingReads>,
    wait: Rc<Wait>,
    subject: Subject,
    until: u64,
    number: u64,
}

impl Registration {
    /// Its read has looked again, found this tag, which the client knows as well, and waits on.
    pub(super) fn wait_on(&self, entity_tag: u64) {
        if let Some(watched) = self.reads.watched.borrow_mut().get_mut(&self.subject) {
            watched.see(Some(entity_tag));
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.reads.due.borrow_mut().remove(&(self.until, self.number));
        let mut watched = self.reads.watched.borrow_mut();
        if let Some(of_subject) = watched.get_mut(&self.subject) {
            of_subject.waits.remove(&self.number);
            if of_subject.waits.is_empty() {
                watched.remove(&self.subject);
            }
        }
    }
}

/// A read that waits. It keeps its place among the followers of the process.
pub struct WaitingRead {
    pub(super) registration: Registration,
    pub(super) wait_s: u64,
    pub(super) _place: Place,
}

impl WaitingRead {
    /// Whether it is to be looked at again, or answered.
    pub fn has_work(&self, shard: &Shard) -> bool {
        self.registration.wait.end.get().is_some() || shard.is_draining()
    }

    /// Its client sends nothing more: it is answered, as nobody knows whether the client is still there.
    pub fn leave(&self) {
        self.registration.wait.end.set(Some(End::Left));
    }

    /// How the request is looked at that has work.
    pub fn resume(self, shard: &Shard) -> ReadWait {
        match self.registration.wait.end.take() {
            _ if shard.is_draining() => ReadWait::Over(None),
            Some(End::Elapsed) => ReadWait::Over(Some(self.wait_s)),
            Some(End::Left) => ReadWait::Over(None),
            Some(End::Changed) | None => ReadWait::LooksAgain(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use reactor::Socket;

    use super::*;
    use crate::snapshot::{HashKeys, SnapshotBuilder};
    use crate::todo::{Timestamp, Todo, TodoId};

    fn todo(number: u64, title: &str) -> Todo {
        let at = Timestamp::from_micros(number as i64);
        Todo {
            id: TodoId::from_u128(number.into()),
            title: title.to_owned(),
            description: String::new(),
            completed: false,
            user_id: "me".to_owned(),
            created_at: at,
            updated_at: at,
        }
    }

    /// The list of these todos, by number and title.
    fn list(todos: &BTreeMap<u64, &str>) -> Snapshot {
        let mut builder = SnapshotBuilder::new(HashKeys::new(&[1; 32]));
        todos.iter().rev().for_each(|(number, title)| builder.push(&todo(*number, title)));
        builder.finish(1)
    }

    fn wait_for(reads: &Rc<WaitingReads>, subject: Subject, snapshot: &Snapshot, until: u64) -> Registration {
        let state = Rc::new(ConnectionState::new(Socket::unconnected()));
        reads.begin(subject, subject.entity_tag(snapshot).expect("it is there"), state, until)
    }

    #[test]
    fn those_are_woken_whose_answer_is_another() {
        let mut todos: BTreeMap<u64, &str> = (1..=6).map(|number| (number, "a")).collect();
        let first = list(&todos);
        let newest = Subject::Page { cursor: None, limit: Some(2) };
        let older = Subject::Page { cursor: Some(todo(5, "").key()), limit: Some(2) };
        let whole = Subject::Page { cursor: None, limit: None };
        let one = Subject::Todo(TodoId::from_u128(1));
        let reads = Rc::new(WaitingReads::default());
        let subjects = [newest, newest, older, whole, one];
        let waits = subjects.map(|subject| wait_for(&reads, subject, &first, 100));
        let woken = || waits.each_ref().map(|wait| wait.wait.end.take() == Some(End::Changed));
        let mut change = |number: u64, title: Option<&'static str>| {
            match title {
                Some(title) => todos.insert(number, title),
                None => todos.remove(&number),
            };
            reads.look(&list(&todos));
            woken()
        };
        assert_eq!(change(2, Some("b")), [false, false, false, true, false]);
        assert_eq!(change(4, Some("b")), [false, false, true, true, false]);
        assert_eq!(change(7, Some("b")), [true, true, false, true, false]);
        assert_eq!(change(1, None), [false, false, false, true, true]);
        // As it was last seen by those who wait, it is nothing new; as it was at first, it is.
        assert_eq!(change(7, Some("b")), [false; 5]);
        assert_eq!(change(1, Some("a")), [false, false, false, true, true]);
    }

    #[test]
    fn much_that_is_waited_for_is_looked_at_once_a_tick() {
        let numbers = 1..=WATCHED_AT_ONCE_MAX as u64 + 1;
        let mut todos: BTreeMap<u64, &str> = numbers.map(|number| (number, "a")).collect();
        let first = list(&todos);
        let reads = Rc::new(WaitingReads::default());
        let subjects = todos.keys().map(|number| Subject::Todo(TodoId::from_u128((*number).into())));
        let mut waits: Vec<_> = subjects.map(|subject| wait_for(&reads, subject, &first, 100)).collect();
        let woken = |waits: &[Registration]| waits.iter().filter(|wait| wait.wait.end.take().is_some()).count();
        todos.insert(7, "b");
        reads.look(&list(&todos));
        assert_eq!(woken(&waits), 0);
        todos.insert(8, "b");
        let last = list(&todos);
        reads.look(&last);
        reads.catch_up(&last);
        assert_eq!(woken(&waits), 2);
        reads.catch_up(&last);
        assert_eq!(woken(&waits), 0, "nothing was left");
        // With one less, each snapshot is looked at.
        waits.pop();
        todos.insert(7, "a");
        reads.look(&list(&todos));
        assert_eq!(woken(&waits), 1);
    }

    /// More is waited for than is looked at with each snapshot, so what comes between two ticks is not looked at by itself.
    #[test]
    fn a_change_and_its_reversal_between_two_ticks_are_seen() {
        let numbers = 1..=WATCHED_AT_ONCE_MAX as u64 + 1;
        let mut todos: BTreeMap<u64, &str> = numbers.map(|number| (number, "a")).collect();
        let first = list(&todos);
        let reads = Rc::new(WaitingReads::default());
        let subjects: Vec<_> = todos.keys().map(|number| Subject::Todo(TodoId::from_u128((*number).into()))).collect();
        let waits: Vec<_> = subjects.iter().map(|subject| wait_for(&reads, *subject, &first, 100)).collect();
        let is_woken = |wait: &Registration| wait.wait.end.take() == Some(End::Changed);
        todos.insert(1, "b");
        let second = list(&todos);
        reads.look(&second);
        let late = wait_for(&reads, subjects[0], &second, 100);
        assert!(is_woken(&waits[0]), "it is another than it knows");
        reads.look(&first);
        reads.catch_up(&first);
        assert!(is_woken(&late), "it is the first again, which this one does not know");
        assert!(!is_woken(&waits[1]));
        // A read that has looked again, and waits on, is one that has seen the subject, too.
        waits[0].wait.end.take();
        reads.look(&second);
        late.wait_on(subjects[0].entity_tag(&second).expect("it is there"));
        late.wait.end.take();
        reads.look(&first);
        reads.catch_up(&first);
        assert!(is_woken(&late));
    }

    #[test]
    fn nobody_waits_beyond_the_time_and_nobody_is_kept() {
        let list = list(&BTreeMap::from([(1, "a")]));
        let reads = Rc::new(WaitingReads::default());
        let subject = Subject::Todo(TodoId::from_u128(1));
        let waits = [7, 5, 5, 9].map(|until| wait_for(&reads, subject, &list, until));
        let over = || waits.each_ref().map(|wait| wait.wait.end.take() == Some(End::Elapsed));
        for (now, expected) in [(4, [false; 4]), (5, [false, true, true, false]), (8, [true, true, true, false])] {
            reads.expire(now);
            assert_eq!(over(), expected, "tick {now}");
        }
        assert_eq!(reads.len(), 4, "they leave by themselves");
        drop(waits);
        assert_eq!(reads.len(), 0);
        assert!(reads.watched.borrow().is_empty());
    }
}
