//! The answers of a connection that have not been sent yet, in order.
//!
//! Heads and small bodies are written into one text buffer; prepared answers and pieces of the snapshot are shared, not
//! copied. A write that waits for the command log holds its place in the order.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use reactor::Pieces;

use super::followers::Follow;
use super::reads::{Form, LocalBody, LocalSnapshot, Served, ServedBody};
use super::writes::in_flight::PendingWrite;
use crate::change_feed::{Framing, Kept};
use crate::limits::{
    PIPELINE_DEPTH_MAX, SHORT_PIPELINE_DEPTH_MAX, SHORT_UNSENT_TEXT_MAX_BYTES, TEXT_BUFFER_KEPT_BYTES,
    UNSENT_MAX_BYTES, UNSENT_TEXT_MAX_BYTES,
};
use crate::snapshot::{Run, SelectedRun};

/// One part of the answers.
pub enum Segment {
    /// A range of the text buffer.
    Text(Range<usize>),
    /// Complete answers that are used again and again: a buffer, and how much of it.
    Prepared(Rc<[u8]>, usize),
    /// Todos, straight from the snapshot that they are in.
    Todos(Rc<LocalSnapshot>, Run),
    /// A part of the list, straight from the snapshot.
    Selected(Rc<LocalSnapshot>, Box<SelectedRun>),
    /// A list in a content coding, from this byte on.
    Encoded(Rc<LocalBody>, u64),
    /// Changes, shared by all who follow with this framing.
    Events(Rc<Kept>, Framing),
    /// The place of an answer that is not known yet.
    Pending(Rc<PendingWrite>),
}

/// The queue of answers.
pub struct Output {
    text: Vec<u8>,
    segments: VecDeque<Segment>,
    /// Segments from which on no further request is answered: [`PIPELINE_DEPTH_MAX`], or 0 behind a write that waits for
    /// the snapshot, so that a read behind it shows that write.
    segments_max: usize,
    unsent_bytes: u64,
    /// The version of the first list that is being sent.
    sent_list: Option<u64>,
    /// The stream of events that begins behind all that is here. Nothing behind its request is answered.
    follow: Option<Box<Follow>>,
}

impl Default for Output {
    fn default() -> Output {
        Output {
            text: Vec::new(),
            segments: VecDeque::new(),
            segments_max: PIPELINE_DEPTH_MAX,
            unsent_bytes: 0,
            sent_list: None,
            follow: None,
        }
    }
}

/// A place in the output to go back to.
#[derive(Clone, Copy)]
pub struct Mark {
    text: usize,
    segments: usize,
    unsent_bytes: u64,
}

impl Output {
    /// Whether another request may be answered before some answers have left.
    #[inline]
    pub fn accepts_more(&self) -> bool {
        self.segments.len() < self.segments_max
            && self.unsent_bytes < UNSENT_MAX_BYTES as u64
            && self.text.len() < UNSENT_TEXT_MAX_BYTES
    }

    /// Whether as many answers wait as may while memory is short.
    #[inline]
    pub fn has_short_share(&self) -> bool {
        self.segments.len() >= SHORT_PIPELINE_DEPTH_MAX || self.text.len() >= SHORT_UNSENT_TEXT_MAX_BYTES
    }

    /// Bytes of memory that it holds for its connection alone.
    pub fn held_bytes(&self) -> usize {
        self.text.capacity() + self.segments.capacity() * size_of::<Segment>()
    }

