//! From the bytes of a connection to one request after the other: a first page, or any other head and its body.
//!
//! Framing is decided before anything is routed, and every body is read to its end or closes the connection, so that
//! nothing a client sends can be taken for another request (RFC 9112 section 11.2).

use std::rc::Rc;

use super::Shard;
use super::answer::{Request, refuse_by_head};
use super::followers::waiting_reads::{ReadWait, WaitingRead};
use super::input::Input;
use super::output::Output;
use super::reads::{Asked, Recognised, read_head, repetitions};
use super::registry::ConnectionState;
use super::reply::Reply;
use super::reply::{RETRY_AFTER_S, not_loaded};
use super::settings::BodyLimit;
use crate::http::chunked::Decoder;
use crate::http::cors::Grant;
use crate::http::response::CONTINUE;
use crate::http::{Connection, Framing, Head, Parsed, Problem, ProblemKind, Rejection, asks_for_head, parse_head};
use crate::limits::{BODY_BUFFER_KEPT_BYTES, PIPELINE_DEPTH_MAX};
use crate::todo::is_array;

/// What a connection remembers between two calls.
#[derive(Default)]
pub struct Dispatch {
    closing: bool,
    /// Whether the request that is being answered, or of which a part has come, is HEAD. Decided by its first bytes, before
    /// anything can go wrong with it, so that each answer to it goes without a body.
    is_to_head: bool,
    /// What the answer to that request says to pages of other origins.
    grant: Grant,
    has_answered: bool,
    /// A head has been read whose body is not complete: the bytes of the request, which is still in the input. It is looked at again
    /// when it has come as a whole, and not with each part.
    awaited_bytes: Option<usize>,
    continue_sent: bool,
    /// A chunked body in the making.
    chunked: Option<Box<ChunkedRequest>>,
    /// A read whose answer waits for a change.
    waiting: Option<Box<WaitingRequest>>,
    /// Requests answered since the process drains.
    answered_in_drain: usize,
}

/// How far it has come with the next request of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It has been answered, and what stands behind it may be looked at.
    Answered,
    /// It has been answered with an error, behind which the connection closes.
    Refused,
    /// Its head has not arrived completely.
    AwaitsHead,
    /// Its head is good, and its body has not arrived completely.
    AwaitsBody,
    /// It is a read that waits for a change.
    AwaitsChange,
}

/// A read that waits, and its head, by which it is answered in the end.
struct WaitingRequest {
    head: Box<[u8]>,
    read: WaitingRead,
}

struct ChunkedRequest {
    head: Vec<u8>,
    /// The longest body, and the setting that says so.
    limit: BodyLimit,
    decoder: Decoder,
    body: Vec<u8>,
}

impl Dispatch {
    /// Whether nothing more will be answered on this connection.
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether a request has been answered before.
    pub fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Bytes of memory that the request at hand holds beside the input.
    pub fn held_bytes(&self) -> usize {
        let chunked = self.chunked.as_ref().map_or(0, |request| request.head.capacity() + request.body.capacity());
        chunked + self.waiting.as_ref().map_or(0, |waiting| waiting.head.len())
    }

    /// The read whose answer waits for a change.
    #[inline]
    pub fn waiting_read(&self) -> Option<&WaitingRead> {
        self.waiting.as_ref().map(|waiting| &waiting.read)
    }

    /// Whether a head has been read and its body is awaited.
    pub fn has_head(&self) -> bool {
        self.awaited_bytes.is_some() || self.chunked.is_some()
    }

    /// Whether the connection has been used, and is ready for any request.
    #[inline]
    pub fn is_between_requests(&self) -> bool {
        self.has_answered && !self.closing && !self.has_head()
    }

