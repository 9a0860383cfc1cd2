//! The answers to writes whose outcome is known.

use super::Shard;
use super::reply::RETRY_AFTER_S;
use super::writes::in_flight::{Outcome, PendingWrite, WriteKind};
use crate::command_log::Refusal;
use crate::http::problem::Delivery;
use crate::http::response::{CacheControl, ContentType, DATE_BYTES};
use crate::http::{Problem, ProblemKind, ResponseHead, Status};
use crate::todo::{TODO_ID_TEXT_BYTES, TodoId};

/// Writes the answer to a write whose outcome is known.
pub fn write_outcome(shard: &Shard, pending: &PendingWrite, text: &mut Vec<u8>) {
    let refusal = match pending.outcome() {
        Some(Outcome::Accepted | Outcome::Visible) => None,
        Some(Outcome::Refused(refusal)) => Some(refusal),
        None => Some(Refusal::Unconfirmed),
    };
    let date = shard.clock.date();
    let lines = shard.settings.cors.lines(pending.grant);
    let Some(refusal) = refusal else {
        shard.count(Status::Accepted);
        return match &pending.array {
            Some(ids) => write_all_accepted(ids, pending, &date, lines, text),
            None => write_accepted(pending, &date, lines, text),
        };
    };
    if refusal == Refusal::OverLimit {
        shard.metrics.writes_over_log_bytes.add(1);
    }
    let problem = if pending.array.is_some() { refused_of_array(refusal) } else { refused(refusal) };
    shard.count(problem.status());
    let delivery = Delivery { date: &date, connection: pending.connection, is_head: false, lines };
    problem.write_response(text, delivery);
}

fn write_accepted(pending: &PendingWrite, date: &[u8; DATE_BYTES], lines: &[u8], text: &mut Vec<u8>) {
    let message: &[u8] = match pending.kind {
        WriteKind::Create => b"\",\"message\":\"Todo creation queued\"}",
        WriteKind::Update => b"\",\"message\":\"Todo update queued\"}",
        WriteKind::Delete => b"\",\"message\":\"Todo deletion queued\"}",
    };
    const ID: &[u8] = b"{\"id\":\"";
    let head = ResponseHead::start(text, Status::Accepted, date)
        .lines(lines)
        .content_type(ContentType::Json)
        .content_length((ID.len() + TODO_ID_TEXT_BYTES + message.len()) as u64)
        .cache_control(CacheControl::NoStore);
    let head = if pending.kind == WriteKind::Create { head.location(pending.id) } else { head };
    let is_visible = pending.outcome() == Some(Outcome::Visible);
    let head = if is_visible { head.preference_applied_wait() } else { head };
    head.connection(pending.connection).end();
    text.extend_from_slice(ID);
    text.extend_from_slice(pending.id.write_text(&mut [0; TODO_ID_TEXT_BYTES]).as_bytes());
    text.extend_from_slice(message);
}

/// A write that was refused.
pub fn refused(refusal: Refusal) -> Problem {
    let not_taken = |detail| Problem::queue_failed(ProblemKind::WriteNotTaken, detail, RETRY_AFTER_S);
    match refusal {
        Refusal::Full => not_taken("the write queue is full; nothing was written"),
        Refusal::Unconfirmed => Problem::queue_failed(
            ProblemKind::WriteUnconfirmed,
            "the command log did not confirm the write in time; it may still be applied",
            RETRY_AFTER_S,
        ),
        Refusal::Unavailable => {
            not_taken("the command log takes no writes at present, and /ready says why; nothing was written")
        }
        Refusal::OverLimit => not_taken(
            "the command log has reached LOG_MAX_BYTES, because the store does not keep up; nothing was written",
        ),
        Refusal::TooLarge => {
            let detail = "the command log does not take a command of this size; nothing was written";
            Problem::new(ProblemKind::BodyTooLarge, detail)
        }
    }
}

/// Writes the answer to an array that the log has, all of it.
fn write_all_accepted(
    ids: &[TodoId],
    pending: &PendingWrite,
    date: &[u8; DATE_BYTES],
    lines: &[u8],
    text: &mut Vec<u8>,
) {
    const START: &[u8] = b"{\"ids\":[";
    const END: &[u8] = b"],\"message\":\"Todo creation queued\"}";
    // Each id between quotes, and a comma between two.
    let ids_bytes = ids.len() * (TODO_ID_TEXT_BYTES + 3) - 1;
    let head = ResponseHead::start(text, Status::Accepted, date)
        .lines(lines)
        .content_type(ContentType::Json)
        .content_length((START.len() + ids_bytes + END.len()) as u64)
        .cache_control(CacheControl::NoStore);
    let is_visible = pending.outcome() == Some(Outcome::Visible);
    let head = if is_visible { head.preference_applied_wait() } else { head };
    head.connection(pending.connection).end();
    text.extend_from_slice(START);
    for (number, id) in ids.iter().enumerate() {
        text.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
        text.extend_from_slice(id.write_text(&mut [0; TODO_ID_TEXT_BYTES]).as_bytes());
        text.push(b'"');
    }
    text.extend_from_slice(END);
}

/// An array of which at least one todo was refused. Of the others nobody waits to hear.
fn refused_of_array(refusal: Refusal) -> Problem {
    let detail = match refusal {
        Refusal::TooLarge => {
            let detail = "the command log does not take a command of the size of one of these todos; others of the array may still be \
                          applied";
            return Problem::new(ProblemKind::BodyTooLarge, detail);
        }
        Refusal::Unconfirmed => {
            "the command log did not confirm all of the array in time; some or all of it may still be applied: the same array with \
             the same Idempotency-Key completes it"
        }
        Refusal::Full | Refusal::Unavailable | Refusal::OverLimit => {
            "the command log did not take all of the array, and /ready says why; some of it may still be applied: the same array with \
             the same Idempotency-Key completes it"
        }
    };
    Problem::queue_failed(ProblemKind::WriteUnconfirmed, detail, RETRY_AFTER_S)
}
