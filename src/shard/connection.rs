//! One connection: receive, parse and answer what has come, send, in a loop, until one side has had enough.
//!
//! One task does all of it, so answers need no lock and keep their order. While writes wait for the command log the task
//! waits for acknowledgements and for further bytes alike; that is how pipelined writes are in flight together.

use std::future::Future;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use monoio::buf::{IoBuf, IoBufMut, IoVecBuf};
use monoio::io::{AsyncReadRent, AsyncWriteRent, CancelHandle, CancelableAsyncReadRent, Canceller};
use monoio::net::TcpStream;

use super::dispatch::Dispatch;
use super::input::Input;
use super::output::{Output, WriteBatch};
use super::registry::{ConnectionState, Phase};
use super::{HOT_AFTER_RECEIVES, HOT_RECEIVES_MAX, LINGER_MAX_BYTES, PARK_AFTER, Shard};

/// The buffers of a connection that has bytes; an idle one has none.
#[derive(Default)]
pub struct Buffers {
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) batch: WriteBatch,
}

// The kernel gets the whole box: a future holds what it was given several times over, and every open connection, also an
// idle one, has the room for it in its task.

// SAFETY: all is left to the input, whose memory does not move with the box. Nothing else reaches the buffers while the
// runtime owns them.
unsafe impl IoBufMut for Box<Buffers> {
    fn write_ptr(&mut self) -> *mut u8 {
        self.input.write_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.input.bytes_total()
    }

    unsafe fn set_init(&mut self, received: usize) {
        // SAFETY: the caller keeps the same promise.
        unsafe { self.input.set_init(received) }
    }
}

// SAFETY: all is left to the batch, whose pieces do not move with the box. Nothing else reaches the buffers while the
// runtime owns them.
unsafe impl IoVecBuf for Box<Buffers> {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.batch.read_iovec_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.batch.read_iovec_len()
    }
}

// SAFETY: as above, for the first unsent piece alone.
unsafe impl IoBuf for Box<Buffers> {
    fn read_ptr(&self) -> *const u8 {
        self.batch.read_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.batch.bytes_init()
    }
}

/// Why a wait for the log ended.
enum Woken {
    Log,
    Bytes,
}

/// The connection cannot be used any more; there is nobody to tell.
struct Broken;

/// A connection and what it needs.
pub struct Connection {
    shard: Rc<Shard>,
    stream: TcpStream,
    state: Rc<ConnectionState>,
    /// `None` while the connection waits without them, and while the kernel has them.
    buffers: Option<Box<Buffers>>,
    dispatch: Dispatch,
    /// Used for one receive after the other; `None` after the sweeper has used it up.
    canceller: Option<Canceller>,
    heat: Heat,
    received_end: bool,
}

/// How many receives have followed each other without a pause.
#[derive(Default)]
struct Heat {
    receives: u32,
    /// The tick of the last one; after thirteen years the count starts again.
    received_at: u32,
}

impl Heat {
    #[inline]
    fn note_receive(&mut self, now: u64) {
        let now = now as u32;
        self.receives = if now.wrapping_sub(self.received_at) <= 1 { self.receives.saturating_add(1) } else { 0 };
        self.received_at = now;
    }

    #[inline]
    fn is_hot(&self) -> bool {
        self.receives >= HOT_AFTER_RECEIVES
    }
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(shard: Rc<Shard>, stream: TcpStream, state: Rc<ConnectionState>) -> Connection {
        Connection {
            shard,
            stream,
            state,
            buffers: None,
            dispatch: Dispatch::default(),
            canceller: None,
            heat: Heat::default(),
            received_end: false,
        }
    }

    /// Serves the connection to its end. Its future is a part of the task of every open connection, so it borrows: an
    /// async function keeps what it is given by value twice.
    pub async fn serve(&mut self) {
        self.enter_read_phase();
        if self.exchange().await.is_ok() {
            self.linger().await;
        }
        self.give_buffers_back();
    }

    fn give_buffers_back(&mut self) {
        if let Some(buffers) = self.buffers.take() {
            self.shard.give_back(buffers);
        }
    }

