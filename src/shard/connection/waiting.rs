//! A connection whose read waits for a change.

use std::future::poll_fn;
use std::task::Poll;

use super::{Broken, Connection, NEVER, Phase};

impl Connection {
    /// Waits until the read that waits is to be looked at again, or more has been received. What stands behind the read is
    /// kept, so that answers keep their order. The end of what the client sends ends the wait: a client that has gone looks so,
    /// and one that is still there gets its answer.
    pub(super) async fn wait_for_change(&mut self) -> Result<(), Broken> {
        if !self.has_input() {
            self.give_buffers_back();
        }
        if self.received_end
            && let Some(read) = self.dispatch.waiting_read()
        {
            read.leave();
        }
        self.state.enter(Phase::Change, NEVER);
        let request_max_bytes = self.shard.settings.request_max_bytes();
        let received = poll_fn(|_| {
            if self.state.expired() {
                return Poll::Ready(Err(Broken));
            }
            let Connection { shard, dispatch, buffers, received_end, .. } = &*self;
            if dispatch.waiting_read().is_none_or(|read| read.has_work(shard)) {
                return Poll::Ready(Ok(None));
            }
            let is_full = buffers.as_ref().is_some_and(|buffers| buffers.input.is_full(request_max_bytes));
            if *received_end || is_full {
                return Poll::Pending;
            }
            self.poll_receive().map(|received| Ok(Some(received)))
        })
        .await?;
        // The answer goes where the buffers are.
        self.buffers();
        received.map_or(Ok(()), |received| self.note_received(received))
    }
}
