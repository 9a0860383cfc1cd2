//! Sending: tried at once and told only if it fails, or with patience, again and again as there is room; with the task
//! waiting for it, or going on.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use io_uring::{opcode, squeue, types};

use super::{SEND, Uring};
use crate::backend::Slot;
use crate::pieces::Pieces;
use crate::task::{current, make_ready};
use crate::{SendManner, Unsent};

/// The kernel neither waits nor calls a part a success.
const ALL_OR_FAILURE: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_WAITALL;

/// How many connections are settled before one that the CPU is asked for.
const PREFETCH_AHEAD: usize = 8;

/// How a send stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    No,
    /// The kernel will tell, and before the call returns that submits it.
    Told,
    /// It has not begun, because the socket is full; [`Uring::told_of_room`] begins it.
    Waiting,
    /// The kernel will tell only if it fails, and before the call returns that submits it.
    Expected,
    /// The same, and the task does not wait for it.
    Unattended,
    /// The kernel's answer, for the task that waits for it.
    Done(i32),
    /// The kernel's answer to what was unattended, which is a failure.
    Failed(i32),
}

impl Uring {
    /// Gives the pieces that have not been sent to the kernel. They are the kernel's until [`Uring::poll_pieces_sent`]
    /// gives them back.
    pub(super) fn begin_send_pieces(&mut self, slot: Slot, pieces: Box<Pieces>, manner: SendManner) {
        let connection = self.of(slot);
        connection.lent = Some(pieces);
        connection.task = current();
        match manner {
            SendManner::Patient if connection.is_full => self.wait_for_room(slot),
            SendManner::Patient => self.send_lent(slot, libc::MSG_DONTWAIT, Sending::Told),
            SendManner::Expected | SendManner::Urgent => {
                self.is_urgent |= manner == SendManner::Urgent;
                self.send_lent(slot, ALL_OR_FAILURE, Sending::Expected);
            }
        }
    }

    /// Hands the pieces that are lent to the kernel.
    #[inline]
    pub(super) fn send_lent(&mut self, slot: Slot, flags: libc::c_int, sending: Sending) {
        let connection = self.of(slot);
        let descriptor = types::Fd(connection.descriptor);
        let Some(pieces) = &mut connection.lent else { return };
        let flags = libc::MSG_NOSIGNAL | flags;
        let entry = match pieces.single_piece() {
            Some(piece) => {
                opcode::Send::new(descriptor, piece.iov_base.cast(), piece.iov_len as u32).flags(flags).build()
            }
            None => opcode::SendMsg::new(descriptor, pieces.message()).flags(flags as u32).build(),
        };
        let bytes = pieces.unsent_bytes();
        self.begin(slot, entry, bytes, sending);
    }

    /// The same for the first `length` bytes of a buffer that others share, which are expected to fit. The task goes on, and
    /// looks at [`Uring::take_unsent_shared`] whenever it is polled.
    #[inline]
    pub(super) fn begin_send_shared(&mut self, slot: Slot, bytes: Rc<[u8]>, length: usize) {
        let descriptor = types::Fd(self.of(slot).descriptor);
        let flags = libc::MSG_NOSIGNAL | ALL_OR_FAILURE;
        let entry = opcode::Send::new(descriptor, bytes[..length].as_ptr(), length as u32).flags(flags).build();
        if self.shared.last().is_none_or(|last| !Rc::ptr_eq(last, &bytes)) {
            self.shared.push(bytes);
        }
        self.of(slot).shared_at = (self.shared.len() - 1) as u32;
        self.begin(slot, entry, length, Sending::Unattended);
    }

    #[inline(always)]
    fn begin(&mut self, slot: Slot, entry: squeue::Entry, bytes: usize, sending: Sending) {
        let connection = self.of(slot);
        debug_assert!(matches!(connection.sending, Sending::No | Sending::Waiting), "one send at a time");
        connection.operations += 1;
        connection.expected_bytes = bytes as u32;
        let entry = entry.user_data(connection.user_data(slot, SEND));
        connection.sending = sending;
        let pushed = if sending == Sending::Told {
            self.push(entry)
        } else {
            let is_held_up = connection.is_held_up_by_send();
            self.is_urgent |= is_held_up;
            self.expected.push(slot);
            self.push(entry.flags(squeue::Flags::SKIP_SUCCESS))
        };
        if pushed.is_err() {
            self.sent(slot, -libc::EIO);
        }
    }

    /// How many bytes have been sent, and the pieces that were lent for it, when the kernel is done with them. After an
    /// expected send, fewer than all, also 0, mean that the socket is full.
    #[inline]
    pub(super) fn poll_pieces_sent(&mut self, slot: Slot) -> Poll<(io::Result<usize>, Box<Pieces>)> {
        let connection = self.of(slot);
        connection.task = current();
        let Sending::Done(result) = connection.sending else { return Poll::Pending };
        connection.sending = Sending::No;
        Poll::Ready((sent_bytes(result), connection.lent.take().unwrap_or_default()))
    }

    /// What the socket has not taken of an unattended send, if so.
    #[inline]
    pub(super) fn take_unsent_shared(&mut self, slot: Slot) -> Option<Unsent> {
        let connection = self.of(slot);
        let Sending::Failed(result) = connection.sending else { return None };
        connection.sending = Sending::No;
        let length = connection.expected_bytes as usize;
        let bytes = connection.unsent.take()?;
        Some(Unsent { bytes, length, sent: sent_bytes(result) })
    }

    pub(super) fn sent(&mut self, slot: Slot, result: i32) {
        let Uring { connections, shared, .. } = self;
        let connection = &mut connections[slot as usize];
        connection.is_full = result == -libc::EAGAIN || result >= 0 && (result as u32) < connection.expected_bytes;
        connection.operations -= 1;
        if !connection.is_open {
            return self.release(slot);
        }
        match connection.sending {
            Sending::Told if result == -libc::EAGAIN => return self.wait_for_room(slot),
            Sending::Unattended => {
                connection.sending = Sending::Failed(result);
                connection.unsent = shared.get(connection.shared_at as usize).cloned();
            }
            _ => connection.sending = Sending::Done(result),
        }
        make_ready(connection.task);
    }

    /// The system call that submitted them has returned: what has not failed has been sent.
    pub(super) fn settle_expected(&mut self) {
        let mut expected = std::mem::take(&mut self.expected);
        for at in 0..expected.len() {
            if let Some(ahead) = expected.get(at + PREFETCH_AHEAD) {
                self.prefetch(*ahead as usize);
            }
            let slot = expected[at];
            let connection = self.of(slot);
            match connection.sending {
                Sending::Expected => {
                    let bytes = connection.expected_bytes;
                    self.sent(slot, bytes as i32);
                }
                Sending::Unattended => {
                    connection.sending = Sending::No;
                    connection.operations -= 1;
                    if !connection.is_open {
                        self.release(slot);
                    } else if connection.is_held_up_by_send() {
                        make_ready(connection.task);
                    }
                }
                Sending::No | Sending::Told | Sending::Waiting | Sending::Done(_) | Sending::Failed(_) => {}
            }
        }
        expected.clear();
        self.expected = expected;
        self.shared.clear();
    }
}

/// What the kernel has said of a send that does not wait: a full socket takes nothing.
fn sent_bytes(result: i32) -> io::Result<usize> {
    match result {
        error if error == -libc::EAGAIN => Ok(0),
        error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        sent => Ok(sent as usize),
    }
}
