//! The change feed: what clients follow the list by. Bytes and bookkeeping alone; no I/O, no clock, no runtime.
//!
//! ```text
//! refresher: changes of a batch -> EventBatch (encoded once) -> with the snapshot, to every shard's inbox
//! shard:     History: the last batches, each with the position that it leads to -> followers
//! ```
//! Not to be mixed up with the feed, which brings changes from workers to API processes.
//!
//! Invariant: the batches of a history lead from the position before the first to that of the shard's snapshot, and who applies
//! them to a list of the one has the list of the other, byte by byte.

mod batch;
mod history;
mod stream;

use std::sync::Arc;

pub use batch::{BatchDraft, EventBatch};
pub use history::{Found, History, HistoryLimits, Kept};
pub use stream::{
    Framing, write_heartbeat, write_last, write_list_end, write_list_start, write_reset, write_retry, write_start,
};

use crate::http::Position;

/// What a new snapshot brings to those who follow the list.
#[derive(Debug, Clone)]
pub struct News {
    /// Nobody can go on from a position of before, and why.
    pub reset: Option<ResetReason>,
    /// The position before the first batch.
    pub base: Position,
    /// What has changed since then.
    pub batches: Vec<Arc<EventBatch>>,
}

impl News {
    /// No changes since this position.
    pub fn since(base: Position) -> News {
        News { reset: None, base, batches: Vec::new() }
    }

    /// Nobody can go on, but from this position.
    pub fn anew(reason: ResetReason, base: Position) -> News {
        News { reset: Some(reason), ..News::since(base) }
    }
}

/// Why a follower has to read the list again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// The position is none, or of another list, or this process has not come to it.
    UnknownPosition,
    /// The changes since then are not kept any more.
    TooOld,
    /// The list is not what followed from the one before.
    BeganAnew,
    /// So much has changed at once that to read the list is less.
    TooManyChanges,
}

impl ResetReason {
    /// How many there are.
    pub const COUNT: usize = ResetReason::ALL.len();
    /// All of them, in the order of their numbers.
    pub const ALL: [ResetReason; 4] =
        [ResetReason::UnknownPosition, ResetReason::TooOld, ResetReason::BeganAnew, ResetReason::TooManyChanges];

    /// Its name in the event and in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            ResetReason::UnknownPosition => "unknown_position",
            ResetReason::TooOld => "too_old",
            ResetReason::BeganAnew => "began_anew",
            ResetReason::TooManyChanges => "too_many_changes",
        }
    }
}
