//! A part of the list that is asked for by its facets: the todos of an owner, those that are marked, or both.
//!
//! ```text
//! selection ─ places of the owner, or branches of the list with such marks ─ todos, in the order of the list ─ pieces
//! ```
//! What a whole selection amounts to is kept. A page is walked through, todo by todo, as far as it goes: so a page behind a
//! cursor always has an end.

use std::ops::ControlFlow;

use super::chunk::{Chunk, Place};
use super::hashing::Tagged;
use super::summary::Summary;
use super::tree::Leaf;
use super::{Page, Snapshot};
use crate::limits::{GATHERED_PAGE_MAX_TODOS, PAGE_LIMIT_MAX, PREFETCH_KEYS_MAX};
use crate::todo::TodoKey;

/// Which todos of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Selection {
    /// Those of this owner, as [`Snapshot::owner_number`]; `None`: of all.
    pub owner: Option<u64>,
    /// Those that are marked, or those that are not; `None`: both.
    pub is_marked: Option<bool>,
}

/// A page of a selection.
pub struct SelectedPage<'s> {
    /// What a page of the list has, too.
    pub page: Page<SelectedRun>,
    /// The JSON of its todos, each with a comma after it, where it is short: else the run has to be walked.
    pub gathered: Option<Vec<&'s [u8]>>,
}

/// The bytes of a page of a selection that are still to be sent, as [`Run`](super::Run) is of the list: it means something only
/// together with the snapshot that it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectedRun {
    selection: Selection,
    /// The last todo that has been taken.
    after: Option<Place>,
    /// Bytes of todos still to come, without the last comma.
    todos_bytes: u64,
    opens: bool,
    closes: bool,
}

impl Snapshot {
    /// How many todos the selection has.
    pub fn count(&self, selection: Selection) -> usize {
        self.sum(selection).len
    }

    /// Changes when the number does that [`Snapshot::count`] gives.
    pub fn count_entity_tag(&self, selection: Selection) -> u64 {
        self.keys.tag(self.count(selection) as u64, Tagged::Count)
    }

    /// Changes when anything of the selection does; known without a walk through it.
    pub fn selection_tag(&self, selection: Selection) -> u64 {
        self.keys.tag(self.sum(selection).hash, Tagged::State)
    }

    fn sum(&self, selection: Selection) -> Summary {
        self.facets.sum(selection.owner, selection.is_marked)
    }

    /// How long a page is at most that begins there: behind a cursor it always has a limit.
    pub fn selected_limit(after: Option<TodoKey>, limit: Option<usize>) -> Option<usize> {
        limit.or(after.map(|_| PAGE_LIMIT_MAX))
    }

