//! The leaves of the list: neighbouring todos as one run of JSON.

use std::cmp::Ordering;
use std::mem::MaybeUninit;
use std::sync::Arc;

use super::hashing::HashKeys;
use super::prefetch::Memory;
use super::summary::Summary;
use super::tree::{Edit, Edited, Leaf};
use crate::limits::{CHUNK_TARGET_BYTES, LIST_BRANCH_TARGET_CHILDREN, TODO_JSON_MAX_BYTES};
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

impl Place {
    /// No todo stands before this place.
    pub const NEWEST: Place = Place { created_at: Timestamp::MAX, id: IdHalves { high: u64::MAX, low: u64::MAX } };
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
    /// [`HashKeys::todo`] of the JSON.
    pub hash: u64,
    /// Whether the todo is marked, as [`Facets`](crate::todo::Facets) says.
    pub is_marked: bool,
    /// The JSON with a comma after it.
    pub json: &'a [u8],
}

/// Appends the JSON of a todo and a comma to `out`, and returns its hash.
pub(super) fn write_item_json(todo: &Todo, keys: &HashKeys, out: &mut Vec<u8>) -> u64 {
    let start = out.len();
    todo.write_json(out);
    let hash = keys.todo(&out[start..]);
    out.push(b',');
    hash
}

/// Some neighbouring todos of the list, in one piece of memory, which is copied at once and freed at once. A clone shares it.
///
/// ```text
/// number of todos (u32) | their slots | {…},{…},
/// ```
/// Any neighbours are one slice of the JSON, and a list ends by leaving out the last comma.
#[derive(Clone)]
pub(super) struct Chunk(Arc<[u8]>);

const _: () =
    assert!(TODO_JSON_MAX_BYTES + 2 * CHUNK_TARGET_BYTES < Slot::MARK as usize, "a length leaves its first bit");

/// Bytes before the first slot.
const COUNT_BYTES: usize = size_of::<u32>();

/// What a chunk knows about each todo, beside its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    place: Place,
    /// Wrapping sum of the hashes from the chunk's first todo through this one.
    hash_through: u64,
    /// Where its JSON ends in the chunk's, after the comma.
    end: u32,
    is_marked: bool,
}

impl Slot {
    /// Bytes of a slot within a chunk, where nothing is aligned.
    const BYTES: usize = 4 * size_of::<u64>() + size_of::<u32>();
    /// In the bytes of a slot, this bit of `end` says whether the todo is marked.
    const MARK: u32 = 1 << 31;

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
            is_marked: item.is_marked,
        }
    }

    fn to_bytes(self) -> [u8; Slot::BYTES] {
        let mut bytes = [0; Slot::BYTES];
        bytes[..8].copy_from_slice(&self.place.created_at.as_micros().to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.place.id.high.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.place.id.low.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.hash_through.to_ne_bytes());
        let mark = if self.is_marked { Slot::MARK } else { 0 };
        bytes[32..].copy_from_slice(&(self.end | mark).to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; Slot::BYTES]) -> Slot {
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let end = u32::from_ne_bytes(bytes[32..].try_into().expect("four bytes"));
        Slot {
            place: Place {
                created_at: Timestamp::from_micros(word(0).cast_signed()),
                id: IdHalves { high: word(8), low: word(16) },
            },
            hash_through: word(24),
            end: end & !Slot::MARK,
            is_marked: end & Slot::MARK != 0,
        }
    }
}

impl Chunk {
    /// A chunk of these slots, whose JSON is `json`.
    pub fn new(slots: &[Slot], json: &[u8]) -> Chunk {
        debug_assert_eq!(slots.last().map(|slot| slot.end as usize), Some(json.len()));
        let mut draft = ChunkDraft::new(slots.len(), json.len());
        slots.iter().for_each(|slot| draft.push_slot(*slot));
        draft.push_json(json);
        draft.finish()
    }

    /// Bytes that so many todos with so many bytes of JSON take, as [`CHUNK_TARGET_BYTES`] counts them.
    pub fn weight_of(len: usize, json_bytes: usize) -> usize {
        len * Slot::BYTES + json_bytes
    }

    /// The JSON of all todos, each with a comma after it.
    pub fn json(&self) -> &[u8] {
        &self.0[COUNT_BYTES + self.len() * Slot::BYTES..]
    }

