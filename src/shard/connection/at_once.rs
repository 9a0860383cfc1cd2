//! An answer on the spot: from the bytes in the receive buffer to one piece, without input, output and, on a ring, without the task.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use reactor::FastPath;

use crate::shard::Shard;
use crate::shard::reads::{Form, Recognised, Served, begins_like_first_page, whole_repetitions};

impl Shard {
    /// The answer to what has been received, if that is a request for a first page, once or several times and nothing else, and
    /// its answer is one piece: a buffer, and how much of it. All other requests, and every other moment of a connection, go
    /// through the input.
    #[inline]
    pub(in crate::shard) fn answer_at_once(&self, received: &[u8]) -> Option<(Rc<[u8]>, usize)> {
        if self.is_draining() || !begins_like_first_page(received) {
            return None;
        }
        let Ok(Recognised::FirstPage(asked)) = self.reads.recognise(received) else { return None };
        let times = whole_repetitions(received, asked.request_bytes)?;
        let Served { bytes, length, .. } = self.reads.serve(asked.page, times, Form::OnePiece)?;
        self.reads.note(received, asked);
        Some((bytes, length))
    }
}

impl FastPath for Shard {
    fn answer(&self, received: &[u8]) -> Option<(Rc<[u8]>, usize)> {
        let answered = catch_unwind(AssertUnwindSafe(|| self.answer_at_once(received)));
        // After a panic the task looks at the request, and answers for it.
        let (bytes, length) = answered.ok().flatten()?;
        self.metrics.bytes_received.add(received.len() as u64);
        self.metrics.bytes_sent.add(length as u64);
        Some((bytes, length))
    }

    fn idle_until(&self) -> u64 {
        self.after(self.settings.idle_timeout)
    }
}
