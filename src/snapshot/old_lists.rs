//! How much memory old versions of the list take that are still being read, and how much they may.
//!
//! The thread that makes the versions measures, and so does the one that encodes them; the shards look, and cut off who reads the
//! slowest. All of it is rare: nothing here is touched for a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Snapshot;
use crate::limits::OLD_LISTS_MIN_BYTES;

/// What is known of old versions. Each number is written by one thread, and none is read together with another.
#[derive(Debug, Default)]
pub struct OldLists {
    max_bytes: Option<u64>,
    list_bytes: AtomicU64,
    replaced_bytes: AtomicU64,
    settled_version: AtomicU64,
    held_bytes: AtomicU64,
    encoded_bytes: AtomicU64,
    measures: AtomicU64,
    /// Of each shard what [`OldLists::agree`] was given last.
    slowest: Box<[AtomicU64]>,
}

impl OldLists {
    /// For so many shards. Old versions may take so much; `None`: as much as the newest takes, at least [`OLD_LISTS_MIN_BYTES`].
    pub fn new(max_bytes: Option<u64>, shards: usize) -> Arc<OldLists> {
        let slowest = (0..shards).map(|_| AtomicU64::new(u64::MAX)).collect();
        Arc::new(OldLists { max_bytes, slowest, ..OldLists::default() })
    }

    /// Tells how much is held of versions before `newest`. Those up to `settled_version` have been old for so long that all
    /// shards have taken a newer one.
    pub fn measured(&self, newest: &Snapshot, settled_version: u64, held_bytes: u64) {
        self.list_bytes.store(newest.memory_bytes(), Ordering::Relaxed);
        self.replaced_bytes.store(newest.replaced_bytes(), Ordering::Relaxed);
        self.settled_version.store(settled_version, Ordering::Relaxed);
        self.held_bytes.store(held_bytes, Ordering::Relaxed);
        self.measures.fetch_add(1, Ordering::Relaxed);
    }

    /// The same of their encoded forms.
    pub fn measured_encoded(&self, held_bytes: u64) {
        self.encoded_bytes.store(held_bytes, Ordering::Relaxed);
    }

    /// [`Snapshot::replaced_bytes`] of the newest version.
    pub fn replaced_bytes(&self) -> u64 {
        self.replaced_bytes.load(Ordering::Relaxed)
    }

    /// See [`OldLists::measured`].
    pub fn settled_version(&self) -> u64 {
        self.settled_version.load(Ordering::Relaxed)
    }

