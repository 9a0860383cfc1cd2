//! Receiving: one multishot receive for each connection, into buffers of the ring.

use std::io;
use std::task::Poll;

use io_uring::{cqueue, opcode, types};

use super::buffers::{BUFFER_GROUP, BufferRing};
use super::sending::Sending;
use super::{Completion, Connection, RECEIVE, Uring};
use crate::FastPath;
use crate::backend::{Slot, UNREAD_MAX_BYTES};
use crate::task::{current, make_ready};
use crate::transfer::Bytes;

impl Uring {
    /// Bytes that have come; the first call begins to receive. While a send is unattended there is nothing to be had, so that its
    /// answer is the last that the task has given.
    #[inline]
    pub(super) fn poll_received(&mut self, slot: Slot, may_be_answered: bool) -> Poll<io::Result<Bytes>> {
        let Uring { connections, buffers, .. } = self;
        let connection = &mut connections[slot as usize];
        connection.task = current();
        connection.may_be_answered = may_be_answered && connection.filled.is_none() && !connection.has_stash;
        if matches!(connection.sending, Sending::Unattended | Sending::Failed(_)) {
            // Bytes, or the end, may have come together with the request that the fast path has answered.
            self.is_urgent |= connection.is_held_up_by_send();
            return Poll::Pending;
        }
        if std::mem::take(&mut connection.has_stash) {
            let stash = std::mem::take(&mut connection.stash);
            let length = stash.len();
            return Poll::Ready(Ok(Bytes::Own(stash, length)));
        }
        if let Some(buffer) = connection.filled.take() {
            return Poll::Ready(Ok(Bytes::Lent(buffers.lend(buffer))));
        }
        match connection.end {
            Some(0) => return Poll::Ready(Ok(Bytes::None)),
            Some(error) => return Poll::Ready(Err(io::Error::from_raw_os_error(-error))),
            None => {}
        }
        if !connection.is_receiving
            && let Err(error) = self.receive(slot)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Pending
    }

    /// Arms the receive that stays.
    pub(super) fn receive(&mut self, slot: Slot) -> io::Result<()> {
        let connection = self.of(slot);
        let receive = opcode::RecvMulti::new(types::Fd(connection.descriptor), BUFFER_GROUP).build();
        let receive = receive.user_data(connection.user_data(slot, RECEIVE));
        self.push(receive)?;
        // Only now: nobody completes what the ring has not taken.
        let connection = self.of(slot);
        connection.is_receiving = true;
        connection.operations += 1;
        Ok(())
    }

    /// Takes what the kernel has said of a receive. The fast path is called here, in the midst of a turn, while the reactor has lent
    /// its backend: it must not use the reactor. It has no way to, but for what it keeps itself.
    pub(super) fn received(&mut self, completion: Completion, fast_path: Option<&dyn FastPath>) -> io::Result<()> {
        let is_last = !cqueue::more(completion.flags);
        let result = completion.result;
        let buffer = cqueue::buffer_select(completion.flags).map(|number| {
            // SAFETY: a completion is taken out of the ring's queue once, and handed to this once.
            unsafe { self.buffers.filled(number, usize::try_from(result).unwrap_or(0)) }
        });
        let Some(slot) = self.slot_of(completion) else {
            if let Some(buffer) = buffer {
                self.buffers.give_back(buffer);
            }
            return Ok(());
        };
        let Uring { connections, buffers, filled, .. } = self;
        let connection = &mut connections[slot as usize];
        if let Some(fast_path) = fast_path
            && connection.may_be_answered
            && connection.sending == Sending::No
            && !is_last
            && result > 0
            && let Some(filled) = &buffer
            && let Some((bytes, length)) = fast_path.answer(buffers.bytes_of(filled))
        {
            connection.idle_until = fast_path.idle_until();
            if let Some(buffer) = buffer {
                buffers.give_back(buffer);
            }
            self.begin_send_shared(slot, bytes, length);
            return Ok(());
        }
        connection.may_be_answered = false;
        if is_last {
            connection.is_receiving = false;
            connection.is_cancelling = false;
            connection.operations -= 1;
        }
        if let Some(buffer) = buffer {
            if result <= 0 || !connection.is_open {
                buffers.give_back(buffer);
            } else if connection.filled.is_none() && !connection.has_stash {
                connection.filled = Some(buffer);
                filled.push(slot);
            } else {
                stash(connection, buffers);
                connection.filled = Some(buffer);
                stash(connection, buffers);
                // What a connection sends at once comes in a row.
                if filled.last() != Some(&slot) {
                    filled.push(slot);
                }
            }
        }
        if !connection.is_open {
            self.release(slot);
            return Ok(());
        }
        make_ready(connection.task);
        if result == -libc::ENOBUFS {
            // Those who have come first hold all buffers, until the end of this turn. More are for a crowd: a few connections that
            // send much at once would only be given more of it to keep.
            if filled.len() >= buffers.len() / 2 {
                buffers.grow();
            }
            if connection.stash.len() >= UNREAD_MAX_BYTES {
                // It has as much as it may have unread; the task receives again when it has taken that.
                return Ok(());
            }
            return self.receive(slot);
        }
        if result <= 0 && result != -libc::ECANCELED {
            connection.end = Some(result);
        }
        Ok(())
    }

    /// Who did not take the bytes in this turn keeps a copy, so that the ring's buffers are there for the next one; and is not
    /// received from any more once it has more than a connection may have unread.
    pub(super) fn stash_leftovers(&mut self) -> io::Result<()> {
        while let Some(slot) = self.filled.pop() {
            let Uring { connections, buffers, .. } = self;
            let connection = &mut connections[slot as usize];
            stash(connection, buffers);
            if connection.stash.len() >= UNREAD_MAX_BYTES && connection.is_receiving && !connection.is_cancelling {
                connection.is_cancelling = true;
                let operation = connection.user_data(slot, RECEIVE);
                self.cancel(operation)?;
            }
        }
        Ok(())
    }
}

/// Moves the bytes of a filled buffer behind those of the stash.
fn stash(connection: &mut Connection, buffers: &mut BufferRing) {
    if let Some(buffer) = connection.filled.take() {
        connection.stash.extend_from_slice(buffers.bytes_of(&buffer));
        connection.has_stash = true;
        buffers.give_back(buffer);
    }
}
