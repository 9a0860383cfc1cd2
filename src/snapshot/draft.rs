//! Edits of the list while they are collected.

use std::ops::Range;

use super::chunk::{Chunk, Item, Place, write_item_json};
use super::hashing::HashKeys;
use super::tree::Edit;
use crate::todo::Todo;

/// Edits of the list, in the order they were made, with the JSON that they bring.
pub(super) struct Draft {
    keys: HashKeys,
    json: Vec<u8>,
    edits: Vec<DraftEdit>,
}

struct DraftEdit {
    place: Place,
    /// What to put there; `None` removes.
    content: Option<DraftItem>,
}

#[derive(Clone)]
struct DraftItem {
    hash: u64,
    is_marked: bool,
    json: Range<usize>,
}

impl Draft {
    /// Without edits.
    pub fn new(keys: HashKeys) -> Draft {
        Draft { keys, json: Vec::new(), edits: Vec::new() }
    }

    /// Puts `todo` at its place; returns what stands there then.
    pub fn put(&mut self, todo: &Todo) -> Item<'_> {
        let start = self.json.len();
        let hash = write_item_json(todo, &self.keys, &mut self.json);
        let (place, is_marked) = (Place::from(todo.key()), todo.facets().is_marked);
        let json = start..self.json.len();
        self.edits.push(DraftEdit { place, content: Some(DraftItem { hash, is_marked, json }) });
        Item { place, hash, is_marked, json: &self.json[start..] }
    }

    /// Removes what stands at `place`.
    pub fn remove(&mut self, place: Place) {
        self.edits.push(DraftEdit { place, content: None });
    }

    /// Bytes of JSON that wait here.
    pub fn json_bytes(&self) -> usize {
        self.json.len()
    }

    /// Forgets all edits, and keeps the room for others.
    pub fn clear(&mut self) {
        self.json.clear();
        self.edits.clear();
    }

    /// The edits as a tree takes them: by place, and of several at one place the last.
    pub fn edits(&mut self) -> Vec<Edit<'_, Chunk>> {
        sort_latest_first(&mut self.edits, |edit| edit.place);
        self.edits.dedup_by_key(|edit| edit.place);
        let edits = self.edits.iter();
        edits
            .map(|edit| {
                let place = edit.place;
                let item = edit.content.clone().map(|DraftItem { hash, is_marked, json }| {
                    let json = &self.json[json];
                    Item { place, hash, is_marked, json }
                });
                Edit { key: place, item }
            })
            .collect()
    }
}

/// Sorts by key, and of several with one key the last of the list comes first, where `dedup_by` keeps it.
pub(super) fn sort_latest_first<T, K: Ord>(list: &mut [T], key: impl Fn(&T) -> K) {
    // A stable sort of the reversed list. Ids that were pushed newest first are sorted by the reversal alone.
    list.reverse();
    list.sort_by_key(key);
}