    /// At most so much is held.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed) + self.encoded_bytes.load(Ordering::Relaxed)
    }

    /// So much may be held.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes.unwrap_or_else(|| self.list_bytes.load(Ordering::Relaxed).max(OLD_LISTS_MIN_BYTES))
    }

    /// Takes how many bytes a second the slowest client of a shard reads that holds an old version, and gives that of all shards;
    /// `u64::MAX` stands for nobody.
    pub fn agree(&self, shard: usize, bytes_per_sec: u64) -> u64 {
        self.slowest[shard].store(bytes_per_sec, Ordering::Relaxed);
        self.slowest.iter().map(|slowest| slowest.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX)
    }

    /// Whether more is held than may be: the number of the measure that says so.
    pub fn excess(&self) -> Option<u64> {
        (self.held_bytes() > self.max_bytes()).then(|| self.measures.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::snapshot::HashKeys;
    use crate::store::Changes;
    use crate::todo::{Timestamp, Todo, TodoId};

    fn todo(number: u64, text: &str) -> Todo {
        Todo {
            id: TodoId::from_u128(number.into()),
            title: format!("{text} {number}"),
            description: text.repeat(20),
            completed: false,
            user_id: "somebody".into(),
            created_at: Timestamp::from_micros(1_700_000_000_000_000 + number as i64),
            updated_at: Timestamp::from_micros(1_700_000_000_000_000),
        }
    }

    fn memory(snapshot: &Snapshot) -> HashMap<usize, usize> {
        let mut pieces = HashMap::new();
        snapshot.visit_memory(&mut |address, bytes| {
            pieces.insert(address, bytes);
        });
        pieces
    }

    #[test]
    fn what_old_versions_hold_is_never_more_than_is_said_and_not_far_below() {
        let all = Changes { upserts: (0..3_000).map(|number| todo(number, "first")).collect(), deletes: Vec::new() };
        let mut versions = vec![Snapshot::empty(HashKeys::new(&[1; 32])).apply([&all])];
        let mut chance = 7_u64;
        for round in 0..60_u64 {
            let mut changes = Changes::default();
            for _ in 0..1 + round % 20 * 5 {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let number = (chance >> 33) % 3_500;
                match (chance >> 20) % 5 {
                    0 => changes.deletes.push(todo(number, "").key()),
                    _ => changes.upserts.push(todo(number, &format!("round {round}"))),
                }
            }
            versions.push(versions[versions.len() - 1].apply([&changes]));
        }
        let newest = versions.last().expect("there are some");
        let current = memory(newest);
        assert!(current.values().sum::<usize>() as u64 <= newest.memory_bytes());
        for held in [vec![0], vec![59], vec![0, 1, 2], vec![3, 30, 50], (0..60).collect::<Vec<_>>()] {
            let mut truly = HashMap::new();
            held.iter().for_each(|at| truly.extend(memory(&versions[*at])));
            truly.retain(|address, _| !current.contains_key(address));
            let truly = truly.values().sum::<usize>() as u64;
            let nexts = held[1..].iter().map(|at| &versions[*at]).chain([newest]);
            let said: u64 = held.iter().zip(nexts).map(|(at, next)| versions[*at].held_beside(next)).sum();
            assert!(truly <= said && said <= 4 * truly, "{held:?}: {truly} bytes, and {said} are said");
        }
        let one = newest.apply([&Changes { upserts: vec![todo(5, "one")], deletes: Vec::new() }]);
        let held_bytes = newest.held_beside(&one);
        assert!((1..64 * 1024).contains(&held_bytes), "{held_bytes} bytes for one change");
    }

    #[test]
    fn a_flat_list_counts_with_the_pieces_that_the_next_one_has_not() {
        let all = Changes { upserts: (0..3_000).map(|number| todo(number, "flat")).collect(), deletes: Vec::new() };
        let first = Snapshot::empty(HashKeys::new(&[1; 32])).apply([&all]);
        let next = first.apply([&Changes { upserts: vec![todo(5, "one")], deletes: Vec::new() }]);
        let before = first.held_beside(&next);
        first.flatten();
        assert!(first.held_beside(&next) >= before + first.content_length() - 2, "the next one has no piece of it");
        let next = first.apply([&Changes { upserts: vec![todo(5, "one")], deletes: Vec::new() }]);
        assert_eq!(first.held_beside(&next), before, "it keeps them for its own");
        next.flatten();
        let held_bytes = first.held_beside(&next);
        assert!(held_bytes > before && held_bytes < before + first.content_length() / 2, "{held_bytes} bytes");
    }

    #[test]
    fn the_bound_follows_the_list_unless_it_is_set() {
        let lists = OldLists::new(None, 2);
        lists.measured(&Snapshot::empty(HashKeys::new(&[1; 32])), 0, OLD_LISTS_MIN_BYTES);
        assert_eq!((lists.max_bytes(), lists.excess()), (OLD_LISTS_MIN_BYTES, None));
        lists.measured_encoded(1);
        assert_eq!(lists.excess(), Some(1));
        assert_eq!((lists.agree(0, 7), lists.agree(1, 9), lists.agree(0, u64::MAX)), (7, 7, 9));
        assert_eq!(OldLists::new(Some(5), 1).max_bytes(), 5);
    }
}
