//! A persistent sorted sequence: leaves of several items under branches of several children, all leaves at one depth.
//!
//! Nothing is changed in place. A batch of edits makes a new tree that shares every leaf and branch that no edit falls
//! into, so its cost follows the edits, and dropping the old tree frees only what the new one does not share.

mod shape;
mod walk;

use std::ops::ControlFlow;
use std::sync::Arc;

use self::shape::{grow, join_small_neighbours, push_branches, push_leaves};
use super::prefetch::Memory;
use super::summary::Summary;
use crate::limits::PREFETCH_KEYS_MAX;

/// A leaf: some neighbouring items, stored in its own way. It is shared: a clone counts one more reference.
pub(super) trait Leaf: Clone {
    /// Weight of a leaf after a split or a build. A leaf of more than one item weighs at most twice that, and two
    /// neighbours under one branch weigh more than that together.
    const TARGET_WEIGHT: usize;
    /// The same bounds for the children of a branch.
    const TARGET_CHILDREN: usize;

    /// What the items are sorted by, smallest first; no two items have the same.
    type Key: Copy + Ord;
    /// How many items of a node are marked: a `usize`, or `()` where none ever is.
    type Marked: Marked;
    /// One item, on its way from leaf to leaf.
    type Item<'a>: Copy
    where
        Self: 'a;

