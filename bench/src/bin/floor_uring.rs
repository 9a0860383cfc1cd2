//! A limit, not a server: an io_uring loop on one thread that counts the ends of requests and writes a constant response
//! for each. It parses nothing, looks nothing up, and knows neither deadlines nor caps; what a server costs more than this
//! is its own work.
//!
//! It uses what the kernel has for few system calls: one issuer with deferred task work (Linux 6.1), multishot accept
//! and receive, and a ring of buffers that the kernel takes from (both 6.0).

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use clap::Parser as _;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use million_rps_bench::constant::{ConstantArguments, Repeated, RequestEnds, choose_congestion_control, set_no_delay};

/// Entries of the submission queue; the completion queue has four times as many.
const RING_ENTRIES: u32 = 4096;
/// Buffers that the kernel may fill before they are looked at; a power of two. Few enough to stay in the second-level
/// cache: the ring goes round all of them.
const BUFFERS: u16 = 64;
/// Bytes of one buffer: a pipeline of 64 requests fits.
const BUFFER_BYTES: usize = 8 * 1024;
/// The only group of buffers.
const BUFFER_GROUP: u16 = 0;

const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

fn main() -> io::Result<()> {
    let arguments = ConstantArguments::parse();
    let response = Repeated::new(&arguments.responses()?);
    let listener = arguments.listen()?;
    choose_congestion_control(&listener);
    let mut ring = Loop::new(listener, response)?;
    arguments.announce(&ring.listener)?;
    ring.run()
}

#[derive(Default)]
struct Connection {
    ends: RequestEnds,
    sent_bytes: u64,
    owed_bytes: u64,
    is_sending: bool,
    is_receiving: bool,
    has_ended: bool,
}

struct Loop {
    ring: IoUring,
    buffers: BufferRing,
    listener: TcpListener,
    response: Repeated,
    /// By descriptor: descriptors are small numbers that are given again and again.
    connections: Vec<Option<Connection>>,
}

impl Loop {
    fn new(listener: TcpListener, response: Repeated) -> io::Result<Loop> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(4 * RING_ENTRIES)
            .build(RING_ENTRIES)?;
        let buffers = BufferRing::register(&ring)?;
        Ok(Loop { ring, buffers, listener, response, connections: Vec::new() })
    }

    fn run(&mut self) -> io::Result<()> {
        self.accept()?;
        let mut completions = Vec::with_capacity(4 * RING_ENTRIES as usize);
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                submitted => submitted?,
            };
            completions.extend(self.ring.completion());
            for completion in completions.drain(..) {
                let descriptor = (completion.user_data() >> 2) as RawFd;
                match completion.user_data() & 3 {
                    ACCEPT => self.accepted(&completion)?,
                    RECEIVE => self.received(descriptor, &completion)?,
                    _ => self.sent(descriptor, completion.result())?,
                }
            }
            self.buffers.publish();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let descriptor = types::Fd(self.listener.as_raw_fd());
        self.push(opcode::AcceptMulti::new(descriptor).flags(libc::SOCK_CLOEXEC).build().user_data(ACCEPT))
    }

    fn accepted(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        if completion.result() >= 0 {
            let descriptor = completion.result();
            set_no_delay(descriptor)?;
            let index = descriptor as usize;
            if self.connections.len() <= index {
                self.connections.resize_with(index + 1, || None);
            }
            self.connections[index] = Some(Connection::default());
            self.receive(descriptor)?;
        } else if completion.result() != -libc::ECONNABORTED {
            return Err(io::Error::from_raw_os_error(-completion.result()));
        }
        if cqueue::more(completion.flags()) { Ok(()) } else { self.accept() }
    }

    /// Receives until the connection ends, or no buffer is free.
    fn receive(&mut self, descriptor: RawFd) -> io::Result<()> {
        if let Some(connection) = &mut self.connections[descriptor as usize] {
            connection.is_receiving = true;
        }
        let receive = opcode::RecvMulti::new(types::Fd(descriptor), BUFFER_GROUP).build();
        self.push(receive.user_data((descriptor as u64) << 2 | RECEIVE))
    }

    fn received(&mut self, descriptor: RawFd, completion: &cqueue::Entry) -> io::Result<()> {
        let buffer = cqueue::buffer_select(completion.flags());
        let slot = self.connections.get_mut(descriptor as usize);
        let connection = slot.and_then(Option::as_mut).ok_or_else(|| io::Error::other("a receive of no connection"))?;
        if let (Some(buffer), Ok(length)) = (buffer, usize::try_from(completion.result())) {
            let ends = connection.ends.count(self.buffers.filled(buffer, length));
            let owed_in_all = connection.sent_bytes + connection.owed_bytes;
            connection.owed_bytes += self.response.bytes_of_next(ends, owed_in_all);
        }
        if let Some(buffer) = buffer {
            self.buffers.give_back(buffer);
        }
        connection.is_receiving = cqueue::more(completion.flags());
        let is_out_of_buffers = completion.result() == -libc::ENOBUFS;
        connection.has_ended |= completion.result() <= 0 && !is_out_of_buffers;
        let receives_again = !connection.is_receiving && !connection.has_ended;
        self.send(descriptor)?;
        if receives_again { self.receive(descriptor) } else { Ok(()) }
    }

    /// Sends what is owed, one send at a time, and closes the connection when nothing is under way any more.
    fn send(&mut self, descriptor: RawFd) -> io::Result<()> {
        let slot = &mut self.connections[descriptor as usize];
        let Some(connection) = slot else { return Ok(()) };
        if connection.is_sending {
            return Ok(());
        }
        if connection.has_ended {
            if !connection.is_receiving {
                *slot = None;
                // SAFETY: the descriptor is the connection's own, and no operation of it is under way.
                unsafe { libc::close(descriptor) };
            }
            return Ok(());
        }
        if connection.owed_bytes == 0 {
            return Ok(());
        }
        connection.is_sending = true;
        let piece = self.response.next(connection.sent_bytes, connection.owed_bytes);
        let send = opcode::Send::new(types::Fd(descriptor), piece.as_ptr(), piece.len() as u32);
        let send = send.flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL).build();
        self.push(send.user_data((descriptor as u64) << 2 | SEND))
    }

    fn sent(&mut self, descriptor: RawFd, result: i32) -> io::Result<()> {
        let slot = self.connections.get_mut(descriptor as usize);
        let connection = slot.and_then(Option::as_mut).ok_or_else(|| io::Error::other("a send of no connection"))?;
        connection.is_sending = false;
        match u64::try_from(result) {
            Ok(sent) => {
                connection.sent_bytes += sent;
                connection.owed_bytes -= sent;
            }
            Err(_) => {
                connection.has_ended = true;
                // A receive may still be under way: this ends it.
                // SAFETY: no pointers; the descriptor is open as long as the connection is there.
                unsafe { libc::shutdown(descriptor, libc::SHUT_RDWR) };
            }
        }
        self.send(descriptor)
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: what the entries point to (the repeated response, the ring of buffers) lives as long as the ring.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}