    /// Number of todos.
    pub fn len(&self) -> usize {
        let (count, _) = self.0.split_first_chunk().expect("a chunk begins with its count");
        u32::from_ne_bytes(*count) as usize
    }

    /// The memory that all clones share, for who keeps its address.
    pub fn shared(&self) -> &Arc<[u8]> {
        &self.0
    }

    fn slots(&self) -> &[[u8; Slot::BYTES]] {
        self.0[COUNT_BYTES..COUNT_BYTES + self.len() * Slot::BYTES].as_chunks().0
    }

    /// The sum over the first `count` todos.
    pub fn sum_of_first(&self, count: usize) -> Summary {
        match count.checked_sub(1).map(|last| Slot::from_bytes(&self.slots()[last])) {
            None => Summary::default(),
            Some(last) => Summary { len: count, bytes: last.end.into(), hash: last.hash_through },
        }
    }

    /// How many todos stand before `place`, and whether one stands at it.
    pub fn find(&self, place: Place) -> Result<usize, usize> {
        self.slots().binary_search_by_key(&place, |slot| Slot::from_bytes(slot).place)
    }

    /// Todo number `at`, counted from 0.
    pub fn item(&self, at: usize) -> Item<'_> {
        let (before, through) = (self.sum_of_first(at), self.sum_of_first(at + 1));
        let slot = Slot::from_bytes(&self.slots()[at]);
        Item {
            place: slot.place,
            hash: (through - before).hash,
            is_marked: slot.is_marked,
            json: &self.json()[before.bytes as usize..through.bytes as usize],
        }
    }

    /// Whether todo number `at` is marked.
    pub fn is_marked(&self, at: usize) -> bool {
        Slot::from_bytes(&self.slots()[at]).is_marked
    }

    /// The JSON of the todos `from..to`, each with a comma after it.
    pub fn json_of(&self, from: usize, to: usize) -> &[u8] {
        let (before, through) = (self.sum_of_first(from), self.sum_of_first(to));
        &self.json()[before.bytes as usize..through.bytes as usize]
    }

    /// Whether `edit` leaves this chunk as it is, where `found` says what stands at its place.
    fn has(&self, edit: &Edit<'_, Chunk>, found: Result<usize, usize>) -> bool {
        match (found, &edit.item) {
            (Ok(at), Some(item)) => {
                let standing = self.item(at);
                standing.hash == item.hash && standing.json == item.json
            }
            (found, item) => found.is_err() && item.is_none(),
        }
    }
}

impl Leaf for Chunk {
    const TARGET_WEIGHT: usize = CHUNK_TARGET_BYTES;
    const TARGET_CHILDREN: usize = LIST_BRANCH_TARGET_CHILDREN;
    type Key = Place;
    type Item<'a> = Item<'a>;
    type Marked = usize;

    fn key(item: &Item<'_>) -> Place {
        item.place
    }

    fn measure(item: &Item<'_>) -> Summary {
        Summary { len: 1, bytes: item.json.len() as u64, hash: item.hash }
    }

    fn weight(summary: &Summary) -> usize {
        Chunk::weight_of(summary.len, summary.bytes as usize)
    }

    fn items(&self) -> impl Iterator<Item = Item<'_>> {
        (0..self.len()).map(|at| self.item(at))
    }

    fn from_items(items: &[Item<'_>]) -> Chunk {
        let mut chunk = ChunkDraft::new(items.len(), items.iter().map(|item| item.json.len()).sum());
        items.iter().for_each(|item| chunk.push(item));
        chunk.finish()
    }

    fn summary(&self) -> Summary {
        self.sum_of_first(self.len())
    }

    fn marked(&self) -> usize {
        (0..self.len()).filter(|at| self.is_marked(*at)).count()
    }

    fn memory(&self) -> Memory {
        Memory::of(&self.0)
    }

    /// Copies what stands between the edits in one piece each: most batches change one todo of a chunk.
    fn edited<'a>(&'a self, edits: &[Edit<'a, Chunk>]) -> Edited<Chunk> {
        let (mut len, mut bytes) = (self.len(), self.json().len());
        let mut is_same = true;
        for edit in edits {
            let found = self.find(edit.key);
            is_same = is_same && self.has(edit, found);
            if let Ok(at) = found {
                len -= 1;
                bytes -= self.item(at).json.len();
            }
            if let Some(item) = edit.item {
                len += 1;
                bytes += item.json.len();
            }
        }
        if is_same {
            return Edited::Same;
        }
        if len == 0 {
            return Edited::Gone;
        }
        let mut edited = ChunkDraft::new(len, bytes);
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
        Edited::New(edited.finish())
    }
}

