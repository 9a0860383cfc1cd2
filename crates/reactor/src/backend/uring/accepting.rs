//! Accepting: the ring tells that there are connections, and they are taken by calls.

use std::io;
use std::os::fd::RawFd;
use std::task::Poll;

use io_uring::{opcode, types};

use super::{ACCEPT, Uring};
use crate::backend::tcp;
use crate::task::{NOBODY, TaskId, current, make_ready};

/// How accepting stands.
pub(super) struct Accepting {
    /// The kernel tells when there are connections.
    is_armed: bool,
    is_stopped: bool,
    task: TaskId,
}

impl Accepting {
    /// Nobody accepts.
    pub fn new() -> Accepting {
        Accepting { is_armed: false, is_stopped: false, task: NOBODY }
    }
}

impl Uring {
    /// The next connection of the listener, which is the only one. The ring only tells that there are some: an accept that
    /// waits in the kernel goes by the limit of open files that there was when it began.
    pub(super) fn poll_accepted(&mut self, listener: RawFd) -> Poll<io::Result<RawFd>> {
        self.accepting.task = current();
        if self.accepting.is_armed {
            return Poll::Pending;
        }
        if self.accepting.is_stopped {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
        }
        match tcp::accept(listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            accepted => return Poll::Ready(accepted),
        }
        let poll = opcode::PollAdd::new(types::Fd(listener), libc::POLLIN as u32).build();
        match self.push(poll.user_data(ACCEPT)) {
            Ok(()) => {
                self.accepting.is_armed = true;
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Ends accepting: [`Uring::poll_accepted`] gives `ECANCELED` from now on, as soon as the kernel has let go of the listener.
    /// Until then the listener would go on listening, whoever closes it.
    pub(super) fn let_go_of_listener(&mut self) {
        self.accepting.is_stopped = true;
        if self.accepting.is_armed
            && let Err(error) = self.cancel(ACCEPT)
        {
            tracing::error!(%error, "the ring does not let go of the listener");
            self.accepting.is_armed = false;
        }
        make_ready(self.accepting.task);
    }

    pub(super) fn can_accept(&mut self) {
        self.accepting.is_armed = false;
        make_ready(self.accepting.task);
    }
}
