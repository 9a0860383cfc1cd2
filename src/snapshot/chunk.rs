//! The leaves of the list: neighbouring todos as one run of JSON.

use std::cmp::Ordering;

use xxhash_rust::xxh3::xxh3_64;

use super::tree::{Edit, Leaf, Summary};
use crate::limits::{CHUNK_TARGET_BYTES, LIST_BRANCH_TARGET_CHILDREN};
use crate::todo::{Timestamp, Todo, TodoId, TodoKey};

/// The bits of a [`TodoId`] in two halves: a `u128` would align all that holds one to 16 bytes, and cost 8 more for each
/// todo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IdHalves {
    high: u64,
    low: u64,
}

impl From<TodoId> for IdHalves {
    fn from(id: TodoId) -> IdHalves {
        IdHalves { high: (id.as_u128() >> 64) as u64, low: id.as_u128() as u64 }
    }
}

impl From<IdHalves> for TodoId {
    fn from(halves: IdHalves) -> TodoId {
        TodoId::from_u128(u128::from(halves.high) << 64 | u128::from(halves.low))
    }
}

/// The place of a todo in the list. Places sort as the list does: the place of the newest todo is the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub created_at: Timestamp,
    pub id: IdHalves,
}

impl Ord for Place {
    fn cmp(&self, other: &Place) -> Ordering {
        other.created_at.cmp(&self.created_at).then_with(|| other.id.cmp(&self.id))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Place) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<TodoKey> for Place {
    fn from(key: TodoKey) -> Place {
        Place { created_at: key.created_at, id: key.id.into() }
    }
}

impl From<Place> for TodoKey {
    fn from(place: Place) -> TodoKey {
        TodoKey { created_at: place.created_at, id: place.id.into() }
    }
}

/// A todo on its way into a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    pub place: Place,
    /// [`hash`] of the JSON.
    pub hash: u64,
    /// The JSON with a comma after it.
    pub json: &'a [u8],
}

/// The hash of a todo's JSON, without the comma. It has no secret and no seed, so every process finds the same.
pub(super) fn hash(json: &[u8]) -> u64 {
    xxh3_64(json)
}

/// Appends the JSON of a todo and a comma to `out`, and returns its hash.
pub(super) fn write_item_json(todo: &Todo, out: &mut Vec<u8>) -> u64 {
    let start = out.len();
    todo.write_json(out);
    let hash = hash(&out[start..]);
    out.push(b',');
    hash
}

/// Some neighbouring todos of the list.
pub(super) struct Chunk {
    slots: Box<[Slot]>,
    /// `{…},{…},`: any neighbours are one slice, and a list ends by leaving out the last comma.
    json: Box<[u8]>,
}

/// What a chunk knows about each todo, beside its JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    place: Place,
    /// Wrapping sum of the hashes from the chunk's first todo through this one.
    hash_through: u64,
    /// Where its JSON ends in the chunk's, after the comma.
    end: u32,
}

impl Slot {
    pub fn place(&self) -> Place {
        self.place
    }

    /// The slot of `item` after `previous`, which is `None` for the first of a chunk.
    pub fn after(previous: Option<&Slot>, item: &Item<'_>) -> Slot {
        let (hash, end) = previous.map_or((0, 0), |slot| (slot.hash_through, slot.end as usize));
        Slot {
            place: item.place,
            hash_through: hash.wrapping_add(item.hash),
            end: u32::try_from(end + item.json.len()).expect("a chunk is a few KiB, or one todo"),
        }
    }
}

impl Chunk {
    /// A chunk of these slots, whose JSON is `json`.
    pub fn new(slots: &[Slot], json: &[u8]) -> Chunk {
        debug_assert_eq!(slots.last().map(|slot| slot.end as usize), Some(json.len()));
        Chunk { slots: slots.into(), json: json.into() }
    }

    /// The JSON of all todos, each with a comma after it.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// Number of todos.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The sum over the first `count` todos.
    pub fn sum_of_first(&self, count: usize) -> Summary {
        match count.checked_sub(1).map(|last| &self.slots[last]) {
            None => Summary::default(),
            Some(last) => Summary { len: count, bytes: last.end.into(), hash: last.hash_through },
        }
    }

    /// How many todos stand before `place`, and whether one stands at it.
    pub fn find(&self, place: Place) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&place, |slot| slot.place)
    }

    /// Todo number `at`, counted from 0.
    pub fn item(&self, at: usize) -> Item<'_> {
        let (before, through) = (self.sum_of_first(at), self.sum_of_first(at + 1));
        Item {
            place: self.slots[at].place,
            hash: (through - before).hash,
            json: &self.json[before.bytes as usize..through.bytes as usize],
        }
    }
}

