//! The last batches of changes, so that who was away for a while can go on from where they stood.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::EventBatch;
use crate::http::Position;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimits {
    /// Bytes of memory of all batches.
    pub bytes_max: u64,
    /// Ticks after which a batch is forgotten.
    pub ticks_max: u64,
}

/// A batch that is kept.
pub struct Kept {
    batch: Arc<EventBatch>,
    /// Bytes of all batches before it.
    bytes_before: u64,
    kept_at: u64,
}

impl std::ops::Deref for Kept {
    type Target = EventBatch;

    fn deref(&self) -> &EventBatch {
        &self.batch
    }
}

/// What a position is to a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It goes on with the batch of this number, which may be still to come.
    Next(u64),
    /// The list has not come so far.
    Ahead,
    /// The changes since then are forgotten.
    TooOld,
    /// The list never was so.
    Unknown,
}

/// The last batches, numbered in their order. No number is used twice.
pub struct History {
    limits: HistoryLimits,
    kept: VecDeque<Rc<Kept>>,
    /// The number of the first batch that is kept.
    first: u64,
    /// The position before it.
    base: Position,
    memory_bytes: u64,
    /// Bytes of all batches so far.
    bytes: u64,
}

impl History {
    /// An empty one.
    pub fn new(limits: HistoryLimits) -> History {
        History { limits, kept: VecDeque::new(), first: 0, base: Position::default(), memory_bytes: 0, bytes: 0 }
    }

    /// Forgets everything: from now on there are changes behind this position alone.
    pub fn begin_anew(&mut self, base: Position) {
        // Not even the number of the present end is good any more.
        self.first = self.end() + 1;
        self.kept.clear();
        self.memory_bytes = 0;
        self.base = base;
    }

    /// Takes the next batch in.
    pub fn push(&mut self, batch: Arc<EventBatch>, now: u64) {
        self.memory_bytes += batch.memory_bytes() as u64;
        let bytes_before = self.bytes;
        self.bytes += batch.chunk().len() as u64;
        self.kept.push_back(Rc::new(Kept { batch, bytes_before, kept_at: now }));
        while self.memory_bytes > self.limits.bytes_max {
            self.forget_first();
        }
    }

    /// Forgets what is too old.
    pub fn forget_old(&mut self, now: u64) {
        while self.kept.front().is_some_and(|first| now.saturating_sub(first.kept_at) > self.limits.ticks_max) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.kept.pop_front() {
            self.memory_bytes -= first.memory_bytes() as u64;
            self.base = first.position();
            self.first += 1;
        }
    }

    /// The number of the first batch that is kept.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number of the batch that comes next.
    pub fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// The batch of this number, if it is kept.
    pub fn get(&self, number: u64) -> Option<&Rc<Kept>> {
        self.kept.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Bytes of the batches from this number on.
    pub fn bytes_from(&self, number: u64) -> u64 {
        self.get(number).map_or(0, |kept| self.bytes - kept.bytes_before)
    }

    /// Bytes of memory that it holds together with the other shards.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// The position behind the last batch.
    pub fn position(&self) -> Position {
        self.kept.back().map_or(self.base, |last| last.position())
    }

    /// Where a list of this position goes on.
    pub fn find(&self, position: Position) -> Found {
        if position.progress > self.position().progress {
            return Found::Ahead;
        }
        // Progress never shrinks within a history. Of several batches that lead to one position, the last is nearest.
        let behind = self.kept.partition_point(|kept| kept.position().progress <= position.progress);
        for at in (0..behind).rev() {
            let reached = self.kept[at].position();
            if reached == position {
                return Found::Next(self.first + at as u64 + 1);
            }
            if reached.progress != position.progress {
                return Found::Unknown;
            }
        }
        match position {
            position if position == self.base => Found::Next(self.first),
            position if position.progress < self.base.progress => Found::TooOld,
            _ => Found::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::tests::batch;
    use super::*;
    use crate::snapshot::Outcome;
    use crate::todo::TodoId;

    const LIMITS: HistoryLimits = HistoryLimits { bytes_max: 1 << 20, ticks_max: 10 };

    fn at(progress: u64, state: u64) -> Position {
        Position { progress, state }
    }

    fn change(progress: u64, state: u64) -> Arc<EventBatch> {
        let outcome = Outcome { id: TodoId::from_u128(1), json: Some(b"{}"), owner_before: None, owner: Some(1) };
        Arc::new(batch(&[outcome], at(progress, state)))
    }

    #[test]
    fn a_position_goes_on_with_the_batch_behind_it() {
        let mut history = History::new(LIMITS);
        history.begin_anew(at(10, 1));
        let first = history.first();
        assert_eq!((history.find(at(10, 1)), history.position()), (Found::Next(first), at(10, 1)));
        // The second changes the list by no command, as a hand in the store does.
        for (progress, state) in [(12, 2), (12, 3), (20, 1)] {
            history.push(change(progress, state), 0);
        }
        assert_eq!(history.position(), at(20, 1));
        for (position, found) in [
            (at(9, 1), Found::TooOld),
            (at(10, 1), Found::Next(first)),
            (at(10, 2), Found::Unknown),
            (at(11, 1), Found::Unknown),
            (at(12, 1), Found::Unknown),
            (at(12, 2), Found::Next(first + 1)),
            (at(12, 3), Found::Next(first + 2)),
            (at(19, 1), Found::Unknown),
            (at(20, 1), Found::Next(first + 3)),
            (at(20, 2), Found::Unknown),
            (at(21, 1), Found::Ahead),
        ] {
            assert_eq!(history.find(position), found, "{position:?}");
        }
        assert_eq!(history.end(), first + 3);
        assert_eq!(history.bytes_from(first), 3 * history.bytes_from(first + 2));
        assert_eq!(history.bytes_from(first + 3), 0);
    }

    #[test]
    fn what_is_old_is_forgotten_and_known_to_be() {
        let mut history = History::new(LIMITS);
        history.begin_anew(at(0, 0));
        let first = history.first();
        history.push(change(1, 1), 100);
        history.push(change(2, 2), 105);
        history.forget_old(110);
        assert_eq!(history.first(), first);
        history.forget_old(111);
        assert_eq!((history.first(), history.get(first).is_none()), (first + 1, true));
        assert_eq!((history.find(at(0, 0)), history.find(at(1, 1))), (Found::TooOld, Found::Next(first + 1)));
        history.forget_old(200);
        assert_eq!((history.find(at(1, 1)), history.find(at(2, 2))), (Found::TooOld, Found::Next(first + 2)));
        assert_eq!((history.memory_bytes(), history.end(), history.position()), (0, first + 2, at(2, 2)));
    }

    #[test]
    fn as_many_bytes_are_kept_as_may() {
        let one = change(1, 1).memory_bytes() as u64;
        let mut history = History::new(HistoryLimits { bytes_max: 3 * one, ..LIMITS });
        for progress in 1..=1_000 {
            history.push(change(progress, progress), 0);
            assert!(history.memory_bytes() <= 4 * one);
        }
        assert!(history.end() - history.first() >= 2);
        assert_eq!(history.find(at(1, 1)), Found::TooOld);
    }

    #[test]
    fn nobody_goes_on_behind_a_new_beginning() {
        let mut history = History::new(LIMITS);
        history.push(change(7, 7), 0);
        let end = history.end();
        history.begin_anew(at(3, 3));
        assert!(end < history.first());
        assert_eq!((history.find(at(7, 7)), history.find(at(3, 3))), (Found::Ahead, Found::Next(history.first())));
        assert_eq!(history.find(at(2, 2)), Found::TooOld);
    }
}
