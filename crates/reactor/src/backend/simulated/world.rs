//! The other ends of simulated connections, and what is on its way.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

/// Most bytes that a socket keeps of what its client has sent and nobody has received.
const ARRIVED_MAX_BYTES: usize = 64 * 1024;
/// Most bytes that a client sends, or reads, at a time.
const STEP_MAX_BYTES: u64 = 20_000;
/// Longest pause of a client between two things that it does, in microseconds: from none to far more than a turn takes.
const PAUSE_MAX_US: u64 = 20_000;

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Chance {
        Chance { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number from 1 to `most`, which is not 0; small ones come as often as large ones.
    pub fn up_to(&mut self, most: u64) -> u64 {
        let magnitude = self.below(u64::from(most.ilog2()) + 1);
        (1 + self.below(2 << magnitude)).min(most)
    }

    /// Whether something happens that does so one time in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Puts things into any order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for end in (1..things.len()).rev() {
            things.swap(end, self.below(end as u64 + 1) as usize);
        }
    }
}

/// What a client does.
#[derive(Debug, Clone)]
pub struct Script {
    /// What it sends.
    pub sends: Vec<u8>,
    /// What it does when it has sent that.
    pub ending: Ending,
    /// How many times longer than others it pauses before it reads.
    pub slowness: u64,
}

/// How a client ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It ends its side, and reads on.
    ShutsDown,
    /// It resets the connection when it has sent this many bytes.
    ResetsAfter(usize),
}

/// A client, and what is on its way to and from it.
#[derive(Debug)]
pub struct Client {
    script: Script,
    /// Bytes of the script that have been sent.
    sent: usize,
    /// What has come of them and nobody has received.
    pub(super) arrived: VecDeque<u8>,
    /// Nothing will come behind `arrived`.
    pub(super) has_ended: bool,
    /// One of both sides has reset the connection.
    pub(super) is_reset: bool,
    /// What was sent to it and it has not read.
    pub(super) unread: VecDeque<u8>,
    /// Nothing will come behind `unread`.
    pub(super) is_ended_for_it: bool,
    read: Vec<u8>,
    has_seen_end: bool,
    acts_at: Duration,
}

/// What a client has seen.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// All bytes that it has read.
    pub read: Vec<u8>,
    /// They were followed by the end.
    pub end: bool,
    /// The connection was reset, by whomever.
    pub reset: bool,
}

impl Client {
    fn new(script: Script) -> Client {
        Client {
            script,
            sent: 0,
            arrived: VecDeque::new(),
            has_ended: false,
            is_reset: false,
            unread: VecDeque::new(),
            is_ended_for_it: false,
            read: Vec::new(),
            has_seen_end: false,
            acts_at: Duration::ZERO,
        }
    }

    /// How many bytes it has read.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read.len() as u64
    }

    fn resets_now(&self) -> bool {
        matches!(self.script.ending, Ending::ResetsAfter(bytes) if self.sent >= bytes.min(self.script.sends.len()))
    }

    fn can_send(&self) -> bool {
        self.sent < self.script.sends.len() && self.arrived.len() < ARRIVED_MAX_BYTES
    }

    fn can_end(&self) -> bool {
        self.sent == self.script.sends.len() && !self.has_ended
    }

    fn can_read(&self) -> bool {
        !self.unread.is_empty() || self.is_ended_for_it && !self.has_seen_end
    }

    fn can_act(&self) -> bool {
        !self.is_reset && (self.can_send() || self.can_end() || self.can_read() || self.resets_now())
    }

    fn act(&mut self, chance: &mut Chance) {
        if self.resets_now() {
            return self.reset();
        }
        if self.can_read() && (chance.one_in(2) || !self.can_send() && !self.can_end()) {
            let bytes = (chance.up_to(STEP_MAX_BYTES) as usize).min(self.unread.len());
            self.read.extend(self.unread.drain(..bytes));
            self.has_seen_end = self.unread.is_empty() && self.is_ended_for_it;
        } else if self.can_send() {
            let unsent = &self.script.sends[self.sent..];
            let most = unsent.len().min(ARRIVED_MAX_BYTES - self.arrived.len());
            let bytes = (chance.up_to(STEP_MAX_BYTES) as usize).min(most);
            self.arrived.extend(&unsent[..bytes]);
            self.sent += bytes;
        } else if self.can_end() {
            self.has_ended = true;
        }
    }

    /// Loses what is on its way.
    pub(super) fn reset(&mut self) {
        self.is_reset = true;
        self.arrived.clear();
        self.unread.clear();
    }
}