    /// Answers the next request of the input, if it has arrived completely.
    #[inline]
    pub fn answer_next(
        &mut self,
        shard: &Rc<Shard>,
        state: &Rc<ConnectionState>,
        input: &mut Input,
        output: &mut Output,
    ) -> Progress {
        if self.chunked.is_some() {
            return self.continue_chunked(shard, state, input, output);
        }
        if self.waiting.is_some() {
            return self.continue_waiting(shard, state, input, output);
        }
        if self.awaited_bytes.is_some_and(|awaited| input.unread().len() < awaited) {
            return Progress::AwaitsBody;
        }
        self.is_to_head = asks_for_head(input.unread());
        self.grant = shard.settings.cors.unread();
        // In a drain each answer says whether the connection goes on, which no prepared one does.
        let recognised = match shard.is_draining() {
            false => shard.reads.recognise(input.unread()),
            true => read_head(input.unread()),
        };
        let (head, head_bytes) = match recognised {
            Ok(Recognised::FirstPage(asked)) => {
                self.answer_first_page(shard, asked, input, output);
                return Progress::Answered;
            }
            Ok(Recognised::Head { head, head_bytes }) => {
                self.grant = shard.settings.cors.grant(&head);
                (head, head_bytes)
            }
            Ok(Recognised::Incomplete) => return Progress::AwaitsHead,
            Err(rejection) => {
                return self.reject(shard, &Problem::from(rejection), output);
            }
        };
        let request_bytes = match head.framing {
            Framing::None => head_bytes,
            Framing::Length(length) => {
                let limit = shard.settings.body_limit(&head, &input.unread()[head_bytes..]);
                if length > limit.0 as u64 {
                    return self.reject(shard, &Problem::body_too_large(limit), output);
                }
                let request_bytes = head_bytes + length as usize;
                if input.unread().len() < request_bytes {
                    let has_begun = input.unread().len() > head_bytes;
                    self.awaited_bytes = Some(request_bytes);
                    return self.expect_body(shard, state, &head, has_begun, output);
                }
                request_bytes
            }
            Framing::Chunked => {
                let has_begun = input.unread().len() > head_bytes;
                if self.expect_body(shard, state, &head, has_begun, output) == Progress::Refused {
                    return Progress::Refused;
                }
                let limit = shard.settings.body_limit(&head, &[]);
                let (bytes, decoder) = (input.unread()[..head_bytes].to_vec(), Decoder::new(limit.0));
                self.chunked = Some(Box::new(ChunkedRequest { head: bytes, limit, decoder, body: Vec::new() }));
                input.consume(head_bytes);
                return self.continue_chunked(shard, state, input, output);
            }
        };
        let is_last = input.unread().len() == request_bytes && !(shard.is_draining() && state.socket.has_received());
        let connection = self.connection_after(shard, &head, is_last);
        self.finish_request(connection);
        let reply = self.reply(shard, connection, output);
        let mut request = Request { shard, state, head: &head, reply, wait: ReadWait::May };
        if request.head.framing.has_body() {
            // Strings are unescaped in place, and the input holds the requests that follow: a body is parsed in a copy.
            let mut body = shard.body.borrow_mut();
            body.clear();
            body.extend_from_slice(&input.unread()[head_bytes..request_bytes]);
            request.answer(&mut body);
            if body.capacity() > BODY_BUFFER_KEPT_BYTES {
                *body = Vec::new();
            }
        } else {
            request.answer(&mut []);
        }
        let wait = request.wait;
        self.hold_waiting(wait, &input.unread()[..head_bytes]);
        self.closing |= output.is_followed();
        input.consume(request_bytes);
        Progress::Answered
    }

    /// [`Shard::answer_at_once`], on this connection; nothing may be there that has not been answered.
    #[inline]
    pub fn answer_at_once(&mut self, shard: &Shard, received: &[u8]) -> Option<(Rc<[u8]>, usize)> {
        let is_ready = !self.closing && !self.has_head();
        let answer = is_ready.then(|| shard.answer_at_once(received)).flatten()?;
        self.finish_request(Connection::KeepAlive);
        Some(answer)
    }

    /// Answers a request for a first page, and all that repeat it behind it as far as the output takes them.
    #[inline]
    fn answer_first_page(&mut self, shard: &Shard, asked: Asked, input: &mut Input, output: &mut Output) {
        self.finish_request(Connection::KeepAlive);
        self.grant = asked.page.grant;
        let times = repetitions(input.unread(), asked.request_bytes, output.room());
        let Some(served) = shard.reads.serve(asked.page, times, output.form()) else {
            self.reply(shard, Connection::KeepAlive, output).problem(&not_loaded());
            return input.consume(asked.request_bytes);
        };
        shard.reads.note(input.unread(), asked);
        input.consume(served.answers * asked.request_bytes);
        output.push_served(served);
    }

    /// What becomes of the connection after this request; `is_last` when nothing behind it has arrived. A drain ends
    /// the connection behind the pipelined requests that are here already, because whoever sent them could not know of
    /// it; at the latest behind as many as may be in flight, so that a client that never pauses cannot hold it up.
    fn connection_after(&mut self, shard: &Shard, head: &Head<'_>, is_last: bool) -> Connection {
        if !shard.is_draining() {
            return head.connection();
        }
        self.answered_in_drain += 1;
        let closes = is_last || self.answered_in_drain >= PIPELINE_DEPTH_MAX;
        if closes { Connection::Close } else { head.connection() }
    }

    fn finish_request(&mut self, connection: Connection) {
        self.has_answered = true;
        self.awaited_bytes = None;
        self.continue_sent = false;
        self.closing = connection == Connection::Close;
    }

    /// A body is awaited. A client that waits for `100 Continue` gets it, or the final answer where the head alone
    /// decides (RFC 9110 section 10.1.1); then the connection closes, because the client may send the body all the same.
    fn expect_body(
        &mut self,
        shard: &Rc<Shard>,
        state: &ConnectionState,
        head: &Head<'_>,
        has_begun: bool,
        output: &mut Output,
    ) -> Progress {
        if !head.expect_continue || self.continue_sent || has_begun {
            return Progress::AwaitsBody;
        }
        if let Err(problem) = refuse_by_head(shard, state, head) {
            return self.reject(shard, &problem, output);
        }
        self.continue_sent = true;
        output.push_text(|text| text.extend_from_slice(CONTINUE));
        Progress::AwaitsBody
    }