/// A chunk in the making, in the memory that it is going to have.
struct ChunkDraft {
    memory: Arc<[MaybeUninit<u8>]>,
    /// The next slot and the next JSON are written there.
    slot_at: usize,
    json_at: usize,
    json_start: usize,
    last: Option<Slot>,
}

impl ChunkDraft {
    /// For exactly so many todos with so many bytes of JSON.
    fn new(len: usize, json_bytes: usize) -> ChunkDraft {
        let json_start = COUNT_BYTES + len * Slot::BYTES;
        let memory = Arc::new_uninit_slice(json_start + json_bytes);
        let mut draft = ChunkDraft { memory, slot_at: COUNT_BYTES, json_at: json_start, json_start, last: None };
        let count = u32::try_from(len).expect("a chunk is a few KiB, or one todo");
        draft.write(0, &count.to_ne_bytes());
        draft
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let memory = Arc::get_mut(&mut self.memory).expect("nobody else has a draft");
        memory[at..at + bytes.len()].iter_mut().zip(bytes).for_each(|(to, from)| {
            to.write(*from);
        });
    }

    fn push_slot(&mut self, slot: Slot) {
        assert!(self.slot_at < self.json_start, "as many slots as were announced");
        self.write(self.slot_at, &slot.to_bytes());
        self.slot_at += Slot::BYTES;
        self.last = Some(slot);
    }

    fn push_json(&mut self, json: &[u8]) {
        self.write(self.json_at, json);
        self.json_at += json.len();
    }

    fn push(&mut self, item: &Item<'_>) {
        self.push_slot(Slot::after(self.last.as_ref(), item));
        self.push_json(item.json);
    }

    /// Appends the todos `from..to` of another chunk.
    fn copy(&mut self, chunk: &Chunk, from: usize, to: usize) {
        let (skipped, through) = (chunk.sum_of_first(from), chunk.sum_of_first(to));
        let slots = &chunk.slots()[from..to];
        let (hash_before, end_before) = self.last.map_or((0, 0), |slot| (slot.hash_through, slot.end));
        if skipped.hash == hash_before && skipped.bytes == u64::from(end_before) {
            // As they stand: the todos before the first edit.
            assert!(self.slot_at + slots.as_flattened().len() <= self.json_start, "as many slots as were announced");
            self.write(self.slot_at, slots.as_flattened());
            self.slot_at += slots.as_flattened().len();
            self.last = slots.last().map(Slot::from_bytes).or(self.last);
        } else {
            for slot in slots.iter().map(Slot::from_bytes) {
                self.push_slot(Slot {
                    place: slot.place,
                    hash_through: slot.hash_through.wrapping_sub(skipped.hash).wrapping_add(hash_before),
                    end: slot.end - skipped.bytes as u32 + end_before,
                    is_marked: slot.is_marked,
                });
            }
        }
        self.push_json(&chunk.json()[skipped.bytes as usize..through.bytes as usize]);
    }

    fn finish(self) -> Chunk {
        assert!(
            self.slot_at == self.json_start && self.json_at == self.memory.len(),
            "a chunk is as long as announced"
        );
        // SAFETY: the count was written at the start. Slots are only ever appended from behind it to `json_start`, and JSON
        // from there to the end, and the assertion says that both came as far.
        Chunk(unsafe { self.memory.assume_init() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_todo_costs_few_bytes_beside_its_json() {
        assert_eq!(size_of::<Place>(), 24);
        assert_eq!(Slot::BYTES, 36);
        let counts_of_references = 2 * size_of::<usize>();
        assert_eq!(counts_of_references + COUNT_BYTES + CHUNK_TARGET_BYTES, 4 * 1024);
        let place = Place { created_at: Timestamp::from_micros(-5), id: IdHalves { high: 1 << 63, low: 7 } };
        for is_marked in [false, true] {
            let slot = Slot { place, hash_through: u64::MAX - 1, end: 230, is_marked };
            assert_eq!(Slot::from_bytes(&slot.to_bytes()), slot);
        }
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
