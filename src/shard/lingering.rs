//! Sockets that have had their last answer, and whose clients still send: the rest of an upload that was refused, mostly.
//!
//! Most clients write all that they have, and read only then. Were the socket closed meanwhile, the kernel would answer what
//! still comes with a reset, which overtakes the answer (RFC 9112 section 9.6); and a proxy would take this server for a
//! broken one. So what comes is dropped, in the kernel and without a copy, at a bounded rate: a flood waits in the client's own
//! buffers. Silence ends it, and so does its time.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::Detached;

use super::Shard;
use super::answer::refuse_connection;
use super::places::{Place, Places};
use crate::limits::{
    LINGER_LOOK_MIN_BYTES, LINGER_MAX_MS, LINGER_PART_MIN_BYTES, LINGER_PAUSE_MAX_MS, LINGER_SILENCE_MS,
    LINGER_TURN_MAX_BYTES, LINGER_TURN_MS,
};

/// Each gets a fourth of what a turn may drop, where no more than four send.
const SHARE_MIN_PARTS: usize = 4;
/// Sockets that are looked at before others have the thread: each look is a system call.
const LOOKS_MAX: usize = 64;

/// The sockets of a shard.
pub struct Lingering {
    /// Those that have lingered longest stand first, which is the order of their numbers.
    sockets: VecDeque<LingeringSocket>,
    /// The process's places for them.
    places: Arc<Places>,
    /// Sockets that have ever been here.
    admitted: u64,
    /// The number of the socket that is looked at next; behind the last one comes the first.
    next: u64,
    /// Sockets that this turn has still to look at, and bytes that it may still drop.
    unseen: usize,
    allowance: usize,
    /// Sockets of this turn, and of the one before, of which something was dropped.
    sending: usize,
    were_sending: usize,
}

struct LingeringSocket {
    number: u64,
    connection: Detached,
    began_at: Instant,
    heard_at: Instant,
    /// When it is looked at next: those that send nothing are looked at ever less.
    look_at: Instant,
    pause: Duration,
    _place: Place,
}

/// What a look at a socket has come to.
enum Looked {
    Nothing,
    Dropped(usize),
    Ended,
}

impl Lingering {
    /// No sockets; they take these places.
    pub fn new(places: Arc<Places>) -> Lingering {
        Lingering {
            sockets: VecDeque::new(),
            places,
            admitted: 0,
            next: 0,
            unseen: 0,
            allowance: 0,
            sending: 0,
            were_sending: 0,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Lets a socket linger. Where no place is left, the one that has had one longest loses it: an honest client's rest comes
    /// soon. Returns how many sockets were closed for that, this one among them where the others are on other shards.
    pub fn admit(&mut self, connection: Detached, now: Instant) -> usize {
        let mut place = self.places.take();
        let closed = usize::from(place.is_none());
        if place.is_none() && self.sockets.pop_front().is_some() {
            place = self.places.take();
        }
        if let Some(place) = place {
            let (heard_at, pause, number) = (now, Duration::from_millis(LINGER_TURN_MS), self.admitted);
            self.admitted += 1;
            let socket =
                LingeringSocket { number, connection, began_at: now, heard_at, look_at: now, pause, _place: place };
            self.sockets.push_back(socket);
        }
        closed
    }

    /// Closes those that have had their time, and begins a turn, in which each of the others is looked at once as long as the turn
    /// may drop something. It goes on behind the socket that was the last of the turn before.
    pub fn begin_turn(&mut self, now: Instant) {
        let longest = Duration::from_millis(LINGER_MAX_MS);
        while self.sockets.front().is_some_and(|socket| now.saturating_duration_since(socket.began_at) >= longest) {
            self.sockets.pop_front();
        }
        self.unseen = self.sockets.len();
        self.allowance = LINGER_TURN_MAX_BYTES;
        self.were_sending = std::mem::take(&mut self.sending);
    }

    /// Drops a part of what may be dropped in this turn, and closes those that have ended or fallen silent. Returns whether more is
    /// left of the turn.
    pub fn drop_some(&mut self, now: Instant) -> bool {
        let fair = LINGER_TURN_MAX_BYTES / self.were_sending.max(SHARE_MIN_PARTS);
        let share = fair.max(LINGER_LOOK_MIN_BYTES);
        let (mut dropped, mut looks) = (0, 0);
        while self.unseen > 0 && self.allowance > 0 && dropped < LINGER_PART_MIN_BYTES && looks < LOOKS_MAX {
            self.unseen -= 1;
            let mut at = self.sockets.partition_point(|socket| socket.number < self.next);
            if at == self.sockets.len() {
                at = 0;
            }
            let Some(socket) = self.sockets.get_mut(at) else { break };
            self.next = socket.number + 1;
            if socket.look_at > now {
                continue;
            }
            looks += 1;
            match look(&socket.connection, share.min(self.allowance)) {
                Looked::Ended => {
                    self.sockets.remove(at);
                }
                Looked::Dropped(bytes) => {
                    self.allowance -= bytes;
                    dropped += bytes;
                    self.sending += 1;
                    socket.hear(now);
                }
                Looked::Nothing if socket.is_silent(now) => {
                    self.sockets.remove(at);
                }
                Looked::Nothing => socket.wait_longer(now),
            }
        }
        self.unseen > 0 && self.allowance > 0
    }
}

impl LingeringSocket {
    /// It has sent something.
    fn hear(&mut self, now: Instant) {
        self.heard_at = now;
        self.pause = Duration::from_millis(LINGER_TURN_MS);
        self.look_at = now + self.pause;
    }

    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard_at) >= Duration::from_millis(LINGER_SILENCE_MS)
    }

