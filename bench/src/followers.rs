//! A crowd of followers: one thread reads all of their streams, and knows which changes each of them has been told of.
//!
//! A change has one [`MARK`] in its text, which nothing else in a stream has. So the marks of a stream count its changes, whatever
//! its server writes around them.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use crate::epoll::{Epoll, room_for_events};

/// What each change has once.
pub const MARK: u8 = b'~';
/// Bytes of one receive.
const RECEIVE_BYTES: usize = 256 * 1024;
/// Sockets that are looked at in one round.
const EVENTS_MAX: usize = 1024;
/// Followers that connect before their answers are looked at: less than any server's queue.
const CONNECT_AT_ONCE: usize = 256;
/// All have their answer within it.
const CONNECT_MAX: Duration = Duration::from_secs(60);

struct Follower {
    socket: TcpStream,
    has_head: bool,
    /// Changes that it has been told of.
    told: usize,
}

/// A crowd.
pub struct Crowd {
    epoll: Epoll,
    followers: Vec<Option<Follower>>,
    buffer: Vec<u8>,
    events: Vec<libc::epoll_event>,
    heads: usize,
    /// Changes told, to each follower.
    pub deliveries: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Followers that were cut off.
    pub lost: usize,
    /// How many followers have been told of the change of this number.
    reached: Vec<u32>,
    /// When the last of them was told of the change of this number.
    told_all_at: Vec<Instant>,
}

impl Crowd {
    /// Connects `count` followers, each of which sends this request, and waits until all have the head of their answer.
    ///
    /// # Errors
    /// The server refuses one, or does not answer in time.
    pub fn connect(address: SocketAddr, request: &[u8], count: usize) -> io::Result<Crowd> {
        let mut crowd = Crowd {
            epoll: Epoll::new()?,
            followers: Vec::with_capacity(count),
            buffer: vec![0; RECEIVE_BYTES],
            events: room_for_events(EVENTS_MAX),
            heads: 0,
            deliveries: 0,
            bytes: 0,
            lost: 0,
            reached: Vec::new(),
            told_all_at: Vec::new(),
        };
        let give_up_at = Instant::now() + CONNECT_MAX;
        for number in 0..count {
            let mut socket = TcpStream::connect(address)?;
            socket.write_all(request)?;
            socket.set_nonblocking(true)?;
            crowd.epoll.add(socket.as_raw_fd(), libc::EPOLLIN, number as u64)?;
            crowd.followers.push(Some(Follower { socket, has_head: false, told: 0 }));
            let is_last = number + 1 == count;
            while crowd.heads + if is_last { 0 } else { CONNECT_AT_ONCE } < number + 1 {
                crowd.take_in(Duration::from_millis(100))?;
                if crowd.lost > 0 || Instant::now() > give_up_at {
                    let (heads, lost) = (crowd.heads, crowd.lost);
                    return Err(io::Error::other(format!("{heads} of {count} streams began, and {lost} were ended")));
                }
            }
        }
        Ok(crowd)
    }

    /// Takes in what has come, or waits for it for so long.
    ///
    /// # Errors
    /// An answer is no stream.
    pub fn take_in(&mut self, wait: Duration) -> io::Result<()> {
        let timeout_ms = libc::c_int::try_from(wait.as_millis()).unwrap_or(libc::c_int::MAX);
        let mut events = std::mem::take(&mut self.events);
        let ready = self.epoll.wait(&mut events, timeout_ms)?;
        for event in ready {
            self.take_in_one(event.u64 as usize)?;
        }
        self.events = events;
        Ok(())
    }

    fn take_in_one(&mut self, number: usize) -> io::Result<()> {
        let followers = self.followers.len() as u32;
        let Some(follower) = self.followers.get_mut(number).and_then(Option::as_mut) else { return Ok(()) };
        let received = match follower.socket.read(&mut self.buffer) {
            Ok(received) if received > 0 => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            _ => {
                self.lost += 1;
                self.followers[number] = None;
                return Ok(());
            }
        };
        let piece = &self.buffer[..received];
        if !follower.has_head {
            if !piece.starts_with(b"HTTP/1.1 200") {
                return Err(io::Error::other(format!("no stream: {}", String::from_utf8_lossy(piece))));
            }
            follower.has_head = true;
            self.heads += 1;
        }
        self.bytes += received as u64;
        let changes = memchr::memchr_iter(MARK, piece).count();
        if changes == 0 {
            return Ok(());
        }
        let told = follower.told + changes;
        if self.reached.len() < told {
            self.reached.resize(told, 0);
        }
        let now = Instant::now();
        for reached in &mut self.reached[follower.told..told] {
            *reached += 1;
            if *reached == followers {
                // Each follower is told in order, so changes become known to all in order.
                self.told_all_at.push(now);
            }
        }
        follower.told = told;
        self.deliveries += changes as u64;
        Ok(())
    }

    /// When the last follower was told of each change, in the order of the changes; of those that all have been told of.
    pub fn told_all_at(&self) -> &[Instant] {
        &self.told_all_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_change_is_known_to_all_when_the_last_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let server = std::thread::spawn(move || {
            let mut streams: Vec<TcpStream> = (0..3).map(|_| listener.accept().expect("a follower").0).collect();
            for stream in &mut streams {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("it reads");
            }
            streams
        });
        let mut crowd = Crowd::connect(address, b"GET / HTTP/1.1\r\n\r\n", 3).expect("all are served");
        let mut streams = server.join().expect("it accepts three");
        let mut told = |at: usize, text: &[u8], deliveries: u64| {
            streams[at].write_all(text).expect("it reads");
            while crowd.deliveries < deliveries {
                crowd.take_in(Duration::from_secs(10)).expect("they are streams");
            }
            crowd.told_all_at().len()
        };
        assert_eq!(told(0, b"data: ~1\n\ndata: ~2\n\n", 2), 0);
        assert_eq!(told(1, b"data: ~1\n\n", 3), 0);
        assert_eq!(told(2, b"data: ~1\n\ndata: ~2\n\n", 5), 1);
        assert_eq!(told(1, b"data: ~2\n\n", 6), 2);
        drop(streams);
        while crowd.lost < 3 {
            crowd.take_in(Duration::from_secs(10)).expect("they were streams");
        }
    }
}
