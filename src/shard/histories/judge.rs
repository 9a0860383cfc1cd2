//! Whether a client has been answered as plain HTTP wants it: each request once, in order, with the right bytes, in time.

use std::str;
use std::time::Duration;

use reactor::{Ending, Seen};

use super::lists::List;
use super::plan::{Asked, Expected, Plan, Silence, Subject};
use super::writer::Fate;
use super::{HEADER_TIMEOUT, History, IDLE_TIMEOUT};

/// Deadlines are looked at each tenth of a second, and begin with what happens on the way.
const TICKS: Duration = Duration::from_millis(500);

/// An answer, taken apart.
struct Answer<'a> {
    status: u16,
    head: &'a str,
    body: &'a [u8],
    bytes: usize,
}

impl<'a> Answer<'a> {
    /// The first answer of these bytes; `None`: it is not complete.
    fn read(bytes: &'a [u8], is_head: bool) -> Result<Option<Answer<'a>>, String> {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
        let head = str::from_utf8(&bytes[..end + 2]).map_err(|_| "a head that is no text".to_owned())?;
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| format!("no status line: {head:?}"))?;
        let mut answer = Answer { status, head, body: &[], bytes: end + 4 };
        let length = match answer.field("Content-Length") {
            _ if is_head || matches!(status, 100..200 | 204 | 304) => 0,
            Some(length) => length.parse().map_err(|_| format!("no length: {head:?}"))?,
            None => return Err(format!("no length: {head:?}")),
        };
        answer.bytes += length;
        match bytes.get(end + 4..answer.bytes) {
            Some(body) => Ok(Some(Answer { body, ..answer })),
            None => Ok(None),
        }
    }

    fn field(&self, name: &str) -> Option<&'a str> {
        let mut lines = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn closes(&self) -> bool {
        self.field("Connection") == Some("close")
    }

    fn says(&self, status: u16, body: Option<&str>, is_head: bool) -> bool {
        let has_body = body.is_none_or(|body| {
            self.body == body.as_bytes() || is_head && self.field("Content-Length") == Some(&body.len().to_string())
        });
        self.status == status && has_body
    }
}

/// Whether this answers a read as this version of the list has it.
fn is_of(answer: &Answer<'_>, subject: Subject, known: Option<&List>, list: &List, is_head: bool) -> bool {
    let (body, before) = match subject {
        Subject::Page(limit) => {
            // A page that has become the last one is another.
            let has_next = |list: &List| list.todos.len() > limit;
            let before = known.filter(|known| has_next(known) == has_next(list)).map(|known| known.body(limit));
            (Some(list.body(limit)), before)
        }
        Subject::Todo(id) => {
            (list.todo(id).map(str::to_owned), known.and_then(|known| known.todo(id)).map(str::to_owned))
        }
    };
    match body {
        None => answer.says(404, None, is_head),
        body if known.is_some() && body == before => answer.says(304, None, is_head),
        Some(body) => answer.says(200, Some(&body), is_head),
    }
}

fn is_outcome(answer: &Answer<'_>, key: &str, fates: &[Fate]) -> Result<(), String> {
    let mut own = fates
        .iter()
        .filter(|Fate { id, command, .. }| id.to_string() == key || command.contains(&format!("\"title\":\"{key}\"")));
    let (fate, again) = (own.next(), own.next());
    match (answer.status, fate) {
        _ if again.is_some() => Err(format!("the command {key} was handed over twice")),
        (202, Some(Fate { id, result: Some(Ok(())), .. })) => {
            let has_id = str::from_utf8(answer.body).is_ok_and(|body| body.contains(&id.to_string()));
            if has_id { Ok(()) } else { Err(format!("the answer to {key} names another todo")) }
        }
        // A full queue refuses before anybody has the command.
        (503, None | Some(Fate { result: None | Some(Err(_)), .. })) => Ok(()),
        (status, fate) => Err(format!("the answer to {key} is {status}, and its fate {fate:?}")),
    }
}

