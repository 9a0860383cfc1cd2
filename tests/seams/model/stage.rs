//! The stage of a history: chance, time, what stands outside of the processes, and the processes themselves.
//!
//! One thread plays everything. A process is suspended wherever it calls something outside of itself: there, by chance,
//! others act, for as long as chance wants. So each order of such calls can happen, a process may sleep in the middle of
//! anything and wake much later, and it may die there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use million_rps::todo::{Todo, TodoId};

use super::history;
use super::log::Log;
use super::redis::Redis;
use super::table::Table;

/// A process of the history; none has the number of an earlier one.
pub type Process = u32;

/// Most suspended calls within each other.
const DEPTH_MAX: u32 = 3;

/// Chance, the same for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What the history is made of, chosen once.
pub struct Plan {
    /// One process for all, with the in-process feed; else a fleet with Redis.
    pub embedded: bool,
    /// Whether the store finds out by itself what became of a commit whose answer was lost, as PostgreSQL's side does.
    pub remembers_commits: bool,
    /// How many todos the commands are about.
    pub todos: u64,
    /// How often commands are written; then the clients fall silent, so that nothing later hides what went wrong.
    pub writes: u64,
    /// Which kinds of trouble there are, one bit each: some heal what others have broken, so each has to be without the
    /// others now and then.
    pub troubles: u64,
    /// How often a call fails.
    pub fault_percent: u64,
    /// How often others act in the middle of a call.
    pub interleave_percent: u64,
}

/// What stands outside of the processes.
pub struct World {
    pub random: Random,
    pub plan: Plan,
    pub now_ms: u64,
    /// From now on nothing fails and nobody interrupts.
    pub calm: bool,
    pub store_is_down: bool,
    pub dead: BTreeSet<Process>,
    /// APIs that were told that their list is current, and what it then has to be.
    pub confirmed: BTreeMap<Process, BTreeMap<TodoId, Todo>>,
    pub log: Log,
    pub table: Table,
    pub redis: Redis,
    /// How often what happened, to see that the histories reach what they are for.
    pub counts: BTreeMap<&'static str, u64>,
    /// What happened, when somebody wants to read it.
    pub trace: Option<Vec<String>>,
}

impl World {
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(text());
        }
    }
}

/// What a process does when it has its turn.
pub trait Actor: Send {
    fn turn(&mut self);

    /// Told to end in order.
    fn stop(self: Box<Self>);

    /// What it shows, if it is an API.
    fn list(&self) -> Option<Vec<u8>>;
}

struct Slot {
    process: Process,
    number: u32,
    /// `None` while it is suspended in a call.
    actor: Option<Box<dyn Actor>>,
}

pub struct Stage {
    world: Mutex<World>,
    slots: Mutex<Vec<Slot>>,
    depth: AtomicU32,
    slot_numbers: AtomicU32,
}

impl Stage {
    pub fn new(world: World) -> Arc<Stage> {
        let world = Mutex::new(world);
        Arc::new(Stage { world, slots: Mutex::default(), depth: AtomicU32::new(0), slot_numbers: AtomicU32::new(0) })
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic while it is held")
    }

    /// The world as a failed call has left it.
    pub fn world_after_failure(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().expect("no panic while it is held")
    }

    pub fn add(&self, process: Process, actor: Box<dyn Actor>) {
        let number = self.slot_numbers.fetch_add(1, Ordering::Relaxed);
        self.slots().push(Slot { process, number, actor: Some(actor) });
    }

    /// The numbers of those who can act now.
    pub fn idle(&self) -> Vec<u32> {
        self.slots().iter().filter(|slot| slot.actor.is_some()).map(|slot| slot.number).collect()
    }

    /// All processes, suspended ones too.
    pub fn processes(&self) -> BTreeSet<Process> {
        self.slots().iter().map(|slot| slot.process).collect()
    }

    pub fn lists(&self) -> Vec<Vec<u8>> {
        self.slots().iter().filter_map(|slot| slot.actor.as_ref()?.list()).collect()
    }

    /// Gives one its turn.
    pub fn turn(&self, number: u32) {
        let taken = self.slots().iter_mut().find(|slot| slot.number == number).and_then(|slot| slot.actor.take());
        let Some(mut actor) = taken else { return };
        actor.turn();
        // Unless its process has died meanwhile.
        if let Some(slot) = self.slots().iter_mut().find(|slot| slot.number == number) {
            slot.actor = Some(actor);
        }
    }

    /// Ends a process: at once, in the middle of what it does, or in order where it is not suspended.
    pub fn end(&self, process: Process, in_order: bool) {
        let (ending, others) = std::mem::take(&mut *self.slots()).into_iter().partition(|slot| slot.process == process);
        *self.slots() = others;
        let ending: Vec<Slot> = ending;
        if in_order {
            ending.into_iter().filter_map(|slot| slot.actor).for_each(Actor::stop);
        }
        let mut world = self.world();
        world.dead.insert(process);
        world.log.leave(process);
    }

    /// Others act, or not.
    pub fn interleave(self: &Arc<Self>) {
        let times = {
            let mut world = self.world();
            world.now_ms += world.random.below(3);
            let percent = world.plan.interleave_percent;
            if world.calm || !world.random.percent(percent) { 0 } else { 1 + world.random.below(6) }
        };
        if times == 0 || self.depth.load(Ordering::Relaxed) == DEPTH_MAX {
            return;
        }
        self.depth.fetch_add(1, Ordering::Relaxed);
        for _ in 0..times {
            history::act(self);
        }
        self.depth.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a call to something outside can go wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It happens and is answered, or neither.
    Local,
    /// It may happen without being answered.
    Wire,
    /// As the wire; or it happens twice, because it is sent again when a connection turns out to be dead.
    Resending,
}

/// A process's way to the world.
#[derive(Clone)]
pub struct Seat {
    pub stage: Arc<Stage>,
    pub process: Process,
}

impl Seat {
    /// Calls something outside; `None`: nobody knows whether it has happened.
    pub fn call<T>(&self, link: Link, mut action: impl FnMut(&mut World) -> T) -> Option<T> {
        self.stage.interleave();
        let answer = {
            let mut world = self.stage.world();
            if world.dead.contains(&self.process) {
                return None;
            }
            let percent = world.plan.fault_percent;
            let fails = !world.calm && world.random.percent(percent);
            let fate = if fails { world.random.below(3) } else { 3 };
            match (fate, link) {
                (3, _) => Some(action(&mut world)),
                (0, _) | (_, Link::Local) => None,
                (2, Link::Resending) => {
                    action(&mut world);
                    Some(action(&mut world))
                }
                _ => {
                    action(&mut world);
                    world.count("answer lost");
                    None
                }
            }
        };
        self.stage.interleave();
        answer.filter(|_| !self.is_dead())
    }

    pub fn is_dead(&self) -> bool {
        self.stage.world().dead.contains(&self.process)
    }
}
