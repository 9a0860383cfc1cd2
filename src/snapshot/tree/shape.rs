//! How items and nodes are cut into nodes of an even size, and small neighbours joined.

use super::{Content, Leaf, Node};

pub(super) fn push_leaves<L: Leaf>(items: &[L::Item<'_>], nodes: &mut Vec<Node<L>>) {
    let mut from = 0;
    for end in part_ends(items.iter().map(|item| L::weight(&L::measure(item))), L::TARGET_WEIGHT) {
        nodes.push(Node::of_leaf(L::from_items(&items[from..end])));
        from = end;
    }
}

pub(super) fn push_branches<L: Leaf>(children: Vec<Node<L>>, nodes: &mut Vec<Node<L>>) {
    let ends = part_ends(children.iter().map(|_| 1), L::TARGET_CHILDREN);
    if ends.len() == 1 {
        return nodes.push(Node::of_children(children));
    }
    let mut children = children.into_iter();
    let mut from = 0;
    for end in ends {
        nodes.push(Node::of_children(children.by_ref().take(end - from).collect()));
        from = end;
    }
}

/// Where to cut a sequence of these weights. One part when it weighs at most twice the target; else even parts near the
/// target, so that a part has room to grow and to shrink before it is cut or joined again. Only a part of one item
/// weighs more than twice the target.
pub(super) fn part_ends(weights: impl Iterator<Item = usize> + Clone, target: usize) -> Vec<usize> {
    let mut remaining: usize = weights.clone().sum();
    let even_share = |remaining: usize| remaining.div_ceil(((remaining + target / 2) / target).max(1));
    let mut share = if remaining <= 2 * target { remaining } else { even_share(remaining) };
    let mut ends = Vec::with_capacity(remaining / target + 1);
    let mut part = 0;
    let mut len = 0;
    for weight in weights {
        if part > 0 && (part >= share || part + weight > 2 * target) {
            ends.push(len);
            remaining -= part;
            share = even_share(remaining);
            part = 0;
        }
        part += weight;
        len += 1;
    }
    if part > 0 {
        ends.push(len);
    }
    ends
}

/// Joins neighbours that deletes have left small. Before a batch no two neighbours were to be joined, so what this does
/// is bounded by what the batch touched.
pub(super) fn join_small_neighbours<L: Leaf>(nodes: &mut Vec<Node<L>>, replaced_bytes: &mut u64) {
    if !nodes.windows(2).any(|pair| pair[0].is_joined_with(&pair[1])) {
        return;
    }
    let mut joined: Vec<Node<L>> = Vec::with_capacity(nodes.len());
    for node in nodes.drain(..) {
        match joined.last_mut() {
            Some(last) if last.is_joined_with(&node) => *last = last.join(&node, replaced_bytes),
            _ => joined.push(node),
        }
    }
    *nodes = joined;
}

/// The root over these nodes of one height.
pub(super) fn grow<L: Leaf>(mut nodes: Vec<Node<L>>, replaced_bytes: &mut u64) -> Option<Node<L>> {
    join_small_neighbours(&mut nodes, replaced_bytes);
    while nodes.len() > 1 {
        let mut parents = Vec::new();
        push_branches(nodes, &mut parents);
        nodes = parents;
    }
    let mut root = nodes.pop()?;
    // Deletes may have left a chain of only children.
    while let Content::Branch(children) = &root.content
        && let [child] = &**children
    {
        root = child.clone();
    }
    Some(root)
}