/// The client of this plan, who has seen this; `Err` says what is wrong.
pub fn judge(history: &History, plan: &Plan, seen: &Seen) -> Result<(), String> {
    let (answered, has_closed) = read_answers(history, plan, seen)?;
    let Plan { script, asked, silence, whole } = plan;
    let is_cut_short = matches!(script.ending, Ending::ResetsAfter(_)) || script.reads_max < usize::MAX;
    if history.drained_early || seen.refused || is_cut_short && (seen.reset || !seen.end) {
        return if is_cut_short && !seen.reset && seen.ended_at.is_none() && !history.drained_early {
            Err("the connection was never closed".to_owned())
        } else {
            Ok(())
        };
    }
    if seen.reset && history.is_short {
        // Without a descriptor to linger with, what still comes resets the connection.
        return Ok(());
    }
    // What comes after a long silence meets nobody.
    if seen.reset && *silence == Silence::Short {
        return Err(format!("the connection was reset after {answered} answers: {plan:?}"));
    }
    if !seen.end && !seen.reset {
        return Err("the connection was never closed".to_owned());
    }
    if history.has_few_places && answered <= 1 && has_closed {
        return Ok(());
    }
    let last = asked.iter().position(|asked| asked.closes).map_or(asked.len(), |at| at + 1);
    let wanted = last.min(*whole);
    // What a head alone decides may be refused before its body, behind which the connection ends (RFC 9110 section 10.1.1).
    let is_refused_by_head = has_closed && answered > 0 && asked[answered - 1].may_continue;
    if answered < wanted && !is_refused_by_head {
        return Err(format!("{answered} answers to {wanted} requests: {plan:?}"));
    }
    let ended_at = seen.ended_at.unwrap_or_default();
    let (since_sent, since_served) = (ended_at.saturating_sub(seen.sent_at), ended_at.saturating_sub(seen.served_at));
    match silence {
        Silence::Within(_) if !has_closed || answered > *whole => Ok(()),
        Silence::Within(_) if since_sent > HEADER_TIMEOUT + TICKS => Err(format!("408 after {since_sent:?}")),
        _ if *whole < last || script.ending == Ending::Stays && !has_closed => {
            let timeout = if answered > 0 { IDLE_TIMEOUT } else { HEADER_TIMEOUT };
            let silent = since_sent.min(since_served);
            let is_too_long = silent > timeout.max(HEADER_TIMEOUT) + TICKS;
            if is_too_long { Err(format!("closed after {silent:?} of silence")) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// Compares all answers; returns how many requests they answer, and whether the last one closes the connection.
fn read_answers(history: &History, plan: &Plan, seen: &Seen) -> Result<(usize, bool), String> {
    let mut rest = seen.read.as_slice();
    let (mut answered, mut version) = (0, 0);
    let mut has_closed = false;
    while !rest.is_empty() && !has_closed {
        let asked = plan.asked.get(answered).ok_or("more answers than requests")?;
        let Some(mut answer) = Answer::read(rest, asked.is_head)? else { break };
        if answer.status == 100 && asked.may_continue {
            rest = &rest[answer.bytes..];
            match Answer::read(rest, asked.is_head)? {
                Some(next) => answer = next,
                None => break,
            }
        }
        has_closed = answer.closes();
        let is_too_soon = seen.sent < asked.end;
        check(history, plan, (answered, asked), &answer, is_too_soon, &mut version)
            .map_err(|wrong| format!("answer {answered}: {wrong}: {asked:?}: {:?}", answer.head))?;
        rest = &rest[answer.bytes..];
        answered += 1;
    }
    // What a client that was cut off has read of its last answer is the beginning of one.
    if has_closed && !rest.is_empty() {
        Err("bytes behind the last answer".to_owned())
    } else {
        Ok((answered, has_closed))
    }
}

fn check(
    history: &History,
    plan: &Plan,
    (number, asked): (usize, &Asked),
    answer: &Answer<'_>,
    is_too_soon: bool,
    version: &mut usize,
) -> Result<(), String> {
    let is_refusal = number == 0 && answer.says(503, Some(""), false) && answer.closes();
    if history.has_few_places && is_refusal {
        return Ok(());
    }
    let is_last = answer.closes();
    if asked.closes && !is_last {
        return Err("the connection goes on".to_owned());
    }
    let is_awaited = is_too_soon || plan.silence == Silence::Within(number);
    if answer.says(408, None, asked.is_head) && is_last && is_awaited {
        return Ok(());
    }
    let is_by_head = asked.may_continue && answer.status >= 400;
    if asked.expected != Expected::Rejection && !is_by_head && is_awaited {
        return Err("an answer before the request".to_owned());
    }
    if is_last && !asked.closes && !is_by_head && !history.is_drained {
        return Err("the connection ends".to_owned());
    }
    if number >= plan.whole && plan.silence == Silence::Between {
        return Err("an answer behind the silence".to_owned());
    }
    match &asked.expected {
        Expected::Status(status, body) => {
            if answer.says(*status, *body, asked.is_head) {
                Ok(())
            } else {
                Err(format!("not {status}"))
            }
        }
        Expected::Rejection => {
            if matches!(answer.status, 400..=505) {
                Ok(())
            } else {
                Err("no error".to_owned())
            }
        }
        Expected::Write(key) => is_outcome(answer, key, &history.fates),
        Expected::Read(subject) => find(history, answer, *subject, None, asked.is_head, version),
        Expected::Revalidated(subject, knows) => find(history, answer, *subject, Some(*knows), asked.is_head, version),
    }
}

/// Looks for the version of the list that an answer is of.
fn find(
    history: &History,
    answer: &Answer<'_>,
    subject: Subject,
    knows: Option<usize>,
    is_head: bool,
    version: &mut usize,
) -> Result<(), String> {
    let known = knows.map(|knows| &history.lists[knows]);
    let found = (*version..history.versions).find(|at| is_of(answer, subject, known, &history.lists[*at], is_head));
    *version = found.ok_or_else(|| format!("of no version from {version} on"))?;
    Ok(())
}
