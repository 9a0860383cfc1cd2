//! Sockets on io_uring.
//!
//! A turn is one system call, in which the kernel takes what has been asked for since the last one and then waits for what
//! comes. What the fast path can answer is answered while completions are looked at, without a task. Four things keep a turn
//! at one call, and short:
//!
//! - **Receives stay.** One receive for as many as come (multishot, Linux 6.0) is armed for each connection as long as it is
//!   open. The kernel takes a buffer of the ring when bytes are there, so an idle connection holds none.
//! - **Sends are expected to succeed.** A short answer almost always fits into the socket. It is tried without waiting, and
//!   only its failure is told (`IOSQE_CQE_SKIP_SUCCESS`, Linux 5.17): the turn then ends with what clients ask next, and not
//!   with the news that an answer has left. When the call returns, what has not failed has been sent.
//! - **Nothing waits in the kernel to send.** There, a send to a client that has ended its side is told "ready" for ever, and
//!   handed to a worker thread in the end. What the socket does not take is tried again when a poll that stays says so.
//! - **Completions are run when this thread waits** (`SINGLE_ISSUER` and `DEFER_TASKRUN`, Linux 6.1), never by interrupting it.

mod accepting;
mod buffers;
mod calls;
mod receiving;
mod sending;
#[cfg(test)]
mod tests;
mod waiting;

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Instant;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use self::accepting::Accepting;
pub use self::buffers::LentBuffer;
#[cfg(test)]
pub use self::buffers::{BUFFER_BYTES, PAGE_BYTES};
use self::buffers::{BufferRing, FilledBuffer};
use self::sending::Sending;
use super::{Slot, tcp};
use crate::FastPath;
use crate::pieces::Pieces;
use crate::prefetch::{LINE_BYTES, prefetch_lines};
use crate::task::{NOBODY, TaskId};

/// Entries of the submission queue; the completion queue is four times as long. One entry is one operation submitted
/// between two waits, and a full queue is flushed, so this bounds the batch, not the connections.
const RING_ENTRIES: u32 = 4096;

/// What an entry's user data says besides the slot.
const RECEIVE: u64 = 0;
const SEND: u64 = 1;
const ACCEPT: u64 = 2;
const TIMEOUT: u64 = 3;
const WAKE: u64 = 4;
const CANCEL: u64 = 5;
const WRITABLE: u64 = 6;
const KIND_BITS: u32 = 3;
const KIND_MASK: u64 = (1 << KIND_BITS) - 1;
/// The bits of a generation that user data has room for: a slot has to be used so many times again before an old completion
/// could be taken for a new one.
const GENERATION_MASK: u32 = (1 << (u64::BITS - u32::BITS - KIND_BITS)) - 1;

/// Threads of the kernel that work for a ring, of each of its two kinds. They are for operations that can neither be done at
/// once nor be waited for; none of these here is such, so the threads are for what the kernel finds to be.
const KERNEL_WORKERS_MAX: u32 = 1;

/// Run what has completed, also when there is nothing to wait for (io_uring_enter(2)).
const ENTER_GETEVENTS: u32 = 1;

/// What the kernel has said of one operation.
#[derive(Debug, Clone, Copy)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

impl From<cqueue::Entry> for Completion {
    #[inline]
    fn from(entry: cqueue::Entry) -> Completion {
        Completion { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() }
    }
}

/// One socket. What a request that is answered at once has to do with stands first, in one line of the CPU's caches: of
/// thousands of connections, that is all that is fetched.
#[repr(C, align(128))]
struct Connection {
    /// See [`FastPath::idle_until`].
    idle_until: u64,
    descriptor: RawFd,
    task: TaskId,
    /// Bytes of the send that is expected to succeed.
    expected_bytes: u32,
    /// Where among [`Uring::shared`] the bytes of the unattended send are.
    shared_at: u32,
    sending: Sending,
    /// How many connections have had this slot before.
    generation: u32,
    /// Operations that the kernel has to complete before the descriptor is closed.
    operations: u8,
    is_open: bool,
    is_receiving: bool,
    is_cancelling: bool,
    /// The last send has filled the socket, and nobody has said since that there is room.
    is_full: bool,
    /// The kernel tells when there is room in the socket.
    is_watched: bool,
    /// The task waits for a request and would have the fast path answer it. Never while bytes are there that it has not taken.
    may_be_answered: bool,
    /// Whether there is a stash.
    has_stash: bool,
    /// A buffer of the ring with bytes that the task has not taken.
    filled: Option<FilledBuffer>,
    /// Why no more bytes come: 0 at the end, or an error.
    end: Option<i32>,
    /// What the kernel reads from during a send.
    lent: Option<Box<Pieces>>,
    /// What an unattended send was of that has failed.
    unsent: Option<Rc<[u8]>>,
    /// Bytes that came while the task was at something else, and did not take them by the end of the turn.
    stash: Vec<u8>,
}

