//! The answers of a connection that have not been sent yet, in order.
//!
//! Heads and small bodies are written into one text buffer; prepared answers and pieces of the snapshot are shared, not
//! copied. A write that waits for the command log holds its place in the order.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use super::encoded_pages::LocalBody;
use super::in_flight::PendingWrite;
use super::local_snapshot::LocalSnapshot;
use super::prepared::PreparedAnswer;
use crate::limits::{
    LONG_WRITE_MIN_BYTES, PIPELINE_DEPTH_MAX, SHORT_PIPELINE_DEPTH_MAX, SHORT_UNSENT_TEXT_MAX_BYTES,
    TEXT_BUFFER_KEPT_BYTES, UNSENT_MAX_BYTES, UNSENT_TEXT_MAX_BYTES, WRITE_PIECES_MAX,
};
use crate::snapshot::Run;

/// One part of the answers.
pub enum Segment {
    /// A range of the text buffer.
    Text(Range<usize>),
    /// Complete answers that are used again and again: a buffer, and how much of it.
    Prepared(Rc<[u8]>, usize),
    /// Todos, straight from the snapshot that they are in.
    Todos(Rc<LocalSnapshot>, Run),
    /// A list in a content coding, from this byte on.
    Encoded(Rc<LocalBody>, u64),
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
}

impl Default for Output {
    fn default() -> Output {
        Output { text: Vec::new(), segments: VecDeque::new(), segments_max: PIPELINE_DEPTH_MAX, unsent_bytes: 0 }
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

    /// How many more answers of this size may be appended before some have left; at least one.
    #[inline]
    pub fn room_for(&self, answer_bytes: usize) -> usize {
        let unsent = usize::try_from(self.unsent_bytes).unwrap_or(usize::MAX);
        let by_bytes = UNSENT_MAX_BYTES.saturating_sub(unsent).div_ceil(answer_bytes);
        by_bytes.min(PIPELINE_DEPTH_MAX.saturating_sub(self.segments.len())).max(1)
    }

    /// Appends a prepared answer, `count` times.
    #[inline]
    pub fn push_prepared(&mut self, answer: &mut PreparedAnswer, count: usize) {
        answer.push_pieces(count, |bytes, length| {
            self.unsent_bytes += length as u64;
            self.segments.push_back(Segment::Prepared(bytes, length));
        });
    }

    /// Appends todos of a snapshot.
    #[inline]
    pub fn push_todos(&mut self, snapshot: Rc<LocalSnapshot>, run: Run) {
        // Large lists are not copied, but count: a client that asks for many and reads none is no longer read.
        self.unsent_bytes += run.remaining_bytes();
        self.segments.push_back(Segment::Todos(snapshot, run));
    }

    /// Appends a list in a content coding.
    #[inline]
    pub fn push_encoded(&mut self, body: Rc<LocalBody>) {
        self.unsent_bytes += body.len();
        self.segments.push_back(Segment::Encoded(body, 0));
    }

    /// Holds a place for the answer to a write.
    pub fn push_pending(&mut self, pending: Rc<PendingWrite>) {
        if pending.wait_until().is_some() {
            self.segments_max = 0;
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

    /// Moves what can be sent now into a batch, up to [`WRITE_PIECES_MAX`] pieces or the piece that makes it `bytes_max`.
    pub fn fill(&mut self, batch: &mut WriteBatch, bytes_max: usize) {
        batch.begin(std::mem::take(&mut self.text), bytes_max);
        while batch.has_room() {
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
                    batch.push_text(range);
                }
                Some(Segment::Prepared(bytes, length)) => batch.push_prepared(bytes, length),
                Some(Segment::Todos(snapshot, mut run)) => {
                    batch.push_todos(&snapshot, &mut run);
                    if run.remaining_bytes() > 0 {
                        self.segments.push_front(Segment::Todos(snapshot, run));
                        break;
                    }
                }
                Some(Segment::Encoded(body, mut position)) => {
                    batch.push_encoded(&body, &mut position);
                    if position < body.len() {
                        self.segments.push_front(Segment::Encoded(body, position));
                        break;
                    }
                }
                Some(pending @ Segment::Pending(_)) => {
                    self.segments.push_front(pending);
                    break;
                }
            }
        }
    }

    /// The version of the oldest list that the batch or what comes behind it is of. Answers stand in the order in which they were
    /// given, so it is the first.
    pub fn oldest_list(&self, batch: &WriteBatch) -> Option<u64> {
        let in_batch = batch.held.iter().find_map(|held| match held {
            Held::Snapshot(snapshot) => Some(snapshot.version()),
            Held::Encoded(body) => Some(body.version()),
            Held::Prepared(_) => None,
        });
        in_batch.or_else(|| {
            self.segments.iter().find_map(|segment| match segment {
                Segment::Todos(snapshot, _) => Some(snapshot.version()),
                Segment::Encoded(body, _) => Some(body.version()),
                Segment::Text(_) | Segment::Prepared(..) | Segment::Pending(_) => None,
            })
        })
    }

    /// Takes the text buffer back from a batch that has been sent.
    pub fn finish_batch(&mut self, batch: &mut WriteBatch) {
        self.unsent_bytes -= batch.total_bytes;
        self.text = batch.end();
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
    }
}

/// What keeps shared pieces of a batch alive.
enum Held {
    Prepared(#[expect(dead_code, reason = "held only to keep its bytes alive")] Rc<[u8]>),
    Snapshot(Rc<LocalSnapshot>),
    Encoded(Rc<LocalBody>),
}

/// The pieces of one vectored write, and what keeps them alive until the kernel is done with them.
///
/// They point into the batch's own text buffer, which is not changed between `begin` and `end`, or into shared bytes that
/// `held` keeps alive and that are never changed: prepared answers, chunks of a snapshot and encoded ones. Moving the batch
/// moves none of them.
#[derive(Default)]
pub struct WriteBatch {
    pieces: Vec<libc::iovec>,
    /// Pieces before this one have been sent.
    sent_pieces: usize,
    text: Vec<u8>,
    held: Vec<Held>,
    /// What the kernel is given for the pieces.
    header: Option<libc::msghdr>,
    total_bytes: u64,
    bytes_max: u64,
}

impl WriteBatch {
    fn begin(&mut self, text: Vec<u8>, bytes_max: usize) {
        debug_assert!(self.pieces.is_empty() && self.held.is_empty());
        self.text = text;
        self.bytes_max = bytes_max as u64;
    }

