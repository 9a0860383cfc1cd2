//! Sockets without a kernel: a virtual clock, clients that follow scripts, and one seed, which orders what can come in any order.
//!
//! It does all that the contract of [`Backend`] allows, and more often than a kernel: sends are cut short, what comes is split
//! anywhere, buffers run out, clients read slowly or reset. When nobody can do anything any more, [`Backend::turn`] fails, so
//! that a task that was not woken is found at once.

mod world;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

pub use self::world::{Chance, Ending, Script, Seen, Simulation};
use super::{Backend, Slot, UNREAD_MAX_BYTES};
use crate::FastPath;
use crate::pieces::Pieces;
use crate::remote::Remote;
use crate::task::{NOBODY, TaskId, current, make_ready};
use crate::transfer::Bytes;
use crate::transfer::{SendManner, Unsent};

/// Most bytes that a socket keeps of what its client has not read; how much it is differs from send to send.
const UNSENT_MAX_BYTES: u64 = 32 * 1024;
/// Most bytes of one receive.
const BUFFER_MAX_BYTES: u64 = 4096;
/// Most buffers of one turn; often it is one.
const BUFFERS_MAX: u64 = 8;
/// Longest turn, in microseconds.
const TURN_MAX_US: u64 = 100;

/// When the world begins, by the clock on the wall, since 1970: in January of 2027.
const BEGAN_AT: Duration = Duration::from_secs(1_800_000_000);

/// How a send stands.
enum Sending {
    No,
    Pieces(Box<Pieces>, SendManner),
    Sent(io::Result<usize>, Box<Pieces>),
    Shared(Rc<[u8]>, usize),
    Unsent(Unsent),
}

struct Connection {
    /// Its number in the world.
    client: usize,
    task: TaskId,
    is_open: bool,
    is_receiving: bool,
    may_be_answered: bool,
    is_receive_shut: bool,
    is_send_shut: bool,
    idle_until: u64,
    received: Vec<u8>,
    end: Option<i32>,
    sending: Sending,
}

/// A backend without a kernel.
pub struct Simulated {
    simulation: Simulation,
    remote: Arc<Remote>,
    began_at: Instant,
    connections: Vec<Connection>,
    free: Vec<Slot>,
    /// Received bytes that somebody has.
    lent: isize,
    /// Something has been asked for that does not wait.
    is_urgent: bool,
    accepting_task: TaskId,
    is_accepting_stopped: bool,
}

impl Simulated {
    /// The server in this world.
    pub fn new(simulation: Simulation, remote: Arc<Remote>) -> Simulated {
        Simulated {
            simulation,
            remote,
            began_at: Instant::now(),
            connections: Vec::new(),
            free: Vec::new(),
            lent: 0,
            is_urgent: false,
            accepting_task: NOBODY,
            is_accepting_stopped: false,
        }
    }

    /// Whether all sockets are closed, and all received bytes have come back, each once.
    pub fn is_at_rest(&self) -> bool {
        self.lent == 0 && self.connections.iter().all(|connection| !connection.is_open)
    }

    fn is_short_of_descriptors(&self) -> bool {
        let world = &mut *self.simulation.world.borrow_mut();
        world.shortage_one_in > 0 && world.chance.one_in(world.shortage_one_in)
    }

    fn of(&mut self, slot: Slot) -> &mut Connection {
        &mut self.connections[slot as usize]
    }

    /// The open sockets, in any order.
    fn open(&self) -> Vec<Slot> {
        let slots = 0..self.connections.len() as Slot;
        let mut open: Vec<Slot> = slots.filter(|slot| self.connections[*slot as usize].is_open).collect();
        self.simulation.world.borrow_mut().chance.shuffle(&mut open);
        open
    }

