//! What the list can be asked for by: whose a todo is, and whether it is marked.
//!
//! ```text
//! places, by owner             sums, by owner            marked
//!   (owner | mark, place)        all, marked               of the whole list
//!   32 bytes a todo              56 bytes an owner
//! ```
//! The places say where an owner's todos stand in the list, and the branches over them in which of them any is marked. Numbers,
//! lengths and entity tags of all that an owner has are differences of sums, as they are for the list. What the branches of the
//! list itself say of marks finds the marked ones of all owners.

mod places;
mod sums;

use std::collections::HashMap;
use std::ops::ControlFlow;

use self::places::OwnedPlace;
pub(super) use self::places::Places;
use self::sums::{OwnerSums, OwnersSums, Sums};
use super::chunk::{Chunk, Item, Place};
use super::index::IndexEntry;
use super::summary::Summary;
use super::tree::{Leaf, Tree};

/// Of one version of the list; a clone shares everything.
#[derive(Clone)]
pub(super) struct FacetIndex {
    pub places: Places,
    sums: OwnersSums,
    whole: Sums,
}

/// What the facet index knows of a todo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FacetEntry {
    owner: u64,
    is_marked: bool,
    place: Place,
    /// Of the todo alone.
    sum: Summary,
}

impl FacetEntry {
    /// The entry of what stands in the list at the place that the index says.
    pub fn new(owner: u64, item: &Item<'_>) -> FacetEntry {
        let sum = Chunk::measure(item);
        FacetEntry { owner: owner_of(owner), is_marked: item.is_marked, place: item.place, sum }
    }

    fn owned_place(&self) -> OwnedPlace {
        OwnedPlace::new(self.owner, self.is_marked, self.place)
    }

    fn sums(&self) -> Sums {
        Sums::of(self.sum, self.is_marked)
    }
}

/// An owner as the facets tell it from others.
fn owner_of(owner: u64) -> u64 {
    let (owner, _) = OwnedPlace::new(owner, false, Place::NEWEST).key();
    owner
}

impl FacetIndex {
    /// Of no todos.
    pub const EMPTY: FacetIndex = FacetIndex {
        places: Tree::EMPTY,
        sums: Tree::EMPTY,
        whole: Sums { all: Summary::ZERO, marked: Summary::ZERO },
    };

    /// Of a whole list, and the entries of its index in any order.
    pub fn new(todos: &Tree<Chunk>, entries: &[IndexEntry]) -> FacetIndex {
        // In the order of the list, each entry meets its todo.
        let mut owned: Vec<(Place, u64)> = entries.iter().map(|entry| (entry.place, entry.owner)).collect();
        owned.sort_unstable();
        let mut places = Vec::with_capacity(owned.len());
        let mut sums: HashMap<u64, Sums> = HashMap::new();
        let mut whole = Sums::default();
        let mut owned = owned.into_iter();
        todos.visit_marked(None, None, |chunk| {
            for (item, (place, owner)) in chunk.items().zip(owned.by_ref().take(chunk.len())) {
                debug_assert!(item.place == place, "the index has the ids of the list");
                let entry = FacetEntry::new(owner, &item);
                places.push(entry.owned_place());
                let of_owner = sums.entry(entry.owner).or_default();
                *of_owner = *of_owner + entry.sums();
                whole = whole + entry.sums();
            }
            ControlFlow::Continue(())
        });
        places.sort_unstable_by_key(OwnedPlace::key);
        let mut sums: Vec<OwnerSums> = sums.into_iter().map(|(owner, sums)| OwnerSums { owner, sums }).collect();
        sums.sort_unstable_by_key(|of| of.owner);
        FacetIndex { places: Tree::from_items(&places), sums: Tree::from_items(&sums), whole }
    }

    /// What the todos of this owner, or of all, amount to that are marked so, or all of them.
    pub fn sum(&self, owner: Option<u64>, is_marked: Option<bool>) -> Summary {
        owner.map_or(self.whole, |owner| self.sums.get(owner_of(owner))).of_mark(is_marked)
    }

