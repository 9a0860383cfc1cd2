//! Clients that do harm without a token, many at a time, from few threads.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::client::get;
use crate::cpu;

/// Threads of each kind: a client does little, and mostly waits.
const THREADS: usize = 4;
/// Between two looks at a client.
const TURN: Duration = Duration::from_millis(20);
/// Between two connections of one client that reconnects: 400 of them open 2,000 a second.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Between two bytes of a client that sends one at a time.
const BYTE_PAUSE: Duration = Duration::from_secs(1);
/// Between the end of a connection and the next, for all other kinds.
const RETURN_PAUSE: Duration = Duration::from_secs(1);
/// Most bytes that a client gives its system in one call: longer ones keep the load's CPU from an honest client meanwhile.
const SEND_MAX_BYTES: usize = 64 * 1024;
/// Body of an upload, in bytes.
const UPLOAD_BYTES: usize = 5 * 1024 * 1024;
/// Body that does not end: what is announced, which the server takes, and what comes of it.
const BODY_BYTES: usize = 65_536;
const BODY_SENT_BYTES: usize = 60_000;
/// Requests for the whole list of a client that does not read, and of one that ends at once.
const UNREAD_LISTS: usize = 200;
const HALF_CLOSED_LISTS: usize = 8;
/// Requests for nothing that a client sends again and again.
const PIPELINED: usize = 400;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Asks for lists, says that it has ended, and reads nothing.
    HalfClosed,
    /// Asks for lists, and reads nothing.
    NeverReading,
    /// Sends a byte of its request each second.
    OneByte,
    /// Sends most of a body, and no more.
    UnfinishedBody,
    /// Asks for what is not there, again and again, and reads nothing.
    #[value(name = "pipelined-404")]
    Pipelined404,
    /// Sends 5 MB without a token, and reads the refusal when it has sent all.
    Upload,
    /// Connects, asks, leaves, and comes again.
    Reconnecting,
}

impl std::fmt::Display for Kind {
    /// As the command line names it.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value();
        formatter.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] = [
        Kind::HalfClosed,
        Kind::NeverReading,
        Kind::OneByte,
        Kind::UnfinishedBody,
        Kind::Pipelined404,
        Kind::Upload,
        Kind::Reconnecting,
    ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::HalfClosed => "half-closed and unread",
            Kind::NeverReading => "never reading",
            Kind::OneByte => "one byte a second",
            Kind::UnfinishedBody => "unfinished bodies",
            Kind::Pipelined404 => "pipelined 404s",
            Kind::Upload => "5 MB uploads",
            Kind::Reconnecting => "reconnecting",
        }
    }

    /// All that a client of this kind sends over one connection.
    fn bytes(self) -> Vec<u8> {
        let post = |length: usize| {
            format!(
                "POST /todos HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            )
            .into_bytes()
        };
        let with_body = |mut head: Vec<u8>, bytes: usize| {
            head.resize(head.len() + bytes, b' ');
            head
        };
        match self {
            Kind::HalfClosed => get("/todos").repeat(HALF_CLOSED_LISTS),
            Kind::NeverReading => get("/todos").repeat(UNREAD_LISTS),
            Kind::OneByte => format!("GET /todos HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(4096)).into_bytes(),
            Kind::UnfinishedBody => with_body(post(BODY_BYTES), BODY_SENT_BYTES),
            Kind::Pipelined404 => get("/nowhere").repeat(PIPELINED),
            Kind::Upload => with_body(post(UPLOAD_BYTES), UPLOAD_BYTES),
            Kind::Reconnecting => get("/health"),
        }
    }
}

/// Lets `count` clients of a kind act until `stop`; returns how many connections they made.
///
/// # Errors
/// A thread cannot be started, or no connection at all came about.
pub fn attack(kind: Kind, count: usize, address: SocketAddr, stop: &AtomicBool) -> io::Result<u64> {
    let bytes = kind.bytes();
    let connections = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let clients = count / THREADS + usize::from(thread < count % THREADS);
                let bytes = &bytes;
                scope.spawn(move || {
                    give_way();
                    let mut clients: Vec<Attacker> = (0..clients).map(|_| Attacker::new(kind)).collect();
                    while !stop.load(Ordering::Relaxed) {
                        let now = Instant::now();
                        clients.iter_mut().for_each(|client| client.act(address, bytes, now));
                        std::thread::sleep(TURN);
                    }
                    clients.iter().map(|client| client.connections).sum::<u64>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).sum()
    });
    if connections == 0 { Err(io::Error::other("no attacker could connect")) } else { Ok(connections) }
}