const _: () = assert!(std::mem::offset_of!(Connection, lent) <= LINE_BYTES && size_of::<Connection>() == 128);

impl Connection {
    fn new(descriptor: RawFd, generation: u32) -> Connection {
        Connection {
            idle_until: 0,
            descriptor,
            task: NOBODY,
            expected_bytes: 0,
            shared_at: 0,
            sending: Sending::No,
            generation,
            operations: 0,
            is_open: true,
            is_receiving: false,
            is_cancelling: false,
            is_full: false,
            is_watched: false,
            may_be_answered: false,
            has_stash: false,
            filled: None,
            end: None,
            lent: None,
            unsent: None,
            stash: Vec::new(),
        }
    }

    /// What an entry of this connection is known by.
    #[inline]
    fn user_data(&self, slot: Slot, kind: u64) -> u64 {
        u64::from(self.generation) << (u32::BITS + KIND_BITS) | u64::from(slot) << KIND_BITS | kind
    }

    /// Whether bytes, or the end, wait to be taken.
    #[inline]
    fn has_bytes_or_end(&self) -> bool {
        self.has_stash || self.filled.is_some() || self.end.is_some()
    }

    /// Whether the task has something to do as soon as its send has left. The kernel tells nobody of that, so the system call
    /// that submits the send must not wait for anything else: what the client waits for may be the next answer.
    #[inline]
    fn is_held_up_by_send(&self) -> bool {
        !self.is_receiving || self.has_bytes_or_end()
    }
}

/// A ring and its sockets.
pub struct Uring {
    ring: IoUring,
    buffers: BufferRing,
    connections: Vec<Connection>,
    free: Vec<Slot>,
    /// Who has got bytes in this turn.
    filled: Vec<Slot>,
    /// Sends since the last system call that are told only if they fail.
    expected: Vec<Slot>,
    /// What the unattended ones of them are of.
    shared: Vec<Rc<[u8]>>,
    accepting: Accepting,
    completions: Vec<Completion>,
    /// The earliest timer that the kernel knows.
    timeout_at: Option<Instant>,
    /// Where the kernel reads the time of a timer from, until the next system call.
    timespec: Box<types::Timespec>,
    event: RawFd,
    /// Where the kernel writes the event counter to, and nobody else reads or writes. Leaked, one for each reactor of a process,
    /// because it may do so until the ring has come to its end, which nobody waits for.
    event_count: NonNull<u64>,
    /// A socket has more to do than wait, so the next system call does not wait either.
    is_urgent: bool,
}

/// Makes a ring; the calling thread is the one that may use it.
///
/// # Errors
/// The kernel has no io_uring, forbids it, or is too old for these flags (Linux 6.1).
fn new_ring() -> io::Result<IoUring> {
    IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_cqsize(4 * RING_ENTRIES).build(RING_ENTRIES)
}

impl Uring {
    /// Finds out whether this machine has such rings. The flags came last, with Linux 6.1: a kernel that has them has everything
    /// else that is asked of it.
    ///
    /// # Errors
    /// As [`Uring::new`].
    pub fn probe() -> io::Result<()> {
        new_ring().and_then(|ring| BufferRing::register(&ring)).map(|_ring_and_buffers| ())
    }

    /// A ring that can be woken through the event counter `event`.
    ///
    /// # Errors
    /// The kernel has no io_uring, forbids it, or is too old (before Linux 6.1); or there are no descriptors or no memory for it.
    pub fn new(event: RawFd) -> io::Result<Uring> {
        let ring = new_ring()?;
        ring.submitter().register_iowq_max_workers(&mut [KERNEL_WORKERS_MAX; 2])?;
        let buffers = BufferRing::register(&ring)?;
        let mut uring = Uring {
            ring,
            buffers,
            connections: Vec::new(),
            free: Vec::new(),
            filled: Vec::new(),
            expected: Vec::new(),
            shared: Vec::new(),
            accepting: Accepting::new(),
            completions: Vec::new(),
            timeout_at: None,
            timespec: Box::default(),
            event,
            event_count: NonNull::from(Box::leak(Box::default())),
            is_urgent: false,
        };
        uring.await_event()?;
        Ok(uring)
    }