impl Leaf for Chunk {
    const TARGET_WEIGHT: usize = CHUNK_TARGET_BYTES;
    const TARGET_CHILDREN: usize = LIST_BRANCH_TARGET_CHILDREN;
    type Key = Place;
    type Item<'a> = Item<'a>;

    fn key(item: &Item<'_>) -> Place {
        item.place
    }

    fn measure(item: &Item<'_>) -> Summary {
        Summary { len: 1, bytes: item.json.len() as u64, hash: item.hash }
    }

    fn weight(summary: &Summary) -> usize {
        summary.bytes as usize
    }

    fn items(&self) -> impl Iterator<Item = Item<'_>> {
        (0..self.len()).map(|at| self.item(at))
    }

    fn from_items(items: &[Item<'_>]) -> Chunk {
        let bytes = items.iter().map(|item| item.json.len()).sum();
        let mut chunk = ChunkDraft { slots: Vec::with_capacity(items.len()), json: Vec::with_capacity(bytes) };
        items.iter().for_each(|item| chunk.push(item));
        chunk.finish()
    }

    fn summary(&self) -> Summary {
        self.sum_of_first(self.len())
    }

    /// Copies what stands between the edits in one piece each: most batches change one todo of a chunk.
    fn edited<'a>(&'a self, edits: &[Edit<'a, Chunk>]) -> Option<Chunk> {
        let (mut len, mut bytes) = (self.len(), self.json.len());
        for edit in edits {
            if let Ok(at) = self.find(edit.key) {
                len -= 1;
                bytes -= self.item(at).json.len();
            }
            if let Some(item) = edit.item {
                len += 1;
                bytes += item.json.len();
            }
        }
        // Exactly as long as needed: a boxed slice of it is then no second copy.
        let mut edited = ChunkDraft { slots: Vec::with_capacity(len), json: Vec::with_capacity(bytes) };
        let mut from = 0;
        for edit in edits {
            let (to, next) = match self.find(edit.key) {
                Ok(at) => (at, at + 1),
                Err(at) => (at, at),
            };
            edited.copy(self, from, to);
            if let Some(item) = &edit.item {
                edited.push(item);
            }
            from = next;
        }
        edited.copy(self, from, self.len());
        (!edited.slots.is_empty()).then(|| edited.finish())
    }
}

/// A chunk in the making.
struct ChunkDraft {
    slots: Vec<Slot>,
    json: Vec<u8>,
}

impl ChunkDraft {
    fn push(&mut self, item: &Item<'_>) {
        self.slots.push(Slot::after(self.slots.last(), item));
        self.json.extend_from_slice(item.json);
    }

    /// Appends the todos `from..to` of another chunk.
    fn copy(&mut self, chunk: &Chunk, from: usize, to: usize) {
        let (skipped, through) = (chunk.sum_of_first(from), chunk.sum_of_first(to));
        let hash_before = self.slots.last().map_or(0, |slot| slot.hash_through);
        let end_before = self.json.len() as u32;
        self.slots.extend(chunk.slots[from..to].iter().map(|slot| Slot {
            place: slot.place,
            hash_through: slot.hash_through.wrapping_sub(skipped.hash).wrapping_add(hash_before),
            end: slot.end - skipped.bytes as u32 + end_before,
        }));
        self.json.extend_from_slice(&chunk.json[skipped.bytes as usize..through.bytes as usize]);
    }

    fn finish(self) -> Chunk {
        Chunk { slots: self.slots.into(), json: self.json.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_todo_costs_few_bytes_beside_its_json() {
        assert_eq!(size_of::<Place>(), 24);
        assert_eq!(size_of::<Slot>(), 40);
    }

    #[test]
    fn places_sort_newest_first() {
        let key = |micros, id| TodoKey { created_at: Timestamp::from_micros(micros), id: TodoId::from_u128(id) };
        let mut keys = vec![key(1, 5), key(-3, 9), key(1, 1 << 90), key(2, 0), key(1, u128::MAX)];
        let mut places: Vec<Place> = keys.iter().map(|&key| key.into()).collect();
        keys.sort_by_key(|&key| std::cmp::Reverse(key));
        places.sort();
        assert_eq!(places.into_iter().map(TodoKey::from).collect::<Vec<_>>(), keys);
    }
}
