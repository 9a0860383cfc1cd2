//! The fleet's feed of the histories: the protocol of the Redis feed (its scripts, as functions on one value; its reader,
//! call by call), with the faults that Redis has. The real one runs the feed suite and its own tests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use million_rps::command_log::{Offset, PartitionId};
use million_rps::feed::{Acquaintance, ChangeSet, FeedError, FeedEvent, FeedPublisher, FeedSubscriber, short_of};
use million_rps::store::{AppliedOffsets, Changes, Identity, OffsetStep, Store};
use million_rps::todo::{Todo, TodoId};

use super::stage::{Link, Seat};

/// How long a lock lives.
const LOCK_MS: u64 = 10_000;

type Rows = BTreeMap<TodoId, Todo>;
/// Of one load of the list; 0 while there is none.
type Epoch = u64;

#[derive(Clone)]
struct Entry {
    id: u64,
    number: u64,
    epoch: Epoch,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Changes(ChangeSet),
    Lost,
    Loaded,
}

/// All that Redis holds.
#[derive(Clone, Default)]
struct Data {
    epoch: Epoch,
    rows: Rows,
    offsets: AppliedOffsets,
    number: u64,
    last: u64,
    changes: VecDeque<Entry>,
    /// Token, and when it expires.
    lock: Option<(u64, u64)>,
}

#[derive(Default)]
pub struct Redis {
    data: Data,
    saved: Data,
    /// For ids, epochs and tokens: never used twice.
    counter: u64,
    /// How far workers have told of their commits: not in Redis, and never lost.
    told: AppliedOffsets,
    /// Whether older data has come back: then a list may go back too.
    pub was_restored: bool,
}

impl Redis {
    /// Everything is gone.
    pub fn flush(&mut self) {
        self.data = Data::default();
    }

    /// The list's time is over.
    pub fn expire(&mut self) {
        (self.data.epoch, self.data.rows) = (0, Rows::new());
    }

    /// The older changes are dropped.
    pub fn trim(&mut self, keep: u64) {
        while self.data.changes.len() as u64 > keep {
            self.data.changes.pop_front();
        }
    }

    pub fn save(&mut self) {
        self.saved = self.data.clone();
    }

    /// Redis comes back with what it had saved.
    pub fn restore(&mut self) {
        self.data = self.saved.clone();
        self.was_restored = true;
    }

    fn unique(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn append(&mut self, epoch: Epoch, content: Content) -> Place {
        let id = self.unique();
        let data = &mut self.data;
        (data.number, data.last) = (data.number + 1, id);
        data.changes.push_back(Entry { id, number: data.number, epoch, content });
        Place { epoch, number: data.number, last: id }
    }

    fn hear(&mut self, partition: PartitionId, next: Offset) {
        let told = self.told.entry(partition).or_insert(next);
        *told = next.max(*told);
    }

    fn publish(&mut self, set: &ChangeSet) -> &'static str {
        set.steps.iter().for_each(|step| self.hear(step.partition, step.to));
        let at = |step: &OffsetStep| self.data.offsets.get(&step.partition).copied();
        let is_known = |step: &OffsetStep| match step.from {
            None => at(step) == Some(step.to),
            Some(_) => at(step).is_some_and(|at| step.to <= at),
        };
        let known = set.steps.iter().filter(|step| is_known(step)).count();
        if known == set.steps.len() {
            return "published twice";
        }
        let gap = known > 0 || set.steps.iter().any(|step| at(step) != step.from);
        if gap && self.data.epoch != 0 {
            self.append(self.data.epoch, Content::Lost);
            self.expire();
        }
        self.data.offsets.extend(set.steps.iter().map(|step| (step.partition, step.to)));
        if self.data.epoch != 0 {
            change(&mut self.data.rows, &set.changes);
        }
        self.append(self.data.epoch, Content::Changes(set.clone()));
        if gap { "gap found by publishing" } else { "published" }
    }

