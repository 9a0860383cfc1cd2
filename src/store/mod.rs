//! The store: the system of record for todos, and for how far the command log has been applied.
//!
//! Implementations: `sqlite` (a file in the data folder) and `postgres`. Both pass the same suite (`tests/seams/store_suite.rs`).

pub mod identity;
mod log_rows;
pub mod sqlite;

#[cfg(feature = "services")]
pub mod postgres;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

pub use self::identity::Identity;
use crate::command_log::{KnownLogs, LeaderEpochs, LogId, Offset, PartitionId};
use crate::todo::{Todo, TodoId, TodoKey};

/// How far each partition of the log has been applied: the offset of the next record.
pub type AppliedOffsets = BTreeMap<PartitionId, Offset>;

/// Whether a store has a place in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPlace {
    /// It has, be it the beginning.
    Known,
    /// Nothing was ever applied to it, and nobody has said where to begin.
    Unknown {
        /// Whether there are todos all the same: what is in the log may have made them, or be older than they are.
        has_todos: bool,
    },
}

/// The step that one batch makes in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetStep {
    /// The partition.
    pub partition: PartitionId,
    /// The offset that the store has to hold before; `None` when it must not know the partition yet.
    pub from: Option<Offset>,
    /// The offset that it holds afterwards.
    pub to: Offset,
}

/// What a batch did to the list: whole todos, not differences, so that applying changes twice does no harm.
/// Deletes come first: a todo that was deleted and created again in one batch stands in both, with its old place and its
/// new one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Todos that are new or different.
    pub upserts: Vec<Todo>,
    /// Todos that are gone.
    pub deletes: Vec<TodoKey>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.deletes.is_empty()
    }

    /// How many todos changed.
    pub fn len(&self) -> usize {
        self.upserts.len() + self.deletes.len()
    }
}

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another worker has moved the offset of this partition: this worker no longer owns it. Nothing was written.
    #[error("partition {partition} was taken over by another worker")]
    Fenced {
        /// Which partition.
        partition: PartitionId,
    },
    /// May pass (a lost connection, a lock, a full disk): try again. Nothing was written, or everything was: the offsets
    /// tell.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store refuses one of these rows for what it contains, and will each time. Nothing was written.
    #[error("the store refuses the data: {0}")]
    Refused(String),
    /// Stays until somebody has changed the deployment as the text says (a right, a column, the encoding, the disk); then
    /// it passes without a restart. Nothing was written.
    #[error("{0}")]
    Misconfigured(String),
    /// Will not pass by itself: a wrong schema, a damaged file, a missing permission.
    #[error("{0}")]
    Fatal(String),
}

/// Folds a batch over the rows it touches: gets the rows that exist, by id, and says what changes.
pub type Fold<'a> = &'a mut dyn FnMut(HashMap<TodoId, Todo>) -> Changes;

/// Both kinds of ids, sorted.
fn all_ids(ids: &[TodoId], new_ids: &[TodoId]) -> Vec<TodoId> {
    let mut all = [ids, new_ids].concat();
    all.sort_unstable();
    all
}

/// A connection to the store; each thread that needs one has its own.
pub trait Store: Send {
    /// Creates or upgrades the schema; safe when several processes do it at once.
    ///
    /// # Errors
    /// [`StoreError`].
    fn migrate(&mut self) -> Result<(), StoreError>;

    /// How long the answers to [`Store::identity`] and [`Store::applied_offsets`] are waited for from now on; `None`: as long as
    /// the store may take at most. Where it matters little, whoever asks need not be held up by a store that is frozen.
    fn set_patience(&mut self, _patience: Option<Duration>) {}

    /// The identity of the deployment whose store this is: the same for all processes, made once.
    ///
    /// # Errors
    /// [`StoreError`].
    fn identity(&mut self) -> Result<Identity, StoreError>;

    /// How far the log has been applied.
    ///
    /// # Errors
    /// [`StoreError`].
    fn applied_offsets(&mut self) -> Result<AppliedOffsets, StoreError>;