    /// Hands what is being sent to clients, as far as there is room. Returns whether something has come of it.
    fn send(&mut self) -> bool {
        let mut has_sent = false;
        for slot in self.open() {
            let connection = &mut self.connections[slot as usize];
            let world = &mut *self.simulation.world.borrow_mut();
            let (unsent_bytes, is_patient) = match &connection.sending {
                Sending::Pieces(pieces, manner) => (pieces.unsent_bytes(), *manner == SendManner::Patient),
                Sending::Shared(_, length) => (*length, false),
                Sending::No | Sending::Sent(..) | Sending::Unsent(_) => continue,
            };
            let now = world.now;
            let client = &mut world.clients[connection.client];
            let is_broken = client.is_reset || connection.is_send_shut;
            let room = (world.chance.up_to(UNSENT_MAX_BYTES) as usize).saturating_sub(client.unread.len());
            let sent =
                if is_broken { Err(io::Error::from_raw_os_error(libc::EPIPE)) } else { Ok(room.min(unsent_bytes)) };
            if is_patient && sent.as_ref().is_ok_and(|sent| *sent == 0) {
                continue;
            }
            let bytes = *sent.as_ref().unwrap_or(&0);
            connection.sending = match std::mem::replace(&mut connection.sending, Sending::No) {
                Sending::Pieces(pieces, _) => {
                    client.serve(pieces.unsent().flatten().take(bytes), now);
                    Sending::Sent(sent, pieces)
                }
                Sending::Shared(shared, length) => {
                    client.serve(&shared[..bytes], now);
                    match sent {
                        Ok(sent) if sent == length => Sending::No,
                        sent => Sending::Unsent(Unsent { bytes: shared, length, sent }),
                    }
                }
                other => other,
            };
            world.note(2, u64::from(slot), bytes as u64);
            make_ready(connection.task);
            has_sent = true;
        }
        has_sent
    }

    /// Receives what has come, as far as there are buffers. Returns whether something has come of it.
    fn receive(&mut self, fast_path: Option<&dyn FastPath>) -> bool {
        let mut has_received = false;
        let mut buffers = self.simulation.world.borrow_mut().chance.up_to(BUFFERS_MAX);
        for slot in self.open() {
            let connection = &mut self.connections[slot as usize];
            let mut world = self.simulation.world.borrow_mut();
            let world = &mut *world;
            let client = &mut world.clients[connection.client];
            let is_full = connection.received.len() >= UNREAD_MAX_BYTES;
            if !connection.is_receiving || connection.end.is_some() {
                continue;
            }
            if client.is_reset {
                connection.end = Some(libc::ECONNRESET);
            } else if connection.is_receive_shut || client.has_ended && client.arrived.is_empty() {
                connection.end = Some(0);
            } else if client.arrived.is_empty() || is_full || buffers == 0 {
                continue;
            } else {
                buffers -= 1;
                let bytes = (world.chance.up_to(BUFFER_MAX_BYTES) as usize).min(client.arrived.len());
                let bytes: Vec<u8> = client.arrived.drain(..bytes).collect();
                world.note(3, u64::from(slot), bytes.len() as u64);
                has_received = true;
                let may_be_answered = connection.may_be_answered && matches!(connection.sending, Sending::No);
                let answer = fast_path.filter(|_| may_be_answered).and_then(|path| Some((path, path.answer(&bytes)?)));
                if let Some((path, (shared, length))) = answer {
                    connection.idle_until = path.idle_until();
                    connection.sending = Sending::Shared(shared, length);
                    continue;
                }
                connection.received.extend(bytes);
            }
            connection.may_be_answered = false;
            has_received = true;
            make_ready(connection.task);
        }
        has_received
    }

    /// Whether there are bytes, or an end, for a socket that receives: the buffers did not suffice.
    fn has_more(&self) -> bool {
        let world = self.simulation.world.borrow();
        self.connections.iter().any(|connection| {
            let client = &world.clients[connection.client];
            let has_something = client.is_reset || client.has_ended || !client.arrived.is_empty();
            let can_take = connection.received.len() < UNREAD_MAX_BYTES && connection.end.is_none();
            connection.is_open && connection.is_receiving && can_take && has_something
        })
    }

    /// Whether a send waits for nothing but chance.
    fn has_room(&self) -> bool {
        let world = self.simulation.world.borrow();
        self.connections.iter().any(|connection| {
            let unread = world.clients[connection.client].unread.len();
            connection.is_open
                && matches!(connection.sending, Sending::Pieces(..))
                && unread < UNSENT_MAX_BYTES as usize
        })
    }
}

impl Backend for Simulated {
    fn add(&mut self, descriptor: RawFd) -> io::Result<Slot> {
        if self.is_short_of_descriptors() {
            self.simulation.world.borrow_mut().clients[descriptor as usize].is_refused = true;
            self.close_detached(descriptor);
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let connection = Connection {
            client: descriptor as usize,
            task: NOBODY,
            is_open: true,
            is_receiving: false,
            may_be_answered: false,
            is_receive_shut: false,
            is_send_shut: false,
            idle_until: 0,
            received: Vec::new(),
            end: None,
            sending: Sending::No,
        };
        if let Some(slot) = self.free.pop() {
            *self.of(slot) = connection;
            return Ok(slot);
        }
        self.connections.push(connection);
        Ok((self.connections.len() - 1) as Slot)
    }

    fn close(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot as usize];
        let mut world = self.simulation.world.borrow_mut();
        let now = world.now;
        world.clients[connection.client].close(connection.received.is_empty(), now);
        connection.is_open = false;
        connection.task = NOBODY;
        connection.sending = Sending::No;
        self.free.push(slot);
    }

