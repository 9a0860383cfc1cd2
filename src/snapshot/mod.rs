//! The snapshot: the immutable, versioned, pre-serialized todo list, newest first, that shards answer from. No I/O.
//!
//! ```text
//!                  Snapshot { version }
//!                 /                    \
//!     list, newest first            index, by id
//!         branch                       branch            4 and 8 children, twice as many at most, on as
//!        /      \                     /      \           many levels as it takes; each knows its children's
//!     chunk    chunk …            leaf      leaf …          first keys and sums
//!       |                           |
//!       |                           +- (id, created_at), owner's hash      32 bytes a todo, 64 todos
//!       +- slots: (created_at, id), hash sum, end of the JSON              36 bytes a todo
//!       +- json:  {…},{…},{…},                                             with the slots 4 KiB, 8 KiB at most
//! ```
//!
//! Beside these, [`facets`] says where the todos of each owner stand, and what they amount to; branches of the list count the
//! marked todos below them.
//!
//! - A change copies the chunk it falls into, a leaf of the index when the todo is new, gone or moved, and one branch
//!   a level. All else is shared with the snapshot before. A batch copies each of these once, however many of its
//!   changes fall there, and has the CPU fetch all that they touch before it touches the first of it.
//! - The sums (todos, bytes, hashes) let a page be found by key, its end by number and its bytes by position, each in
//!   one way down; its length and entity tag are differences of two sums.
//! - A response is a [`Run`]: a range of bytes of the list, walked chunk by chunk. Nothing is copied, no reference is
//!   counted: requests borrow the snapshot.
//!
//! Invariants, checked by the tests after every step:
//! - the list is strictly sorted by [`TodoKey`], greatest first, and the index has exactly its ids;
//! - no chunk, leaf or branch is empty; none is larger than the most said above, except a chunk of a single todo;
//! - two neighbours under one branch are together larger than the first of the two sizes, so deletes leave no dust;
//! - all leaves of a tree lie at one depth; each sum and each first key is right;
//! - bytes and entity tags are functions of the todos and of the deployment's key alone: two processes with the same list
//!   answer the same, whatever way they came to it.

mod builder;
mod chunk;
mod codec;
mod draft;
mod encoding;
mod entry;
mod facets;
mod flat;
mod hashing;
mod index;
mod old_lists;
mod prefetch;
mod reconciler;
mod run;
mod selection;
mod summary;
mod tree;

#[cfg(test)]
mod encoding_tests;
#[cfg(test)]
mod flat_tests;
#[cfg(test)]
mod selection_tests;
#[cfg(test)]
mod tests;

pub use builder::SnapshotBuilder;
pub use encoding::{EncodedBody, Encoder};
pub use entry::Entry;
pub use hashing::HashKeys;
pub use old_lists::OldLists;
pub use reconciler::Reconciler;
pub use run::Run;
pub use selection::{SelectedPage, SelectedRun, Selection};

use std::sync::{Arc, OnceLock};

use chunk::{Chunk, IdHalves, Item, Place};
use draft::{Draft, sort_latest_first};
use facets::{FacetChange, FacetEntry, FacetIndex};
use flat::FlatList;
use hashing::Tagged;
use index::{Index, IndexEntry};
use summary::Summary;
use tree::Tree;

use crate::http::Position;
use crate::limits::{FLAT_LIST_KEPT_VERSIONS, FLAT_LIST_MAX_BYTES, PREFETCH_KEYS_MAX, TODO_OVERHEAD_MAX_BYTES};
use crate::store::Changes;
use crate::todo::{Todo, TodoId, TodoKey};

/// One version of the list. A clone is cheap: it shares everything. Whoever drops the last of a version frees what no
/// other version shares, which after a large batch is some work: best left to the thread that makes the snapshots.
#[derive(Clone)]
pub struct Snapshot {
    version: u64,
    /// See [`Position::progress`].
    progress: u64,
    keys: HashKeys,
    todos: Tree<Chunk>,
    index: Index,
    facets: FacetIndex,
    /// See [`Snapshot::flatten`].
    flat: Arc<OnceLock<Arc<FlatList>>>,
    /// The last flat list of the versions before, and how many versions ago that was.
    flat_before: Option<(Arc<FlatList>, u32)>,
    /// See [`Snapshot::replaced_bytes`].
    replaced_bytes: u64,
}

