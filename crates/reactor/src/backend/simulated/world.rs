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
    /// When it connects.
    pub comes_at: Duration,
    /// What it sends.
    pub sends: Vec<u8>,
    /// Where it is silent, and for how long: behind this many bytes.
    pub silence: Option<(usize, Duration)>,
    /// What it does when it has sent that.
    pub ending: Ending,
    /// How many bytes it reads at most.
    pub reads_max: usize,
    /// How many times longer than others it pauses between two things that it does.
    pub slowness: u64,
}

impl Default for Script {
    fn default() -> Script {
        Script {
            comes_at: Duration::ZERO,
            sends: Vec::new(),
            silence: None,
            ending: Ending::ShutsDown,
            reads_max: usize::MAX,
            slowness: 1,
        }
    }
}

/// How a client ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It ends its side, and reads on.
    ShutsDown,
    /// It waits for the other side to end.
    Stays,
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
    /// Descriptors of the connection in the server; without any it is closed.
    pub(super) descriptors: u32,
    /// The server had no descriptor for it, or watched no more sockets.
    pub(super) is_refused: bool,
    /// When something was last sent to it.
    pub(super) served_at: Duration,
    /// When the server ended its side, or reset the connection.
    pub(super) ended_at: Option<Duration>,
    sent_at: Duration,
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
    /// The server could not take the connection: descriptors were used up.
    pub refused: bool,
    /// How many bytes of its script it has sent.
    pub sent: usize,
    /// When it last sent something.
    pub sent_at: Duration,
    /// When something was last sent to it.
    pub served_at: Duration,
    /// When the server ended its side, or the connection was reset.
    pub ended_at: Option<Duration>,
}

impl Client {
    fn new(script: Script) -> Client {
        let comes_at = script.comes_at;
        Client {
            script,
            sent: 0,
            arrived: VecDeque::new(),
            has_ended: false,
            is_reset: false,
            unread: VecDeque::new(),
            is_ended_for_it: false,
            descriptors: 1,
            is_refused: false,
            served_at: Duration::ZERO,
            ended_at: None,
            sent_at: comes_at,
            read: Vec::new(),
            has_seen_end: false,
            acts_at: comes_at,
        }
    }