    fn resume(&mut self, offsets: &AppliedOffsets) -> &'static str {
        offsets.iter().for_each(|(partition, next)| self.hear(*partition, *next));
        let differ = offsets.iter().any(|(partition, next)| self.data.offsets.get(partition) != Some(next));
        if !differ {
            return "resumed";
        }
        self.data.offsets.extend(offsets);
        let epoch = self.data.epoch;
        self.expire();
        self.append(epoch, Content::Lost);
        "gap found by resuming"
    }

    fn place(&self) -> Place {
        Place { epoch: self.data.epoch, number: self.data.number, last: self.data.last }
    }

    fn holds(&self, token: u64, now_ms: u64) -> bool {
        self.data.lock.is_some_and(|(holder, until)| holder == token && now_ms < until)
    }

    fn take_lock(&mut self, token: u64, now_ms: u64) -> bool {
        let free = self.data.lock.is_none_or(|(_, until)| now_ms >= until);
        if free {
            self.data.lock = Some((token, now_ms + LOCK_MS));
        }
        free
    }

    fn mark_place(&mut self, token: u64, now_ms: u64) -> Option<Place> {
        self.holds(token, now_ms).then(|| self.append(0, Content::Loaded))
    }

    fn install(
        &mut self,
        token: u64,
        now_ms: u64,
        number: u64,
        list: &Rows,
        offsets: &AppliedOffsets,
    ) -> Option<Place> {
        if !self.holds(token, now_ms) || self.data.number != number {
            return None;
        }
        self.data.lock = None;
        self.data.epoch = self.unique();
        (self.data.rows, self.data.offsets) = (list.clone(), offsets.clone());
        Some(self.append(self.data.epoch, Content::Loaded))
    }

    fn entries_after(&self, last: u64) -> Vec<Entry> {
        self.data.changes.iter().filter(|entry| entry.id > last).cloned().collect()
    }
}

fn change(rows: &mut Rows, changes: &Changes) {
    for key in &changes.deletes {
        rows.remove(&key.id);
    }
    rows.extend(changes.upserts.iter().map(|todo| (todo.id, todo.clone())));
}

/// A worker's end.
pub struct ModelPublisher {
    seat: Seat,
    /// The set that was sent, and what came of it, if Redis has got to it.
    sent: Option<(ChangeSet, Option<Result<(), FeedError>>)>,
}

impl ModelPublisher {
    pub fn new(seat: Seat) -> ModelPublisher {
        ModelPublisher { seat, sent: None }
    }
}

impl Drop for ModelPublisher {
    /// What a process had sent may still be run when it is dead.
    fn drop(&mut self) {
        if let Some((set, None)) = self.sent.take()
            && !std::thread::panicking()
        {
            let mut world = self.seat.stage.world();
            if !world.calm && world.random.percent(50) {
                world.redis.publish(&set);
                world.count("published after death");
            }
        }
    }
}

fn unavailable(reason: &str) -> FeedError {
    FeedError::Unavailable(reason.to_owned())
}

impl FeedPublisher for ModelPublisher {
    fn identify(&mut self, _: &Identity) {}

    fn publish(&mut self, set: &ChangeSet) -> Result<(), FeedError> {
        let published = self.seat.call(Link::Resending, |world| {
            let result = world.redis.publish(set);
            world.count(result);
        });
        published.ok_or_else(|| unavailable("by chance"))
    }

    /// Redis runs it at once, or when the answer is waited for.
    fn begin(&mut self, set: &ChangeSet) -> Result<(), FeedError> {
        assert!(self.sent.is_none(), "the set before has not been finished");
        let at_once = self.seat.stage.world().random.percent(50);
        let answer = if at_once { Some(self.publish(set)) } else { None };
        self.sent = Some((set.clone(), answer));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), FeedError> {
        match self.sent.take() {
            Some((set, None)) => {
                self.seat.stage.world().count("published late");
                self.publish(&set)
            }
            Some((_, Some(answer))) => answer,
            None => panic!("nothing was begun"),
        }
    }