    fn continue_chunked(
        &mut self,
        shard: &Rc<Shard>,
        state: &Rc<ConnectionState>,
        input: &mut Input,
        output: &mut Output,
    ) -> Progress {
        let Some(mut request) = self.chunked.take() else { return Progress::AwaitsHead };
        let ChunkedRequest { head, limit, decoder, body } = &mut *request;
        match decoder.decode(input.unread(), body) {
            Err(rejection) => {
                let problem = match rejection {
                    Rejection::BODY_TOO_LARGE => Problem::body_too_large(*limit),
                    other => Problem::from(other),
                };
                self.reject(shard, &problem, output)
            }
            // Arrays alone may be longer.
            Ok(_) if body.len() > shard.settings.body_max_bytes && !is_array(body) => {
                self.reject(shard, &Problem::body_too_large(shard.settings.plain_body_limit()), output)
            }
            Ok(progress) => {
                input.consume(progress.consumed);
                if !progress.done {
                    self.chunked = Some(request);
                    return Progress::AwaitsBody;
                }
                self.answer_kept(shard, state, head, body, ReadWait::May, input, output);
                Progress::Answered
            }
        }
    }

    /// Looks at a read again that waits, if there is reason to.
    fn continue_waiting(
        &mut self,
        shard: &Rc<Shard>,
        state: &Rc<ConnectionState>,
        input: &Input,
        output: &mut Output,
    ) -> Progress {
        let Some(waiting) = self.waiting.take_if(|waiting| waiting.read.has_work(shard)) else {
            return Progress::AwaitsChange;
        };
        let WaitingRequest { head, read } = *waiting;
        self.is_to_head = asks_for_head(&head);
        self.answer_kept(shard, state, &head, &mut [], read.resume(shard), input, output);
        Progress::Answered
    }

    /// Answers a request whose head was read before.
    #[allow(clippy::too_many_arguments, reason = "one call, whose parts the connection owns")]
    fn answer_kept(
        &mut self,
        shard: &Rc<Shard>,
        state: &Rc<ConnectionState>,
        head_bytes: &[u8],
        body: &mut [u8],
        wait: ReadWait,
        input: &Input,
        output: &mut Output,
    ) {
        let Ok(Parsed::Complete { head, .. }) = parse_head(head_bytes) else { return };
        self.grant = shard.settings.cors.grant(&head);
        let connection = self.connection_after(shard, &head, input.is_empty() && !state.socket.has_received());
        self.finish_request(connection);
        let reply = self.reply(shard, connection, output);
        let mut request = Request { shard, state, head: &head, reply, wait };
        request.answer(body);
        let wait = request.wait;
        self.hold_waiting(wait, head_bytes);
        self.closing |= output.is_followed();
    }

    /// Keeps the head of a request whose answer waits. What the connection becomes is decided with the answer.
    #[inline]
    fn hold_waiting(&mut self, wait: ReadWait, head_bytes: &[u8]) {
        if let ReadWait::Waits(read) = wait {
            self.waiting = Some(Box::new(WaitingRequest { head: head_bytes.into(), read }));
            self.closing = false;
        }
    }

    /// Where the answer to the present request goes.
    #[inline]
    fn reply<'r>(&self, shard: &'r Shard, connection: Connection, output: &'r mut Output) -> Reply<'r> {
        Reply::new(shard, output, connection, self.is_to_head, self.grant)
    }

    /// Answers with an error after which the connection closes.
    fn reject(&mut self, shard: &Shard, problem: &Problem, output: &mut Output) -> Progress {
        self.closing = true;
        self.reply(shard, Connection::Close, output).problem(problem);
        Progress::Refused
    }

    /// Answers 408: the request that has begun did not end in time.
    pub fn answer_timeout(&mut self, shard: &Shard, output: &mut Output) {
        let detail = match self.has_head() {
            true => "the body did not arrive within BODY_TIMEOUT_MS",
            false => "the head did not arrive within HEADER_TIMEOUT_MS",
        };
        self.reject(shard, &Problem::request_timeout(detail), output);
    }

    /// Answers 503: the request at hand, and what stands behind it, needs more memory than there is.
    pub fn answer_short_of_memory(&mut self, shard: &Shard, output: &mut Output) {
        self.chunked = None;
        self.waiting = None;
        self.awaited_bytes = None;
        let detail = "the server is short of memory for connections; this request was not carried out: send less at \
                      a time, or try again";
        self.reject(shard, &Problem::unavailable(ProblemKind::ShortOfMemory, detail, RETRY_AFTER_S), output);
    }

    /// Answers 500: the handler panicked.
    pub fn answer_panic(&mut self, shard: &Shard, output: &mut Output) {
        self.reject(shard, &Problem::internal(), output);
    }
}