    /// How many bytes it has read.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read.len() as u64
    }

    fn resets_now(&self) -> bool {
        matches!(self.script.ending, Ending::ResetsAfter(bytes) if self.sent >= bytes.min(self.script.sends.len()))
    }

    /// Until when it sends nothing, and does not end.
    fn silent_until(&self) -> Duration {
        match self.script.silence {
            Some((at, silence)) if self.sent == at => self.sent_at + silence,
            _ => Duration::ZERO,
        }
    }

    fn can_send(&self) -> bool {
        self.sent < self.script.sends.len() && self.arrived.len() < ARRIVED_MAX_BYTES
    }

    fn can_end(&self) -> bool {
        // One that stays ends when the other side has.
        let wants_to = self.script.ending != Ending::Stays || self.has_seen_end;
        self.sent == self.script.sends.len() && !self.has_ended && wants_to
    }

    fn can_read(&self) -> bool {
        let may_read = self.read.len() < self.script.reads_max;
        may_read && (!self.unread.is_empty() || self.is_ended_for_it && !self.has_seen_end)
    }

    /// Whether there is nothing that it waits for.
    fn is_done(&self) -> bool {
        self.is_reset || self.is_ended_for_it && self.next_act().is_none()
    }

    /// When it does something, if nothing comes before.
    fn next_act(&self) -> Option<Duration> {
        let waits = match () {
            () if self.is_reset => return None,
            () if self.resets_now() || self.can_read() => Duration::ZERO,
            () if self.can_send() || self.can_end() => self.silent_until(),
            () => return None,
        };
        Some(self.acts_at.max(waits))
    }

    fn can_act(&self, now: Duration) -> bool {
        self.next_act().is_some_and(|at| at <= now)
    }

    fn act(&mut self, chance: &mut Chance, now: Duration) {
        if self.resets_now() {
            return self.reset(now);
        }
        let is_silent = self.silent_until() > now;
        if self.can_read() && (is_silent || chance.one_in(2) || !self.can_send() && !self.can_end()) {
            let most = self.unread.len().min(self.script.reads_max - self.read.len());
            let bytes = (chance.up_to(STEP_MAX_BYTES) as usize).min(most);
            self.read.extend(self.unread.drain(..bytes));
            self.has_seen_end = self.unread.is_empty() && self.is_ended_for_it;
        } else if self.can_send() {
            let until = match self.script.silence {
                Some((at, _)) if self.sent < at => at.min(self.script.sends.len()),
                _ => self.script.sends.len(),
            };
            let unsent = &self.script.sends[self.sent..until];
            let most = unsent.len().min(ARRIVED_MAX_BYTES - self.arrived.len());
            let bytes = (chance.up_to(STEP_MAX_BYTES) as usize).min(most);
            self.sent_at = now;
            self.arrived.extend(&unsent[..bytes]);
            self.sent += bytes;
            if self.descriptors == 0 {
                // Nobody is there any more (tcp(7)).
                self.reset(now);
            }
        } else if self.can_end() {
            self.has_ended = true;
        }
    }

    /// The server has sent this.
    pub(super) fn serve<'b>(&mut self, bytes: impl IntoIterator<Item = &'b u8>, now: Duration) {
        self.unread.extend(bytes);
        self.served_at = now;
    }

    /// The server has ended its side.
    pub(super) fn end_for_it(&mut self, now: Duration) {
        self.is_ended_for_it = true;
        self.ended_at.get_or_insert(now);
    }

    /// The server has closed one of its descriptors of the connection, having taken `is_taken` all that came before.
    pub(super) fn close(&mut self, is_taken: bool, now: Duration) {
        self.descriptors -= 1;
        if self.descriptors > 0 {
            return;
        }
        self.end_for_it(now);
        if !is_taken || !self.arrived.is_empty() {
            // What nobody has received resets the connection (tcp(7)).
            self.reset(now);
        }
    }

    /// Loses what is on its way.
    pub(super) fn reset(&mut self, now: Duration) {
        self.is_reset = true;
        self.ended_at.get_or_insert(now);
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
    /// One time in this many, no descriptor is free; 0: there always is one.
    pub(super) shortage_one_in: u64,
    /// A fault on purpose: received bytes go back twice.
    pub(super) gives_back_twice: bool,
    /// Clients that have not come.
    coming: Vec<RawFd>,
    /// Clients that have come and have not been accepted.
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
        let mut has_acted = false;
        for descriptor in std::mem::take(&mut self.coming) {
            if self.clients[descriptor as usize].script.comes_at <= self.now {
                self.waiting.push_back(descriptor);
                has_acted = true;
            } else {
                self.coming.push(descriptor);
            }
        }
        let mut order: Vec<usize> = (0..self.clients.len()).collect();
        self.chance.shuffle(&mut order);
        for at in order {
            let client = &mut self.clients[at];
            if !client.can_act(self.now) {
                continue;
            }
            client.act(&mut self.chance, self.now);
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
        let coming = self.coming.iter().map(|descriptor| self.clients[*descriptor as usize].script.comes_at);
        let acts = self.clients.iter().filter_map(Client::next_act);
        acts.chain(coming).map(|at| at.max(self.now)).min()
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
            coming: Vec::new(),
            waiting: VecDeque::new(),
            shortage_one_in: 0,
            gives_back_twice: false,
            trace: seed,
        };
        Simulation { world: Rc::new(RefCell::new(world)) }
    }

    /// Adds a client that waits to be accepted; returns its descriptor, which is good in this world alone.
    pub fn connect(&self, script: Script) -> RawFd {
        let mut world = self.world.borrow_mut();
        world.clients.push(Client::new(script));
        let descriptor = (world.clients.len() - 1) as RawFd;
        world.coming.push(descriptor);
        descriptor
    }

    /// The server ends its side of a connection.
    pub(super) fn shut_down(&self, client: usize) {
        let mut world = self.world.borrow_mut();
        let now = world.now;
        world.clients[client].end_for_it(now);
    }

    /// What a client has seen.
    pub fn seen(&self, descriptor: RawFd) -> Seen {
        let world = self.world.borrow();
        let client = &world.clients[descriptor as usize];
        Seen {
            read: client.read.clone(),
            end: client.has_seen_end,
            reset: client.is_reset,
            refused: client.is_refused,
            sent: client.sent,
            sent_at: client.sent_at,
            served_at: client.served_at,
            ended_at: client.ended_at,
        }
    }

    /// From now on, no descriptor is free one time in this many.
    pub fn run_short_of_descriptors(&self, one_in: u64) {
        self.world.borrow_mut().shortage_one_in = one_in;
    }

    /// A fault on purpose, for tests of those who judge: from now on, received bytes go back twice.
    pub fn give_back_twice(&self) {
        self.world.borrow_mut().gives_back_twice = true;
    }

    /// Whether all clients have had what they waited for, or have reset their connections.
    pub fn is_over(&self) -> bool {
        self.world.borrow().clients.iter().all(Client::is_done)
    }

    /// Descriptors of connections that the server has.
    pub fn descriptors(&self) -> u32 {
        self.world.borrow().clients.iter().map(|client| client.descriptors).sum()
    }

    /// Time that has passed.
    pub fn elapsed(&self) -> Duration {
        self.world.borrow().now
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