    fn resume(&mut self, offsets: &AppliedOffsets) -> Result<(), FeedError> {
        assert!(self.sent.is_none(), "the set before has not been finished");
        let resumed = self.seat.call(Link::Resending, |world| {
            let result = world.redis.resume(offsets);
            world.count(result);
        });
        resumed.ok_or_else(|| unavailable("by chance"))
    }
}

/// A place in the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    epoch: Epoch,
    number: u64,
    last: u64,
}

/// An API's end.
pub struct ModelSubscriber {
    seat: Seat,
    place: Option<Place>,
    pending: Vec<ChangeSet>,
}

impl ModelSubscriber {
    pub fn new(seat: Seat) -> ModelSubscriber {
        ModelSubscriber { seat, place: None, pending: Vec::new() }
    }

    fn ask<T>(&self, question: impl FnMut(&mut super::stage::World) -> T) -> Result<T, FeedError> {
        self.seat.call(Link::Resending, question).ok_or_else(|| unavailable("by chance"))
    }

    fn follow(&mut self, mut place: Place, entries: Vec<Entry>) -> FeedEvent {
        let mut sets = Vec::new();
        for entry in entries {
            match follow_one(&mut place, entry) {
                Ok(set) => sets.push(set),
                Err(reason) => return self.lost(reason),
            }
        }
        self.place = Some(place);
        FeedEvent::Changes(sets)
    }

    fn lost(&self, reason: &'static str) -> FeedEvent {
        self.seat.stage.world().count("lost");
        FeedEvent::Lost { reason: reason.to_owned() }
    }

    fn load_warm(
        &mut self,
        at_least: &AppliedOffsets,
        each: &mut dyn FnMut(Todo),
    ) -> Result<AppliedOffsets, FeedError> {
        let (place, offsets) = self.ask(|world| (world.redis.place(), world.redis.data.offsets.clone()))?;
        if place.epoch == 0 {
            return Err(unavailable("the list expired before it was read"));
        }
        if short_of(&offsets, at_least).is_some() {
            self.seat.stage.world().count("behind the store");
            return Err(unavailable("the list is behind the store"));
        }
        // In two steps, between which the list may change; some rows come twice.
        let mut seen = BTreeSet::new();
        let first: Vec<Todo> = self.ask(|world| {
            let count = world.redis.data.rows.len().div_ceil(2);
            world.redis.data.rows.values().take(count).cloned().collect()
        })?;
        let middle = first.last().map(|todo| todo.id);
        let second: Vec<Todo> = self.ask(|world| {
            let rows = world.redis.data.rows.values();
            rows.filter(|todo| Some(todo.id) >= middle).cloned().collect()
        })?;
        first.into_iter().chain(second).filter(|todo| seen.insert(todo.id)).for_each(each);
        if self.ask(|world| world.redis.place())?.epoch != place.epoch {
            return Err(unavailable("the list was replaced while it was read"));
        }
        self.place = Some(place);
        self.seat.stage.world().count("warm load");
        Ok(offsets)
    }

    fn load_cold(
        &mut self,
        token: u64,
        store: &mut dyn Store,
        each: &mut dyn FnMut(Todo),
    ) -> Result<AppliedOffsets, FeedError> {
        let marked = self.ask(|world| world.redis.mark_place(token, world.now_ms))?;
        let mut place = marked.ok_or_else(|| unavailable("the lock is gone"))?;
        let mut rows = Rows::new();
        let scanned = store.scan(&mut |todo| {
            rows.insert(todo.id, todo.clone());
            each(todo);
        })?;
        let mut offsets = scanned.clone();
        let mut pending = Vec::new();
        loop {
            for entry in self.ask(|world| world.redis.entries_after(place.last))? {
                let set = follow_one(&mut place, entry).map_err(unavailable)?;
                if is_missing_from(&mut offsets, &set.steps).map_err(unavailable)? {
                    change(&mut rows, &set.changes);
                    pending.push(set);
                }
            }
            if !self.ask(|world| world.redis.holds(token, world.now_ms))? {
                return Err(unavailable("the lock is gone"));
            }
            let install = |world: &mut super::stage::World| {
                world.redis.install(token, world.now_ms, place.number, &rows, &offsets)
            };
            if let Some(installed) = self.ask(install)? {
                self.place = Some(installed);
                self.pending = pending;
                self.seat.stage.world().count("cold load");
                return Ok(scanned);
            }
        }
    }
}

