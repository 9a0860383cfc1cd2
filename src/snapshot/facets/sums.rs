//! What each owner's todos amount to.

use std::ops::{Add, Sub};
use std::sync::Arc;

use super::super::prefetch::Memory;
use super::super::summary::Summary;
use super::super::tree::{Edit, Leaf, Tree};
use crate::limits::{INDEX_BRANCH_TARGET_CHILDREN, INDEX_LEAF_TARGET_ENTRIES};

/// The sums of all owners, sorted by owner.
pub(in super::super) type OwnersSums = Tree<SumsLeaf>;

/// What some todos amount to: all of them, and those that are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Sums {
    pub all: Summary,
    pub marked: Summary,
}

impl Sums {
    /// Of one todo.
    pub fn of(sum: Summary, is_marked: bool) -> Sums {
        Sums { all: sum, marked: if is_marked { sum } else { Summary::default() } }
    }

    /// Of those that are marked so, or of all.
    pub fn of_mark(&self, is_marked: Option<bool>) -> Summary {
        match is_marked {
            None => self.all,
            Some(true) => self.marked,
            Some(false) => self.all - self.marked,
        }
    }
}

impl Add for Sums {
    type Output = Sums;

    fn add(self, other: Sums) -> Sums {
        Sums { all: self.all + other.all, marked: self.marked + other.marked }
    }
}

impl Sub for Sums {
    type Output = Sums;

    fn sub(self, other: Sums) -> Sums {
        Sums { all: self.all - other.all, marked: self.marked - other.marked }
    }
}

/// The sums of an owner's todos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct OwnerSums {
    pub owner: u64,
    pub sums: Sums,
}

impl OwnerSums {
    /// Says what the owner's todos amount to from now on; an owner without any is forgotten.
    pub fn edit<'a>(self) -> Edit<'a, SumsLeaf> {
        Edit { key: self.owner, item: (self.sums.all.len > 0).then_some(self) }
    }
}

/// Neighbouring sums; a clone shares them.
#[derive(Clone)]
pub(in super::super) struct SumsLeaf(Arc<[OwnerSums]>);

impl OwnersSums {
    /// The sums of this owner.
    pub fn get(&self, owner: u64) -> Sums {
        let found = self.leaf_with_key(owner).and_then(|SumsLeaf(entries)| {
            let at = entries.binary_search_by_key(&owner, |entry| entry.owner).ok()?;
            Some(entries[at].sums)
        });
        found.unwrap_or_default()
    }
}

impl Leaf for SumsLeaf {
    const TARGET_WEIGHT: usize = INDEX_LEAF_TARGET_ENTRIES;
    const TARGET_CHILDREN: usize = INDEX_BRANCH_TARGET_CHILDREN;
    type Key = u64;
    type Marked = ();
    type Item<'a> = OwnerSums;

    fn key(entry: &OwnerSums) -> u64 {
        entry.owner
    }

    fn measure(_: &OwnerSums) -> Summary {
        Summary { len: 1, ..Summary::default() }
    }

    fn weight(summary: &Summary) -> usize {
        summary.len
    }

    fn items(&self) -> impl Iterator<Item = OwnerSums> {
        self.0.iter().copied()
    }

    fn from_items(entries: &[OwnerSums]) -> SumsLeaf {
        SumsLeaf(entries.into())
    }

    fn summary(&self) -> Summary {
        Summary { len: self.0.len(), ..Summary::default() }
    }

    fn marked(&self) {}

    fn memory(&self) -> Memory {
        Memory::of(&self.0)
    }
}
