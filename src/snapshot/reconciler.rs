//! Comparing a snapshot with the store.

use super::Snapshot;
use crate::store::Changes;
use crate::todo::{Todo, TodoKey};

/// Finds what differs between a snapshot and a scan of the store. It holds one bit for each todo of the snapshot and
/// the differences, so a scan that finds none needs no second list.
pub struct Reconciler<'s> {
    snapshot: &'s Snapshot,
    /// Bit `rank % 64` of word `rank / 64`: the scan has shown the todo of this rank, at this place.
    seen: Vec<u64>,
    changes: Changes,
    json: Vec<u8>,
}

impl<'s> Reconciler<'s> {
    /// Compares with `snapshot`.
    pub fn new(snapshot: &'s Snapshot) -> Reconciler<'s> {
        let words = snapshot.len().div_ceil(64);
        Reconciler { snapshot, seen: vec![0; words], changes: Changes::default(), json: Vec::new() }
    }

    /// Takes one todo of the scan. The order does not matter, but each id comes once.
    pub fn push(&mut self, todo: Todo) {
        let Some(entry) = self.snapshot.find(todo.key().into()) else {
            return self.changes.upserts.push(todo);
        };
        self.seen[entry.rank() / 64] |= 1 << (entry.rank() % 64);
        self.json.clear();
        todo.write_json(&mut self.json);
        if self.json != entry.json() {
            self.changes.upserts.push(todo);
        }
    }

    /// After the whole scan: the changes that turn the snapshot into what was scanned, none if they are equal. A todo
    /// that has moved (another `created_at`) is among both the deletes and the upserts, where the upsert counts.
    pub fn finish(mut self) -> Changes {
        let len = self.snapshot.len();
        let words = self.seen.iter().enumerate().filter(|(_, word)| **word != u64::MAX);
        let unseen =
            words.flat_map(|(at, word)| (0..64).filter(move |bit| word >> bit & 1 == 0).map(move |bit| 64 * at + bit));
        let keys = unseen.take_while(|rank| *rank < len).filter_map(|rank| self.snapshot.entry_of_rank(rank));
        self.changes.deletes = keys.map(|entry| entry.key()).collect::<Vec<TodoKey>>();
        self.changes
    }
}