    /// The todos of the selection after `after` (from the newest, if it is `None`), [`Snapshot::selected_limit`] at most.
    pub fn selected_page(
        &self,
        selection: Selection,
        after: Option<TodoKey>,
        limit: Option<usize>,
    ) -> SelectedPage<'_> {
        let limit = Snapshot::selected_limit(after, limit).map(|limit| limit.max(1));
        let (after, whole) = (after.map(Place::from), self.sum(selection));
        let (mut sum, mut next, mut gathered) = (whole, None, None);
        let is_walked = |limit: &usize| after.is_some() || *limit <= GATHERED_PAGE_MAX_TODOS || *limit < whole.len;
        if let Some(limit) = limit.filter(is_walked) {
            let mut pieces = (limit <= GATHERED_PAGE_MAX_TODOS).then(|| Vec::with_capacity(limit.min(whole.len)));
            let mut last = None;
            sum = Summary::default();
            // Behind a cursor, one todo more says whether there is a next page.
            let ahead = limit + usize::from(after.is_some());
            self.visit_selected(selection, after, ahead, |chunk, at| {
                if sum.len == limit {
                    next = last;
                    return ControlFlow::Break(());
                }
                let item = chunk.item(at);
                sum = sum + Chunk::measure(&item);
                last = Some(TodoKey::from(item.place));
                pieces.iter_mut().for_each(|pieces| pieces.push(item.json));
                if after.is_none() && sum.len == limit {
                    next = last.filter(|_| limit < whole.len);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            gathered = pieces;
        }
        let todos_bytes = sum.bytes - u64::from(sum.len > 0);
        let body = SelectedRun { selection, after, todos_bytes, opens: true, closes: true };
        let tagged = if next.is_some() { Tagged::Page } else { Tagged::LastPage };
        let entity_tag = self.keys.tag(sum.hash, tagged);
        let page = Page { len: sum.len, content_length: body.remaining_bytes(), entity_tag, next, body };
        SelectedPage { page, gathered }
    }

    /// Visits the todos of the selection after `after`, in the order of the list, until `visit` breaks; some `ahead` of them are
    /// asked for in memory before they are needed.
    fn visit_selected<'s>(
        &'s self,
        selection: Selection,
        after: Option<Place>,
        ahead: usize,
        mut visit: impl FnMut(&'s Chunk, usize) -> ControlFlow<()>,
    ) {
        let Selection { owner, is_marked } = selection;
        let Some(owner) = owner else {
            return self.todos.visit_marked(after, is_marked, |chunk| {
                let begin = after.map_or(0, |after| chunk.find(after).map_or_else(|at| at, |at| at + 1));
                let is_wanted = |at: &usize| is_marked.is_none_or(|mark| chunk.is_marked(*at) == mark);
                (begin..chunk.len()).filter(is_wanted).try_for_each(|at| visit(chunk, at))
            });
        };
        let mut places = Vec::with_capacity(ahead.min(PREFETCH_KEYS_MAX));
        let mut begin = after;
        loop {
            places.clear();
            self.facets.visit_places(owner, is_marked, begin, |place| {
                places.push(place);
                if places.len() < ahead.min(PREFETCH_KEYS_MAX) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            let Some(last) = places.last() else { return };
            begin = Some(*last);
            self.todos.prefetch(&places);
            for place in &places {
                let Some((chunk, at)) = self.locate(*place) else { continue };
                if visit(chunk, at).is_break() {
                    return;
                }
            }
        }
    }
}

impl SelectedRun {
    /// Gives `take` the next pieces to send, and steps over them, until it returns false or all are taken. Todos that stand side by
    /// side are one piece.
    pub fn take_pieces<'s>(&mut self, snapshot: &'s Snapshot, mut take: impl FnMut(&'s [u8]) -> bool) {
        if self.opens {
            self.opens = false;
            if !take(b"[") {
                return;
            }
        }
        let mut goes_on = true;
        if self.todos_bytes > 0 {
            let mut neighbours: Option<(&Chunk, usize, usize)> = None;
            let (selection, after) = (self.selection, self.after);
            snapshot.visit_selected(selection, after, PREFETCH_KEYS_MAX, |chunk, at| {
                match neighbours {
                    Some((of, begin, end)) if std::ptr::eq(of, chunk) && end == at => {
                        neighbours = Some((of, begin, end + 1));
                        return ControlFlow::Continue(());
                    }
                    Some((of, begin, end)) => goes_on = self.take_todos(of, begin, end, &mut take),
                    None => {}
                }
                neighbours = goes_on.then_some((chunk, at, at + 1));
                if goes_on && self.todos_bytes > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if let Some((of, begin, end)) = neighbours.filter(|_| self.todos_bytes > 0) {
                goes_on = self.take_todos(of, begin, end, &mut take);
            }
        }
        if goes_on && self.todos_bytes == 0 && self.closes {
            self.closes = false;
            take(b"]");
        }
    }

    fn take_todos<'s>(
        &mut self,
        chunk: &'s Chunk,
        begin: usize,
        end: usize,
        take: &mut impl FnMut(&'s [u8]) -> bool,
    ) -> bool {
        let json = chunk.json_of(begin, end);
        let piece = &json[..json.len().min(usize::try_from(self.todos_bytes).unwrap_or(usize::MAX))];
        self.todos_bytes -= piece.len() as u64;
        self.after = Some(chunk.item(end - 1).place);
        take(piece)
    }

    /// Bytes still to come.
    pub fn remaining_bytes(&self) -> u64 {
        u64::from(self.opens) + self.todos_bytes + u64::from(self.closes)
    }
}
