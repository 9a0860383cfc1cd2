//! Waiting for room in a socket that is full.
//!
//! One poll stays for each connection that has ever had to wait (multishot, edge-triggered). It is woken when a socket that was
//! full has room again, and once when the client ends its side, which is no room. A send that waits in the kernel, or a poll
//! for once, would be told of that end again and again.

use io_uring::{cqueue, opcode, types};

use super::sending::Sending;
use super::{Completion, Uring, WRITABLE};
use crate::backend::Slot;
use crate::task::make_ready;

/// What lets a send get further: room, or the reason why there will be none.
const ROOM: i32 = (libc::POLLOUT | libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) as i32;

impl Uring {
    /// Has the pieces that are lent sent when the socket has room.
    #[cold]
    pub(super) fn wait_for_room(&mut self, slot: Slot) {
        let connection = self.of(slot);
        connection.sending = Sending::Waiting;
        if connection.is_watched {
            return;
        }
        let poll = opcode::PollAdd::new(types::Fd(connection.descriptor), libc::POLLOUT as u32).multi(true).build();
        let poll = poll.user_data(connection.user_data(slot, WRITABLE));
        // The kernel tells at once if there is room already.
        let is_pushed = self.push(poll).is_ok();
        let connection = self.of(slot);
        if is_pushed {
            connection.is_watched = true;
            connection.operations += 1;
        } else {
            connection.sending = Sending::Done(-libc::EIO);
            make_ready(connection.task);
        }
    }

    pub(super) fn told_of_room(&mut self, completion: Completion) {
        let Some(slot) = self.slot_of(completion) else { return };
        let connection = self.of(slot);
        if !cqueue::more(completion.flags) {
            connection.is_watched = false;
            connection.operations -= 1;
        }
        if !connection.is_open {
            return self.release(slot);
        }
        let has_room = completion.result & ROOM != 0;
        connection.is_full &= !has_room;
        if connection.sending != Sending::Waiting {
            return;
        }
        if completion.result < 0 {
            connection.sending = Sending::Done(completion.result);
            make_ready(connection.task);
        } else if has_room {
            self.send_lent(slot, libc::MSG_DONTWAIT, Sending::Told);
        } else if !connection.is_watched {
            self.wait_for_room(slot);
        }
    }
}
