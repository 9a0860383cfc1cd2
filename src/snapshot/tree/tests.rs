//! The tree against a sorted map, with leaves and branches so small that a hundred items make several levels.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::shape::part_ends;
use super::*;

impl<L: Leaf> Tree<L> {
    /// Checks every invariant and returns the leaves in order.
    pub fn check(&self) -> Vec<&L> {
        let mut leaves = Vec::new();
        if let Some(root) = &self.root {
            let only_child = matches!(&root.content, Content::Branch(children) if children.len() == 1);
            assert!(!only_child, "a root with one child is one level too many");
            root.check(&mut leaves);
        }
        leaves
    }
}

impl<L: Leaf> Node<L> {
    /// Returns the height.
    fn check<'a>(&'a self, leaves: &mut Vec<&'a L>) -> usize {
        match &self.content {
            Content::Leaf(leaf) => {
                let items: Vec<_> = leaf.items().collect();
                assert!(items.windows(2).all(|pair| L::key(&pair[0]) < L::key(&pair[1])), "items in order");
                assert!(self.first == L::key(&items[0]), "first key");
                assert_eq!(self.summary, items.iter().map(|item| L::measure(item)).sum(), "sum of a leaf");
                assert_eq!(self.marked, leaf.marked(), "marks of a leaf");
                assert!(items.len() == 1 || L::weight(&self.summary) <= 2 * L::TARGET_WEIGHT, "leaf too heavy");
                leaves.push(leaf);
                0
            }
            Content::Branch(children) => {
                assert!((1..=2 * L::TARGET_CHILDREN).contains(&children.len()), "{} children", children.len());
                let mut heights: Vec<usize> = children.iter().map(|child| child.check(leaves)).collect();
                heights.dedup();
                assert_eq!(heights.len(), 1, "all leaves at one depth");
                assert!(self.first == children[0].first, "first key");
                assert_eq!(self.summary, children.iter().map(|child| child.summary).sum(), "sum of a branch");
                let marked = children.iter().fold(L::Marked::default(), |sum, child| sum.plus(child.marked));
                assert_eq!(self.marked, marked, "marks of a branch");
                for pair in children.windows(2) {
                    assert!(pair[0].first < pair[1].first, "children in order");
                    assert!(!pair[0].is_joined_with(&pair[1]), "small neighbours left apart");
                }
                heights[0] + 1
            }
        }
    }
}

/// Items of a key and a weight.
#[derive(Clone)]
struct Few(Arc<[(u16, u8)]>);

impl Leaf for Few {
    const TARGET_WEIGHT: usize = 6;
    const TARGET_CHILDREN: usize = 2;
    type Key = u16;
    type Item<'a> = (u16, u8);
    type Marked = usize;

    fn key(item: &(u16, u8)) -> u16 {
        item.0
    }

    fn measure(item: &(u16, u8)) -> Summary {
        Summary { len: 1, bytes: item.1.into(), hash: u64::from(item.0).wrapping_mul(u64::MAX / 3) }
    }

    fn weight(summary: &Summary) -> usize {
        summary.bytes as usize
    }

    fn items(&self) -> impl Iterator<Item = (u16, u8)> {
        self.0.iter().copied()
    }

    fn from_items(items: &[(u16, u8)]) -> Few {
        Few(items.into())
    }

    fn marked(&self) -> usize {
        self.0.iter().filter(is_marked).count()
    }

    fn memory(&self) -> Memory {
        Memory::of(&self.0)
    }
}

/// Some have many neighbours of their kind, so that whole branches have none of the other.
fn is_marked(item: &&(u16, u8)) -> bool {
    item.0 < 200 && item.0.is_multiple_of(3)
}

/// The items from this key on with this mark, by a visit of leaves.
fn marked_from(tree: &Tree<Few>, from: Option<u16>, wanted: Option<bool>) -> Vec<(u16, u8)> {
    let mut items = Vec::new();
    tree.visit_marked(from, wanted, |leaf| {
        let is_wanted = |item: &&(u16, u8)| wanted.is_none_or(|wanted| is_marked(item) == wanted);
        assert!(leaf.0.iter().any(|item| is_wanted(&item)), "a leaf without any of them is left out");
        items.extend(leaf.0.iter().filter(|item| from.is_none_or(|from| item.0 >= from)).filter(is_wanted));
        ControlFlow::Continue(())
    });
    items
}

/// The first leaf that a visit from this byte on shows, with what stands before it by the bytes alone.
fn leaf_from_byte(tree: &Tree<Few>, position: u64) -> Option<(&Few, Summary)> {
    let mut visited: Vec<(&Few, u64)> = Vec::new();
    tree.visit_from_byte(position, |leaf, bytes_before| {
        visited.push((leaf, bytes_before));
        ControlFlow::Continue(())
    });
    // Every leaf up to the last, each where the one before ends.
    assert!(visited.windows(2).all(|pair| pair[0].1 + pair[0].0.summary().bytes == pair[1].1));
    let end = visited.last().map(|(leaf, bytes_before)| bytes_before + leaf.summary().bytes);
    assert!(visited.is_empty() || end == Some(tree.summary().bytes));
    let (first, bytes_before) = *visited.first()?;
    let (found, before) = tree.leaf_of_key(first.0[0].0)?;
    assert!(std::ptr::eq(found, first) && before.bytes == bytes_before);
    Some((first, before))
}

