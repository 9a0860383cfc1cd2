//! The events of one batch, encoded once for all who follow.

use std::ops::Range;

use super::stream::{CHUNK_END, Framing, write_chunk, write_chunk_size, write_id};
use crate::http::Position;
use crate::snapshot::Outcome;
use crate::todo::{TODO_ID_TEXT_BYTES, TodoId};

/// Room for the size of a chunk, in hexadecimal digits, and its line end.
const CHUNK_SIZE_MAX_BYTES: usize = 8 + 2;
/// Memory of a batch beside its bytes, at most.
const BATCH_OVERHEAD_BYTES: usize = 192;

/// What one batch has changed, as events. It is never changed, and all shards share it.
pub struct EventBatch {
    /// One chunk (RFC 9112 section 7.1): its size, the events, a line end. Empty where nothing has changed.
    bytes: Box<[u8]>,
    /// Where the chunk begins: its size is written when the events are.
    start: usize,
    events: Box<[Event]>,
    position: Position,
}

/// One event of a batch.
struct Event {
    /// The owner of the todo, as the snapshot numbers them.
    owner: u64,
    /// Its lines, without the empty one that ends it.
    lines: Range<u32>,
}

impl EventBatch {
    /// The position of the list behind it.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many events it has.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// All events, as one chunk.
    pub fn chunk(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// All events, as they are.
    pub fn text(&self) -> &[u8] {
        if self.is_empty() { &[] } else { &self.bytes[CHUNK_SIZE_MAX_BYTES..self.bytes.len() - CHUNK_END.len()] }
    }

    /// Whether every event is of this owner.
    pub fn is_all_of(&self, owner: u64) -> bool {
        self.events.iter().all(|event| event.owner == owner)
    }

    /// All events, as a stream of this framing has them.
    pub fn framed(&self, framing: Framing) -> &[u8] {
        match framing {
            Framing::Chunked => self.chunk(),
            Framing::Bare => self.text(),
        }
    }

    /// Bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.events.len() * size_of::<Event>() + BATCH_OVERHEAD_BYTES
    }

    /// About as many bytes as [`EventBatch::write_of`] writes; 0 when there are none.
    pub fn bytes_of(&self, owner: u64) -> usize {
        let of_owner = self.events.iter().filter(|event| event.owner == owner);
        of_owner.map(|event| event.lines.len()).sum()
    }

    /// Appends the events of one owner; returns how many.
    pub fn write_of(&self, owner: u64, framing: Framing, out: &mut Vec<u8>) -> usize {
        let mut count = 0;
        if self.events.iter().any(|event| event.owner == owner) {
            write_chunk(framing, out, |out| {
                for event in self.events.iter().filter(|event| event.owner == owner) {
                    if count > 0 {
                        out.push(b'\n');
                    }
                    out.extend_from_slice(&self.bytes[event.lines.start as usize..event.lines.end as usize]);
                    count += 1;
                }
                write_id(out, self.position);
            });
        }
        count
    }
}

impl std::fmt::Debug for EventBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventBatch {{ {:?}, {} }}", self.position, String::from_utf8_lossy(self.text()))
    }
}

/// A batch in the making.
pub struct BatchDraft {
    bytes: Vec<u8>,
    events: Vec<Event>,
    bytes_max: usize,
}

impl BatchDraft {
    /// A batch without events, which may have so many bytes.
    pub fn new(bytes_max: usize) -> BatchDraft {
        BatchDraft { bytes: Vec::new(), events: Vec::new(), bytes_max: bytes_max.min(u32::MAX as usize / 2) }
    }

    /// Takes in what became of a todo.
    pub fn take(&mut self, outcome: &Outcome<'_>) {
        // For the owner of before it is gone.
        if let Some(before) = outcome.owner_before
            && outcome.owner != Some(before)
        {
            self.event(before, |bytes| write_delete(bytes, outcome.id));
        }
        if let (Some(owner), Some(json)) = (outcome.owner, outcome.json) {
            self.event(owner, |bytes| {
                bytes.extend_from_slice(b"event: put\ndata: ");
                bytes.extend_from_slice(json);
                bytes.push(b'\n');
            });
        }
    }

    fn event(&mut self, owner: u64, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_too_large() {
            return;
        }
        if self.bytes.is_empty() {
            self.bytes.resize(CHUNK_SIZE_MAX_BYTES, 0);
        } else {
            self.bytes.push(b'\n');
        }
        let start = self.bytes.len() as u32;
        write(&mut self.bytes);
        self.events.push(Event { owner, lines: start..self.bytes.len() as u32 });
    }

    fn is_too_large(&self) -> bool {
        self.bytes.len() > self.bytes_max
    }