    /// Inlined and by value, so that an entry is written to its place in the queue field by field, and never read as a whole
    /// just after it was written in parts, which the CPU cannot forward.
    #[inline(always)]
    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: what the entries point to lives until the kernel is done with it: buffers of the ring for ever, what is
        // sent in the slot of its connection or among what is shared, the time in a box of this until it is submitted, the
        // event counter for ever.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_ok() { Ok(()) } else { self.push_to_full(entry) }
    }

    #[cold]
    fn push_to_full(&mut self, entry: squeue::Entry) -> io::Result<()> {
        loop {
            self.ring.submit()?;
            // SAFETY: as in `push`.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
        }
    }

    fn cancel(&mut self, operation: u64) -> io::Result<()> {
        self.push(opcode::AsyncCancel::new(operation).build().user_data(CANCEL))
    }

    /// Adds a socket.
    fn add_socket(&mut self, descriptor: RawFd) -> Slot {
        match self.free.pop() {
            Some(slot) => {
                let connection = self.of(slot);
                *connection = Connection::new(descriptor, connection.generation);
                slot
            }
            None => {
                self.connections.push(Connection::new(descriptor, 0));
                (self.connections.len() - 1) as Slot
            }
        }
    }

    #[inline]
    fn of(&mut self, slot: Slot) -> &mut Connection {
        &mut self.connections[slot as usize]
    }

    /// The slot of what a completion is for; `None` when another connection has it by now.
    #[inline]
    fn slot_of(&self, completion: Completion) -> Option<Slot> {
        let slot = (completion.user_data >> KIND_BITS) as Slot;
        let generation = (completion.user_data >> (u32::BITS + KIND_BITS)) as u32;
        self.connections.get(slot as usize).filter(|connection| connection.generation == generation).map(|_| slot)
    }

    /// Asks the CPU for a connection, if there is one of this number.
    #[inline]
    fn prefetch(&self, slot: usize) {
        let connection = self.connections.as_ptr().wrapping_add(slot);
        prefetch_lines(connection.cast(), LINE_BYTES);
    }

    // ---- closing ------------------------------------------------------------------------------------------------------

    /// Closes a socket as soon as the kernel has let go of it.
    fn close_socket(&mut self, slot: Slot) {
        let Uring { connections, buffers, .. } = self;
        let connection = &mut connections[slot as usize];
        connection.is_open = false;
        connection.task = NOBODY;
        connection.may_be_answered = false;
        connection.stash = Vec::new();
        connection.has_stash = false;
        if let Some(buffer) = connection.filled.take() {
            buffers.give_back(buffer);
        }
        let descriptor = connection.descriptor;
        // A send does not wait, so it has ended when the system call returns that submits it.
        let under_way = [(connection.is_receiving, RECEIVE), (connection.is_watched, WRITABLE)]
            .map(|(is_under_way, kind)| is_under_way.then_some(connection.user_data(slot, kind)));
        for operation in under_way.into_iter().flatten() {
            if self.cancel(operation).is_err() {
                // Ends the receive as well. A ring that takes nothing any more ends its reactor, and with it the rest.
                tcp::shut_down(descriptor, libc::SHUT_RDWR);
            }
        }
        self.release(slot);
    }

    fn release(&mut self, slot: Slot) {
        let connection = self.of(slot);
        if connection.is_open || connection.operations > 0 {
            return;
        }
        connection.lent = None;
        connection.unsent = None;
        connection.generation = connection.generation.wrapping_add(1) & GENERATION_MASK;
        // No operation uses it any more, and the slot is free from here on.
        tcp::close(std::mem::replace(&mut connection.descriptor, -1));
        self.free.push(slot);
    }

    // ---- turns --------------------------------------------------------------------------------------------------------

    fn await_event(&mut self) -> io::Result<()> {
        let count = self.event_count.cast::<u8>().as_ptr();
        let read = opcode::Read::new(types::Fd(self.event), count, size_of::<u64>() as u32).build();
        self.push(read.user_data(WAKE))
    }

    fn set_timeout(&mut self, wake_at: Option<Instant>) -> io::Result<()> {
        let Some(wake_at) = wake_at.filter(|at| self.timeout_at.is_none_or(|earliest| *at < earliest)) else {
            return Ok(());
        };
        *self.timespec = wake_at.saturating_duration_since(Instant::now()).into();
        let timeout = opcode::Timeout::new(&raw const *self.timespec).build();
        self.push(timeout.user_data(TIMEOUT))?;
        self.timeout_at = Some(wake_at);
        Ok(())
    }

    /// Hands over what has been asked for, and waits: see [`Backend::turn`](super::Backend::turn).
    #[inline]
    fn submit_and_wait(
        &mut self,
        waits: bool,
        wake_at: Option<Instant>,
        fast_path: Option<&dyn FastPath>,
    ) -> io::Result<bool> {
        self.stash_leftovers()?;
        self.buffers.publish();
        self.set_timeout(wake_at)?;
        let waits = waits && !std::mem::take(&mut self.is_urgent);
        loop {
            let entries = self.ring.submission().len() as u32;
            // SAFETY: no argument is passed; what the entries point to is said at `push`.
            let entered = unsafe {
                self.ring.submitter().enter::<libc::sigset_t>(entries, u32::from(waits), ENTER_GETEVENTS, None)
            };
            match entered {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The completion queue is full, or memory is short: what is there has to be looked at first.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => break,
                submitted => {
                    submitted?;
                    break;
                }
            }
        }
        let mut completions = std::mem::take(&mut self.completions);
        completions.extend(self.ring.completion().map(Completion::from));
        let has_told_all = self.has_told_all();
        let is_time = self.take(&completions, has_told_all, fast_path);
        completions.clear();
        self.completions = completions;
        is_time
    }

    /// Whether each send that was expected to succeed and of which nothing has been heard has succeeded: all have been
    /// submitted, and there is no failure among completions that had no room in their queue and stand in the kernel.
    #[inline]
    fn has_told_all(&mut self) -> bool {
        if self.expected.is_empty() {
            return true;
        }
        let submission = self.ring.submission();
        submission.is_empty() && !submission.cq_overflow()
    }

    /// Takes what the kernel has said, and returns whether the time for a timer has come. `has_told_all`: see
    /// [`Uring::has_told_all`].
    ///
    /// # Errors
    /// The ring is broken.
    fn take(
        &mut self,
        completions: &[Completion],
        has_told_all: bool,
        fast_path: Option<&dyn FastPath>,
    ) -> io::Result<bool> {
        let mut is_time = false;
        for completion in completions {
            self.prefetch((completion.user_data >> KIND_BITS) as Slot as usize);
            // Before what has been received, which is not answered while an answer is on its way.
            if completion.user_data & KIND_MASK == SEND
                && let Some(slot) = self.slot_of(*completion)
            {
                self.sent(slot, completion.result);
            }
        }
        if has_told_all {
            self.settle_expected();
        } else {
            // What is missing comes with the next system call.
            self.is_urgent = true;
        }
        for completion in completions {
            match completion.user_data & KIND_MASK {
                RECEIVE => self.received(*completion, fast_path)?,
                SEND => {}
                WRITABLE => self.told_of_room(*completion),
                ACCEPT => self.can_accept(),
                TIMEOUT => {
                    self.timeout_at = None;
                    is_time = true;
                }
                WAKE => self.await_event()?,
                _cancel => {}
            }
        }
        Ok(is_time)
    }
}

#[cfg(test)]
impl Uring {
    /// Bytes that tasks have not taken.
    pub fn stashed_bytes(&self) -> usize {
        self.connections.iter().map(|connection| connection.stash.len()).sum()
    }

    /// Buffers that were ever given to the kernel, counted round and round.
    pub fn buffers_given(&self) -> u16 {
        self.buffers.given()
    }

    /// Bytes that all buffers of the ring hold.
    pub fn buffer_bytes(&self) -> usize {
        self.buffers.bytes()
    }

    /// Bytes of them that the system has memory for.
    pub fn resident_buffer_bytes(&self) -> usize {
        self.buffers.resident_bytes()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        std::mem::forget(std::mem::take(&mut self.shared));
        for connection in &mut self.connections {
            if connection.operations > 0 {
                // As what is shared: the kernel may read it until the ring has come to its end, which nobody waits for.
                std::mem::forget(std::mem::take(&mut connection.lent));
            }
        }
        let connected = self.connections.iter().map(|connection| connection.descriptor);
        for descriptor in connected.filter(|descriptor| *descriptor >= 0) {
            tcp::close(descriptor);
        }
    }
}
