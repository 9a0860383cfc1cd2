//! The answer to one request, on its way into the output of the connection.

use std::rc::Rc;

use super::Shard;
use super::output::Output;
use super::reads::{LocalBody, LocalSnapshot, WHOLE_BODY_MAX_BYTES};
use super::writes::in_flight::PendingWrite;
use crate::http::cors::Grant;
use crate::http::problem::Delivery;
use crate::http::response::{CacheControl, ContentType};
use crate::http::{Connection, Problem, ProblemKind, ResponseHead, Status};
use crate::observe::metrics::ShardMetrics;
use crate::snapshot::{Run, SelectedRun};

/// What clients are told to wait before they try again, in seconds.
pub const RETRY_AFTER_S: u32 = 1;

/// Where the answer to one request goes.
///
/// It knows whether the request was HEAD, and every body passes through it: so whoever answers, and for whatever reason,
/// cannot send a body that the client would take for the start of the next answer (RFC 9110 section 9.3.2).
/// [`Dispatch`](super::dispatch::Dispatch) alone makes one.
pub struct Reply<'r> {
    shard: &'r Shard,
    output: &'r mut Output,
    connection: Connection,
    is_to_head: bool,
    grant: Grant,
}

impl<'r> Reply<'r> {
    /// A reply that says this about the connection.
    #[inline]
    pub fn new(
        shard: &'r Shard,
        output: &'r mut Output,
        connection: Connection,
        is_to_head: bool,
        grant: Grant,
    ) -> Reply<'r> {
        Reply { shard, output, connection, is_to_head, grant }
    }

    /// What the answer says to pages of other origins.
    #[inline]
    pub fn grant(&self) -> Grant {
        self.grant
    }

    /// What the answer says about the connection.
    #[inline]
    pub fn connection(&self) -> Connection {
        self.connection
    }

    /// The output itself, for answers to GET that are ready as a whole, head and body in one, and for streams.
    #[inline]
    pub fn whole(&mut self) -> &mut Output {
        debug_assert!(!self.is_to_head, "an answer to HEAD is written head first");
        self.output
    }

    /// Writes a head; `write` ends it.
    #[inline]
    pub fn head(&mut self, status: Status, write: impl FnOnce(ResponseHead<'_>)) {
        let shard = self.shard;
        shard.count(status);
        let lines = shard.settings.cors.lines(self.grant);
        self.output.push_text(|text| write(ResponseHead::start(text, status, &shard.clock.date()).lines(lines)));
    }

    /// Appends a body: small ones are copied behind their head, large ones are sent from the snapshot.
    pub fn body(&mut self, snapshot: &Rc<LocalSnapshot>, body: Run) {
        if self.is_to_head {
            return;
        }
        if body.remaining_bytes() <= WHOLE_BODY_MAX_BYTES {
            self.output.push_text(|text| copy_run(snapshot, body, text));
        } else {
            self.output.push_todos(Rc::clone(snapshot), body);
        }
    }

    /// Appends a part of the list, whose todos may have been gathered, each with a comma after it.
    pub fn selected_body(&mut self, snapshot: &Rc<LocalSnapshot>, mut body: SelectedRun, gathered: Option<&[&[u8]]>) {
        if self.is_to_head {
            return;
        }
        if body.remaining_bytes() > WHOLE_BODY_MAX_BYTES {
            return self.output.push_selected(Rc::clone(snapshot), body);
        }
        self.output.push_text(|text| match gathered {
            Some([]) => text.extend_from_slice(b"[]"),
            Some(todos) => {
                text.push(b'[');
                todos.iter().for_each(|json| text.extend_from_slice(json));
                if let Some(last) = text.last_mut() {
                    *last = b']';
                }
            }
            None => body.take_pieces(snapshot, |piece| {
                text.extend_from_slice(piece);
                true
            }),
        });
    }

    /// Appends a body in a content coding; returns whether it is sent.
    pub fn encoded_body(&mut self, body: &Rc<LocalBody>) -> bool {
        if !self.is_to_head {
            self.output.push_encoded(Rc::clone(body));
        }
        !self.is_to_head
    }

    /// Answers with a whole small document that says how the server is.
    pub fn document(&mut self, status: Status, content_type: ContentType, body: &[u8]) {
        let connection = self.connection;
        self.head(status, |head| {
            let head =
                head.content_type(content_type).content_length(body.len() as u64).cache_control(CacheControl::NoStore);
            let head = if status == Status::ServiceUnavailable { head.retry_after_s(RETRY_AFTER_S) } else { head };
            head.connection(connection).end();
        });
        self.bytes(body);
    }

    /// Appends a small body.
    pub fn bytes(&mut self, body: &[u8]) {
        if !self.is_to_head {
            self.output.push_text(|text| text.extend_from_slice(body));
        }
    }

    /// Answers with an error.
    pub fn problem(&mut self, problem: &Problem) {
        let (shard, connection, is_head) = (self.shard, self.connection, self.is_to_head);
        shard.count(problem.status());
        let date = shard.clock.date();
        let lines = shard.settings.cors.lines(self.grant);
        let delivery = Delivery { date: &date, connection, is_head, lines };
        self.output.push_text(|text| problem.write_response(text, delivery));
    }

    /// Holds a place for the answer to a write, which is none to HEAD.
    pub fn pending(&mut self, pending: Rc<PendingWrite>) {
        self.output.push_pending(pending);
    }
}

/// The answer while there is no list yet.
pub fn not_loaded() -> Problem {
    Problem::unavailable(ProblemKind::ListNotLoaded, "the list has not been loaded yet; /ready says why", RETRY_AFTER_S)
}

/// Counts answers of this status.
#[inline]
pub fn count_responses(metrics: &ShardMetrics, status: Status, responses: usize) {
    metrics.responses[usize::from(status.code() / 100)].add(responses as u64);
}

fn copy_run(snapshot: &LocalSnapshot, mut run: Run, text: &mut Vec<u8>) {
    run.take_pieces(snapshot, |piece| {
        text.extend_from_slice(piece);
        true
    });
}
