//! One connection: receive, parse and answer what has come, send, in a loop, until one side has had enough.
//!
//! One task does all of it, so answers need no lock and keep their order; a request for a first page that comes while the task waits
//! for one is answered for it ([`FastPath`](reactor::FastPath)). While writes wait for the command log the task
//! waits for acknowledgements and for further bytes alike; that is how pipelined writes are in flight together.

mod at_once;
mod following;
mod waiting;

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;

use reactor::{Driver, Pieces, Received, SendManner, Unsent};

use super::dispatch::{Dispatch, Progress};
use super::followers::{Follow, Following};
#[cfg(test)]
use super::histories::Fault;
use super::input::Input;
use super::output::Output;
use super::registry::{ConnectionState, NEVER, Phase};
use super::{LINGER_SILENCE, Shard};
use crate::limits::{
    CONNECTION_FREE_BYTES, LONG_WRITE_MIN_BYTES, PIPELINE_FREE, PIPELINE_TURN, SEND_BOUND_LIFTED_BYTES,
    SEND_BUFFER_LIFTED_BYTES,
};

/// The buffers of a connection that has bytes; an idle one has none.
#[derive(Default)]
pub struct Buffers {
    pub(super) input: Input,
    pub(super) output: Output,
    /// `None` while the kernel has them, and before the first send.
    pieces: Option<Box<Pieces>>,
}

impl Buffers {
    /// Bytes of memory that they hold for their connection alone.
    fn held_bytes(&self) -> usize {
        let pieces = self.pieces.as_ref().map_or(0, |pieces| pieces.held_bytes());
        self.input.held_bytes() + self.output.held_bytes() + pieces
    }
}

/// The connection cannot be used any more; there is nobody to tell.
struct Broken;

/// What the wait for a request has come to.
enum Awaited {
    Received(io::Result<usize>),
    /// The answer before did not fit into the socket.
    Unsent(Unsent),
    /// A deadline has passed.
    Expired,
}