    /// The epochs of the last records that were applied, beside the offsets that they are of. None of a log that has none.
    ///
    /// # Errors
    /// [`StoreError`].
    fn leader_epochs(&mut self) -> Result<LeaderEpochs, StoreError> {
        Ok(LeaderEpochs::new())
    }

    /// Writes these epochs with the batch that moves the offsets to their places.
    fn note_epochs(&mut self, _epochs: LeaderEpochs) {}

    /// Whether the store has a place in the log. A store that lives in one folder with its log always has.
    ///
    /// # Errors
    /// [`StoreError`].
    fn log_place(&mut self) -> Result<LogPlace, StoreError> {
        Ok(LogPlace::Known)
    }

    /// Notes that the store follows the log from now on, each partition from its beginning where no offset says
    /// otherwise.
    ///
    /// # Errors
    /// [`StoreError`].
    fn follow_log(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The log whose offsets these are, and those that cannot be it. Batches are from then on only applied while it is this one,
    /// where several processes work with the store.
    ///
    /// # Errors
    /// [`StoreError`].
    fn known_logs(&mut self) -> Result<KnownLogs, StoreError> {
        Ok(KnownLogs::default())
    }

    /// Notes that the offsets are of this log, unless another is noted; returns the one that is. For the rest as
    /// [`Store::known_logs`].
    ///
    /// # Errors
    /// [`StoreError`].
    fn note_log(&mut self, log: LogId) -> Result<LogId, StoreError> {
        Ok(log)
    }

    /// Notes that the offsets are not of this log, which ends before them. It stays noted, however long the log becomes, until
    /// somebody says that the store follows it.
    ///
    /// # Errors
    /// [`StoreError`].
    fn reject_log(&mut self, _log: LogId) -> Result<(), StoreError> {
        Ok(())
    }

    /// Moves the offset of a partition back, whose log has lost what stood from `to` on: what is written there now is new.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the offset was not at `from`.
    fn move_back(&mut self, partition: PartitionId, from: Offset, to: Offset) -> Result<(), StoreError> {
        self.apply(&[OffsetStep { partition, from: Some(from), to }], &[], &mut |_| Changes::default()).map(drop)
    }

    /// Applies one batch in one transaction: moves the offsets (compare-and-set, first, so that its row locks order
    /// rival workers), reads the rows `ids`, lets `fold` decide, writes the changes, commits. A store that is used by this
    /// process alone may leave it to [`Store::make_durable`] that a power cut does not take the last batches back, whole
    /// and in the reverse of their order; what ends the process takes nothing back.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when an offset was not at its `from`; then nothing is written.
    fn apply(&mut self, steps: &[OffsetStep], ids: &[TodoId], fold: Fold<'_>) -> Result<Changes, StoreError>;

    /// Does the same, where `new_ids` are expected not to be there: todos that the batch creates and does not delete. A
    /// store may write these without reading them first, as long as it notices the one that is there after all, and then
    /// begins again; so `fold` may be called twice. `ids` and `new_ids` have nothing in common, and each is sorted.
    ///
    /// # Errors
    /// As [`Store::apply`].
    fn apply_new(
        &mut self,
        steps: &[OffsetStep],
        ids: &[TodoId],
        new_ids: &[TodoId],
        fold: Fold<'_>,
    ) -> Result<Changes, StoreError> {
        self.apply(steps, &all_ids(ids, new_ids), fold)
    }

    /// Reads the whole list in one consistent view, newest first, and returns the offsets of that view. `each` uses no
    /// store itself: one may be driving its connection in this thread.
    ///
    /// # Errors
    /// [`StoreError`]; `each` may have been called before.
    fn scan(&mut self, each: &mut dyn FnMut(Todo)) -> Result<AppliedOffsets, StoreError>;

    /// Makes all batches durable that were applied. Until then the log has to keep their commands.
    ///
    /// # Errors
    /// [`StoreError`].
    fn make_durable(&mut self) -> Result<(), StoreError>;
}