/// A part of the list, or all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<B = Run> {
    /// Number of todos.
    pub len: usize,
    /// Bytes of the JSON array.
    pub content_length: u64,
    /// Changes when the bytes do, or when there comes to be a next page or none; a function of the content and of the
    /// deployment's key, the same in every process.
    pub entity_tag: u64,
    /// The last todo of this page, if others follow it: the next page is the one after it.
    pub next: Option<TodoKey>,
    /// The JSON array.
    pub body: B,
}

/// What changes make of one todo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome<'c> {
    /// Its id.
    pub id: TodoId,
    /// Its JSON object; `None`: it is gone, or was not there.
    pub json: Option<&'c [u8]>,
    /// Its owner before, as [`Snapshot::owner_number`]; `None`: it was not there.
    pub owner_before: Option<u64>,
    /// Its owner now.
    pub owner: Option<u64>,
}

impl Snapshot {
    /// The snapshot of an empty list, version 0.
    pub fn empty(keys: HashKeys) -> Snapshot {
        Snapshot::new(0, keys, Tree::EMPTY, Tree::EMPTY, FacetIndex::EMPTY)
    }

    fn new(version: u64, keys: HashKeys, todos: Tree<Chunk>, index: Index, facets: FacetIndex) -> Snapshot {
        Snapshot {
            version,
            progress: 0,
            keys,
            todos,
            index,
            facets,
            flat: Arc::default(),
            flat_before: None,
            replaced_bytes: 0,
        }
    }

    /// The keys of its hashes.
    pub fn keys(&self) -> HashKeys {
        self.keys
    }

    /// Counts the changes since the first snapshot; greater is newer. No part of the content.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What names this state of the list.
    pub fn position(&self) -> Position {
        Position { progress: self.progress, state: self.keys.tag(self.todos.summary().hash, Tagged::State) }
    }

    /// The same list, which has taken in so much of the log ([`Position::progress`]).
    pub fn at_progress(self, progress: u64) -> Snapshot {
        Snapshot { progress, ..self }
    }

    /// Number of todos.
    pub fn len(&self) -> usize {
        self.todos.summary().len
    }

    /// Whether the list has no todos.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the whole list's JSON array.
    pub fn content_length(&self) -> u64 {
        self.page(None, None).content_length
    }

    /// The entity tag of the whole list.
    pub fn entity_tag(&self) -> u64 {
        self.page(None, None).entity_tag
    }