    /// The key of an item.
    fn key(item: &Self::Item<'_>) -> Self::Key;
    /// What an item adds to the sums.
    fn measure(item: &Self::Item<'_>) -> Summary;
    /// How much items with this sum weigh in a leaf.
    fn weight(summary: &Summary) -> usize;

    /// The items of this leaf, in order.
    fn items(&self) -> impl Iterator<Item = Self::Item<'_>>;
    /// A leaf of these items: at least one, in order.
    fn from_items(items: &[Self::Item<'_>]) -> Self;

    /// The sum over the items.
    fn summary(&self) -> Summary {
        self.items().map(|item| Self::measure(&item)).sum()
    }

    /// How many items are marked.
    fn marked(&self) -> Self::Marked;

    /// Where the items lie, with the counts of references.
    fn memory(&self) -> Memory;

    /// What becomes of this leaf with `edits`, which are sorted by key, each key once.
    fn edited<'a>(&'a self, edits: &[Edit<'a, Self>]) -> Edited<Self> {
        let merged = merge(self.items(), edits);
        if merged.is_empty() { Edited::Gone } else { Edited::New(Self::from_items(&merged)) }
    }
}

/// A number of marked items, where it is kept.
pub(super) trait Marked: Copy + Default + Eq + std::fmt::Debug {
    /// The sum of both.
    fn plus(self, other: Self) -> Self;
}

impl Marked for () {
    fn plus(self, (): ()) {}
}

impl Marked for usize {
    fn plus(self, other: usize) -> usize {
        self + other
    }
}

/// One change to a tree.
pub(super) struct Edit<'a, L: Leaf + 'a> {
    /// Where.
    pub key: L::Key,
    /// The item to put there, instead of what may be there; `None` removes.
    pub item: Option<L::Item<'a>>,
}

/// What becomes of a leaf.
pub(super) enum Edited<L> {
    /// The edits change nothing.
    Same,
    /// Nothing is left of it.
    Gone,
    /// It may be too heavy.
    New(L),
}

/// A persistent sorted sequence of items.
pub(super) struct Tree<L: Leaf> {
    root: Option<Node<L>>,
}

/// A leaf or a branch, as its parent knows it: what a search needs stands here, so that it only follows one pointer a
/// level.
pub(super) struct Node<L: Leaf> {
    first: L::Key,
    summary: Summary,
    marked: L::Marked,
    pub content: Content<L>,
}

/// What a node stands for.
pub(super) enum Content<L: Leaf> {
    Leaf(L),
    Branch(Arc<[Node<L>]>),
}

impl<L: Leaf> Clone for Tree<L> {
    fn clone(&self) -> Tree<L> {
        Tree { root: self.root.clone() }
    }
}

impl<L: Leaf> Clone for Node<L> {
    fn clone(&self) -> Node<L> {
        let content = match &self.content {
            Content::Leaf(leaf) => Content::Leaf(leaf.clone()),
            Content::Branch(children) => Content::Branch(Arc::clone(children)),
        };
        Node { first: self.first, summary: self.summary, marked: self.marked, content }
    }
}

impl<L: Leaf> Drop for Node<L> {
    /// What is freed with this node lies anywhere: all of it is asked for before the first of it is needed.
    fn drop(&mut self) {
        if let Content::Branch(children) = &self.content
            && Arc::strong_count(children) == 1
        {
            children.iter().for_each(|child| child.memory().prefetch_counts());
        }
    }
}

impl<L: Leaf> Tree<L> {
    /// A tree of no items.
    pub const EMPTY: Tree<L> = Tree { root: None };

    /// A tree of these leaves, which are in order and not empty.
    pub fn from_leaves(leaves: impl IntoIterator<Item = L>) -> Tree<L> {
        Tree { root: grow(leaves.into_iter().map(Node::of_leaf).collect(), &mut 0) }
    }

    /// A tree of these items, which are in order, each key once.
    pub fn from_items(items: &[L::Item<'_>]) -> Tree<L> {
        let mut leaves = Vec::new();
        push_leaves(items, &mut leaves);
        Tree { root: grow(leaves, &mut 0) }
    }

    /// The node over all leaves, for who keeps something for each part of the tree; `None` of an empty one.
    pub fn root(&self) -> Option<&Node<L>> {
        self.root.as_ref()
    }

    /// The sum over all items.
    pub fn summary(&self) -> Summary {
        self.root.as_ref().map_or(Summary::default(), |root| root.summary)
    }

    /// The tree after `edits`, which are sorted by key, each key once; this one when they change nothing. The bytes of this one
    /// that the other does not share, or a few more, are added to `replaced_bytes`.
    pub fn apply<'a>(&'a self, edits: &[Edit<'a, L>], replaced_bytes: &mut u64) -> Tree<L> {
        let mut nodes = Vec::new();
        match &self.root {
            _ if edits.is_empty() => return self.clone(),
            Some(root) => {
                if !root.apply(edits, false, &mut nodes, replaced_bytes) {
                    return self.clone();
                }
            }
            None => push_leaves(&merge(std::iter::empty(), edits), &mut nodes),
        }
        Tree { root: grow(nodes, replaced_bytes) }
    }

    /// Has the CPU fetch what searches for `keys`, which are sorted, are going to read: as many as [`PREFETCH_KEYS_MAX`].
    pub fn prefetch(&self, keys: &[L::Key]) {
        if let Some(root) = &self.root {
            root.prefetch(keys, |key| *key, Purpose::Search);
        }
    }

    /// The leaf that holds `key` if any does, with the sum over the leaves before it; `None` when `key` is smaller than
    /// every key.
    pub fn leaf_of_key(&self, key: L::Key) -> Option<(&L, Summary)> {
        let root = self.root.as_ref().filter(|root| root.first <= key)?;
        Some(root.descend(|children| children.partition_point(|child| child.first <= key) - 1))
    }

    /// The leaf that holds `key` if any does. It does not add up what lies before, so it reads fewer cache lines than
    /// [`Tree::leaf_of_key`].
    pub fn leaf_with_key(&self, key: L::Key) -> Option<&L> {
        let mut content = &self.root.as_ref().filter(|root| root.first <= key)?.content;
        loop {
            match content {
                Content::Leaf(leaf) => return Some(leaf),
                Content::Branch(children) => {
                    let child = &children[children.partition_point(|child| child.first <= key) - 1];
                    // A binary search waits for each line that it meets; asked for before, they come together.
                    child.memory().prefetch_for_search();
                    content = &child.content;
                }
            }
        }
    }

    /// The leaf that holds item number `rank`, counted from 0, with the sum over the leaves before it.
    pub fn leaf_of_rank(&self, rank: usize) -> Option<(&L, Summary)> {
        let root = self.root.as_ref().filter(|root| rank < root.summary.len)?;
        let mut offset = rank;
        Some(root.descend(|children| {
            let mut chosen = 0;
            while offset >= children[chosen].summary.len {
                offset -= children[chosen].summary.len;
                chosen += 1;
            }
            chosen
        }))
    }

    /// Visits the leaves from the one that holds byte number `position` on, each with the bytes before it, until `visit`
    /// breaks; none when there are no more bytes than that.
    pub fn visit_from_byte<'s>(&'s self, position: u64, mut visit: impl FnMut(&'s L, u64) -> ControlFlow<()>) {
        if let Some(root) = self.root.as_ref().filter(|root| position < root.summary.bytes) {
            let _ = root.visit_from_byte(position, 0, &mut visit);
        }
    }
}

impl<L: Leaf> Node<L> {
    fn of_leaf(leaf: L) -> Node<L> {
        let first = L::key(&leaf.items().next().expect("a leaf has at least one item"));
        Node { first, summary: leaf.summary(), marked: leaf.marked(), content: Content::Leaf(leaf) }
    }

    fn of_children(children: Vec<Node<L>>) -> Node<L> {
        Node {
            first: children[0].first,
            summary: children.iter().map(|child| child.summary).sum(),
            marked: children.iter().fold(L::Marked::default(), |sum, child| sum.plus(child.marked)),
            content: Content::Branch(children.into()),
        }
    }

    /// Goes down to the leaf that `choose` leads to, and adds up what lies before it.
    fn descend(&self, mut choose: impl FnMut(&[Node<L>]) -> usize) -> (&L, Summary) {
        let mut before = Summary::default();
        let mut content = &self.content;
        loop {
            match content {
                Content::Leaf(leaf) => return (leaf, before),
                Content::Branch(children) => {
                    let chosen = choose(children);
                    before = before + children[..chosen].iter().map(|child| child.summary).sum();
                    content = &children[chosen].content;
                }
            }
        }
    }

    fn visit_from_byte<'s>(
        &'s self,
        position: u64,
        mut before: u64,
        visit: &mut impl FnMut(&'s L, u64) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match &self.content {
            Content::Leaf(leaf) => visit(leaf, before),
            Content::Branch(children) => {
                for child in children.iter() {
                    let through = before + child.summary.bytes;
                    if position < through {
                        child.visit_from_byte(position, before, visit)?;
                    }
                    before = through;
                }
                ControlFlow::Continue(())
            }
        }
    }

    /// Where its leaf or its children lie, with the counts of references.
    fn memory(&self) -> Memory {
        match &self.content {
            Content::Leaf(leaf) => leaf.memory(),
            Content::Branch(children) => Memory::of(children),
        }
    }

    /// Says where it and all below it lie.
    pub fn visit_memory(&self, visit: &mut impl FnMut(usize, usize)) {
        visit(self.memory().address(), self.memory().bytes());
        if let Content::Branch(children) = &self.content {
            children.iter().for_each(|child| child.visit_memory(visit));
        }
    }

    /// Has the CPU fetch what comes of looking for `sought`, sorted by `key`. All ways go down together, level by level: while
    /// the memory for one is on its way, the others are looked for.
    fn prefetch<T>(&self, sought: &[T], key: impl Fn(&T) -> L::Key, purpose: Purpose) {
        let mut level = vec![(self, sought)];
        let mut next = Vec::with_capacity(sought.len());
        while !level.is_empty() {
            for (node, sought) in level.drain(..) {
                let Content::Branch(children) = &node.content else { continue };
                if purpose == Purpose::Edit {
                    // Each of them gets a reference from the branch that takes this one's place.
                    children.iter().for_each(|child| child.memory().prefetch_counts());
                }
                for (at, own) in parts(children, sought, &key) {
                    let child = &children[at];
                    match (&child.content, purpose) {
                        (Content::Leaf(leaf), Purpose::Search) => leaf.memory().prefetch_for_search(),
                        _ => child.memory().prefetch(),
                    }
                    next.push((child, own));
                }
            }
            std::mem::swap(&mut level, &mut next);
        }
    }

    /// Appends what becomes of this node to `nodes`: any number of nodes of the same height, none of them empty. When the
    /// edits change nothing it appends nothing and returns `false`. `is_prefetched` says whether the CPU has been asked for
    /// the memory of all this. What is replaced is added to `replaced_bytes`.
    fn apply<'a>(
        &'a self,
        edits: &[Edit<'a, L>],
        is_prefetched: bool,
        nodes: &mut Vec<Node<L>>,
        replaced_bytes: &mut u64,
    ) -> bool {
        let children = match &self.content {
            Content::Branch(children) => children,
            Content::Leaf(leaf) => {
                match leaf.edited(edits) {
                    Edited::Same => return false,
                    Edited::Gone => {}
                    Edited::New(edited) if L::weight(&edited.summary()) <= 2 * L::TARGET_WEIGHT => {
                        nodes.push(Node::of_leaf(edited));
                    }
                    Edited::New(edited) => push_leaves(&edited.items().collect::<Vec<_>>(), nodes),
                }
                *replaced_bytes += self.memory().bytes() as u64;
                return true;
            }
        };
        let prefetches = !is_prefetched && edits.len() <= PREFETCH_KEYS_MAX;
        if prefetches {
            self.prefetch(edits, |edit| edit.key, Purpose::Edit);
        }
        let mut applied = Vec::with_capacity(2 * L::TARGET_CHILDREN + 1);
        let mut is_changed = false;
        // Children that `applied` has, in their new form.
        let mut done = 0;
        for (at, own) in parts(children, edits, &|edit: &Edit<'a, L>| edit.key) {
            applied.extend_from_slice(&children[done..at]);
            done = at;
            if children[at].apply(own, is_prefetched || prefetches, &mut applied, replaced_bytes) {
                is_changed = true;
                done = at + 1;
            }
        }
        if is_changed {
            applied.extend_from_slice(&children[done..]);
            join_small_neighbours(&mut applied, replaced_bytes);
            push_branches(applied, nodes);
            *replaced_bytes += self.memory().bytes() as u64;
        }
        is_changed
    }

    /// Whether this node and the one after it are so small that one node should hold what they hold.
    fn is_joined_with(&self, next: &Node<L>) -> bool {
        match (&self.content, &next.content) {
            (Content::Branch(left), Content::Branch(right)) => left.len() + right.len() <= L::TARGET_CHILDREN,
            _ => L::weight(&(self.summary + next.summary)) <= L::TARGET_WEIGHT,
        }
    }

    fn join(&self, next: &Node<L>, replaced_bytes: &mut u64) -> Node<L> {
        *replaced_bytes += (self.memory().bytes() + next.memory().bytes()) as u64;
        match (&self.content, &next.content) {
            (Content::Leaf(left), Content::Leaf(right)) => {
                Node::of_leaf(L::from_items(&left.items().chain(right.items()).collect::<Vec<_>>()))
            }
            (Content::Branch(left), Content::Branch(right)) => {
                let mut children: Vec<Node<L>> = left.iter().chain(right.iter()).cloned().collect();
                join_small_neighbours(&mut children, replaced_bytes);
                Node::of_children(children)
            }
            _ => unreachable!("neighbours have the same height"),
        }
    }
}

/// What memory is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To find keys.
    Search,
    /// To copy what the keys stand in.
    Edit,
}

/// The children into which any of `sought`, sorted by `key`, fall, each with those; what is smaller than every key falls into
/// the first.
fn parts<'s, L: Leaf, T>(
    children: &[Node<L>],
    mut sought: &'s [T],
    key: &impl Fn(&T) -> L::Key,
) -> impl Iterator<Item = (usize, &'s [T])> {
    std::iter::from_fn(move || {
        let wanted = key(sought.first()?);
        let at = children.partition_point(|child| child.first <= wanted).saturating_sub(1);
        let next_first = children.get(at + 1).map(|next| next.first);
        let own = next_first.map_or(sought.len(), |first| sought.partition_point(|one| key(one) < first));
        let (own, others) = sought.split_at(own);
        sought = others;
        Some((at, own))
    })
}

/// The items of a leaf after the edits that fall into it.
fn merge<'a, L: Leaf>(items: impl Iterator<Item = L::Item<'a>>, edits: &[Edit<'a, L>]) -> Vec<L::Item<'a>> {
    let mut merged = Vec::with_capacity(items.size_hint().0 + edits.len());
    let mut edits = edits.iter().peekable();
    for item in items {
        let key = L::key(&item);
        while let Some(edit) = edits.next_if(|edit| edit.key < key) {
            merged.extend(edit.item);
        }
        match edits.next_if(|edit| edit.key == key) {
            Some(edit) => merged.extend(edit.item),
            None => merged.push(item),
        }
    }
    merged.extend(edits.filter_map(|edit| edit.item));
    merged
}

#[cfg(test)]
mod tests;
