//! Building a snapshot from all todos.

use super::Snapshot;
use super::chunk::{Chunk, Item, Place, Slot, write_item_json};
use super::draft::{Draft, sort_latest_first};
use super::index::Index;
use super::tree::Tree;
use crate::limits::CHUNK_TARGET_BYTES;
use crate::todo::Todo;

/// Builds a snapshot from todos in any order. Those that come newest first go straight into their chunk; the others
/// wait as JSON until the end, so that a build in any other order needs memory for about twice the list.
#[derive(Default)]
pub struct SnapshotBuilder {
    chunks: Vec<Chunk>,
    /// The chunk being filled.
    slots: Vec<Slot>,
    json: Vec<u8>,
    /// Todos that came out of order.
    late: Draft,
    /// The JSON of the todo being pushed.
    item_json: Vec<u8>,
    /// The place of every todo, as pushed.
    places: Vec<Place>,
}

impl SnapshotBuilder {
    /// A builder without todos.
    pub fn new() -> SnapshotBuilder {
        SnapshotBuilder::default()
    }

    /// Adds a todo. Of several with one id, the last pushed stays.
    pub fn push(&mut self, todo: &Todo) {
        let place = Place::from(todo.key());
        self.places.push(place);
        // The chunk being filled always ends with the oldest todo that came in order.
        if self.slots.last().is_some_and(|last| place <= last.place()) {
            return self.late.put(todo);
        }
        self.item_json.clear();
        let hash = write_item_json(todo, &mut self.item_json);
        let is_full = self.json.len() >= CHUNK_TARGET_BYTES;
        if is_full || self.json.len() + self.item_json.len() > 2 * CHUNK_TARGET_BYTES {
            self.close_chunk();
        }
        self.slots.push(Slot::after(self.slots.last(), &Item { place, hash, json: &self.item_json }));
        self.json.extend_from_slice(&self.item_json);
    }

    /// The snapshot of all todos pushed.
    pub fn finish(mut self, version: u64) -> Snapshot {
        self.close_chunk();
        let in_order = Tree::from_leaves(self.chunks);
        sort_latest_first(&mut self.places, |place| place.id);
        self.places.dedup_by(|earlier, latest| {
            let is_same_todo = earlier.id == latest.id;
            if is_same_todo && earlier != latest {
                self.late.remove(*earlier);
            }
            is_same_todo
        });
        Snapshot { version, todos: in_order.apply(&self.late.edits()), index: Index::from_items(&self.places) }
    }

    fn close_chunk(&mut self) {
        if !self.slots.is_empty() {
            self.chunks.push(Chunk::new(&self.slots, &self.json));
            self.slots.clear();
            self.json.clear();
        }
    }
}
