//! A limit, not a server: an epoll loop on one thread that writes each change that it is told of to all who follow. It keeps
//! nothing for those who come late, knows no deadlines and no caps, and does not look at what it sends; what a server costs more
//! than this is its own work.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use clap::Parser as _;
use million_rps_bench::constant::{choose_congestion_control, lengthen_queue, set_no_delay};
use million_rps_bench::epoll::{Epoll, room_for_events};

/// Events of one wait.
const EVENTS_MAX: usize = 512;
/// Bytes of one receive.
const RECEIVE_BYTES: usize = 32 * 1024;
/// Bytes of what was sent that are kept until all have it, before they are let go of together.
const KEPT_BYTES: usize = 1 << 20;
/// The listener's number among those that are watched; connections have those behind it.
const LISTENER: u64 = 0;

/// What a stream begins with: the fields of ours.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Mon, 30 Nov 2026 12:00:00 GMT\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-store\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
/// A position has so many characters.
const POSITION: &str = "00000000-0000000000000000";

/// A program without settings.
#[derive(Debug, clap::Parser)]
struct Arguments {}

fn main() -> io::Result<()> {
    Arguments::parse();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    lengthen_queue(&listener)?;
    choose_congestion_control(&listener);
    listener.set_nonblocking(true)?;
    writeln!(io::stdout(), "listens on http://{}", listener.local_addr()?)?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), libc::EPOLLIN, LISTENER)?;
    let log = Log { bytes: Vec::new(), begin: 0 };
    Loop { epoll, listener, connections: Vec::new(), log, buffer: vec![0; RECEIVE_BYTES] }.run()
}

/// What has been told, as it is sent.
struct Log {
    bytes: Vec<u8>,
    /// The place of its first byte among all that were ever told.
    begin: u64,
}

impl Log {
    fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }

    fn push(&mut self, change: &str) {
        let event = format!("event: put\ndata: {change}\nid: {POSITION}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        self.bytes.extend_from_slice(chunk.as_bytes());
    }
}

enum Connection {
    /// Tells of changes: what has come of a request.
    Publisher(TcpStream, Vec<u8>),
    /// Follows: the place in the log of what it is sent next, and whether it has no room.
    Follower(TcpStream, u64, bool),
}

struct Loop {
    epoll: Epoll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    log: Log,
    buffer: Vec<u8>,
}

impl Loop {
    fn run(mut self) -> io::Result<()> {
        let mut events = room_for_events(EVENTS_MAX);
        loop {
            let told_before = self.log.end();
            for event in self.epoll.wait(&mut events, -1)? {
                if event.u64 == LISTENER {
                    self.accept()?;
                } else if self.serve(event.u64).is_err() {
                    self.connections[event.u64 as usize - 1] = None;
                }
            }
            if self.log.end() > told_before {
                self.tell_all();
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((socket, _)) = self.listener.accept() {
            socket.set_nonblocking(true)?;
            set_no_delay(socket.as_raw_fd())?;
            self.connections.push(None);
            let number = self.connections.len() as u64;
            self.epoll.add(socket.as_raw_fd(), libc::EPOLLIN, number)?;
            self.connections[number as usize - 1] = Some(Connection::Publisher(socket, Vec::new()));
        }
        Ok(())
    }

    /// Takes in what one has sent, or sends it what it has room for again.
    fn serve(&mut self, number: u64) -> io::Result<()> {
        let Loop { epoll, connections, log, buffer, .. } = self;
        let place = &mut connections[number as usize - 1];
        match place {
            None => Ok(()),
            Some(Connection::Follower(socket, sent, is_full)) => {
                if *is_full {
                    return tell(epoll, number, socket, sent, is_full, log);
                }
                match socket.read(buffer)? {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    _ => Ok(()),
                }
            }
            Some(Connection::Publisher(socket, request)) => {
                let received = socket.read(buffer)?;
                if received == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                request.extend_from_slice(&buffer[..received]);
                let Some(head_end) = memchr::memmem::find(request, b"\r\n\r\n") else { return Ok(()) };
                if request.starts_with(b"GET ") {
                    socket.write_all(HEAD)?;
                    if let Some(Connection::Publisher(socket, _)) = place.take() {
                        *place = Some(Connection::Follower(socket, log.end(), false));
                    }
                    return Ok(());
                }
                let head = String::from_utf8_lossy(&request[..head_end]).into_owned();
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
                let end = head_end + 4 + length.unwrap_or(0);
                if request.len() >= end {
                    log.push(&String::from_utf8_lossy(&request[head_end + 4..end]));
                    request.drain(..end);
                    socket.write_all(ACCEPTED)?;
                }
                Ok(())
            }
        }
    }

    /// Sends each follower what it has not been sent.
    fn tell_all(&mut self) {
        let mut first = self.log.end();
        for (place, number) in self.connections.iter_mut().zip(1..) {
            let Some(Connection::Follower(socket, sent, is_full)) = place else { continue };
            if !*is_full && tell(&self.epoll, number, socket, sent, is_full, &self.log).is_err() {
                *place = None;
                continue;
            }
            first = first.min(*sent);
        }
        let done = (first - self.log.begin) as usize;
        if done >= KEPT_BYTES || done == self.log.bytes.len() {
            self.log.bytes.drain(..done);
            self.log.begin = first;
        }
    }
}

fn tell(
    epoll: &Epoll,
    number: u64,
    socket: &mut TcpStream,
    sent: &mut u64,
    is_full: &mut bool,
    log: &Log,
) -> io::Result<()> {
    let unsent = &log.bytes[(*sent - log.begin) as usize..];
    let taken = match socket.write(unsent) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        taken => taken?,
    };
    *sent += taken as u64;
    let was_full = std::mem::replace(is_full, taken < unsent.len());
    if *is_full != was_full {
        let events = if *is_full { libc::EPOLLOUT } else { libc::EPOLLIN };
        epoll.change(socket.as_raw_fd(), events, number)?;
    }
    Ok(())
}
