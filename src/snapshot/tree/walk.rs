//! The leaves from a place on that have marked items, or items without a mark.

use std::ops::ControlFlow;

use super::{Content, Leaf, Node, Tree};

impl<L: Leaf<Marked = usize>> Tree<L> {
    /// Visits the leaves from the one that holds `from`, if any does, until `visit` breaks. With `is_marked` it leaves out those in
    /// which no item is marked so, and goes by whole branches of them at once.
    pub fn visit_marked<'s>(
        &'s self,
        from: Option<L::Key>,
        is_marked: Option<bool>,
        mut visit: impl FnMut(&'s L) -> ControlFlow<()>,
    ) {
        if let Some(root) = &self.root {
            let _ = root.visit_marked(from, is_marked, &mut visit);
        }
    }
}

impl<L: Leaf<Marked = usize>> Node<L> {
    fn has(&self, is_marked: Option<bool>) -> bool {
        match is_marked {
            None => true,
            Some(true) => self.marked > 0,
            Some(false) => self.marked < self.summary.len,
        }
    }

    fn visit_marked<'s>(
        &'s self,
        from: Option<L::Key>,
        is_marked: Option<bool>,
        visit: &mut impl FnMut(&'s L) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if !self.has(is_marked) {
            return ControlFlow::Continue(());
        }
        match &self.content {
            Content::Leaf(leaf) => visit(leaf),
            Content::Branch(children) => {
                let begin =
                    from.map_or(0, |key| children.partition_point(|child| child.first <= key).saturating_sub(1));
                children[begin..].iter().enumerate().try_for_each(|(at, child)| {
                    let from = if at == 0 { from } else { None };
                    child.visit_marked(from, is_marked, visit)
                })
            }
        }
    }
}