    fn poll_receive(&mut self, slot: Slot, may_be_answered: bool) -> Poll<io::Result<Bytes>> {
        let connection = &mut self.connections[slot as usize];
        connection.task = current();
        connection.may_be_answered = may_be_answered && connection.received.is_empty();
        if matches!(connection.sending, Sending::Shared(..) | Sending::Unsent(_)) {
            return Poll::Pending;
        }
        if !connection.received.is_empty() {
            let bytes = std::mem::take(&mut connection.received);
            let length = bytes.len();
            self.lent += 1;
            return Poll::Ready(Ok(Bytes::Own(bytes, length)));
        }
        match connection.end {
            Some(0) => return Poll::Ready(Ok(Bytes::None)),
            Some(error) => return Poll::Ready(Err(io::Error::from_raw_os_error(error))),
            None => connection.is_receiving = true,
        }
        Poll::Pending
    }

    fn give_back(&mut self, _: Bytes) {
        self.lent -= if self.simulation.world.borrow().gives_back_twice { 2 } else { 1 };
    }

    fn has_received(&self, slot: Slot) -> bool {
        let connection = &self.connections[slot as usize];
        let client = &self.simulation.world.borrow().clients[connection.client];
        !connection.received.is_empty() || connection.end.is_some() || !client.arrived.is_empty()
    }

    fn take_idle_until(&mut self, slot: Slot) -> u64 {
        std::mem::take(&mut self.of(slot).idle_until)
    }

    fn begin_send(&mut self, slot: Slot, pieces: Box<Pieces>, manner: SendManner) {
        self.is_urgent |= manner == SendManner::Urgent;
        let connection = self.of(slot);
        connection.task = current();
        assert!(matches!(connection.sending, Sending::No), "one send at a time");
        connection.sending = Sending::Pieces(pieces, manner);
    }

    fn poll_sent(&mut self, slot: Slot) -> Poll<(io::Result<usize>, Box<Pieces>)> {
        let connection = self.of(slot);
        connection.task = current();
        match std::mem::replace(&mut connection.sending, Sending::No) {
            Sending::Sent(sent, pieces) => Poll::Ready((sent, pieces)),
            other => {
                connection.sending = other;
                Poll::Pending
            }
        }
    }

    fn send_shared(&mut self, slot: Slot, bytes: Rc<[u8]>, length: usize) {
        let connection = self.of(slot);
        assert!(matches!(connection.sending, Sending::No), "one send at a time");
        connection.sending = Sending::Shared(bytes, length);
    }

    fn take_unsent(&mut self, slot: Slot) -> Option<Unsent> {
        let connection = self.of(slot);
        match std::mem::replace(&mut connection.sending, Sending::No) {
            Sending::Unsent(unsent) => Some(unsent),
            other => {
                connection.sending = other;
                None
            }
        }
    }

    fn task(&self, slot: Slot) -> TaskId {
        self.connections[slot as usize].task
    }

