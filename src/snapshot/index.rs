//! The index by id: where in the list a todo stands.

use super::chunk::{IdHalves, Place};
use super::tree::{Edit, Leaf, Summary, Tree};
use crate::limits::{BRANCH_TARGET_CHILDREN, INDEX_LEAF_TARGET_ENTRIES};
use crate::todo::Timestamp;

/// The places of all todos, sorted by id. Sorted, not hashed: ids are UUIDv7, so those of one batch are neighbours here
/// too, and a batch copies few leaves.
pub(super) type Index = Tree<IndexLeaf>;

/// Neighbouring entries of the index.
pub(super) struct IndexLeaf(Box<[Place]>);

impl Index {
    /// When the todo with this id was created, if the list has it.
    pub fn created_at(&self, id: IdHalves) -> Option<Timestamp> {
        let (IndexLeaf(places), _) = self.leaf_of_key(id)?;
        let at = places.binary_search_by_key(&id, |place| place.id).ok()?;
        Some(places[at].created_at)
    }
}

/// Says where the todo with this id stands from now on.
pub(super) fn put<'a>(place: Place) -> Edit<'a, IndexLeaf> {
    Edit { key: place.id, item: Some(place) }
}

/// Forgets an id.
pub(super) fn remove<'a>(id: IdHalves) -> Edit<'a, IndexLeaf> {
    Edit { key: id, item: None }
}

impl Leaf for IndexLeaf {
    const TARGET_WEIGHT: usize = INDEX_LEAF_TARGET_ENTRIES;
    const TARGET_CHILDREN: usize = BRANCH_TARGET_CHILDREN;
    type Key = IdHalves;
    type Item<'a> = Place;

    fn key(place: &Place) -> IdHalves {
        place.id
    }

    fn measure(_: &Place) -> Summary {
        Summary { len: 1, ..Summary::default() }
    }

    fn weight(summary: &Summary) -> usize {
        summary.len
    }

    fn items(&self) -> impl Iterator<Item = Place> {
        self.0.iter().copied()
    }

    fn from_items(places: &[Place]) -> IndexLeaf {
        IndexLeaf(places.into())
    }
}