    /// Whether it has grown beyond what a shard keeps for the next connection.
    pub fn is_oversized(&self) -> bool {
        self.text.capacity() > TEXT_BUFFER_KEPT_BYTES
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// How many more answers may be appended before some have left; at least one.
    #[inline]
    pub fn room(&self) -> usize {
        PIPELINE_DEPTH_MAX.saturating_sub(self.segments.len()).max(1)
    }

    /// What a prepared answer may consist of here.
    #[inline]
    pub fn form(&self) -> Form {
        let unsent = usize::try_from(self.unsent_bytes).unwrap_or(usize::MAX);
        Form::Pieces { bytes_max: UNSENT_MAX_BYTES.saturating_sub(unsent) }
    }

    /// Appends what answers requests for a first page.
    #[inline]
    pub fn push_served(&mut self, Served { bytes, length, answers: _, body }: Served) {
        self.unsent_bytes += length as u64;
        self.segments.push_back(Segment::Prepared(bytes, length));
        match body {
            ServedBody::Copied => {}
            ServedBody::Todos(snapshot, run) => self.push_todos(snapshot, run),
            ServedBody::Encoded(body) => self.push_encoded(body),
        }
    }

    /// Appends todos of a snapshot.
    #[inline]
    pub fn push_todos(&mut self, snapshot: Rc<LocalSnapshot>, run: Run) {
        // Large lists are not copied, but count: a client that asks for many and reads none is no longer read.
        self.unsent_bytes += run.remaining_bytes();
        self.segments.push_back(Segment::Todos(snapshot, run));
    }

    /// Appends a part of the list.
    pub fn push_selected(&mut self, snapshot: Rc<LocalSnapshot>, run: SelectedRun) {
        self.unsent_bytes += run.remaining_bytes();
        self.segments.push_back(Segment::Selected(snapshot, Box::new(run)));
    }

    /// Appends a list in a content coding.
    #[inline]
    pub fn push_encoded(&mut self, body: Rc<LocalBody>) {
        self.unsent_bytes += body.len();
        self.segments.push_back(Segment::Encoded(body, 0));
    }

    /// Appends changes.
    pub fn push_events(&mut self, events: Rc<Kept>, framing: Framing) {
        self.unsent_bytes += events.framed(framing).len() as u64;
        self.segments.push_back(Segment::Events(events, framing));
    }

    /// Has the connection follow the list from here on.
    pub fn follow(&mut self, follow: Follow) {
        self.follow = Some(Box::new(follow));
    }

    /// Whether the connection follows the list from here on.
    #[inline]
    pub fn is_followed(&self) -> bool {
        self.follow.is_some()
    }

    /// What it follows, once everything else has been sent.
    #[inline]
    pub fn take_follow(&mut self) -> Option<Box<Follow>> {
        self.follow.take()
    }

    /// Bytes that have not been sent.
    pub fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes
    }

    /// Holds a place for the answer to a write.
    pub fn push_pending(&mut self, pending: Rc<PendingWrite>) {
        if pending.wait_until().is_some() {
            self.segments_max = 0;
        }
        #[cfg(test)]
        if super::histories::Fault::OutOfOrder.is_planted() {
            return self.segments.push_front(Segment::Pending(pending));
        }
        self.segments.push_back(Segment::Pending(pending));
    }

    /// Appends what `write` puts into the text buffer.
    #[inline]
    pub fn push_text(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        write(&mut self.text);
        self.push_text_range(start);
    }

    fn push_text_range(&mut self, start: usize) {
        let end = self.text.len();
        self.unsent_bytes += (end - start) as u64;
        match self.segments.back_mut() {
            // Neighbours in the text buffer leave as one piece.
            Some(Segment::Text(range)) if range.end == start => range.end = end,
            _ => self.segments.push_back(Segment::Text(start..end)),
        }
    }

    /// The present end of the output.
    pub fn mark(&self) -> Mark {
        Mark { text: self.text.len(), segments: self.segments.len(), unsent_bytes: self.unsent_bytes }
    }

    /// Takes back what was appended after `mark`.
    pub fn rewind(&mut self, mark: Mark) {
        self.segments.truncate(mark.segments);
        if let Some(Segment::Text(range)) = self.segments.back_mut() {
            range.end = range.end.min(mark.text);
        }
        self.text.truncate(mark.text);
        self.segments_max = PIPELINE_DEPTH_MAX;
        self.follow = None;
        self.unsent_bytes = mark.unsent_bytes;
    }

    /// Whether the first answer is known.
    pub fn is_front_decided(&self) -> bool {
        match self.segments.front() {
            None => false,
            Some(Segment::Pending(pending)) => pending.outcome().is_some(),
            Some(_) => true,
        }
    }

    /// Whether the first answer can be sent; replaces pending writes at the front that are decided by their answers,
    /// written by `render`.
    pub fn settle_front(&mut self, render: impl Fn(&PendingWrite, &mut Vec<u8>)) -> bool {
        if !self.is_front_decided() {
            return false;
        }
        for segment in &mut self.segments {
            if let Segment::Pending(pending) = segment {
                if pending.outcome().is_none() {
                    break;
                }
                let start = self.text.len();
                render(pending, &mut self.text);
                self.unsent_bytes += (self.text.len() - start) as u64;
                if pending.wait_until().is_some() {
                    // Nothing stands behind it.
                    self.segments_max = PIPELINE_DEPTH_MAX;
                }
                *segment = Segment::Text(start..self.text.len());
            }
        }
        true
    }