    /// The buffers, to be lent to the kernel; an idle connection takes some of the shard's.
    #[inline]
    fn take_buffers(&mut self) -> Box<Buffers> {
        self.buffers.take().unwrap_or_else(|| self.shard.buffers())
    }

    /// The same, to work with.
    #[inline]
    fn buffers(&mut self) -> &mut Buffers {
        self.buffers.get_or_insert_with(|| self.shard.buffers())
    }

    async fn exchange(&mut self) -> Result<(), Broken> {
        loop {
            self.answer_requests();
            if self.settle() {
                self.send().await?;
            } else if !self.buffers().output.is_empty() {
                match self.wait_for_log().await {
                    Woken::Log => {}
                    Woken::Bytes => self.receive().await?,
                }
            } else if self.dispatch.is_closing() || self.received_end {
                return Ok(());
            } else {
                self.enter_read_phase();
                self.receive().await?;
            }
        }
    }

    /// Answers every request that has arrived completely. A panic in here costs this connection, and no other.
    fn answer_requests(&mut self) {
        let Connection { shard, state, buffers, dispatch, .. } = self;
        let Some(buffers) = buffers else { return };
        let Buffers { input, output, .. } = &mut **buffers;
        while !dispatch.is_closing() && !input.is_empty() && output.accepts_more() {
            let mark = output.mark();
            let answered = catch_unwind(AssertUnwindSafe(|| dispatch.answer_next(shard, state, input, output)));
            match answered {
                Ok(true) => {}
                Ok(false) => return,
                Err(_panic) => {
                    shard.metrics.panics.add(1);
                    tracing::error!("a request handler panicked; its connection is closed");
                    output.rewind(mark);
                    dispatch.answer_panic(shard, output);
                }
            }
        }
    }

    /// Whether something can be sent now.
    fn settle(&mut self) -> bool {
        let Connection { shard, buffers, .. } = self;
        let Some(buffers) = buffers else { return false };
        buffers.output.settle_front(|pending, text| super::answer::write_outcome(shard, pending, text))
    }

    /// Sends what is ready. With io_uring the sends of all connections that had bytes go to the kernel together, so what they
    /// ask next comes together too: a system call for each would wake a client, and be woken by it, again and again.
    async fn send(&mut self) -> Result<(), Broken> {
        let mut buffers = self.take_buffers();
        buffers.output.fill(&mut buffers.batch, self.shard.long_writes.write_bytes_max());
        if buffers.batch.is_long() {
            // The deadline of the read phase is over with the last request, however long the turn takes.
            self.state.enter(Phase::Send, self.shard.after(self.shard.settings.write_timeout));
            self.shard.long_writes.admit(buffers.batch.total_bytes()).await;
        }
        while !buffers.batch.is_sent() {
            self.state.enter(Phase::Send, self.shard.after(self.shard.settings.write_timeout));
            let is_single = buffers.batch.is_single();
            let (sent, returned) =
                if is_single { self.stream.write(buffers).await } else { self.stream.writev(buffers).await };
            buffers = returned;
            match sent {
                Ok(sent) if sent > 0 && !self.state.expired() => {
                    self.shard.metrics.bytes_sent.add(sent as u64);
                    buffers.batch.advance(sent);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return Err(Broken),
            }
        }
        buffers.output.finish_batch(&mut buffers.batch);
        self.buffers = Some(buffers);
        Ok(())
    }

    /// Waits until the first answer is decided, or until more bytes can be received.
    ///
    /// Behind a single write, most clients wait for its answer: they are spared the poll of their socket, and its
    /// cancellation, until the sweeper finds that the log takes its time.
    async fn wait_for_log(&mut self) -> Woken {
        self.state.enter(Phase::Log, self.shard.after(super::registry::TICK));
        let Connection { shard, stream, state, buffers, dispatch, received_end, .. } = self;
        let output = &buffers.get_or_insert_with(|| shard.buffers()).output;
        let wants_bytes = !*received_end && !dispatch.is_closing() && output.accepts_more();
        let pipelines = !output.is_single();
        let mut readable = pin!(async {
            match wants_bytes {
                true => stream.readable(false).await,
                false => std::future::pending().await,
            }
        });
        std::future::poll_fn(|context| {
            if output.is_front_decided() {
                return Poll::Ready(Woken::Log);
            }
            state.set_waker(context.waker());
            if !pipelines && !state.is_log_slow() {
                return Poll::Pending;
            }
            readable.as_mut().poll(context).map(|_| Woken::Bytes)
        })
        .await
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
            self.state.enter(phase, self.shard.after(timeout));
        }
    }

