//! A connection that follows the list: what it sends, and what it waits for.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::{Broken, Connection, NEVER, Phase, Unsent};
use crate::change_feed::{Found, Framing, ResetReason, write_heartbeat, write_last, write_retry};
use crate::limits::{EVENTS_COPIED_MAX_BYTES, EVENTS_WRITE_BYTES, UNSENT_TEXT_MAX_BYTES};
use crate::shard::followers::answer::push_reset;
use crate::shard::followers::{Follow, Following};

/// What is to be done for a follower.
enum Step {
    /// Nothing.
    Wait,
    /// Something is in the output.
    Send,
    /// The same, and then the stream ends.
    SendLast,
    /// This goes to others as well.
    Share(Rc<[u8]>),
}

/// What the wait for changes has come to.
enum Awaited {
    /// There is something to do.
    Work,
    /// What was sent last did not fit into the socket.
    Unsent(Unsent),
    /// The client has gone, or the connection was cut off.
    Gone,
}

impl Connection {
    /// The connection follows from now on, unless its stream has ended.
    pub(super) fn begin_to_follow(&mut self, follow: Follow) {
        let followers = Rc::clone(&self.shard.followers);
        let Some(following) = followers.enter(Rc::clone(&self.state), follow) else { return };
        self.following = Some(Rc::new(following));
        self.shard.metrics.followers.add(1);
    }

    /// It does not follow any more; what is in the output is the last.
    pub(super) fn stop_following(&mut self) {
        let Some(follower) = self.following.take() else { return };
        self.shard.metrics.followers.subtract(1);
        if follower.is_too_slow.get() {
            self.shard.metrics.followers_too_slow.add(1);
        }
    }

    /// Shares changes as they come, until something is in the output, which is sent as all answers are, or the stream has ended.
    pub(super) async fn follow(&mut self, follower: &Following) -> Result<(), Broken> {
        loop {
            self.settle_shared(follower).await?;
            if self.has_output() {
                return Ok(());
            }
            match self.next_step(follower)? {
                Step::Send => return Ok(()),
                Step::SendLast => {
                    self.stop_following();
                    return Ok(());
                }
                Step::Share(bytes) => {
                    let length = bytes.len();
                    self.send_shared(bytes, length);
                    follower.shared_in.set(Some(self.shard.reactor.turns()));
                }
                Step::Wait => match self.wait_for_changes(follower).await {
                    Awaited::Work => {}
                    Awaited::Unsent(unsent) => {
                        follower.shared_in.set(None);
                        return self.send_rest(unsent);
                    }
                    Awaited::Gone => {
                        // There is nobody to linger for.
                        self.received_end = true;
                        self.stop_following();
                        return Ok(());
                    }
                },
            }
        }
    }

    /// What was sent without waiting for it has to have left the reactor before anything else is sent.
    async fn settle_shared(&mut self, follower: &Following) -> Result<(), Broken> {
        let Some(turn) = follower.shared_in.get().filter(|_| follower.has_work(&self.shard)) else { return Ok(()) };
        if turn == self.shard.reactor.turns() {
            self.shard.reactor.next_turn().await;
        }
        follower.shared_in.set(None);
        self.state.socket.take_unsent().map_or(Ok(()), |unsent| self.send_rest(unsent))
    }

    fn next_step(&mut self, follower: &Following) -> Result<Step, Broken> {
        let shard = Rc::clone(&self.shard);
        if follower.is_too_slow.get() || self.state.expired() {
            return Err(Broken);
        }
        let mut reset = follower.reset.take();
        if let Some((position, until)) = follower.awaited.get() {
            let found = shard.followers.history.borrow().find(position);
            reset = match found {
                Found::Next(number) => {
                    follower.go_on_from(number);
                    None
                }
                // The position is good at the process that it comes from.
                Found::Ahead if shard.is_draining() => return Ok(self.farewell(follower)),
                Found::Ahead if shard.clock.ticks() < until => return Ok(Step::Wait),
                Found::TooOld => Some(ResetReason::TooOld),
                Found::Ahead | Found::Unknown => Some(ResetReason::UnknownPosition),
            };
            follower.stop_awaiting();
        }
        if let Some(reason) = reset {
            return Ok(self.reset(follower, reason));
        }
        let history = shard.followers.history.borrow();
        if follower.next.get() < history.first() {
            follower.is_too_slow.set(true);
            return Err(Broken);
        }
        if follower.next.get() < history.end() {
            drop(history);
            match self.take_batches(follower) {
                Step::Wait => {}
                step => return Ok(step),
            }
        }
        let position = shard.followers.history.borrow().position();
        let framing = follower.wants.framing;
        if shard.is_draining() {
            return Ok(self.farewell(follower));
        }
        if follower.is_heartbeat_due.replace(false) {
            if framing == Framing::Chunked {
                return Ok(Step::Share(shard.followers.heartbeat(position)));
            }
            self.buffers().output.push_text(|text| write_heartbeat(framing, text, position));
            return Ok(Step::Send);
        }
        Ok(Step::Wait)
    }

    /// The process leaves: says when to connect again.
    fn farewell(&mut self, follower: &Following) -> Step {
        let (framing, reconnect_ms) = (follower.wants.framing, follower.farewell_ms());
        self.buffers().output.push_text(|text| {
            write_retry(framing, text, reconnect_ms);
            write_last(framing, text);
        });
        Step::SendLast
    }