    fn wait_longer(&mut self, now: Instant) {
        self.pause = (self.pause * 2).min(Duration::from_millis(LINGER_PAUSE_MAX_MS));
        self.look_at = now + self.pause;
    }
}

impl Shard {
    /// Turns a connection away that is one too many. What its client sends is dropped for a while, as its request would reset
    /// the connection otherwise, and with it the answer.
    pub(super) fn refuse(self: &Rc<Shard>, connection: Detached) {
        refuse_connection(self, &connection);
        self.linger(connection);
    }

    /// Drops what still comes from a client that has had its last answer.
    pub(super) fn linger(self: &Rc<Shard>, connection: Detached) {
        let was_empty = self.lingering.borrow().is_empty();
        let closed = self.lingering.borrow_mut().admit(connection, self.clock.now());
        self.metrics.lingering_cut.add(closed as u64);
        if was_empty && !self.lingering.borrow().is_empty() {
            self.reactor.spawn(Rc::clone(self).drop_what_comes());
        }
    }

    async fn drop_what_comes(self: Rc<Shard>) {
        loop {
            let now = self.clock.now();
            self.lingering.borrow_mut().begin_turn(now);
            while self.lingering.borrow_mut().drop_some(now) {
                self.reactor.next_turn().await;
            }
            let lingering = self.lingering.borrow().len();
            self.metrics.connections_lingering.set(lingering as u64);
            if lingering == 0 {
                return;
            }
            self.reactor.sleep(Duration::from_millis(LINGER_TURN_MS)).await;
        }
    }
}