/// Buffers that the kernel takes for what it receives (io_uring_register_buf_ring(3)). One page-aligned mapping holds the
/// ring of entries and behind it the buffers.
struct BufferRing {
    entries: NonNull<types::BufRingEntry>,
    bytes: NonNull<u8>,
    tail: u16,
}

impl BufferRing {
    fn register(ring: &IoUring) -> io::Result<BufferRing> {
        let entries_bytes = (usize::from(BUFFERS) * size_of::<types::BufRingEntry>()).next_multiple_of(4096);
        let length = entries_bytes + usize::from(BUFFERS) * BUFFER_BYTES;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, of no file.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        let start = NonNull::new(mapping.cast::<u8>()).filter(|_| mapping != libc::MAP_FAILED);
        let start = start.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the mapping is page-aligned, larger than the entries, and never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(start.as_ptr() as u64, BUFFERS, BUFFER_GROUP, 0)? };
        // SAFETY: the mapping is longer than `entries_bytes`.
        let bytes = unsafe { start.add(entries_bytes) };
        let mut buffers = BufferRing { entries: start.cast(), bytes, tail: 0 };
        (0..BUFFERS).for_each(|buffer| buffers.give_back(buffer));
        buffers.publish();
        Ok(buffers)
    }

    /// What the kernel has put into a buffer.
    fn filled(&self, buffer: u16, length: usize) -> &[u8] {
        assert!(buffer < BUFFERS && length <= BUFFER_BYTES, "the kernel knows its buffers");
        // SAFETY: within the mapping, as just checked; the kernel does not touch the buffer until it is given back.
        unsafe { std::slice::from_raw_parts(self.bytes.add(usize::from(buffer) * BUFFER_BYTES).as_ptr(), length) }
    }

    /// Puts a buffer at the end of the ring; the kernel sees it after [`BufferRing::publish`].
    fn give_back(&mut self, buffer: u16) {
        // SAFETY: the index is within the entries, and the kernel reads an entry only behind the published tail. The
        // entry's last field overlays the tail (io_uring.h) and is not written here.
        unsafe {
            let entry = self.entries.add(usize::from(self.tail % BUFFERS)).as_mut();
            entry.set_addr(self.bytes.add(usize::from(buffer) * BUFFER_BYTES).as_ptr() as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail is in the first entry, which is part of the mapping; the kernel reads it with acquire order.
        let tail = unsafe { AtomicU16::from_ptr(types::BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
