//! One todo of a snapshot.

use super::chunk::Chunk;
use super::hashing::{HashKeys, Tagged};
use super::run::Run;
use super::summary::Summary;
use crate::todo::TodoKey;

/// One todo of a snapshot.
#[derive(Clone, Copy)]
pub struct Entry<'s> {
    pub(super) chunk: &'s Chunk,
    /// Its number within the chunk.
    pub(super) at: usize,
    /// The sum over the chunks before.
    pub(super) before: Summary,
    pub(super) keys: &'s HashKeys,
}

impl<'s> Entry<'s> {
    /// Its JSON object.
    pub fn json(&self) -> &'s [u8] {
        let json = self.chunk.item(self.at).json;
        &json[..json.len() - 1]
    }

    /// Changes when its JSON does; a function of the content and of the deployment's key, the same in every process.
    pub fn entity_tag(&self) -> u64 {
        self.keys.tag(self.chunk.item(self.at).hash, Tagged::Todo)
    }

    /// Its place in the list.
    pub fn key(&self) -> TodoKey {
        self.chunk.item(self.at).place.into()
    }

    /// Its number in the list, counted from 0 at the newest.
    pub fn rank(&self) -> usize {
        self.before.len + self.at
    }

    /// The sum over all todos before it and it.
    pub(super) fn sum_through(&self) -> Summary {
        self.before + self.chunk.sum_of_first(self.at + 1)
    }

    /// Its JSON object as bytes to send.
    pub fn body(&self) -> Run {
        let end = self.sum_through().bytes - 1;
        Run::bare(end - self.json().len() as u64, end)
    }
}