    /// Receives once. A receive that nothing comes for gives its buffer back after [`PARK_AFTER`] and waits without one.
    async fn receive(&mut self) -> Result<(), Broken> {
        loop {
            if !self.buffers().input.make_room() {
                // Parsing refuses every request before it gets this long.
                return Err(Broken);
            }
            let received = if self.heat.is_hot() && self.shard.hot_receives.get() < HOT_RECEIVES_MAX {
                // A receive that cannot be cancelled keeps its buffers until bytes or the end come. It spares a busy
                // connection the book-keeping of cancellation, which was 2 % of its CPU time.
                self.shard.hot_receives.set(self.shard.hot_receives.get() + 1);
                let buffers = self.take_buffers();
                let (received, buffers) = self.stream.read(buffers).await;
                self.buffers = Some(buffers);
                self.shard.hot_receives.set(self.shard.hot_receives.get() - 1);
                received
            } else {
                let buffers = self.take_buffers();
                let handle = self.park_later();
                let (received, buffers) = self.stream.cancelable_read(buffers, handle).await;
                self.buffers = Some(buffers);
                self.canceller = self.state.unpark();
                received
            };
            self.heat.note_receive(self.shard.clock.ticks());
            match received {
                Ok(0) => {
                    self.received_end = true;
                    if self.state.expired() {
                        self.expire();
                    }
                    return Ok(());
                }
                Ok(received) => {
                    self.shard.metrics.bytes_received.add(received as u64);
                    self.buffers().input.grow_if_filled();
                    return Ok(());
                }
                Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => self.park().await?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken),
            }
        }
    }

    /// Lets the sweeper cancel the receive that gets this handle, when nothing has come for [`PARK_AFTER`].
    fn park_later(&mut self) -> CancelHandle {
        let canceller = self.canceller.take().unwrap_or_default();
        let handle = canceller.handle();
        self.state.park_at(self.shard.after(PARK_AFTER), Some(canceller));
        handle
    }

    /// Waits for bytes without a buffer.
    async fn park(&mut self) -> Result<(), Broken> {
        let buffers = self.buffers();
        if buffers.input.is_empty() && buffers.output.is_empty() {
            self.give_buffers_back();
        }
        self.stream.readable(false).await.map_err(|_| Broken)
    }

    /// A deadline has ended the wait for a request: one that has begun is answered 408, an idle connection just ends.
    fn expire(&mut self) {
        self.shard.metrics.deadlines_expired.add(1);
        // The head of a request with a chunked body, and its chunks so far, are no longer in the input.
        let has_begun = match self.state.phase() {
            Phase::Body => true,
            Phase::Head => self.has_input(),
            _ => false,
        };
        if has_begun {
            let output = &mut self.buffers.get_or_insert_with(|| self.shard.buffers()).output;
            self.dispatch.answer_timeout(&self.shard, output);
        }
        self.buffers().input.clear();
    }

    /// Whether there are bytes that have not been parsed.
    fn has_input(&self) -> bool {
        self.buffers.as_ref().is_some_and(|buffers| !buffers.input.is_empty())
    }

    /// Says that nothing more will be sent, and reads what the client still sends, so that the system does not answer it
    /// with a reset that could overtake the last answer (RFC 9112 section 9.6).
    async fn linger(&mut self) {
        self.state.shut_down(libc::SHUT_WR);
        if self.received_end {
            return;
        }
        self.state.enter(Phase::Linger, self.shard.after(super::LINGER_TIMEOUT));
        let mut dropped_bytes = 0;
        while dropped_bytes < LINGER_MAX_BYTES {
            let mut buffers = self.take_buffers();
            buffers.input.clear();
            buffers.input.make_room();
            let (received, buffers) = self.stream.read(buffers).await;
            self.buffers = Some(buffers);
            match received {
                Ok(received) if received > 0 => dropped_bytes += received,
                _ => break,
            }
        }
        self.buffers().input.clear();
    }
}