/// Has this thread run only when nobody else wants its CPU (`SCHED_IDLE`): an honest client of the same load must wait for the
/// server, and not for attackers to leave the load's CPU. Even the lowest priority beside it would have its turn of a
/// millisecond or more.
fn give_way() {
    // Thread 0 is this one, and everyone may do it (sched_setscheduler(2)).
    let _ = cpu::run_when_idle(0);
}

/// One client.
struct Attacker {
    kind: Kind,
    stream: Option<TcpStream>,
    sent: usize,
    /// When it acts again.
    next_at: Instant,
    connections: u64,
}

impl Attacker {
    fn new(kind: Kind) -> Attacker {
        Attacker { kind, stream: None, sent: 0, next_at: Instant::now(), connections: 0 }
    }

    fn act(&mut self, address: SocketAddr, bytes: &[u8], now: Instant) {
        if now < self.next_at {
            return;
        }
        let Some(stream) = &mut self.stream else {
            // Refused, or no port is free: it comes again.
            self.next_at = now + RETURN_PAUSE;
            if let Ok(stream) = TcpStream::connect(address)
                && stream.set_nonblocking(true).is_ok()
            {
                (self.stream, self.sent, self.next_at) = (Some(stream), 0, now);
                self.connections += 1;
            }
            return;
        };
        match Attacker::advance(self.kind, stream, &mut self.sent, bytes) {
            Ok(pause) => self.next_at = now + pause,
            // The server, or the client itself, has had enough.
            Err(_) => {
                self.stream = None;
                self.next_at = now + if self.kind == Kind::Reconnecting { RECONNECT_PAUSE } else { RETURN_PAUSE };
            }
        }
    }

    /// Goes on as far as the socket lets it; returns how long it waits then.
    fn advance(kind: Kind, stream: &mut TcpStream, sent: &mut usize, bytes: &[u8]) -> io::Result<Duration> {
        let send_max = if kind == Kind::OneByte { *sent + 1 } else { bytes.len() };
        while *sent < send_max.min(bytes.len()) {
            let end = send_max.min(*sent + SEND_MAX_BYTES);
            match stream.write(&bytes[*sent..end]) {
                Ok(length) => *sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if *sent == bytes.len() && kind == Kind::HalfClosed {
                stream.shutdown(Shutdown::Write)?;
            }
        }
        let is_sent = *sent == bytes.len();
        match kind {
            Kind::Pipelined404 if is_sent => *sent = 0,
            Kind::Upload | Kind::Reconnecting if is_sent => {
                let mut answer = [0; 1024];
                if would_block(stream.read(&mut answer))?.is_some() {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
            // It notices that it was closed, and takes nothing.
            Kind::HalfClosed | Kind::NeverReading | Kind::UnfinishedBody | Kind::OneByte | Kind::Pipelined404 => {
                if let Some(error) = stream.take_error()? {
                    return Err(error);
                }
                if kind != Kind::NeverReading && would_block(stream.peek(&mut [0]))? == Some(0) {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
            Kind::Upload | Kind::Reconnecting => {}
        }
        Ok(if kind == Kind::OneByte { BYTE_PAUSE } else { TURN })
    }
}

/// `None` while nothing has come.
fn would_block(received: io::Result<usize>) -> io::Result<Option<usize>> {
    match received {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn each_kind_connects_and_sends_what_it_should() {
        for kind in Kind::ALL {
            let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
            let address = listener.local_addr().expect("bound");
            let (stop, expected) = (AtomicBool::new(false), kind.bytes());
            std::thread::scope(|scope| {
                let attack = scope.spawn(|| attack(kind, 2, address, &stop));
                let (mut stream, _) = listener.accept().expect("it comes");
                let wanted = if kind == Kind::OneByte { 2 } else { expected.len() };
                let mut received = vec![0; wanted];
                stream.read_exact(&mut received).expect("it sends");
                assert_eq!(received, expected[..wanted], "{kind:?}");
                if kind == Kind::HalfClosed {
                    assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
                }
                stop.store(true, Ordering::Relaxed);
                assert!(attack.join().expect("no panic").expect("connections") >= 1);
            });
        }
    }
}
