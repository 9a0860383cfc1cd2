//! The answer to `GET /todos/events`: the head of a stream and how it begins. What follows is sent by the connection's task
//! (`connection/following.rs`).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::super::answer::Request;
use super::super::output::Output;
use super::super::reads::LocalSnapshot;
use super::super::reply::{RETRY_AFTER_S, not_loaded};
use super::{Filter, Follow, Start, Wants};
use crate::change_feed::{
    Found, Framing, ResetReason, write_last, write_list_end, write_list_start, write_reset, write_start,
};
use crate::http::accept::accepts;
use crate::http::events_query::{EventsQuery, events_query};
use crate::http::response::{CacheControl, ContentType};
use crate::http::words::cursor::encode_cursor;
use crate::http::{Connection, Head, Method, Position, Problem, ProblemKind, Status, Version};
use crate::limits::{EVENTS_AHEAD_WAIT_MS, EVENTS_RETRY_SPREAD_S};

/// What the request comes to.
enum Beginning {
    /// The client knows where it stands, and goes on from there.
    GoesOn(Start),
    /// It begins with the present.
    Present,
    /// It has to read the list again.
    Reset(ResetReason),
}

impl Request<'_> {
    /// Begins a stream of changes. The connection ends with it, so nothing behind the request is answered.
    pub(in super::super) fn follow(&mut self) -> Result<(), Problem> {
        let asked = events_query(self.head.query)?;
        if !accepts(self.head.rare("accept"), "text", "event-stream") {
            let detail = "this resource is text/event-stream, which Accept leaves out";
            return Err(Problem::new(ProblemKind::NotAcceptable, detail));
        }
        let shard = self.shard;
        let snapshot = shard.reads.snapshot().ok_or_else(not_loaded)?;
        if shard.is_draining() {
            return Err(Problem::unavailable(
                ProblemKind::ServerLeaving,
                "this process leaves; connect again",
                RETRY_AFTER_S,
            ));
        }
        // A client that cannot set the field has its first position in the query for ever, and sends the later one in the field.
        let named = last_event_id(self.head)?.or(asked.last_event_id.as_deref());
        let framing = match self.head.version {
            Version::Http11 => Framing::Chunked,
            Version::Http10 => Framing::Bare,
        };
        if self.head.method == Method::Head {
            self.write_stream_head(self.reply.connection(), framing);
            return Ok(());
        }
        let Some(place) = shard.followers.places.take() else {
            let refused = shard.metrics.followers_refused.get();
            shard.metrics.followers_refused.add(1);
            // So that those who are refused together do not come back together.
            let retry_after_s = (1 + refused % EVENTS_RETRY_SPREAD_S) as u32;
            let detail = "as many clients follow as may (EVENTS_FOLLOWERS_MAX)";
            return Err(Problem::unavailable(ProblemKind::TooManyFollowers, detail, retry_after_s));
        };
        let EventsQuery { limit, user_id, .. } = asked;
        self.write_stream_head(Connection::Close, framing);
        let filter = user_id.map(|user_id| Filter {
            owner: Cell::new(snapshot.owner_number(&user_id)),
            user_id: user_id.into_boxed_str(),
        });
        let wants = Wants { framing, filter, limit };
        let (end, position) = {
            let history = shard.followers.history.borrow();
            (history.end(), history.position())
        };
        let output = self.reply.whole();
        let start = match shard.beginning(named) {
            Beginning::GoesOn(start) => {
                output.push_text(|text| write_start(framing, text, None));
                start
            }
            Beginning::Present => {
                output.push_text(|text| write_start(framing, text, limit.is_none().then_some(position)));
                push_list(output, &snapshot, &wants, position);
                Start::At(end)
            }
            Beginning::Reset(reason) => {
                shard.metrics.event_resets[reason as usize].add(1);
                output.push_text(|text| write_start(framing, text, None));
                match push_reset(output, reason, &snapshot, &wants, position) {
                    true => Start::At(end),
                    false => Start::Ended,
                }
            }
        };
        output.follow(Follow { place, wants, start });
        Ok(())
    }

    fn write_stream_head(&mut self, connection: Connection, framing: Framing) {
        self.reply.head(Status::Ok, |head| {
            let head = head.content_type(ContentType::EventStream).cache_control(CacheControl::NoStore).unbuffered();
            let head = if framing == Framing::Chunked { head.chunked() } else { head };
            head.connection(connection).end();
        });
    }
}

impl super::super::Shard {
    /// Where a client begins that names this position.
    fn beginning(&self, named: Option<&[u8]>) -> Beginning {
        let Some(named) = named.filter(|named| !named.is_empty()) else { return Beginning::Present };
        let Some(position) = Position::parse(named) else { return Beginning::Reset(ResetReason::UnknownPosition) };
        match self.followers.history.borrow().find(position) {
            Found::Next(number) => Beginning::GoesOn(Start::At(number)),
            Found::Ahead => {
                let until = self.after(Duration::from_millis(EVENTS_AHEAD_WAIT_MS));
                Beginning::GoesOn(Start::Awaited(position, until))
            }
            Found::TooOld => Beginning::Reset(ResetReason::TooOld),
            Found::Unknown => Beginning::Reset(ResetReason::UnknownPosition),
        }
    }
}

/// Appends the event that says that the list has to be read again; behind it comes the list where the client wants it so, else
/// the stream ends, because nothing that follows would be of use. Returns whether it goes on.
pub fn push_reset(
    output: &mut Output,
    reason: ResetReason,
    snapshot: &Rc<LocalSnapshot>,
    wants: &Wants,
    position: Position,
) -> bool {
    output.push_text(|text| write_reset(wants.framing, text, reason));
    if wants.limit.is_some() {
        push_list(output, snapshot, wants, position);
    } else {
        output.push_text(|text| write_last(wants.framing, text));
    }
    wants.limit.is_some()
}

/// Appends the event with the first page, where the client wants it.
fn push_list(output: &mut Output, snapshot: &Rc<LocalSnapshot>, wants: &Wants, position: Position) {
    let Some(limit) = wants.limit else { return };
    let page = snapshot.page(None, Some(limit));
    let mut next = b"null".to_vec();
    if let Some(last) = page.next {
        next = format!("\"/todos?limit={limit}&cursor=").into_bytes();
        next.extend_from_slice(&encode_cursor(last));
        next.push(b'"');
    }
    output.push_text(|text| write_list_start(wants.framing, text, page.content_length, &next, position));
    output.push_todos(Rc::clone(snapshot), page.body);
    output.push_text(|text| write_list_end(wants.framing, text, &next, position));
}

/// The value of `Last-Event-ID`.
fn last_event_id<'r>(head: &Head<'r>) -> Result<Option<&'r [u8]>, Problem> {
    let mut lines = head.rare("last-event-id");
    let value = lines.next();
    match lines.next() {
        None => Ok(value),
        Some(_) => Err(Problem::invalid_parameter("Last-Event-ID is given twice")),
    }
}
