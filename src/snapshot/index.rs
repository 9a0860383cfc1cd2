//! The index by id: where in the list a todo stands, and whose it is.

use std::sync::Arc;

use super::chunk::{IdHalves, Place};
use super::hashing::HashKeys;
use super::prefetch::Memory;
use super::summary::Summary;
use super::tree::{Content, Edit, Leaf, Node, Tree};
use crate::limits::{INDEX_BRANCH_TARGET_CHILDREN, INDEX_LEAF_TARGET_ENTRIES};
use crate::todo::Todo;

/// The entries of all todos, sorted by id. Sorted, not hashed: ids are UUIDv7, so those of one batch are neighbours here
/// too, and a batch copies few leaves.
pub(super) type Index = Tree<IndexLeaf>;

/// What the index knows about a todo: enough to refuse a stranger's write without looking into the list, whose chunks
/// are rarely in the CPU's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub place: Place,
    /// [`HashKeys::owner`] of its owner.
    pub owner: u64,
}

impl IndexEntry {
    /// The entry of a todo.
    pub fn of(todo: &Todo, keys: &HashKeys) -> IndexEntry {
        IndexEntry { place: todo.key().into(), owner: keys.owner(todo.facets().owner) }
    }
}

/// Neighbouring entries of the index; a clone shares them.
#[derive(Clone)]
pub(super) struct IndexLeaf(Arc<[IndexEntry]>);

impl Index {
    /// The entry of the todo with this id, if the list has it.
    pub fn get(&self, id: IdHalves) -> Option<IndexEntry> {
        let IndexLeaf(entries) = self.leaf_with_key(id)?;
        let at = entries.binary_search_by_key(&id, |entry| entry.place.id).ok()?;
        Some(entries[at])
    }
}

impl Index {
    /// Shows every entry, in the order of the ids.
    pub fn visit(&self, visit: &mut impl FnMut(&IndexEntry)) {
        if let Some(root) = self.root() {
            visit_node(root, visit);
        }
    }
}

fn visit_node(node: &Node<IndexLeaf>, visit: &mut impl FnMut(&IndexEntry)) {
    match &node.content {
        Content::Leaf(IndexLeaf(entries)) => entries.iter().for_each(visit),
        Content::Branch(children) => children.iter().for_each(|child| visit_node(child, visit)),
    }
}

/// Says where the todo with this id stands from now on.
pub(super) fn put<'a>(entry: IndexEntry) -> Edit<'a, IndexLeaf> {
    Edit { key: entry.place.id, item: Some(entry) }
}

/// Forgets an id.
pub(super) fn remove<'a>(id: IdHalves) -> Edit<'a, IndexLeaf> {
    Edit { key: id, item: None }
}

impl Leaf for IndexLeaf {
    const TARGET_WEIGHT: usize = INDEX_LEAF_TARGET_ENTRIES;
    const TARGET_CHILDREN: usize = INDEX_BRANCH_TARGET_CHILDREN;
    type Key = IdHalves;
    type Item<'a> = IndexEntry;
    type Marked = ();

    fn key(entry: &IndexEntry) -> IdHalves {
        entry.place.id
    }

    fn measure(_: &IndexEntry) -> Summary {
        Summary { len: 1, ..Summary::default() }
    }

    fn weight(summary: &Summary) -> usize {
        summary.len
    }

    fn items(&self) -> impl Iterator<Item = IndexEntry> {
        self.0.iter().copied()
    }

    fn from_items(entries: &[IndexEntry]) -> IndexLeaf {
        IndexLeaf(entries.into())
    }

    fn marked(&self) {}

    fn memory(&self) -> Memory {
        Memory::of(&self.0)
    }

    fn summary(&self) -> Summary {
        Summary { len: self.0.len(), ..Summary::default() }
    }
}