fn edits<'a>(batch: &BTreeMap<u16, Option<u8>>) -> Vec<Edit<'a, Few>> {
    batch.iter().map(|(&key, value)| Edit { key, item: value.map(|value| (key, value)) }).collect()
}

proptest! {
    #[test]
    fn batches_of_edits_equal_a_sorted_map(
        start in prop::collection::btree_map(0u16..400, 1u8..20, 0..300),
        batches in prop::collection::vec(
            prop::collection::btree_map(0u16..400, prop::option::weighted(0.4, 1u8..20), 0..120), 1..8),
    ) {
        let mut model = start;
        let mut tree = Tree::<Few>::from_items(&model.iter().map(|(&key, &value)| (key, value)).collect::<Vec<_>>());
        for batch in &batches {
            tree = tree.apply(&edits(batch), &mut 0);
            for (&key, &value) in batch {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
            let items: Vec<(u16, u8)> = tree.check().iter().flat_map(|leaf| leaf.items()).collect();
            prop_assert_eq!(&items, &model.iter().map(|(&key, &value)| (key, value)).collect::<Vec<_>>());
            prop_assert_eq!(tree.summary().len, model.len());
            for from in [None, Some(0), Some(77), Some(199), Some(399)] {
                for wanted in [None, Some(false), Some(true)] {
                    let of_model = items.iter().filter(|item| from.is_none_or(|from| item.0 >= from));
                    let of_model = of_model.filter(|item| wanted.is_none_or(|wanted| is_marked(item) == wanted));
                    prop_assert_eq!(marked_from(&tree, from, wanted), of_model.copied().collect::<Vec<_>>());
                }
            }

            let mut before = Summary::default();
            for (rank, item) in items.iter().enumerate() {
                for (leaf, start) in [
                    tree.leaf_of_key(item.0),
                    tree.leaf_of_rank(rank),
                    leaf_from_byte(&tree, before.bytes),
                    leaf_from_byte(&tree, before.bytes + u64::from(item.1) - 1),
                ].map(|found| found.expect("found")) {
                    let at = leaf.0.iter().position(|held| held == item).expect("in its leaf");
                    prop_assert_eq!(start + leaf.0[..at].iter().map(Few::measure).sum(), before);
                }
                before = before + Few::measure(item);
            }
            prop_assert!(tree.leaf_of_rank(items.len()).is_none());
            prop_assert!(leaf_from_byte(&tree, before.bytes).is_none());
            prop_assert!(tree.leaf_with_key(0).is_some() == model.contains_key(&0));
            prop_assert_eq!(tree.leaf_of_key(0).is_some(), model.contains_key(&0));
        }
    }
}

#[test]
fn nothing_stands_after_the_last_byte_of_a_tree_of_any_height() {
    for items in 0..50 {
        let tree = Tree::<Few>::from_items(&(0..items).map(|key| (key, 3)).collect::<Vec<_>>());
        let bytes = tree.summary().bytes;
        assert_eq!(bytes, 3 * u64::from(items));
        assert!(leaf_from_byte(&tree, bytes).is_none(), "{items} items");
        assert!(bytes == 0 || leaf_from_byte(&tree, bytes - 1).is_some(), "{items} items");
    }
}

#[test]
fn an_edit_shares_all_that_it_does_not_touch() {
    let items: Vec<(u16, u8)> = (0..1000).map(|key| (2 * key, 2)).collect();
    let before = Tree::<Few>::from_items(&items);
    let after = before.apply(&[Edit { key: 777, item: Some((777, 2)) }], &mut 0);
    let (before, after) = (before.check(), after.check());
    let kept = after.iter().filter(|leaf| before.iter().any(|old| Arc::ptr_eq(&old.0, &leaf.0))).count();
    assert!(kept + 1 >= before.len(), "{kept} of {} leaves kept", before.len());
}

#[test]
fn deletes_leave_no_dust() {
    let items: Vec<(u16, u8)> = (0..3000).map(|key| (key, 1)).collect();
    let mut tree = Tree::<Few>::from_items(&items);
    for start in 0..10 {
        let batch: Vec<_> = (start..3000).step_by(10).filter(|key| key % 50 != 0).collect();
        for key in batch {
            tree = tree.apply(&[Edit { key, item: None }], &mut 0);
        }
    }
    assert_eq!(tree.summary().len, 60);
    let leaves = tree.check().len();
    assert!(leaves <= 40, "{leaves} leaves for 60 items of weight 1");
    assert_eq!(tree.apply(&edits(&(0..3000).map(|key| (key, None)).collect()), &mut 0).check().len(), 0);
}

#[test]
fn parts_are_even_and_bounded() {
    assert!(part_ends([].into_iter(), 10).is_empty());
    assert_eq!(part_ends([5; 4].into_iter(), 10), [4]);
    assert_eq!(part_ends([5; 5].into_iter(), 10), [2, 4, 5]);
    assert_eq!(part_ends([1; 33].into_iter(), 16), [17, 33]);
    assert_eq!(part_ends([1, 99, 1, 1, 99].into_iter(), 10), [1, 2, 4, 5]);
}