    fn end(&mut self) -> Vec<u8> {
        self.pieces.clear();
        self.held.clear();
        self.sent_pieces = 0;
        self.total_bytes = 0;
        std::mem::take(&mut self.text)
    }

    fn has_room(&self) -> bool {
        self.pieces.len() < WRITE_PIECES_MAX && self.total_bytes < self.bytes_max
    }

    fn push_piece(&mut self, piece: &[u8]) {
        self.total_bytes += piece.len() as u64;
        self.pieces.push(libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() });
    }

    fn push_text(&mut self, range: Range<usize>) {
        let piece = &self.text[range];
        self.total_bytes += piece.len() as u64;
        self.pieces.push(libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() });
    }

    fn push_prepared(&mut self, bytes: Rc<[u8]>, length: usize) {
        self.push_piece(&bytes[..length]);
        self.held.push(Held::Prepared(bytes));
    }

    fn push_todos(&mut self, snapshot: &Rc<LocalSnapshot>, run: &mut Run) {
        let is_held = matches!(self.held.last(), Some(Held::Snapshot(held)) if Rc::ptr_eq(held, snapshot));
        if !is_held {
            self.held.push(Held::Snapshot(Rc::clone(snapshot)));
        }
        run.take_pieces(snapshot, |piece| {
            self.push_piece(piece);
            self.has_room()
        });
    }

    fn push_encoded(&mut self, body: &Rc<LocalBody>, position: &mut u64) {
        let is_held = matches!(self.held.last(), Some(Held::Encoded(held)) if Rc::ptr_eq(held, body));
        if !is_held {
            self.held.push(Held::Encoded(Rc::clone(body)));
        }
        body.take_pieces(position, |piece| {
            self.push_piece(piece);
            self.has_room()
        });
    }

    /// Bytes of memory that it holds for its connection alone.
    pub fn held_bytes(&self) -> usize {
        self.text.capacity()
            + self.pieces.capacity() * size_of::<libc::iovec>()
            + self.held.capacity() * size_of::<Held>()
    }

    /// Whether others have to wait for it so long that it waits for its own turn.
    #[inline]
    pub fn is_long(&self) -> bool {
        self.total_bytes >= LONG_WRITE_MIN_BYTES as u64
    }

    /// Bytes of all pieces.
    pub fn total_bytes(&self) -> usize {
        self.total_bytes as usize
    }

    /// Whether everything has been sent.
    pub fn is_sent(&self) -> bool {
        self.sent_pieces == self.pieces.len()
    }

    /// The piece that is left, if there is one: a plain send costs less than one of a message.
    #[inline]
    pub fn single_piece(&self) -> Option<libc::iovec> {
        (self.sent_pieces + 1 == self.pieces.len()).then(|| self.pieces[self.sent_pieces])
    }

    /// The pieces that are left, as a message for sendmsg(2). It is good until the batch is changed, moves with it, and
    /// points into memory that does not.
    pub fn message(&mut self) -> *const libc::msghdr {
        let unsent = &mut self.pieces[self.sent_pieces..];
        // SAFETY: a header of zeros is valid: no name, no pieces, no control data.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = unsent.as_mut_ptr();
        header.msg_iovlen = unsent.len();
        self.header.insert(header)
    }

    /// Bytes of the pieces that are left.
    pub fn unsent_bytes(&self) -> usize {
        self.pieces[self.sent_pieces..].iter().map(|piece| piece.iov_len).sum()
    }

    /// Notes that `sent` more bytes have left.
    pub fn advance(&mut self, mut sent: usize) {
        while sent > 0 {
            let piece = &mut self.pieces[self.sent_pieces];
            if sent < piece.iov_len {
                // SAFETY: `sent` is less than the piece's length, so the new base is within the same allocation.
                piece.iov_base = unsafe { piece.iov_base.cast::<u8>().add(sent) }.cast();
                piece.iov_len -= sent;
                return;
            }
            sent -= piece.iov_len;
            self.sent_pieces += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_log::Refusal;
    use crate::http::Connection;
    use crate::shard::in_flight::{Outcome, WriteKind};
    use crate::shard::reactor::Socket;
    use crate::shard::registry::ConnectionState;
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
            let mut batch = WriteBatch::default();
            output.fill(&mut batch, 1024);
            assert_eq!(batch.pieces.len(), 1);
            let text = String::from_utf8_lossy(&batch.text[..batch.total_bytes as usize]).into_owned();
            batch.advance(batch.total_bytes as usize);
            output.finish_batch(&mut batch);
            text
        };
        // The third is not decided: it holds back the fourth.
        for (write, outcome) in [(0, Outcome::Accepted), (1, Outcome::Refused(Refusal::Full)), (3, Outcome::Accepted)] {
            writes[write].decide(outcome);
        }
        assert_eq!(sent(&mut output), "yes no ");
        assert!(!output.is_front_decided() && !output.is_empty());
    }
}