    /// The todo with this id.
    pub fn get(&self, id: TodoId) -> Option<Entry<'_>> {
        self.find(self.index.get(id.into())?.place)
    }

    /// Whether this user owns the todo with this id; `None` when the list does not have it. It reads the index alone. That
    /// is sure of a no; of a yes it is sure up to a collision of 64-bit hashes.
    pub fn is_owned_by(&self, id: TodoId, user_id: &str) -> Option<bool> {
        Some(self.index.get(id.into())?.owner == self.keys.owner(user_id))
    }

    /// The number by which this snapshot tells a user from others.
    pub fn owner_number(&self, user_id: &str) -> u64 {
        self.keys.owner(user_id)
    }

    /// The todos after `after` (from the newest, if it is `None`), `limit` at most; 0 counts as 1. `after` need not be in the list
    /// any more: the page goes on at the next older todo.
    pub fn page(&self, after: Option<TodoKey>, limit: Option<usize>) -> Page {
        let total = self.todos.summary();
        let start = after.map_or(Summary::default(), |key| self.sum_through(key.into()));
        let end_rank = limit.map_or(total.len, |limit| start.len.saturating_add(limit.max(1)));
        let last = if end_rank < total.len { self.entry_of_rank(end_rank - 1) } else { None };
        let end = last.map_or(total, |entry| entry.sum_through());
        let next = last.map(|entry| entry.key());
        let sum = end - start;
        // The last todo's comma is no part of the array.
        let body = Run::bracketed(start.bytes, end.bytes - u64::from(sum.len > 0));
        let content_length = body.remaining_bytes();
        let tagged = if next.is_some() { Tagged::Page } else { Tagged::LastPage };
        Page { len: sum.len, content_length, entity_tag: self.keys.tag(sum.hash, tagged), next, body }
    }

    /// The next snapshot: this one after all these changes, in their order. Within one of them, an upsert counts for
    /// more than a delete of the same id, and a later upsert more than an earlier one.
    ///
    /// A todo is known by its id: an upsert with another `created_at` moves it, and a delete finds it whatever its
    /// `created_at`. A delete of what is not there changes nothing. Changes that were applied before change nothing but
    /// the version, and copy nothing.
    pub fn apply<'c>(&self, changes: impl IntoIterator<Item = &'c Changes>) -> Snapshot {
        self.apply_noting(changes, |_| {})
    }

    /// [`Snapshot::apply`], which tells what becomes of each todo, in the order of their ids.
    pub fn apply_noting<'c>(
        &self,
        changes: impl IntoIterator<Item = &'c Changes>,
        mut note: impl FnMut(Outcome<'_>),
    ) -> Snapshot {
        let mut draft = Draft::new(self.keys);
        let (mut index_edits, mut facet_change) = (Vec::new(), FacetChange::default());
        for outcomes in outcomes(changes).chunks(PREFETCH_KEYS_MAX) {
            let ids: Vec<IdHalves> = outcomes.iter().map(|(id, _)| (*id).into()).collect();
            self.index.prefetch(&ids);
            let entries: Vec<Option<IndexEntry>> = ids.iter().map(|id| self.index.get(*id)).collect();
            let mut places: Vec<Place> = entries.iter().flatten().map(|entry| entry.place).collect();
            places.sort_unstable();
            self.todos.prefetch(&places);
            for ((id, old), (todo_id, todo)) in ids.into_iter().zip(entries).zip(outcomes) {
                let new = todo.map(|todo| IndexEntry::of(todo, &self.keys));
                if old != new {
                    index_edits.push(new.map_or_else(|| index::remove(id), index::put));
                    if let Some(left) = old.filter(|old| new.is_none_or(|new| old.place != new.place)) {
                        draft.remove(left.place);
                    }
                }
                let before = old.and_then(|old| Some(FacetEntry::new(old.owner, &self.item(old.place)?)));
                let item = todo.map(|todo| draft.put(todo));
                let after = new.zip(item).map(|(new, item)| FacetEntry::new(new.owner, &item));
                facet_change.note(before, after);
                note(Outcome {
                    id: *todo_id,
                    // A comma stands behind it in the list.
                    json: item.map(|item| &item.json[..item.json.len() - 1]),
                    owner_before: old.map(|old| old.owner),
                    owner: new.map(|new| new.owner),
                });
            }
        }
        let mut replaced_bytes = self.replaced_bytes;
        let todos = self.todos.apply(&draft.edits(), &mut replaced_bytes);
        let index = self.index.apply(&index_edits, &mut replaced_bytes);
        let facets = self.facets.apply(facet_change, &mut replaced_bytes);
        let next = Snapshot::new(self.version + 1, self.keys, todos, index, facets);
        Snapshot { progress: self.progress, flat_before: self.flat_for_next(), replaced_bytes, ..next }
    }

    fn flat_for_next(&self) -> Option<(Arc<FlatList>, u32)> {
        let own = self.flat.get().map(|flat| (flat, 0));
        let (flat, versions) = own.or(self.flat_before.as_ref().map(|(flat, versions)| (flat, *versions)))?;
        (versions < FLAT_LIST_KEPT_VERSIONS).then(|| (Arc::clone(flat), versions + 1))
    }

    /// Keeps the list in few large pieces from now on, beside its chunks, if it is not longer than [`FLAT_LIST_MAX_BYTES`]: the
    /// kernel copies them with less work than many small ones. To flatten a list costs about as much as to send it once, so
    /// it pays where the list is asked for often; pieces that are the same as in a flat version before are taken from there.
    /// For all who have this version.
    pub fn flatten(&self) {
        if self.todos.summary().bytes > FLAT_LIST_MAX_BYTES || self.flat.get().is_some() {
            return;
        }
        let before = self.flat_before.as_ref().map(|(flat, _)| flat.as_ref());
        // Another thread may have been quicker; nobody waits for anybody.
        let _ = self.flat.set(Arc::new(FlatList::new(&self.todos, before)));
    }

    /// Whether most of the work to flatten it was done for a version before.
    pub fn was_flat(&self) -> bool {
        self.flat_before.is_some()
    }

    /// Tells the owner of each todo, as [`Snapshot::owner_number`].
    pub fn visit_owners(&self, visit: &mut impl FnMut(u64)) {
        self.index.visit(&mut |entry| visit(entry.owner));
    }

    /// Bytes that were replaced in all versions before, on the way to this one: each version holds the less that others do not
    /// share, the nearer its number is.
    pub fn replaced_bytes(&self) -> u64 {
        self.replaced_bytes
    }

    /// At most so many bytes of memory, without a flat list.
    pub fn memory_bytes(&self) -> u64 {
        let total = self.todos.summary();
        total.bytes + total.len as u64 * TODO_OVERHEAD_MAX_BYTES
    }

    /// At most so many bytes are in memory for this version that `later`, a later one, does not share. Of several old versions the
    /// sum, each beside the next and the last beside the newest, is what all of them hold: a piece counts with the last that has
    /// it.
    pub fn held_beside(&self, later: &Snapshot) -> u64 {
        let replaced_bytes = later.replaced_bytes.saturating_sub(self.replaced_bytes);
        let flat_bytes = self.kept_flat().map_or(0, |flat| flat.bytes_beside(later.kept_flat()));
        replaced_bytes.min(self.memory_bytes()) + flat_bytes
    }

    fn kept_flat(&self) -> Option<&FlatList> {
        let own = self.flat.get().or(self.flat_before.as_ref().map(|(flat, _)| flat));
        own.map(|flat| flat.as_ref())
    }

    /// Says where each piece of it lies: the address and the number of bytes. What other versions share is told, too.
    pub fn visit_memory(&self, visit: &mut impl FnMut(usize, usize)) {
        self.todos.root().into_iter().for_each(|root| root.visit_memory(visit));
        self.index.root().into_iter().for_each(|root| root.visit_memory(visit));
        self.facets.visit_memory(visit);
    }

    /// The chunk that the todo at `place` stands in, and its number there.
    fn locate(&self, place: Place) -> Option<(&Chunk, usize)> {
        let chunk = self.todos.leaf_with_key(place)?;
        Some((chunk, chunk.find(place).ok()?))
    }

    fn item(&self, place: Place) -> Option<Item<'_>> {
        let (chunk, at) = self.locate(place)?;
        Some(chunk.item(at))
    }

    fn find(&self, place: Place) -> Option<Entry<'_>> {
        let (chunk, before) = self.todos.leaf_of_key(place)?;
        let at = chunk.find(place).ok()?;
        Some(Entry { chunk, at, before, keys: &self.keys })
    }

    fn entry_of_rank(&self, rank: usize) -> Option<Entry<'_>> {
        let (chunk, before) = self.todos.leaf_of_rank(rank)?;
        Some(Entry { chunk, at: rank - before.len, before, keys: &self.keys })
    }

    /// The sum over all todos before `place` and the one at it, if there is one.
    fn sum_through(&self, place: Place) -> Summary {
        self.todos.leaf_of_key(place).map_or(Summary::default(), |(chunk, before)| {
            before + chunk.sum_of_first(chunk.find(place).map_or_else(|at| at, |at| at + 1))
        })
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("version", &self.version).field("len", &self.len()).finish_non_exhaustive()
    }
}

/// What becomes of each id, sorted by id: the whole todo, or `None` for a delete.
fn outcomes<'c>(changes: impl IntoIterator<Item = &'c Changes>) -> Vec<(TodoId, Option<&'c Todo>)> {
    let mut outcomes = Vec::new();
    for set in changes {
        outcomes.extend(set.deletes.iter().map(|key| (key.id, None)));
        outcomes.extend(set.upserts.iter().map(|todo| (todo.id, Some(todo))));
    }
    sort_latest_first(&mut outcomes, |(id, _)| *id);
    outcomes.dedup_by_key(|(id, _)| *id);
    outcomes
}
