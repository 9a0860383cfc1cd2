//! The places of each owner's todos.

use std::sync::Arc;

use super::super::chunk::Place;
use super::super::prefetch::Memory;
use super::super::summary::Summary;
use super::super::tree::{Edit, Leaf, Tree};
use crate::limits::{INDEX_BRANCH_TARGET_CHILDREN, INDEX_LEAF_TARGET_ENTRIES};

/// The places of all todos, sorted by owner, and those of one owner as the list is.
pub(in super::super) type Places = Tree<PlacesLeaf>;

/// Where a todo stands, whose it is and whether it is marked, in as many bytes as an entry of the index has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct OwnedPlace {
    /// The owner, but for the lowest bit: that is the mark.
    owner_and_mark: u64,
    pub place: Place,
}

impl OwnedPlace {
    /// The lowest bit of an owner is given up for the mark: 63 bits tell owners apart.
    const MARK: u64 = 1;

    pub fn new(owner: u64, is_marked: bool, place: Place) -> OwnedPlace {
        OwnedPlace { owner_and_mark: owner & !OwnedPlace::MARK | u64::from(is_marked), place }
    }

    pub fn is_marked(&self) -> bool {
        self.owner_and_mark & OwnedPlace::MARK != 0
    }

    /// What it is sorted by.
    pub fn key(&self) -> (u64, Place) {
        (self.owner_and_mark & !OwnedPlace::MARK, self.place)
    }

    /// Puts it there, in place of what may stand there.
    pub fn put<'a>(self) -> Edit<'a, PlacesLeaf> {
        Edit { key: self.key(), item: Some(self) }
    }

    /// Removes what stands there.
    pub fn remove<'a>(self) -> Edit<'a, PlacesLeaf> {
        Edit { key: self.key(), item: None }
    }
}

/// Neighbouring places; a clone shares them.
#[derive(Clone)]
pub(in super::super) struct PlacesLeaf(Arc<[OwnedPlace]>);

impl PlacesLeaf {
    /// The places from this one on.
    pub fn from(&self, key: (u64, Place)) -> &[OwnedPlace] {
        &self.0[self.0.partition_point(|entry| entry.key() < key)..]
    }
}

impl Leaf for PlacesLeaf {
    const TARGET_WEIGHT: usize = INDEX_LEAF_TARGET_ENTRIES;
    const TARGET_CHILDREN: usize = INDEX_BRANCH_TARGET_CHILDREN;
    type Key = (u64, Place);
    type Marked = usize;
    type Item<'a> = OwnedPlace;

    fn key(entry: &OwnedPlace) -> (u64, Place) {
        entry.key()
    }

    fn measure(_: &OwnedPlace) -> Summary {
        Summary { len: 1, ..Summary::default() }
    }

    fn weight(summary: &Summary) -> usize {
        summary.len
    }

    fn items(&self) -> impl Iterator<Item = OwnedPlace> {
        self.0.iter().copied()
    }

    fn from_items(entries: &[OwnedPlace]) -> PlacesLeaf {
        PlacesLeaf(entries.into())
    }

    fn summary(&self) -> Summary {
        Summary { len: self.0.len(), ..Summary::default() }
    }

    fn marked(&self) -> usize {
        self.0.iter().filter(|entry| entry.is_marked()).count()
    }

    fn memory(&self) -> Memory {
        Memory::of(&self.0)
    }
}