/// Drops at most `max_bytes` of what has come.
fn look(connection: &Detached, max_bytes: usize) -> Looked {
    match connection.drop_received(max_bytes) {
        Ok(0) => Looked::Ended,
        Ok(bytes) => Looked::Dropped(bytes),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Looked::Nothing,
            _ => Looked::Ended,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use reactor::{Driver, Reactor};

    use super::*;

    const TURN: Duration = Duration::from_millis(LINGER_TURN_MS);

    impl Lingering {
        /// A whole turn; returns the bytes that each part of it has dropped.
        fn turn(&mut self, now: Instant) -> Vec<usize> {
            self.begin_turn(now);
            let mut dropped = Vec::new();
            loop {
                let before = self.allowance;
                let has_more = self.drop_some(now);
                dropped.push(before - self.allowance);
                if !has_more {
                    return dropped;
                }
            }
        }
    }

    /// A client, and the socket that lingers for it.
    fn pair() -> (TcpStream, Detached) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (socket, _) = listener.accept().expect("the client has connected");
        client.set_nonblocking(true).expect("a flag can be set");
        let reactor = Reactor::new(Driver::Epoll).expect("epoll");
        (client, Detached::new(&reactor, socket.into()))
    }

    /// Writes what the socket takes.
    fn flood(mut client: &TcpStream) -> usize {
        let mut written = 0;
        while let Ok(bytes) = client.write(&[0; 65536]) {
            written += bytes;
        }
        written
    }

    #[test]
    fn a_client_that_has_sent_all_ends_it() {
        let mut lingering = Lingering::new(Places::new(1));
        let (client, socket) = pair();
        let begun = Instant::now();
        assert_eq!(lingering.admit(socket, begun), 0);
        assert!(flood(&client) > 0);
        drop(client);
        let mut now = begun;
        while !lingering.is_empty() {
            now += TURN;
            lingering.turn(now);
            assert!(now < begun + Duration::from_millis(LINGER_SILENCE_MS), "the end has been seen");
        }
    }

    #[test]
    fn silence_ends_it_and_so_does_time_for_those_who_trickle() {
        let mut lingering = Lingering::new(Places::new(2));
        let (silent, silent_socket) = pair();
        let (mut trickling, trickling_socket) = pair();
        let begun = Instant::now();
        lingering.admit(silent_socket, begun);
        lingering.admit(trickling_socket, begun);
        let (mut now, mut lengths) = (begun, Vec::new());
        while !lingering.is_empty() {
            now += TURN;
            let _ = trickling.write(b"x");
            lingering.turn(now);
            lengths.push(lingering.len());
        }
        let turns_with = |length| lengths.iter().filter(|present| **present == length).count() as u64;
        let silence = turns_with(2) * LINGER_TURN_MS;
        let slack = 2 * LINGER_PAUSE_MAX_MS;
        assert!((LINGER_SILENCE_MS - slack..LINGER_SILENCE_MS + slack).contains(&silence), "{silence} ms");
        assert_eq!((turns_with(2) + turns_with(1) + 1) * LINGER_TURN_MS, LINGER_MAX_MS);
        drop(silent);
    }

    #[test]
    fn a_turn_drops_no_more_than_it_may_and_all_get_their_share() {
        let mut lingering = Lingering::new(Places::new(8));
        let clients: Vec<TcpStream> = (0..8)
            .map(|_| {
                let (client, socket) = pair();
                lingering.admit(socket, Instant::now());
                client
            })
            .collect();
        let mut now = Instant::now();
        let mut written: Vec<usize> = clients.iter().map(flood).collect();
        let buffered: usize = written.iter().sum();
        const TURNS: usize = 20;
        for _ in 0..TURNS {
            now += TURN;
            let dropped = lingering.turn(now);
            let part_max = LINGER_PART_MIN_BYTES + LINGER_TURN_MAX_BYTES / SHARE_MIN_PARTS;
            assert!(dropped.iter().all(|bytes| *bytes < part_max), "{dropped:?}: others wait meanwhile");
            clients.iter().zip(&mut written).for_each(|(client, written)| *written += flood(client));
        }
        let all: usize = written.iter().sum();
        assert!(all <= buffered * 2 + TURNS * LINGER_TURN_MAX_BYTES, "{all} bytes");
        assert_eq!(lingering.len(), 8, "nobody is cut off who sends");
        assert!(written.iter().all(|bytes| *bytes > buffered / 8), "{written:?}");
    }

    #[test]
    fn of_many_that_flood_some_are_dropped_much_of_at_a_time_and_each_has_its_turn() {
        const CLIENTS: usize = 4 * LINGER_TURN_MAX_BYTES / LINGER_LOOK_MIN_BYTES;
        let mut lingering = Lingering::new(Places::new(CLIENTS));
        let mut now = Instant::now();
        let clients: Vec<TcpStream> = (0..CLIENTS)
            .map(|_| {
                let (client, socket) = pair();
                lingering.admit(socket, now);
                client
            })
            .collect();
        clients.iter().for_each(|client| assert!(flood(client) > 2 * LINGER_LOOK_MIN_BYTES));
        let most_at_a_time = LINGER_TURN_MAX_BYTES / LINGER_LOOK_MIN_BYTES;
        // The first turn does not know yet how many send.
        lingering.turn(now);
        for _ in 0..2 * CLIENTS / most_at_a_time {
            now += TURN;
            lingering.turn(now);
            // What came in two parts was looked at twice.
            assert!(lingering.sending <= 2 * most_at_a_time, "{} looks", lingering.sending);
        }
        assert!(lingering.sockets.iter().all(|socket| socket.heard_at > socket.began_at), "somebody had no turn");
        drop(clients);
    }

    #[test]
    fn the_one_that_has_lingered_longest_makes_room() {
        let mut lingering = Lingering::new(Places::new(2));
        let (clients, sockets): (Vec<_>, Vec<_>) = (0..3).map(|_| pair()).unzip();
        let now = Instant::now();
        let closed: Vec<usize> = sockets.into_iter().map(|socket| lingering.admit(socket, now)).collect();
        assert_eq!((closed, lingering.len()), (vec![0, 0, 1], 2));
        clients[0].set_nonblocking(false).expect("a flag can be cleared");
        let mut end = [0];
        assert!(matches!(io::Read::read(&mut &clients[0], &mut end), Ok(0) | Err(_)), "the first was closed");
        // Another shard has none to close but the newcomer.
        let mut other = Lingering::new(Arc::clone(&lingering.places));
        assert_eq!((other.admit(pair().1, now), other.len()), (1, 0));
    }
}