/// All that is outside of the server.
pub struct World {
    pub(super) chance: Chance,
    /// Time that has passed.
    pub(super) now: Duration,
    pub(super) clients: Vec<Client>,
    /// Clients that have not been accepted.
    pub(super) waiting: VecDeque<RawFd>,
    /// All that has happened, as one number.
    trace: u64,
}

impl World {
    /// Notes that something has happened.
    pub(super) fn note(&mut self, what: u64, to: u64, how_much: u64) {
        let mut mixer = Chance::new(self.trace ^ what << 56 ^ to << 40 ^ how_much);
        self.trace = mixer.next() ^ self.now.as_nanos() as u64;
    }

    /// Lets clients do something for which it is time; some of them, in any order. Returns whether one did.
    pub(super) fn act(&mut self) -> bool {
        let mut order: Vec<usize> = (0..self.clients.len()).collect();
        self.chance.shuffle(&mut order);
        let mut has_acted = false;
        for at in order {
            let client = &mut self.clients[at];
            if client.acts_at > self.now || !client.can_act() {
                continue;
            }
            client.act(&mut self.chance);
            let pause = if self.chance.one_in(2) { 0 } else { self.chance.up_to(PAUSE_MAX_US) };
            client.acts_at = self.now + Duration::from_micros(pause * client.script.slowness);
            let (sent, read) = (client.sent as u64, client.read.len() as u64);
            self.note(1, at as u64, sent << 20 ^ read);
            has_acted = true;
        }
        has_acted
    }

    /// When the next client does something.
    pub(super) fn next_act(&self) -> Option<Duration> {
        let able = self.clients.iter().filter(|client| client.can_act());
        able.map(|client| client.acts_at.max(self.now)).min()
    }
}

/// A world of clients for a reactor without a kernel. Whatever can happen in one order or another, happens in an order that the
/// seed decides, so a history can be had again.
#[derive(Clone)]
pub struct Simulation {
    pub(super) world: Rc<RefCell<World>>,
}

impl Simulation {
    /// A world without clients.
    pub fn new(seed: u64) -> Simulation {
        let world = World {
            chance: Chance::new(seed),
            now: Duration::ZERO,
            clients: Vec::new(),
            waiting: VecDeque::new(),
            trace: seed,
        };
        Simulation { world: Rc::new(RefCell::new(world)) }
    }

    /// Adds a client that waits to be accepted; returns its descriptor, which is good in this world alone.
    pub fn connect(&self, script: Script) -> RawFd {
        let mut world = self.world.borrow_mut();
        world.clients.push(Client::new(script));
        let descriptor = (world.clients.len() - 1) as RawFd;
        world.waiting.push_back(descriptor);
        descriptor
    }

    /// What a client has seen.
    pub fn seen(&self, descriptor: RawFd) -> Seen {
        let world = self.world.borrow();
        let client = &world.clients[descriptor as usize];
        Seen { read: client.read.clone(), end: client.has_seen_end, reset: client.is_reset }
    }

    /// All that has happened, as one number: two histories that are alike have the same.
    pub fn trace(&self) -> u64 {
        self.world.borrow().trace
    }

    /// Chance for those who play with it.
    pub fn below(&self, bound: u64) -> u64 {
        self.world.borrow_mut().chance.below(bound)
    }
}
