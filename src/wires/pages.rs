//! What shards and the encoder send each other: first pages that are wished for in a coding, and those that were made.

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::http::Coding;
use crate::snapshot::{EncodedBody, Snapshot};

/// A first page in a coding: how many todos, all where there is no number.
pub type PageKey = (Option<usize>, Coding);

/// A first page that a shard answers with in a coding, or would rather.
pub struct Wish {
    /// The list.
    pub snapshot: Arc<Snapshot>,
    /// The first so many todos; `None` for all.
    pub limit: Option<usize>,
    /// The coding.
    pub coding: Coding,
    /// How often it was asked for since the last wish for it.
    pub answers: u64,
}

impl Wish {
    /// The page that it is about.
    pub fn page(&self) -> PageKey {
        (self.limit, self.coding)
    }
}

/// A first page in a coding.
#[derive(Clone)]
pub struct EncodedPage {
    /// The version of its snapshot.
    pub version: u64,
    /// The first so many todos; `None` for all.
    pub limit: Option<usize>,
    /// The coding that was wished for.
    pub coding: Coding,
    /// The bytes.
    pub body: Arc<EncodedBody>,
    /// The page of the same snapshot whose place it takes.
    pub replaces: Option<PageKey>,
}

/// The way of wishes to the encoder: bounded, and whoever finds it full goes on without.
pub type WishQueue = Sender<Wish>;