fn follow_one(place: &mut Place, entry: Entry) -> Result<ChangeSet, &'static str> {
    if entry.number != place.number + 1 {
        return Err("a change is missing");
    }
    match entry.content {
        Content::Lost => Err("a gap was found"),
        Content::Loaded => Err("the list was loaded anew"),
        Content::Changes(_) if entry.epoch != place.epoch => Err("the list was dropped"),
        Content::Changes(set) => {
            (place.number, place.last) = (entry.number, entry.id);
            Ok(set)
        }
    }
}

fn is_missing_from(offsets: &mut BTreeMap<PartitionId, Offset>, steps: &[OffsetStep]) -> Result<bool, &'static str> {
    let mut missing = false;
    for step in steps {
        let at = offsets.get(&step.partition).copied();
        if at.is_some_and(|at| step.to <= at) {
            continue;
        }
        if at != step.from {
            return Err("a batch between the store's view and the changes is missing");
        }
        offsets.insert(step.partition, step.to);
        missing = true;
    }
    Ok(missing)
}

impl FeedSubscriber for ModelSubscriber {
    fn identify(&mut self, store: &mut dyn Store) -> Result<Acquaintance, FeedError> {
        Ok(store.identity()?.into())
    }

    /// Here every worker reaches Redis before the history ends.
    fn may_fall_behind(&self) -> bool {
        false
    }

    fn load(
        &mut self,
        store: &mut dyn Store,
        at_least: &AppliedOffsets,
        each: &mut dyn FnMut(Todo),
    ) -> Result<AppliedOffsets, FeedError> {
        self.place = None;
        self.pending.clear();
        let place = self.ask(|world| world.redis.place())?;
        if place.epoch != 0 {
            return self.load_warm(at_least, each);
        }
        let token = self.seat.stage.world().redis.unique();
        if !self.ask(|world| world.redis.take_lock(token, world.now_ms))? {
            return Err(unavailable("another process loads the list"));
        }
        match self.ask(|world| world.redis.place())? {
            place if place.epoch != 0 => self.load_warm(at_least, each),
            _ => self.load_cold(token, store, each),
        }
    }

    fn next(&mut self, _: Duration) -> Result<FeedEvent, FeedError> {
        if !self.pending.is_empty() {
            return Ok(FeedEvent::Changes(std::mem::take(&mut self.pending)));
        }
        let Some(place) = self.place else { return Ok(self.lost("no list has been loaded")) };
        let entries = self.ask(|world| world.redis.entries_after(place.last))?;
        if !entries.is_empty() {
            return Ok(self.follow(place, entries));
        }
        let process = self.seat.process;
        let current = self.ask(|world| {
            let current = world.redis.place();
            let is_current = (current.epoch, current.number) == (place.epoch, place.number);
            if is_current && world.redis.told == world.table.offsets && !world.redis.was_restored {
                world.confirmed.insert(process, world.table.rows.clone());
            }
            current
        })?;
        if (current.epoch, current.number) == (place.epoch, place.number) {
            return Ok(FeedEvent::Current);
        }
        let entries = self.ask(|world| world.redis.entries_after(place.last))?;
        if !entries.is_empty() {
            return Ok(self.follow(place, entries));
        }
        if current.epoch == place.epoch {
            self.ask(|world| world.redis.expire())?;
        }
        Ok(self.lost("the list is another one"))
    }
}