    /// Visits the places of this owner's todos after `after`, in the order of the list, that are marked so, or all, until `visit`
    /// breaks.
    pub fn visit_places(
        &self,
        owner: u64,
        is_marked: Option<bool>,
        after: Option<Place>,
        mut visit: impl FnMut(Place) -> ControlFlow<()>,
    ) {
        let owner = owner_of(owner);
        let from = (owner, after.unwrap_or(Place::NEWEST));
        self.places.visit_marked(Some(from), is_marked, |leaf| {
            leaf.from(from).iter().try_for_each(|entry| {
                let is_after = after.is_none_or(|after| after < entry.place);
                match entry.key().0 == owner {
                    false => ControlFlow::Break(()),
                    true if is_after && is_marked.is_none_or(|mark| entry.is_marked() == mark) => visit(entry.place),
                    true => ControlFlow::Continue(()),
                }
            })
        });
    }

    /// The index after this change, and with the bytes that it replaced added to `replaced_bytes`.
    pub fn apply(&self, change: FacetChange, replaced_bytes: &mut u64) -> FacetIndex {
        let FacetChange { mut gone, mut come, left, taken } = change;
        let mut edits = Vec::with_capacity(left.len() + taken.len());
        edits.extend(left.into_iter().map(OwnedPlace::remove));
        edits.extend(taken.into_iter().map(OwnedPlace::put));
        super::draft::sort_latest_first(&mut edits, |edit| edit.key);
        edits.dedup_by_key(|edit| edit.key);
        let places = self.places.apply(&edits, replaced_bytes);

        gone.sort_unstable_by_key(|entry| entry.owner);
        come.sort_unstable_by_key(|entry| entry.owner);
        let (mut gone, mut come) = (gone.iter().peekable(), come.iter().peekable());
        let (mut edits, mut whole) = (Vec::new(), self.whole);
        while let Some(owner) = gone.peek().into_iter().chain(come.peek()).map(|entry| entry.owner).min() {
            let before = self.sums.get(owner);
            let sum = |sums: Sums, entry: &FacetEntry| sums + entry.sums();
            let of_come = std::iter::from_fn(|| come.next_if(|entry| entry.owner == owner)).fold(Sums::default(), sum);
            let of_gone = std::iter::from_fn(|| gone.next_if(|entry| entry.owner == owner)).fold(Sums::default(), sum);
            let after = before + of_come - of_gone;
            whole = whole + of_come - of_gone;
            if after != before {
                edits.push(OwnerSums { owner, sums: after }.edit());
            }
        }
        FacetIndex { places, sums: self.sums.apply(&edits, replaced_bytes), whole }
    }

    /// Says where each piece of it lies.
    pub fn visit_memory(&self, visit: &mut impl FnMut(usize, usize)) {
        self.places.root().into_iter().for_each(|root| root.visit_memory(visit));
        self.sums.root().into_iter().for_each(|root| root.visit_memory(visit));
    }
}

/// What a batch changes of an index.
#[derive(Default)]
pub(super) struct FacetChange {
    gone: Vec<FacetEntry>,
    come: Vec<FacetEntry>,
    left: Vec<OwnedPlace>,
    taken: Vec<OwnedPlace>,
}

impl FacetChange {
    /// What becomes of one todo; each at most once.
    pub fn note(&mut self, before: Option<FacetEntry>, after: Option<FacetEntry>) {
        if before != after {
            self.gone.extend(before);
            self.come.extend(after);
        }
        // Most updates change neither place nor mark.
        let places = [before, after].map(|entry| entry.map(|entry| entry.owned_place()));
        if places[0] != places[1] {
            self.left.extend(places[0]);
            self.taken.extend(places[1]);
        }
    }
}

#[cfg(test)]
impl FacetIndex {
    /// Every place with its owner and mark, in order, after all invariants have been checked.
    pub fn check(&self) -> Vec<(u64, Place, bool)> {
        self.sums.check();
        let leaves = self.places.check();
        let entries = leaves.iter().flat_map(|leaf| leaf.items());
        entries.map(|entry| (entry.key().0, entry.place, entry.is_marked())).collect()
    }
}
