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
    /// Hash and range of the JSON to put there; `None` removes.
    content: Option<(u64, Range<usize>)>,
}

impl Draft {
    /// Without edits.
    pub fn new(keys: HashKeys) -> Draft {
        Draft { keys, json: Vec::new(), edits: Vec::new() }
    }

    /// Puts `todo` at its place; returns its JSON object.
    pub fn put(&mut self, todo: &Todo) -> &[u8] {
        let start = self.json.len();
        let hash = write_item_json(todo, &self.keys, &mut self.json);
        self.edits.push(DraftEdit { place: todo.key().into(), content: Some((hash, start..self.json.len())) });
        // A comma stands behind it in the list.
        &self.json[start..self.json.len() - 1]
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
                let item =
                    edit.content.clone().map(|(hash, range)| Item { place: edit.place, hash, json: &self.json[range] });
                Edit { key: edit.place, item }
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
