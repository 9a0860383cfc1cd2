//! Sockets that have had their last answer, and whose clients still send: the rest of an upload that was refused, mostly.
//!
//! Most clients write all that they have, and read only then. Were the socket closed meanwhile, the kernel would answer what
//! still comes with a reset, which overtakes the answer (RFC 9112 section 9.6); and a proxy would take this server for a
//! broken one. So what comes is dropped, in the kernel and without a copy, at a bounded rate: a flood waits in the client's own
//! buffers. Silence ends it, and so does its time.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shard;
use super::answer::refuse_connection;
use super::places::{Place, Places};
use crate::limits::{LINGER_MAX_MS, LINGER_PAUSE_MAX_MS, LINGER_SILENCE_MS, LINGER_TURN_MAX_BYTES, LINGER_TURN_MS};

/// Each gets at least a fourth of what a turn may drop, however few there are.
const SHARE_MIN_PARTS: usize = 4;

/// The sockets of a shard.
pub struct Lingering {
    /// Those that have lingered longest stand first.
    sockets: VecDeque<LingeringSocket>,
    /// The process's places for them.
    places: Arc<Places>,
    /// Those of them that sent something in the last turn.
    sending: usize,
}

struct LingeringSocket {
    socket: OwnedFd,
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
        Lingering { sockets: VecDeque::new(), places, sending: 0 }
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
    pub fn admit(&mut self, socket: OwnedFd, now: Instant) -> usize {
        let mut place = self.places.take();
        let closed = usize::from(place.is_none());
        if place.is_none() && self.sockets.pop_front().is_some() {
            place = self.places.take();
        }
        if let Some(place) = place {
            let (heard_at, pause) = (now, Duration::from_millis(LINGER_TURN_MS));
            let socket = LingeringSocket { socket, began_at: now, heard_at, look_at: now, pause, _place: place };
            self.sockets.push_back(socket);
        }
        closed
    }

    /// Drops what has come, and closes those that have ended, fallen silent, or had their time.
    pub fn turn(&mut self, now: Instant) {
        let share = LINGER_TURN_MAX_BYTES / self.sending.max(SHARE_MIN_PARTS);
        let mut allowance = LINGER_TURN_MAX_BYTES;
        let mut sending = 0;
        self.sockets.retain_mut(|socket| {
            if now.saturating_duration_since(socket.began_at) >= Duration::from_millis(LINGER_MAX_MS) {
                return false;
            }
            if socket.look_at > now || allowance == 0 {
                return true;
            }
            match look(&socket.socket, share.min(allowance)) {
                Looked::Ended => return false,
                Looked::Dropped(bytes) => {
                    allowance -= bytes;
                    sending += 1;
                    socket.heard_at = now;
                    socket.pause = Duration::from_millis(LINGER_TURN_MS);
                }
                Looked::Nothing => {
                    if now.saturating_duration_since(socket.heard_at) >= Duration::from_millis(LINGER_SILENCE_MS) {
                        return false;
                    }
                    socket.pause = (socket.pause * 2).min(Duration::from_millis(LINGER_PAUSE_MAX_MS));
                }
            }
            socket.look_at = now + socket.pause;
            true
        });
        self.sending = sending;
    }
}

impl Shard {
    /// Turns a connection away that is one too many. What its client sends is dropped for a while, as its request would reset
    /// the connection otherwise, and with it the answer.
    pub(super) fn refuse(self: &Rc<Shard>, socket: OwnedFd) {
        refuse_connection(self, socket.as_raw_fd());
        self.linger(socket);
    }

    /// Drops what still comes from a client that has had its last answer.
    pub(super) fn linger(self: &Rc<Shard>, socket: OwnedFd) {
        let was_empty = self.lingering.borrow().is_empty();
        let closed = self.lingering.borrow_mut().admit(socket, Instant::now());
        self.metrics.lingering_cut.add(closed as u64);
        if was_empty && !self.lingering.borrow().is_empty() {
            self.reactor.spawn(Rc::clone(self).drop_what_comes());
        }
    }

    async fn drop_what_comes(self: Rc<Shard>) {
        loop {
            self.lingering.borrow_mut().turn(Instant::now());
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
fn look(socket: &OwnedFd, max_bytes: usize) -> Looked {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: with MSG_TRUNC a TCP socket drops its bytes and writes nothing (tcp(7)), so there is no buffer; the descriptor
    // is open.
    let result = unsafe { libc::recv(socket.as_raw_fd(), std::ptr::null_mut(), max_bytes, flags) };
    match usize::try_from(result) {
        Ok(0) => Looked::Ended,
        Ok(bytes) => Looked::Dropped(bytes),
        Err(_) => match io::Error::last_os_error().kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Looked::Nothing,
            _ => Looked::Ended,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const TURN: Duration = Duration::from_millis(LINGER_TURN_MS);

    /// A client, and the socket that lingers for it.
    fn pair() -> (TcpStream, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (socket, _) = listener.accept().expect("the client has connected");
        client.set_nonblocking(true).expect("a flag can be set");
        (client, OwnedFd::from(socket))
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
            lingering.turn(now);
            clients.iter().zip(&mut written).for_each(|(client, written)| *written += flood(client));
        }
        let all: usize = written.iter().sum();
        assert!(all <= buffered * 2 + TURNS * LINGER_TURN_MAX_BYTES, "{all} bytes");
        assert_eq!(lingering.len(), 8, "nobody is cut off who sends");
        assert!(written.iter().all(|bytes| *bytes > buffered / 8), "{written:?}");
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
