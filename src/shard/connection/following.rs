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
    /// Sends changes as they come, until one side has had enough.
    pub(super) async fn follow(&mut self, follow: Follow) -> Result<(), Broken> {
        let followers = Rc::clone(&self.shard.followers);
        let Some(follower) = followers.enter(Rc::clone(&self.state), follow) else { return Ok(()) };
        self.is_following = true;
        self.shard.metrics.followers.add(1);
        let ended = self.serve_follower(&follower).await;
        self.shard.metrics.followers.subtract(1);
        if follower.is_too_slow.get() {
            self.shard.metrics.followers_too_slow.add(1);
        }
        ended
    }

    async fn serve_follower(&mut self, follower: &Following) -> Result<(), Broken> {
        loop {
            self.settle_shared(follower).await?;
            let mut is_last = false;
            if !self.has_output() {
                match self.next_step(follower)? {
                    Step::Send => {}
                    Step::SendLast => is_last = true,
                    Step::Share(bytes) => {
                        let length = bytes.len();
                        self.send_shared(bytes, length);
                        follower.shared_in.set(Some(self.shard.reactor.turns()));
                    }
                    Step::Wait => match self.wait_for_changes(follower).await {
                        Awaited::Work => {}
                        Awaited::Unsent(unsent) => {
                            follower.shared_in.set(None);
                            self.send_rest(unsent)?;
                        }
                        Awaited::Gone => {
                            // There is nobody to linger for.
                            self.received_end = true;
                            return Ok(());
                        }
                    },
                }
            }
            while self.has_output() {
                self.send().await?;
            }
            if is_last {
                return Ok(());
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
                Found::Ahead if shard.clock.ticks() < until && !shard.is_draining() => return Ok(Step::Wait),
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
            let reconnect_ms = follower.farewell_ms();
            self.buffers().output.push_text(|text| {
                write_retry(framing, text, reconnect_ms);
                write_last(framing, text);
            });
            return Ok(Step::SendLast);
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
                    let output = &mut self.buffers().output;
                    match framing {
                        Framing::Chunked => output.push_events(Rc::clone(kept)),
                        Framing::Bare => output.push_text(|text| text.extend_from_slice(kept.text())),
                    }
                }
            }
            number += 1;
            let most = match (framing, &follower.wants.filter) {
                (Framing::Chunked, None) => EVENTS_WRITE_BYTES,
                _ => UNSENT_TEXT_MAX_BYTES as u64,
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
        poll_fn(|_| {
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
                    Poll::Pending if follower.has_work(&self.shard) => return Poll::Ready(Awaited::Work),
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
            || self.is_heartbeat_due.get()
            || shard.is_draining()
            || match self.awaited.get() {
                None => is_behind(),
                Some((position, until)) => {
                    shard.clock.ticks() >= until || shard.followers.history.borrow().find(position) != Found::Ahead
                }
            }
    }
}
