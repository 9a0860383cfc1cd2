//! What a shard says about its process to whoever asks, without a token: the texts of `/metrics` and `/ready`.
//!
//! Such a text is made of all counters of all shards, which costs more than any other short answer. So each one that is asked for
//! now and then is made for it, and counts everything up to that moment; in a flood, one text answers all that come within a tick.

use std::rc::Rc;

use crate::limits::{DOCUMENTS_AT_ONCE_MAX, DOCUMENTS_PER_TICK};

/// The last text of one kind, and how many more may be made.
#[derive(Debug)]
pub struct Document<T> {
    last: Option<Rc<T>>,
    /// Texts that may be made.
    credit: u32,
    /// Up to which tick of the shard credit has been given.
    credited_at: u64,
}

impl<T> Default for Document<T> {
    fn default() -> Document<T> {
        Document { last: None, credit: DOCUMENTS_AT_ONCE_MAX, credited_at: 0 }
    }
}

impl<T> Document<T> {
    /// A text of this moment, or the last one when too many have been made; that one is a tick old at most.
    pub fn get(&mut self, tick: u64, make: impl FnOnce() -> T) -> Rc<T> {
        let passed = u32::try_from(tick.saturating_sub(self.credited_at)).unwrap_or(u32::MAX);
        self.credited_at = tick;
        self.credit = passed.saturating_mul(DOCUMENTS_PER_TICK).saturating_add(self.credit).min(DOCUMENTS_AT_ONCE_MAX);
        match &self.last {
            Some(last) if self.credit == 0 => Rc::clone(last),
            _ => {
                self.credit = self.credit.saturating_sub(1);
                let made = Rc::new(make());
                self.last = Some(Rc::clone(&made));
                made
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_made_for_whoever_asks_and_a_flood_shares_one_of_each_tick() {
        let (mut document, mut made) = (Document::default(), 0);
        let mut ask = |tick| {
            *document.get(tick, || {
                made += 1;
                made
            })
        };
        for asked in 1..=DOCUMENTS_AT_ONCE_MAX {
            assert_eq!(ask(7), asked);
        }
        assert!((0..1_000).all(|_| ask(7) == DOCUMENTS_AT_ONCE_MAX), "all of that tick");
        for tick in 1..10 {
            let flood: Vec<u32> = (0..1_000).map(|_| ask(7 + tick)).collect();
            let expected = DOCUMENTS_AT_ONCE_MAX + tick as u32 * DOCUMENTS_PER_TICK;
            assert!(flood[0] > expected - DOCUMENTS_PER_TICK && flood[999] == expected, "none is older than its tick");
        }
        // Who has been quiet for long is owed no more than at the start.
        let before = ask(16);
        let after_a_while = (0..10_000).map(|_| ask(1 << 40)).last();
        assert_eq!(after_a_while, Some(before + DOCUMENTS_AT_ONCE_MAX));
    }
}