    /// Moves what can be sent now into `pieces`, up to as many as one send takes or the piece that makes it `bytes_max`.
    pub fn fill(&mut self, pieces: &mut Pieces, bytes_max: usize) {
        pieces.begin(std::mem::take(&mut self.text), bytes_max);
        while pieces.has_room() {
            match self.segments.pop_front() {
                None => break,
                Some(Segment::Text(mut range)) => {
                    // The answers to a pipeline of writes were written one behind the other: they leave as one piece.
                    while let Some(Segment::Text(next)) = self.segments.front()
                        && next.start == range.end
                    {
                        range.end = next.end;
                        self.segments.pop_front();
                    }
                    pieces.push_text(range);
                }
                Some(Segment::Prepared(bytes, length)) => pieces.push_bytes(bytes, length),
                Some(Segment::Todos(snapshot, mut run)) => {
                    self.sent_list.get_or_insert(snapshot.version());
                    pieces.push_of(&snapshot, |snapshot, pieces| run.take_pieces(snapshot, |piece| pieces.push(piece)));
                    if run.remaining_bytes() > 0 {
                        self.segments.push_front(Segment::Todos(snapshot, run));
                        break;
                    }
                }
                Some(Segment::Selected(snapshot, mut run)) => {
                    self.sent_list.get_or_insert(snapshot.version());
                    pieces.push_of(&snapshot, |snapshot, pieces| run.take_pieces(snapshot, |piece| pieces.push(piece)));
                    if run.remaining_bytes() > 0 {
                        self.segments.push_front(Segment::Selected(snapshot, run));
                        break;
                    }
                }
                Some(Segment::Encoded(body, mut position)) => {
                    self.sent_list.get_or_insert(body.version());
                    pieces.push_of(&body, |body, pieces| {
                        body.take_pieces(&mut position, |piece| pieces.push(piece));
                    });
                    if position < body.len() {
                        self.segments.push_front(Segment::Encoded(body, position));
                        break;
                    }
                }
                Some(Segment::Events(events, framing)) => pieces.push_of(&events, |events, pieces| {
                    pieces.push(events.framed(framing));
                }),
                Some(pending @ Segment::Pending(_)) => {
                    self.segments.push_front(pending);
                    break;
                }
            }
        }
    }

    /// The version of the oldest list that is being sent or waits behind that. Answers stand in the order in which they were
    /// given, so it is the first.
    pub fn oldest_list(&self) -> Option<u64> {
        self.sent_list.or_else(|| {
            self.segments.iter().find_map(|segment| match segment {
                Segment::Todos(snapshot, _) | Segment::Selected(snapshot, _) => Some(snapshot.version()),
                Segment::Encoded(body, _) => Some(body.version()),
                Segment::Text(_) | Segment::Prepared(..) | Segment::Events(..) | Segment::Pending(_) => None,
            })
        })
    }

    /// Takes the text buffer back from pieces that have been sent.
    pub fn finish(&mut self, pieces: &mut Pieces) {
        self.unsent_bytes -= pieces.total_bytes() as u64;
        self.sent_list = None;
        self.text = pieces.end();
        if self.segments.is_empty() {
            self.text.clear();
            if self.is_oversized() {
                self.text = Vec::new();
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.text.clear();
        self.segments.clear();
        self.segments_max = PIPELINE_DEPTH_MAX;
        self.unsent_bytes = 0;
        self.sent_list = None;
        self.follow = None;
    }
}

#[cfg(test)]
mod tests {
    use reactor::Socket;

    use super::*;
    use crate::command_log::Refusal;
    use crate::http::Connection;
    use crate::shard::registry::ConnectionState;
    use crate::shard::writes::in_flight::{Outcome, WriteKind};
    use crate::todo::TodoId;

    #[test]
    fn answers_of_pipelined_writes_that_are_decided_leave_as_one_piece() {
        let mut output = Output::default();
        let state = Rc::new(ConnectionState::new(Socket::unconnected()));
        let writes: Vec<Rc<PendingWrite>> = (0..5)
            .map(|_| PendingWrite::new(TodoId::new(), WriteKind::Create, Connection::KeepAlive, Rc::clone(&state)))
            .map(Rc::new)
            .collect();
        for write in &writes {
            output.push_pending(Rc::clone(write));
        }
        let render = |write: &PendingWrite, text: &mut Vec<u8>| {
            text.extend_from_slice(if write.outcome() == Some(Outcome::Accepted) { b"yes " } else { b"no " });
        };
        assert!(!output.settle_front(render));
        let sent = |output: &mut Output| {
            assert!(output.settle_front(render));
            let mut pieces = Pieces::default();
            output.fill(&mut pieces, 1024);
            assert_eq!(pieces.len(), 1);
            let text: Vec<u8> = pieces.unsent().flatten().copied().collect();
            pieces.advance(pieces.total_bytes());
            output.finish(&mut pieces);
            String::from_utf8(text).expect("the answers are")
        };
        // The third is not decided: it holds back the fourth.
        for (write, outcome) in [(0, Outcome::Accepted), (1, Outcome::Refused(Refusal::Full)), (3, Outcome::Accepted)] {
            writes[write].decide(outcome);
        }
        assert_eq!(sent(&mut output), "yes no ");
        assert!(!output.is_front_decided() && !output.is_empty());
    }
}
