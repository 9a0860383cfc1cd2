//! Sockets on epoll, where the kernel has no io_uring or forbids it: the same calls as on a ring, made at
//! once, and again when the kernel says that there is something to gain (edge-triggered, epoll(7)).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::{Backend, Slot, UNREAD_MAX_BYTES, tcp};
use crate::FastPath;
use crate::pieces::Pieces;
use crate::task::{NOBODY, TaskId, current, make_ready};
use crate::transfer::Bytes;
use crate::transfer::{SendManner, Unsent};

/// Receives of one connection before others have their turn; io_uring has such a bound in its buffers. A client that sends as
/// fast as it is read would have the thread for itself.
pub const RECEIVES_TURN_MAX: u8 = 4;
/// Events of one wait.
const EVENTS_MAX: usize = 512;
/// What an event names that is no connection.
const LISTENER: u64 = u64::MAX;
const EVENT: u64 = u64::MAX - 1;

struct Connection {
    descriptor: RawFd,
    task: TaskId,
    is_open: bool,
    is_readable: bool,
    is_writable: bool,
    /// The kernel has said that the client has ended, perhaps behind bytes that have not been received.
    has_ended: bool,
    /// The last turn in which it has received, and how often.
    received_in: u64,
    receives: u8,
    /// What is being sent.
    lent: Option<Box<Pieces>>,
    unsent: Option<Box<Unsent>>,
}

/// An epoll instance and its sockets.
pub struct Epoll {
    epoll: OwnedFd,
    event: RawFd,
    connections: Vec<Connection>,
    free: Vec<Slot>,
    /// Turns so far.
    turns: u64,
    /// Who has received so often in this turn that the others come first.
    yielding: Vec<TaskId>,
    events: Vec<libc::epoll_event>,
    /// Where bytes are received, for all connections: an idle one has no buffer.
    received: Vec<u8>,
    listener: Option<RawFd>,
    accepting_task: TaskId,
    is_accepting_stopped: bool,
}

impl Epoll {
    /// An instance that can be woken through the event counter `event`.
    ///
    /// # Errors
    /// There is no descriptor for it.
    pub fn new(event: RawFd) -> io::Result<Epoll> {
        // SAFETY: no pointers.
        let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor has just been made, and nobody else knows it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let new = Epoll {
            epoll,
            event,
            connections: Vec::new(),
            free: Vec::new(),
            turns: 0,
            yielding: Vec::new(),
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX],
            received: vec![0; UNREAD_MAX_BYTES],
            listener: None,
            accepting_task: NOBODY,
            is_accepting_stopped: false,
        };
        new.watch(event, libc::EPOLLIN, EVENT)?;
        Ok(new)
    }

    fn watch(&self, descriptor: RawFd, events: libc::c_int, name: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: name };
        // SAFETY: the event lives through the call.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor, &raw mut event) })?;
        Ok(())
    }

    /// Watches a socket no more, which would go on as long as another descriptor of it is open.
    fn forget(&mut self, slot: Slot) {
        let (epoll, descriptor) = (self.epoll.as_raw_fd(), self.connections[slot as usize].descriptor);
        // SAFETY: no event is needed to delete one (epoll_ctl(2)).
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, descriptor, std::ptr::null_mut()) };
    }

    fn take_event(&self) {
        let mut count: u64 = 0;
        // SAFETY: the pointer and the length are those of `count`. The counter has been raised, so this does not wait.
        unsafe { libc::read(self.event, (&raw mut count).cast(), size_of::<u64>()) };
    }
}

impl Backend for Epoll {
    fn add(&mut self, descriptor: RawFd) -> io::Result<Slot> {
        let connection = Connection {
            descriptor,
            task: NOBODY,
            is_open: true,
            is_readable: true,
            is_writable: true,
            has_ended: false,
            received_in: 0,
            receives: 0,
            lent: None,
            unsent: None,
        };
        let slot = self.free.pop().unwrap_or(self.connections.len() as Slot);
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        if let Err(error) = self.watch(descriptor, events, u64::from(slot)) {
            if (slot as usize) < self.connections.len() {
                self.free.push(slot);
            }
            tcp::close(descriptor);
            return Err(error);
        }
        if slot as usize == self.connections.len() {
            self.connections.push(connection);
        } else {
            self.connections[slot as usize] = connection;
        }
        Ok(slot)
    }

