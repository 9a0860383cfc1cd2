//! The calls of a reactor, and where a ring does them.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use super::Uring;
use crate::FastPath;
use crate::backend::{Backend, Slot};
use crate::pieces::Pieces;
use crate::task::TaskId;
use crate::transfer::Bytes;
use crate::transfer::{SendManner, Unsent};

impl Backend for Uring {
    fn add(&mut self, descriptor: RawFd) -> io::Result<Slot> {
        Ok(self.add_socket(descriptor))
    }

    fn close(&mut self, slot: Slot) {
        self.close_socket(slot);
    }

    #[inline]
    fn poll_receive(&mut self, slot: Slot, may_be_answered: bool) -> Poll<io::Result<Bytes>> {
        self.poll_received(slot, may_be_answered)
    }

    #[inline]
    fn give_back(&mut self, bytes: Bytes) {
        if let Bytes::Lent(buffer) = bytes {
            self.buffers.take_back(buffer);
        }
    }

    fn has_received(&self, slot: Slot) -> bool {
        self.connections[slot as usize].has_bytes_or_end()
            || crate::backend::tcp::has_bytes_waiting(self.descriptor(slot))
    }

    #[inline]
    fn take_idle_until(&mut self, slot: Slot) -> u64 {
        std::mem::take(&mut self.of(slot).idle_until)
    }

    #[inline]
    fn begin_send(&mut self, slot: Slot, pieces: Box<Pieces>, manner: SendManner) {
        self.begin_send_pieces(slot, pieces, manner);
    }

    #[inline]
    fn poll_sent(&mut self, slot: Slot) -> Poll<(io::Result<usize>, Box<Pieces>)> {
        self.poll_pieces_sent(slot)
    }

    #[inline]
    fn send_shared(&mut self, slot: Slot, bytes: Rc<[u8]>, length: usize) {
        self.begin_send_shared(slot, bytes, length);
    }

    #[inline]
    fn take_unsent(&mut self, slot: Slot) -> Option<Unsent> {
        self.take_unsent_shared(slot)
    }

    #[inline]
    fn task(&self, slot: Slot) -> TaskId {
        self.connections[slot as usize].task
    }

    fn poll_accept(&mut self, listener: RawFd) -> Poll<io::Result<RawFd>> {
        self.poll_accepted(listener)
    }

    fn stop_accepting(&mut self) {
        self.let_go_of_listener();
    }

    fn turn(&mut self, waits: bool, wake_at: Option<Instant>, fast_path: Option<&dyn FastPath>) -> io::Result<bool> {
        self.submit_and_wait(waits, wake_at, fast_path)
    }

    fn trim(&mut self) {
        self.buffers.trim();
    }

    fn descriptor(&self, slot: Slot) -> RawFd {
        self.connections[slot as usize].descriptor
    }
}