    fn poll_accept(&mut self, _: RawFd) -> Poll<io::Result<RawFd>> {
        self.accepting_task = current();
        if self.is_accepting_stopped {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
        }
        if !self.simulation.world.borrow().waiting.is_empty() && self.is_short_of_descriptors() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::EMFILE)));
        }
        let accepted = self.simulation.world.borrow_mut().waiting.pop_front();
        accepted.map_or(Poll::Pending, |descriptor| Poll::Ready(Ok(descriptor)))
    }

    fn accept_completed(&mut self, _: RawFd) -> Option<RawFd> {
        self.simulation.world.borrow_mut().waiting.pop_front()
    }

    fn stop_accepting(&mut self) {
        self.is_accepting_stopped = true;
        make_ready(self.accepting_task);
    }

    fn turn(&mut self, waits: bool, wake_at: Option<Instant>, fast_path: Option<&dyn FastPath>) -> io::Result<bool> {
        let waits = waits && !std::mem::take(&mut self.is_urgent);
        let wake_at = wake_at.map(|at| at.saturating_duration_since(self.began_at));
        let is_time = |now: Duration| wake_at.is_some_and(|at| at <= now);
        loop {
            let has_sent = self.send();
            let has_acted = self.simulation.world.borrow_mut().act();
            let has_received = self.receive(fast_path);
            let is_accepting = self.accepting_task != NOBODY && !self.simulation.world.borrow().waiting.is_empty();
            if is_accepting {
                make_ready(self.accepting_task);
            }
            let mut world = self.simulation.world.borrow_mut();
            let turn_us = world.chance.up_to(TURN_MAX_US);
            world.now += Duration::from_micros(turn_us);
            if has_sent || has_received || is_accepting || !waits || is_time(world.now) || self.remote.is_signalled() {
                return Ok(is_time(world.now));
            }
            if has_acted {
                continue;
            }
            let next = wake_at.into_iter().chain(world.next_act()).min();
            drop(world);
            match next {
                _ if self.has_more() || self.has_room() => {}
                Some(at) => {
                    let mut world = self.simulation.world.borrow_mut();
                    world.now = world.now.max(at);
                }
                None => return Err(io::Error::other("everybody waits, and nothing can happen any more")),
            }
        }
    }

    fn now(&self) -> Instant {
        self.began_at + self.simulation.world.borrow().now
    }

    fn descriptor(&self, _: Slot) -> RawFd {
        -1
    }

    fn peer(&self, slot: Slot) -> Option<SocketAddr> {
        let connection = &self.connections[slot as usize];
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, connection.client as u16)))
    }

    fn shut_down(&mut self, slot: Slot, how: libc::c_int) {
        let connection = &mut self.connections[slot as usize];
        connection.is_receive_shut |= how != libc::SHUT_WR;
        if how != libc::SHUT_RD {
            connection.is_send_shut = true;
            self.simulation.shut_down(connection.client);
        }
        make_ready(connection.task);
    }

    fn unacknowledged_bytes(&self, slot: Slot) -> Option<u64> {
        let connection = &self.connections[slot as usize];
        Some(self.simulation.world.borrow().clients[connection.client].unread.len() as u64)
    }

    fn acknowledged_bytes(&self, slot: Slot) -> u64 {
        let connection = &self.connections[slot as usize];
        self.simulation.world.borrow().clients[connection.client].read_bytes()
    }

    fn lift_send_bound(&mut self, _: Slot, _: usize) {}

    fn segment_bytes(&self, _: Slot) -> u64 {
        1460
    }

    fn drop_unsent_at_close(&mut self, slot: Slot) {
        let connection = &self.connections[slot as usize];
        let mut world = self.simulation.world.borrow_mut();
        let now = world.now;
        world.clients[connection.client].reset(now);
    }

    fn duplicate(&mut self, slot: Slot) -> io::Result<RawFd> {
        if self.is_short_of_descriptors() {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let client = self.connections[slot as usize].client;
        self.simulation.world.borrow_mut().clients[client].descriptors += 1;
        Ok(client as RawFd)
    }

    fn send_detached(&mut self, descriptor: RawFd, bytes: &[u8]) -> io::Result<usize> {
        let mut world = self.simulation.world.borrow_mut();
        let now = world.now;
        world.clients[descriptor as usize].serve(bytes, now);
        Ok(bytes.len())
    }

    fn shut_down_detached(&mut self, descriptor: RawFd, how: libc::c_int) {
        if how != libc::SHUT_RD {
            self.simulation.shut_down(descriptor as usize);
        }
    }

    fn drop_received(&mut self, descriptor: RawFd, max_bytes: usize) -> io::Result<usize> {
        let client = &mut self.simulation.world.borrow_mut().clients[descriptor as usize];
        match client.arrived.len().min(max_bytes) {
            _ if client.is_reset => Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
            0 if !client.has_ended => Err(io::ErrorKind::WouldBlock.into()),
            dropped => {
                client.arrived.drain(..dropped);
                Ok(dropped)
            }
        }
    }

    fn close_detached(&mut self, descriptor: RawFd) {
        let mut world = self.simulation.world.borrow_mut();
        let now = world.now;
        world.clients[descriptor as usize].close(true, now);
    }

    fn wall_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + BEGAN_AT + self.simulation.world.borrow().now
    }

    fn fill_random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let chance = &mut self.simulation.world.borrow_mut().chance;
        bytes.fill_with(|| chance.below(256) as u8);
        Ok(())
    }
}