    fn close(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot as usize];
        connection.is_open = false;
        connection.task = NOBODY;
        connection.lent = None;
        connection.unsent = None;
        // The slot is free from here on.
        tcp::close(std::mem::replace(&mut connection.descriptor, -1));
        self.free.push(slot);
    }

    fn poll_receive(&mut self, slot: Slot, _: bool) -> Poll<io::Result<Bytes>> {
        let Epoll { connections, received, turns, yielding, .. } = self;
        let connection = &mut connections[slot as usize];
        connection.task = current();
        if connection.received_in != *turns {
            (connection.received_in, connection.receives) = (*turns, 0);
        }
        while connection.is_readable {
            if connection.receives == RECEIVES_TURN_MAX {
                yielding.push(connection.task);
                return Poll::Pending;
            }
            connection.receives += 1;
            // It is not there while somebody has what was received before.
            received.resize(UNREAD_MAX_BYTES, 0);
            let (bytes, flags) = (received.as_mut_ptr().cast(), libc::MSG_DONTWAIT);
            // SAFETY: the pointer and the length are those of `received`.
            let result = unsafe { libc::recv(connection.descriptor, bytes, received.len(), flags) };
            match usize::try_from(result) {
                Ok(length) => {
                    // What did not fill the buffer was all; more is a new edge, as is the end unless it has been told.
                    connection.is_readable = length == received.len() || length == 0 || connection.has_ended;
                    let bytes = if length > 0 { Bytes::Own(std::mem::take(received), length) } else { Bytes::None };
                    return Poll::Ready(Ok(bytes));
                }
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::WouldBlock => connection.is_readable = false,
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Poll::Ready(Err(error)),
                },
            }
        }
        Poll::Pending
    }

    #[inline]
    fn give_back(&mut self, bytes: Bytes) {
        if let Bytes::Own(buffer, _) = bytes {
            self.received = buffer;
        }
    }

    fn has_received(&self, slot: Slot) -> bool {
        tcp::has_bytes_waiting(self.descriptor(slot))
    }

    fn take_idle_until(&mut self, _: Slot) -> u64 {
        0
    }

    fn begin_send(&mut self, slot: Slot, pieces: Box<Pieces>, _: SendManner) {
        let connection = &mut self.connections[slot as usize];
        debug_assert!(connection.lent.is_none(), "one send at a time");
        connection.lent = Some(pieces);
    }

    fn poll_sent(&mut self, slot: Slot) -> Poll<(io::Result<usize>, Box<Pieces>)> {
        let connection = &mut self.connections[slot as usize];
        connection.task = current();
        let Some(mut pieces) = connection.lent.take() else { return Poll::Pending };
        while connection.is_writable {
            let (message, flags) = (pieces.message(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
            // SAFETY: the message names the pieces, and what they point to lives as long as they do.
            let result = unsafe { libc::sendmsg(connection.descriptor, message, flags) };
            match usize::try_from(result) {
                Ok(sent) => return Poll::Ready((Ok(sent), pieces)),
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::WouldBlock => connection.is_writable = false,
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Poll::Ready((Err(error), pieces)),
                },
            }
        }
        connection.lent = Some(pieces);
        Poll::Pending
    }

    fn send_shared(&mut self, slot: Slot, bytes: Rc<[u8]>, length: usize) {
        let connection = &mut self.connections[slot as usize];
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let text = &bytes[..length];
        // SAFETY: the pointer and the length are those of `text`.
        let sent = unsafe { libc::send(connection.descriptor, text.as_ptr().cast(), length, flags) };
        let sent = match usize::try_from(sent).map_err(|_| io::Error::last_os_error()) {
            Ok(sent) if sent == length => return,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            sent => sent,
        };
        connection.unsent = Some(Box::new(Unsent { bytes, length, sent }));
    }

    fn take_unsent(&mut self, slot: Slot) -> Option<Unsent> {
        self.connections[slot as usize].unsent.take().map(|unsent| *unsent)
    }

    fn task(&self, slot: Slot) -> TaskId {
        self.connections[slot as usize].task
    }

    fn poll_accept(&mut self, listener: RawFd) -> Poll<io::Result<RawFd>> {
        self.accepting_task = current();
        if self.is_accepting_stopped {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
        }
        if self.listener.is_none() {
            if let Err(error) = self.watch(listener, libc::EPOLLIN | libc::EPOLLET, LISTENER) {
                return Poll::Ready(Err(error));
            }
            self.listener = Some(listener);
        }
        match tcp::accept(listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            accepted => Poll::Ready(accepted),
        }
    }

    fn stop_accepting(&mut self) {
        self.is_accepting_stopped = true;
        make_ready(self.accepting_task);
    }

    fn turn(&mut self, waits: bool, wake_at: Option<Instant>, _: Option<&dyn FastPath>) -> io::Result<bool> {
        self.turns += 1;
        let timeout_ms = match (waits && self.yielding.is_empty(), wake_at) {
            (false, _) => 0,
            (true, None) => -1,
            (true, Some(at)) => milliseconds(at.saturating_duration_since(Instant::now())),
        };
        let (events, most) = (self.events.as_mut_ptr(), EVENTS_MAX as libc::c_int);
        // SAFETY: the pointer and the number are those of `events`.
        let ready = match check(unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events, most, timeout_ms) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            ready => ready? as usize,
        };
        self.yielding.drain(..).for_each(make_ready);
        for at in 0..ready {
            let libc::epoll_event { events, u64: name } = self.events[at];
            match name {
                LISTENER => make_ready(self.accepting_task),
                EVENT => self.take_event(),
                slot => {
                    let connection = &mut self.connections[slot as usize];
                    let broken = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
                    let is = |wanted: libc::c_int| events & (wanted as u32 | broken) != 0;
                    let is_readable = is(libc::EPOLLIN | libc::EPOLLRDHUP);
                    let is_writable = is(libc::EPOLLOUT);
                    // An edge comes with all that the socket can do; only what is new is worth waking for.
                    let is_new = is_readable && !connection.is_readable || is_writable && !connection.is_writable;
                    connection.has_ended |= events & (libc::EPOLLRDHUP as u32 | broken) != 0;
                    connection.is_readable |= is_readable;
                    connection.is_writable |= is_writable;
                    if is_new {
                        make_ready(connection.task);
                    }
                }
            }
        }
        Ok(wake_at.is_some())
    }

    fn descriptor(&self, slot: Slot) -> RawFd {
        self.connections[slot as usize].descriptor
    }

    fn duplicate(&mut self, slot: Slot) -> io::Result<RawFd> {
        self.forget(slot);
        tcp::duplicate(self.descriptor(slot))
    }
}

/// Rounded up: a timer that comes early would be waited for again.
fn milliseconds(time: Duration) -> libc::c_int {
    libc::c_int::try_from(time.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for connection in self.connections.iter().filter(|connection| connection.is_open) {
            tcp::close(connection.descriptor);
        }
    }
}
