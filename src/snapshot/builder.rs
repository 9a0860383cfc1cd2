//! Building a snapshot from all todos.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Snapshot;
use super::chunk::{Chunk, Item, Place, Slot, write_item_json};
use super::draft::{Draft, sort_latest_first};
use super::facets::FacetIndex;
use super::hashing::HashKeys;
use super::index::{Index, IndexEntry};
use super::tree::Tree;
use crate::limits::{BUILD_RUN_BYTES, CHUNK_TARGET_BYTES};
use crate::todo::Todo;

/// Builds a snapshot from todos in any order. Those that come newest first go straight into their chunk. The others are
/// sorted into chunks a few MiB at a time, and all such runs are merged at the end, each chunk being freed when it has
/// been read: at no time is there a second copy of the list.
pub struct SnapshotBuilder {
    keys: HashKeys,
    in_order: ChunkWriter,
    /// Todos that came out of order, since the last run.
    late: Draft,
    /// Sorted runs of late todos, oldest run first.
    late_runs: Vec<Vec<Chunk>>,
    late_run_bytes: usize,
    /// The JSON of the todo being pushed.
    json: Vec<u8>,
    /// The index entry of every todo, as pushed.
    entries: Vec<IndexEntry>,
}

impl SnapshotBuilder {
    /// A builder without todos.
    pub fn new(keys: HashKeys) -> SnapshotBuilder {
        SnapshotBuilder::with_late_runs_of(BUILD_RUN_BYTES, keys)
    }

    /// A builder whose runs of late todos are of this size; the tests want many of them.
    pub(super) fn with_late_runs_of(late_run_bytes: usize, keys: HashKeys) -> SnapshotBuilder {
        SnapshotBuilder {
            keys,
            in_order: ChunkWriter::default(),
            late: Draft::new(keys),
            late_runs: Vec::new(),
            late_run_bytes,
            json: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Adds a todo. Of several with one id, the last pushed stays.
    pub fn push(&mut self, todo: &Todo) {
        let entry = IndexEntry::of(todo, &self.keys);
        self.entries.push(entry);
        let place = entry.place;
        if self.in_order.last_place().is_none_or(|last| last < place) {
            self.json.clear();
            let hash = write_item_json(todo, &self.keys, &mut self.json);
            let is_marked = todo.facets().is_marked;
            return self.in_order.push(&Item { place, hash, is_marked, json: &self.json });
        }
        self.late.put(todo);
        if self.late.json_bytes() >= self.late_run_bytes {
            self.close_late_run();
        }
    }

    /// The snapshot of all todos pushed.
    pub fn finish(mut self, version: u64) -> Snapshot {
        self.close_late_run();
        // A late todo was pushed after the one in order that has its place, if there is one: later runs count for more.
        let mut runs = vec![self.in_order.finish()];
        runs.append(&mut self.late_runs);
        let todos = Tree::from_leaves(merge(runs));

        sort_latest_first(&mut self.entries, |entry| entry.place.id);
        let mut left = Draft::new(self.keys);
        self.entries.dedup_by(|earlier, latest| {
            let is_same_todo = earlier.place.id == latest.place.id;
            if is_same_todo && earlier.place != latest.place {
                left.remove(earlier.place);
            }
            is_same_todo
        });
        let todos = todos.apply(&left.edits(), &mut 0);
        let facets = FacetIndex::new(&todos, &self.entries);
        Snapshot::new(version, self.keys, todos, Index::from_items(&self.entries), facets)
    }

    fn close_late_run(&mut self) {
        let mut run = ChunkWriter::default();
        self.late.edits().iter().filter_map(|edit| edit.item).for_each(|item| run.push(&item));
        self.late.clear();
        self.late_runs.push(run.finish());
    }
}

/// Fills chunks with todos that come in the list's order.
#[derive(Default)]
struct ChunkWriter {
    full: Vec<Chunk>,
    /// The chunk being filled; it always ends with the last todo.
    slots: Vec<Slot>,
    json: Vec<u8>,
}

impl ChunkWriter {
    fn last_place(&self) -> Option<Place> {
        self.slots.last().map(|slot| slot.place())
    }

    fn push(&mut self, item: &Item<'_>) {
        // Up to the target and not beyond, which would take the allocator's next size.
        if Chunk::weight_of(self.slots.len() + 1, self.json.len() + item.json.len()) > CHUNK_TARGET_BYTES {
            self.close_chunk();
        }
        self.slots.push(Slot::after(self.slots.last(), item));
        self.json.extend_from_slice(item.json);
    }

    fn close_chunk(&mut self) {
        if !self.slots.is_empty() {
            self.full.push(Chunk::new(&self.slots, &self.json));
            self.slots.clear();
            self.json.clear();
        }
    }

    fn finish(mut self) -> Vec<Chunk> {
        self.close_chunk();
        self.full
    }
}

/// Merges sorted runs of chunks; of several todos at one place, that of the last run stays.
fn merge(mut runs: Vec<Vec<Chunk>>) -> Vec<Chunk> {
    runs.retain(|run| !run.is_empty());
    if runs.len() <= 1 {
        return runs.pop().unwrap_or_default();
    }
    let mut readers: Vec<RunReader> = runs.into_iter().map(RunReader::new).collect();
    let next = |number: usize, reader: &RunReader| reader.place().map(|place| (Reverse(place), number));
    // The greatest is the first place, and there the last run.
    let mut heads: BinaryHeap<(Reverse<Place>, usize)> =
        readers.iter().enumerate().filter_map(|(number, reader)| next(number, reader)).collect();
    let mut merged = ChunkWriter::default();
    while let Some((Reverse(place), number)) = heads.pop() {
        let reader = &mut readers[number];
        if merged.last_place() != Some(place) {
            merged.push(&reader.item());
        }
        reader.step();
        heads.extend(next(number, reader));
    }
    merged.finish()
}

/// Reads a run todo by todo, and frees its chunks on the way.
struct RunReader {
    chunk: Option<Chunk>,
    /// The todo's number within the chunk.
    at: usize,
    rest: std::vec::IntoIter<Chunk>,
}

impl RunReader {
    fn new(run: Vec<Chunk>) -> RunReader {
        let mut rest = run.into_iter();
        RunReader { chunk: rest.next(), at: 0, rest }
    }

    fn place(&self) -> Option<Place> {
        self.chunk.as_ref().map(|chunk| chunk.item(self.at).place)
    }

    fn item(&self) -> Item<'_> {
        self.chunk.as_ref().expect("the run has not ended").item(self.at)
    }

    fn step(&mut self) {
        self.at += 1;
        if self.chunk.as_ref().is_some_and(|chunk| self.at == chunk.len()) {
            self.chunk = self.rest.next();
            self.at = 0;
        }
    }
}
