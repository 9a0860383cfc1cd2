//! A limit, not a server: an epoll loop on one thread that counts the ends of requests and writes a constant response for
//! each. It parses nothing, looks nothing up, and knows neither deadlines nor caps; what a server costs more than this is
//! its own work.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, RawFd};

use clap::Parser as _;
use million_rps_bench::constant::{ConstantArguments, Repeated, RequestEnds, choose_congestion_control, set_no_delay};
use million_rps_bench::epoll::{Epoll, check, room_for_events};

/// Events of one wait.
const EVENTS_MAX: usize = 512;
/// Bytes of one receive: a pipeline of 64 requests fits.
const RECEIVE_BYTES: usize = 32 * 1024;

fn main() -> io::Result<()> {
    let arguments = ConstantArguments::parse();
    let response = Repeated::new(&arguments.responses()?);
    let listener = arguments.listen()?;
    choose_congestion_control(&listener);
    listener.set_nonblocking(true)?;
    arguments.announce(&listener)?;
    Loop::new(listener, response)?.run()
}

#[derive(Default)]
struct Connection {
    ends: RequestEnds,
    sent_bytes: u64,
    owed_bytes: u64,
    waits_for_room: bool,
}

/// The connection has ended.
struct Ended;

struct Loop {
    epoll: Epoll,
    listener: TcpListener,
    response: Repeated,
    buffer: Vec<u8>,
    /// By descriptor: descriptors are small numbers that are given again and again.
    connections: Vec<Option<Connection>>,
}

impl Loop {
    fn new(listener: TcpListener, response: Repeated) -> io::Result<Loop> {
        let epoll = Epoll::new()?;
        epoll.add(listener.as_raw_fd(), libc::EPOLLIN, listener.as_raw_fd() as u64)?;
        Ok(Loop { epoll, listener, response, buffer: vec![0; RECEIVE_BYTES], connections: Vec::new() })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = room_for_events(EVENTS_MAX);
        loop {
            for event in self.epoll.wait(&mut events, -1)? {
                let descriptor = event.u64 as RawFd;
                if descriptor == self.listener.as_raw_fd() {
                    self.accept_all()?;
                } else if self.serve(descriptor).is_err() {
                    self.connections[descriptor as usize] = None;
                    // SAFETY: the descriptor is the connection's own, and nothing uses it after this.
                    unsafe { libc::close(descriptor) };
                }
            }
        }
    }

    fn accept_all(&mut self) -> io::Result<()> {
        loop {
            let (no_address, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            // SAFETY: the kernel writes no address to null pointers.
            let accepted = unsafe { libc::accept4(self.listener.as_raw_fd(), no_address, no_length, flags) };
            let descriptor = match check(accepted) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => continue,
                accepted => accepted?,
            };
            set_no_delay(descriptor)?;
            self.epoll.add(descriptor, libc::EPOLLIN, descriptor as u64)?;
            let index = descriptor as usize;
            if self.connections.len() <= index {
                self.connections.resize_with(index + 1, || None);
            }
            self.connections[index] = Some(Connection::default());
        }
    }

    /// Receives once, unless the client has to take answers first, and sends what is owed.
    fn serve(&mut self, descriptor: RawFd) -> Result<(), Ended> {
        let connection = self.connections.get_mut(descriptor as usize).and_then(Option::as_mut).ok_or(Ended)?;
        if !connection.waits_for_room {
            // SAFETY: the pointer and the length are those of `buffer`.
            let received = unsafe { libc::recv(descriptor, self.buffer.as_mut_ptr().cast(), self.buffer.len(), 0) };
            match usize::try_from(received) {
                Ok(0) => return Err(Ended),
                Ok(received) => {
                    let ends = connection.ends.count(&self.buffer[..received]);
                    let owed_in_all = connection.sent_bytes + connection.owed_bytes;
                    connection.owed_bytes += self.response.bytes_of_next(ends, owed_in_all);
                }
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Ended),
            }
        }
        while connection.owed_bytes > 0 {
            let piece = self.response.next(connection.sent_bytes, connection.owed_bytes);
            // SAFETY: the pointer and the length are those of `piece`.
            let sent = unsafe { libc::send(descriptor, piece.as_ptr().cast(), piece.len(), libc::MSG_NOSIGNAL) };
            match u64::try_from(sent) {
                Ok(sent) => {
                    connection.sent_bytes += sent;
                    connection.owed_bytes -= sent;
                }
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(Ended),
            }
        }
        let waits_for_room = connection.owed_bytes > 0;
        if waits_for_room != connection.waits_for_room {
            connection.waits_for_room = waits_for_room;
            let events = if waits_for_room { libc::EPOLLOUT } else { libc::EPOLLIN };
            self.epoll.change(descriptor, events, descriptor as u64).map_err(|_| Ended)?;
        }
        Ok(())
    }
}