    /// The batch, which leads to this position; `None` when it has more bytes than it may.
    pub fn finish(mut self, position: Position) -> Option<EventBatch> {
        if self.is_too_large() {
            return None;
        }
        let mut start = 0;
        if !self.events.is_empty() {
            write_id(&mut self.bytes, position);
            let mut size = Vec::with_capacity(CHUNK_SIZE_MAX_BYTES);
            write_chunk_size(&mut size, self.bytes.len() - CHUNK_SIZE_MAX_BYTES);
            start = CHUNK_SIZE_MAX_BYTES - size.len();
            self.bytes[start..CHUNK_SIZE_MAX_BYTES].copy_from_slice(&size);
            self.bytes.extend_from_slice(CHUNK_END);
        }
        Some(EventBatch { bytes: self.bytes.into(), start, events: self.events.into(), position })
    }
}

fn write_delete(out: &mut Vec<u8>, id: TodoId) {
    out.extend_from_slice(b"event: delete\ndata: {\"id\":\"");
    out.extend_from_slice(id.write_text(&mut [0; TODO_ID_TEXT_BYTES]).as_bytes());
    out.extend_from_slice(b"\"}\n");
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const POSITION: Position = Position { progress: 7, state: 0xab };
    const ID: &str = "id: 7-00000000000000ab\n\n";

    fn put(number: u128, json: &str, owner_before: Option<u64>, owner: u64) -> Outcome<'_> {
        Outcome { id: TodoId::from_u128(number), json: Some(json.as_bytes()), owner_before, owner: Some(owner) }
    }

    fn gone(number: u128, owner_before: Option<u64>) -> Outcome<'static> {
        Outcome { id: TodoId::from_u128(number), json: None, owner_before, owner: None }
    }

    pub fn batch(outcomes: &[Outcome<'_>], position: Position) -> EventBatch {
        let mut draft = BatchDraft::new(1 << 20);
        outcomes.iter().for_each(|outcome| draft.take(outcome));
        draft.finish(position).expect("it is small")
    }

    fn delete_of(number: u128) -> String {
        format!("event: delete\ndata: {{\"id\":\"00000000-0000-0000-0000-{number:012x}\"}}\n")
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn events_stand_in_one_chunk_with_the_position_in_the_last() {
        let batch =
            batch(&[put(1, "{1}", None, 10), gone(2, Some(20)), gone(3, None), put(4, "{4}", Some(10), 10)], POSITION);
        let expected = format!("event: put\ndata: {{1}}\n\n{}\nevent: put\ndata: {{4}}\n{ID}", delete_of(2));
        assert_eq!(text(batch.text()), expected);
        assert_eq!(text(batch.chunk()), format!("{:x}\r\n{expected}\r\n", expected.len()));
        assert_eq!((batch.len(), batch.position()), (3, POSITION));
    }

    #[test]
    fn an_owner_gets_their_events_alone() {
        let batch = batch(&[put(1, "{1}", None, 10), put(2, "{2}", None, 20), put(3, "{3}", None, 10)], POSITION);
        let written = |owner, framing| {
            let mut out = Vec::new();
            let count = batch.write_of(owner, framing, &mut out);
            (count, String::from_utf8(out).expect("UTF-8"))
        };
        let of_first = format!("event: put\ndata: {{1}}\n\nevent: put\ndata: {{3}}\n{ID}");
        assert_eq!(written(10, Framing::Bare), (2, of_first.clone()));
        assert_eq!(written(10, Framing::Chunked), (2, format!("{:x}\r\n{of_first}\r\n", of_first.len())));
        assert_eq!(written(20, Framing::Bare), (1, format!("event: put\ndata: {{2}}\n{ID}")));
        assert_eq!((written(30, Framing::Chunked), batch.bytes_of(30)), ((0, String::new()), 0));
        assert!(batch.bytes_of(10) > batch.bytes_of(20) && batch.bytes_of(20) > 0);
    }

    #[test]
    fn a_todo_that_goes_to_another_owner_is_gone_for_the_first() {
        let batch = batch(&[put(1, "{1}", Some(10), 20)], POSITION);
        assert_eq!(text(batch.text()), format!("{}\nevent: put\ndata: {{1}}\n{ID}", delete_of(1)));
        let mut out = Vec::new();
        assert_eq!(batch.write_of(10, Framing::Bare, &mut out), 1);
        assert_eq!(text(&out), format!("{}{ID}", delete_of(1)));
    }

    #[test]
    fn nothing_changed_is_no_bytes() {
        let batch = batch(&[gone(1, None)], POSITION);
        assert!(batch.is_empty() && batch.chunk().is_empty() && batch.text().is_empty());
        assert_eq!(batch.position(), POSITION);
    }

    #[test]
    fn a_batch_has_a_largest_size() {
        let json = "x".repeat(100);
        let finished = |count| {
            let mut draft = BatchDraft::new(1_000);
            (0..count).for_each(|number| draft.take(&put(number, &json, None, 1)));
            draft.finish(POSITION)
        };
        assert!(finished(3).is_some());
        assert!(finished(20).is_none());
    }
}