/// A connection and what it needs.
pub struct Connection {
    shard: Rc<Shard>,
    state: Rc<ConnectionState>,
    /// `None` while the connection waits without them.
    buffers: Option<Box<Buffers>>,
    dispatch: Dispatch,
    received_end: bool,
    /// The client has taken so much that the system may keep more for it.
    has_taken_much: bool,
    /// As long as it follows: it has had the head of an event stream.
    following: Option<Rc<Following>>,
    /// What it holds of the memory of connections.
    held_bytes: usize,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stop_following();
        self.hold(0);
    }
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(shard: Rc<Shard>, state: Rc<ConnectionState>) -> Connection {
        Connection {
            shard,
            state,
            buffers: None,
            dispatch: Dispatch::default(),
            received_end: false,
            has_taken_much: false,
            following: None,
            held_bytes: 0,
        }
    }

    /// Serves the connection to its end. Its future is a part of the task of every open connection, so it borrows: an
    /// async function keeps what it is given by value twice.
    pub async fn serve(&mut self) {
        self.enter_read_phase();
        let ended = self.exchange().await;
        self.stop_following();
        if ended.is_ok() {
            self.linger().await;
        }
        self.give_buffers_back();
    }

    fn give_buffers_back(&mut self) {
        if let Some(buffers) = self.buffers.take() {
            self.shard.give_back(buffers);
        }
    }

    /// The buffers; an idle connection takes some of the shard's.
    #[inline]
    fn buffers(&mut self) -> &mut Buffers {
        self.buffers.get_or_insert_with(|| self.shard.buffers())
    }

    async fn exchange(&mut self) -> Result<(), Broken> {
        let mut granted = PIPELINE_FREE;
        loop {
            let has_more = self.answer_requests(granted);
            self.account_for_input()?;
            let can_send = self.settle();
            if can_send {
                self.send().await?;
            }
            granted = PIPELINE_FREE;
            if has_more {
                self.shard.pipelines.take(PIPELINE_TURN, &self.shard.reactor).await;
                granted = PIPELINE_TURN;
            } else if can_send {
                if self.has_input() && self.shard.reactor.driver() == Driver::Epoll {
                    // A ring sends when the task waits; here a long pipeline would go on while others wait.
                    self.shard.reactor.next_turn().await;
                }
            } else if self.has_output() {
                self.wait_for_log().await?;
            } else if let Some(following) = self.following.clone() {
                self.follow(&following).await?;
            } else if let Some(follow) = self.take_follow() {
                self.begin_to_follow(*follow);
            } else if self.dispatch.waiting_read().is_some() {
                Box::pin(self.wait_for_change()).await?;
            } else if self.dispatch.is_closing() || self.received_end {
                return Ok(());
            } else {
                self.enter_read_phase();
                if let Some((bytes, length)) = self.receive().await? {
                    self.send_shared(bytes, length);
                }
            }
        }
    }

    /// Answers the requests that have arrived completely: as many as are `granted`, and more as long as the turn has room. Returns
    /// whether there may be more then. A panic in here costs this connection, and no other.
    fn answer_requests(&mut self, mut granted: usize) -> bool {
        let Connection { shard, state, buffers, dispatch, .. } = self;
        let Some(buffers) = buffers else { return false };
        let Buffers { input, output, .. } = &mut **buffers;
        let has_room =
            |output: &Output| output.accepts_more() && !(shard.memory.is_short() && output.has_short_share());
        let has_work = |dispatch: &Dispatch, input: &Input| !input.is_empty() || dispatch.waiting_read().is_some();
        while !dispatch.is_closing() && has_work(dispatch, input) && has_room(output) {
            if granted == 0 {
                if !shard.pipelines.try_take(PIPELINE_TURN, shard.reactor.turns()) {
                    return true;
                }
                granted = PIPELINE_TURN;
            }
            granted -= 1;
            let mark = output.mark();
            let answered = catch_unwind(AssertUnwindSafe(|| dispatch.answer_next(shard, state, input, output)));
            match answered {
                Ok(Progress::Answered | Progress::Refused) => {}
                Ok(Progress::AwaitsHead | Progress::AwaitsBody | Progress::AwaitsChange) => return false,
                Err(_panic) => {
                    shard.metrics.panics.add(1);
                    tracing::error!("a request handler panicked; its connection is closed");
                    output.rewind(mark);
                    dispatch.answer_panic(shard, output);
                }
            }
        }
        false
    }

    /// Takes the memory that unfinished requests need beyond what each connection has, or answers 503.
    #[inline]
    fn account_for_input(&mut self) -> Result<(), Broken> {
        let input = self.buffers.as_ref().map_or(0, |buffers| buffers.input.held_bytes());
        if self.hold(input + self.dispatch.held_bytes()) {
            return Ok(());
        }
        self.shard.metrics.connection_memory_refused.add(1);
        self.hold(0);
        let Connection { shard, buffers, dispatch, .. } = self;
        let Buffers { input, output, .. } = &mut **buffers.get_or_insert_with(|| shard.buffers());
        input.free();
        if !dispatch.is_closing() {
            dispatch.answer_short_of_memory(shard, output);
        }
        Ok(())
    }

    /// Accounts for these bytes in place of those before, as far as they are more than each connection has. Returns whether
    /// there is so much; if not, nothing changes.
    #[inline]
    fn hold(&mut self, bytes: usize) -> bool {
        let bytes = bytes.saturating_sub(CONNECTION_FREE_BYTES);
        bytes == self.held_bytes || self.change_held(bytes)
    }

    #[cold]
    fn change_held(&mut self, bytes: usize) -> bool {
        let may = self.shard.memory.change(self.held_bytes, bytes);
        if may {
            self.held_bytes = bytes;
            self.state.hold(bytes, self.shard.clock.ticks());
        }
        may
    }

    /// Whether something can be sent now.
    fn settle(&mut self) -> bool {
        let Connection { shard, buffers, .. } = self;
        let Some(buffers) = buffers else { return false };
        buffers.output.settle_front(|pending, text| super::outcome::write_outcome(shard, pending, text))
    }

    /// Sends what is ready. With io_uring the sends of all connections that had bytes go to the kernel together, so what they
    /// ask next comes together too: a system call for each would wake a client, and be woken by it, again and again.
    async fn send(&mut self) -> Result<(), Broken> {
        let bytes_max = self.shard.long_writes.write_bytes_max();
        let Buffers { input, output, pieces } = self.buffers();
        let mut pieces = pieces.take().unwrap_or_default();
        output.fill(&mut pieces, bytes_max);
        let has_more = !input.is_empty() || !output.is_empty() || self.is_ending();
        let mut manner = if pieces.total_bytes() >= LONG_WRITE_MIN_BYTES {
            // The deadline of the read phase is over with the last request, however long the turn takes.
            self.watch_send();
            self.shard.long_writes.admit(pieces.total_bytes(), &self.shard.reactor).await;
            SendManner::Patient
        } else if has_more {
            SendManner::Urgent
        } else {
            SendManner::Expected
        };
        while !pieces.is_sent() {
            if manner == SendManner::Patient {
                self.watch_send();
                // What the socket does not take at once may be held for long.
                let held = self.buffers().held_bytes() + pieces.held_bytes();
                if !self.hold(held + self.dispatch.held_bytes()) {
                    self.shard.metrics.connection_memory_refused.add(1);
                    return Err(Broken);
                }
            } else {
                self.state.enter_send(self.shard.after(self.shard.settings.write_timeout));
            }
            let (sent, returned) = self.state.socket.send(pieces, manner).await;
            pieces = returned;
            match sent {
                Ok(sent) if !self.state.expired() => {
                    self.shard.metrics.bytes_sent.add(sent as u64);
                    pieces.advance(sent);
                    #[cfg(test)]
                    if Fault::ShortSend.is_planted() {
                        let rest = pieces.unsent().map(<[u8]>::len).sum();
                        pieces.advance(rest);
                    }
                    self.state.hand_over(sent);
                    manner = SendManner::Patient;
                    if !self.has_taken_much && !pieces.is_sent() {
                        self.look_whether_much_is_taken();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(Broken),
            }
        }
        let buffers = self.buffers();
        buffers.output.finish(&mut pieces);
        buffers.pieces = Some(pieces);
        Ok(())
    }

    /// The socket is full: lets it have more if it was filled by a client that reads.
    #[cold]
    fn look_whether_much_is_taken(&mut self) {
        self.has_taken_much = self.state.socket.acknowledged_bytes() >= SEND_BOUND_LIFTED_BYTES;
        if self.has_taken_much {
            self.state.socket.lift_send_bound(SEND_BUFFER_LIFTED_BYTES);
        }
    }

    fn watch_send(&self) {
        let oldest_list = self.buffers.as_ref().and_then(|buffers| buffers.output.oldest_list());
        self.state.watch_send(self.shard.clock.ticks(), oldest_list, &self.shard.settings.write_limits());
    }

    /// Waits until the first answer is decided, or until more bytes have been received.
    async fn wait_for_log(&mut self) -> Result<(), Broken> {
        self.state.enter(Phase::Log, NEVER);
        let received = poll_fn(|context| {
            let wants_bytes = !self.received_end && !self.dispatch.is_closing();
            let request_max_bytes = self.shard.settings.request_max_bytes();
            let Buffers { input, output, .. } = self.buffers();
            if output.is_front_decided() {
                return Poll::Ready(None);
            }
            let wants_bytes = wants_bytes && output.accepts_more() && !input.is_full(request_max_bytes);
            self.state.set_waker(context.waker());
            if wants_bytes { self.poll_receive().map(Some) } else { Poll::Pending }
        })
        .await;
        received.map_or(Ok(()), |received| self.note_received(received))
    }

    /// Sets the deadline for what is being waited for. A deadline runs from the start of its phase: a client that sends
    /// a byte now and then does not move it.
    fn enter_read_phase(&self) {
        let settings = &self.shard.settings;
        let (phase, timeout) = if self.dispatch.has_head() {
            (Phase::Body, settings.body_timeout)
        } else if self.has_input() {
            (Phase::Head, settings.header_timeout)
        } else if self.shard.is_draining() {
            (Phase::Idle, super::DRAIN_IDLE_GRACE)
        } else if self.dispatch.has_answered() {
            (Phase::Idle, settings.idle_timeout)
        } else {
            // A client that connects and says nothing gets no longer than one that says half a request.
            (Phase::Idle, settings.header_timeout)
        };
        if self.state.phase() != phase {
            let deadline = self.shard.after(timeout);
            #[cfg(test)]
            let deadline = if Fault::EndlessDeadline.is_planted() && phase == Phase::Body { NEVER } else { deadline };
            self.state.enter(phase, deadline);
        }
    }

    /// Receives once. The connection has no buffers of its own while nothing comes. A request for a first page is
    /// answered from the receive buffer: what comes back is that answer, a buffer and how much of it.
    async fn receive(&mut self) -> Result<Option<(Rc<[u8]>, usize)>, Broken> {
        match &self.buffers {
            // Parsing refuses every request before it gets this long.
            Some(buffers) if buffers.input.is_full(self.shard.settings.request_max_bytes()) => return Err(Broken),
            Some(buffers) if buffers.input.is_empty() => self.give_buffers_back(),
            _ => {}
        }
        let mut answer = None;
        let awaited = poll_fn(|_| {
            let Connection { shard, state, buffers, dispatch, .. } = &mut *self;
            if let Some(unsent) = state.socket.take_unsent() {
                return Poll::Ready(Awaited::Unsent(unsent));
            }
            if state.expired() {
                return Poll::Ready(Awaited::Expired);
            }
            let may_be_answered = buffers.is_none() && dispatch.is_between_requests();
            let take = |received: Received<'_>| {
                match buffers {
                    Some(buffers) => buffers.input.append(&received),
                    None if received.is_empty() => {}
                    None => {
                        answer = dispatch.answer_at_once(shard, &received);
                        if answer.is_none() {
                            buffers.insert(shard.buffers()).input.append(&received);
                        }
                    }
                }
                received.len()
            };
            let socket = &state.socket;
            let received = if may_be_answered { socket.poll_request() } else { socket.poll_receive() };
            received.map_ok(take).map(Awaited::Received)
        })
        .await;
        match awaited {
            Awaited::Received(received) => self.note_received(received)?,
            Awaited::Unsent(unsent) => self.send_rest(unsent)?,
            Awaited::Expired => self.expire(),
        }
        Ok(answer)
    }

    /// Sends an answer that others share, and does not wait: [`Connection::receive`] hears of it if it did not fit.
    #[inline]
    fn send_shared(&mut self, bytes: Rc<[u8]>, length: usize) {
        // The next phase begins anew, however alike it is to the last.
        self.state.enter_send(self.shard.after(self.shard.settings.write_timeout));
        self.shard.metrics.bytes_sent.add(length as u64);
        self.state.socket.send_shared(bytes, length);
    }

    /// What the socket did not take at once goes the way of all answers.
    fn send_rest(&mut self, unsent: Unsent) -> Result<(), Broken> {
        let Unsent { bytes, length, sent } = unsent;
        let sent = sent.ok().filter(|_| !self.state.expired()).ok_or(Broken)?;
        self.shard.metrics.bytes_sent.subtract((length - sent) as u64);
        self.buffers().output.push_text(|text| text.extend_from_slice(&bytes[sent..length]));
        Ok(())
    }

    /// Moves what has come into the input.
    #[inline]
    fn poll_receive(&mut self) -> Poll<io::Result<usize>> {
        let Connection { shard, state, buffers, .. } = self;
        state.socket.poll_receive().map_ok(|received| {
            if !received.is_empty() {
                buffers.get_or_insert_with(|| shard.buffers()).input.append(&received);
            }
            received.len()
        })
    }

    fn note_received(&mut self, received: io::Result<usize>) -> Result<(), Broken> {
        match received {
            Ok(0) => self.received_end = true,
            Ok(received) => self.shard.metrics.bytes_received.add(received as u64),
            Err(_) => return Err(Broken),
        }
        Ok(())
    }

    /// A deadline has ended the wait for a request: one that has begun is answered 408, an idle connection just ends.
    fn expire(&mut self) {
        self.state.take_expired();
        // The head of a request with a chunked body, and its chunks so far, are no longer in the input.
        let has_begun = match self.state.phase() {
            Phase::Body => true,
            Phase::Head => self.has_input(),
            _ => false,
        };
        if has_begun {
            let output = &mut self.buffers.get_or_insert_with(|| self.shard.buffers()).output;
            match self.state.take_evicted() {
                true => self.dispatch.answer_short_of_memory(&self.shard, output),
                false => self.dispatch.answer_timeout(&self.shard, output),
            }
        } else {
            self.received_end = true;
        }
        if let Some(buffers) = &mut self.buffers {
            buffers.input.free();
        }
    }

    /// Whether there is nothing to wait for behind what is being sent.
    fn is_ending(&self) -> bool {
        self.dispatch.is_closing() && self.following.is_none() || self.received_end
    }

    fn take_follow(&mut self) -> Option<Box<Follow>> {
        self.buffers.as_mut()?.output.take_follow()
    }

    /// Whether there are answers that have not been sent.
    fn has_output(&self) -> bool {
        self.buffers.as_ref().is_some_and(|buffers| !buffers.output.is_empty())
    }

    /// Whether there are bytes that have not been parsed.
    fn has_input(&self) -> bool {
        self.buffers.as_ref().is_some_and(|buffers| !buffers.input.is_empty())
    }

    /// Says that nothing more will be sent, and waits for the client's end. One that still sends is read and dropped elsewhere,
    /// so that the system does not answer it with a reset that could overtake the last answer (RFC 9112 section 9.6).
    async fn linger(&mut self) {
        if self.received_end {
            // There is nothing more to come, and to close says that as well.
            return;
        }
        self.state.socket.shut_down(libc::SHUT_WR);
        self.state.enter(Phase::Linger, self.shard.after(LINGER_SILENCE));
        self.give_buffers_back();
        let received = poll_fn(|_| self.state.socket.poll_receive().map_ok(|received| received.len())).await;
        if received.is_ok_and(|received| received > 0)
            && let Ok(connection) = self.state.socket.detach()
        {
            self.shard.linger(connection);
        }
    }
}