    fn reset(&mut self, follower: &Following, reason: ResetReason) -> Step {
        let shard = Rc::clone(&self.shard);
        shard.metrics.event_resets[reason as usize].add(1);
        let (end, position) = {
            let history = shard.followers.history.borrow();
            (history.end(), history.position())
        };
        follower.go_on_from(end);
        let Some(snapshot) = shard.reads.snapshot() else { return Step::SendLast };
        match push_reset(&mut self.buffers().output, reason, &snapshot, &follower.wants, position) {
            true => Step::Send,
            false => Step::SendLast,
        }
    }

    /// Takes the next batches for the follower; none of those that are there may be for it.
    fn take_batches(&mut self, follower: &Following) -> Step {
        let shard = Rc::clone(&self.shard);
        let history = shard.followers.history.borrow();
        let (first, end, framing) = (follower.next.get(), history.end(), follower.wants.framing);
        if first + 1 == end
            && framing == Framing::Chunked
            && follower.wants.filter.is_none()
            && let Some(kept) = history.get(first)
            && (1..=EVENTS_COPIED_MAX_BYTES).contains(&kept.chunk().len())
        {
            follower.next.set(end);
            shard.metrics.events_sent.add(kept.len() as u64);
            return Step::Share(shard.followers.newest(first, kept.chunk()));
        }
        let mut number = first;
        let mut sent = 0;
        while let Some(kept) = history.get(number) {
            match &follower.wants.filter {
                // What is all theirs is shared as well.
                Some(filter) if !kept.is_empty() && kept.is_all_of(filter.owner.get()) => {
                    sent += kept.len();
                    self.buffers().output.push_events(Rc::clone(kept), framing);
                }
                Some(filter) => {
                    let owner = filter.owner.get();
                    if kept.bytes_of(owner) > 0 {
                        let output = &mut self.buffers().output;
                        output.push_text(|text| sent += kept.write_of(owner, framing, text));
                    }
                }
                None if kept.is_empty() => {}
                None => {
                    sent += kept.len();
                    self.buffers().output.push_events(Rc::clone(kept), framing);
                }
            }
            number += 1;
            let most = match follower.wants.filter {
                None => EVENTS_WRITE_BYTES,
                Some(_) => UNSENT_TEXT_MAX_BYTES as u64,
            };
            if self.buffers.as_ref().is_some_and(|buffers| buffers.output.unsent_bytes() >= most) {
                break;
            }
        }
        drop(history);
        follower.go_on_from(number);
        shard.metrics.events_sent.add(sent as u64);
        if sent > 0 { Step::Send } else { Step::Wait }
    }

    /// Waits without buffers. What the client sends meanwhile is dropped: behind the request for a stream nothing is answered.
    async fn wait_for_changes(&mut self, follower: &Following) -> Awaited {
        self.give_buffers_back();
        self.hold(0);
        self.state.enter(Phase::Follow, NEVER);
        // What is to be done has just been looked at, and found to be nothing. To look again before something wakes the task could
        // only find that two looks disagree, and then nothing else would ever run on this shard.
        let mut is_woken = false;
        poll_fn(|_| {
            let looks = std::mem::replace(&mut is_woken, true);
            let socket = &self.state.socket;
            if let Some(unsent) = socket.take_unsent() {
                return Poll::Ready(Awaited::Unsent(unsent));
            }
            if self.state.expired() {
                return Poll::Ready(Awaited::Gone);
            }
            loop {
                match socket.poll_receive().map_ok(|received| received.len()) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Awaited::Gone),
                    Poll::Ready(Ok(received)) => self.shard.metrics.bytes_received.add(received as u64),
                    Poll::Pending if looks && follower.has_work(&self.shard) => return Poll::Ready(Awaited::Work),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

impl Following {
    /// Whether something is to be done for it.
    fn has_work(&self, shard: &crate::shard::Shard) -> bool {
        let is_behind = || self.next.get() < shard.followers.history.borrow().end();
        self.is_too_slow.get()
            || self.reset.get().is_some()
            || shard.is_draining()
            || match self.awaited.get() {
                None => self.is_heartbeat_due.get() || is_behind(),
                // A sign of life names a position that the client has come to. It goes out when the wait is over, in seconds.
                Some((position, until)) => {
                    shard.clock.ticks() >= until || shard.followers.history.borrow().find(position) != Found::Ahead
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::followers::Follower;
    use crate::shard::registry::ConnectionState;

    /// Of what a function gives, which may be a future that nobody can name.
    fn size_of_output<A, R>(_function: impl FnOnce(A) -> R) -> usize {
        size_of::<R>()
    }

    /// What an `Rc` has beside its value.
    const RC_BYTES: usize = 16;
    /// Of the 1,024 bytes of an idle follower, the reactor has 128, five lists an entry of 8 to 16, and the allocator up to an eighth.
    const STRUCTURES_MAX_BYTES: usize = (1024 - 128 - 64) * 8 / 9;

    #[test]
    fn what_an_idle_follower_holds_is_little() {
        let sizes = [
            ("connection", size_of::<Connection>()),
            ("its task", size_of_output(|connection: &'static mut Connection| connection.serve())),
            ("its entry", size_of::<Following>() + RC_BYTES),
            ("state", size_of::<ConnectionState>() + RC_BYTES),
            ("follower", size_of::<Follower>() + RC_BYTES),
        ];
        let sum: usize = sizes.iter().map(|(_, bytes)| bytes).sum();
        println!("{sizes:?}");
        assert!(sum <= STRUCTURES_MAX_BYTES, "{sum}: {sizes:?}");
    }
}
