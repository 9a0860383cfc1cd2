//! The command log: the durable, ordered queue of commands between the API and the workers.
//!
//! One trait for each end. Implementations: `embedded` (segment files in the data folder) and `kafka`. Both pass the
//! same suite (`tests/seams/log_suite.rs`).

pub mod embedded;

#[cfg(feature = "services")]
pub mod kafka;
mod log_id;
pub mod new_ids;
mod position;

pub use log_id::{AnotherLog, KnownLogs, LogId, NoLogId};
pub use position::{Coverage, LogPosition};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use self::new_ids::NewIds;
use crate::counted::Counted;
use crate::todo::{Timestamp, TodoId};

/// A part of the log with an order of its own. The embedded log has one, partition 0.
pub type PartitionId = i32;
/// The place of a record within its partition.
pub type Offset = i64;
/// Counts the leaders that a partition has had: each record is of the one that wrote it. Never falls within a partition.
pub type LeaderEpoch = i32;
/// For each partition a place, and the epoch of the record before it.
pub type LeaderEpochs = BTreeMap<PartitionId, (Offset, LeaderEpoch)>;

/// Names a command on its way to the log, from the shard that waits for it to the acknowledgement: made by the shard,
/// opaque to the log. A number of [`Ticket::BITS`] bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

impl Ticket {
    /// The log may keep something of its own in the others.
    pub const BITS: u32 = 60;
    /// The largest ticket.
    pub const MAX: Ticket = Ticket((1 << Ticket::BITS) - 1);
}

/// A command on its way to the log.
#[derive(Debug)]
pub struct Submission {
    /// Comes back with the acknowledgement.
    pub ticket: Ticket,
    /// The message key: commands of one todo keep their order.
    pub id: TodoId,
    /// The command's JSON.
    pub payload: Vec<u8>,
}

/// Why a command did not get into the log, or is not known to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The log's own queue is full.
    Full,
    /// The log has been given the command and did not confirm it. It may still turn up there.
    Unconfirmed,
    /// The log takes nothing at present. The command has not reached it, and will not.
    Unavailable,
    /// The log does not take a record of this size.
    TooLarge,
    /// The log has as many bytes as it may; commands that are applied make room.
    OverLimit,
}

impl Refusal {
    /// Whether the log is not well, whatever the command is.
    pub fn is_trouble(self) -> bool {
        matches!(self, Refusal::Unconfirmed | Refusal::Unavailable)
    }
}

/// What became of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Which command.
    pub ticket: Ticket,
    /// `Ok`: it is durable, by the log's strongest meaning of the word.
    pub result: Result<(), Refusal>,
    /// Where it stands, when it is durable. `None` also when the log does not say: a broker that got it twice, because its
    /// first answer was lost, does not.
    pub position: Option<LogPosition>,
}

impl Acknowledgement {
    /// The command is durable, at this place.
    pub fn durable(ticket: Ticket, position: Option<LogPosition>) -> Acknowledgement {
        Acknowledgement { ticket, result: Ok(()), position }
    }

    /// The command did not get into the log, or is not known to have.
    pub fn refused(ticket: Ticket, refusal: Refusal) -> Acknowledgement {
        Acknowledgement { ticket, result: Err(refusal), position: None }
    }
}

/// Takes acknowledgements back to the shards. Called from whichever thread learns of them; never blocks.
pub trait AcknowledgementSink: Send + Sync {
    /// Takes over `acknowledgements` and leaves the vector empty.
    fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>);

    /// Learns whether the log can be reached, also while nobody writes; the error says why not. A log within the process
    /// has nothing to say.
    fn note_reachable(&self, _reachable: Result<(), &LogError>) {}
}

/// The writing end; the producer thread owns it.
pub trait CommandAppender: Send {
    /// Appends the batch in its order and leaves the vector empty. Each ticket gets exactly one acknowledgement through
    /// the sink that the appender was made with: before this returns, or later from another thread.
    fn append(&mut self, batch: &mut Vec<Submission>);

    /// Makes the ids of new todos, so that this log takes them well.
    fn new_ids(&self) -> Arc<NewIds> {
        Arc::default()
    }

    /// Waits until everything appended is acknowledged, `deadline` at most; what is not by then is refused as
    /// [`Refusal::Unconfirmed`], or as [`Refusal::Unavailable`] when it has not been given to the log.
    fn close(&mut self, deadline: Duration);
}

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub offset: Offset,
    /// When the log (or its producer) stamped it.
    pub logged_at: Timestamp,
    /// Message key, as found.
    pub key: Vec<u8>,
    /// The command's JSON, as found.
    pub payload: Vec<u8>,
}

/// Records of one partition, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RecordBatch {
    /// The partition.
    pub partition: PartitionId,
    /// At least one record. Offsets rise, but may skip (compaction, transaction markers).
    pub records: Vec<Record>,
    /// Where to go on after this batch.
    pub next: Offset,
    /// The epoch of its last record; `None` when the log has none.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// What the reading end has to tell.
#[derive(Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// Records of partitions that were started with [`CommandReader::start`]; one entry a partition.
    Records(Vec<RecordBatch>),
    /// These partitions belong to this reader from now on. Nothing is read from one until it is started.
    Assigned(Vec<PartitionId>),
    /// These partitions belong to it no more; nothing of them will be returned, and their state can be dropped.
    Revoked(Vec<PartitionId>),
    /// Nothing came within the wait.
    Idle,
}

/// What can go wrong at the reading end.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// May pass; the reader goes on trying by itself, and the caller may call again.
    #[error("the command log is unavailable: {0}")]
    Unavailable(String),
    /// The place to start from does not exist: the log was made anew, has lost records, or has deleted what the store still needs.
    /// Never skipped in silence.
    #[error("{}", out_of_range(*.partition, *.requested, *.earliest, *.latest))]
    OffsetOutOfRange {
        /// Which partition.
        partition: PartitionId,
        /// Where the store wanted to go on.
        requested: Offset,
        /// First offset that the log holds.
        earliest: Offset,
        /// The offset that the next record will get.
        latest: Offset,
    },
    /// Another log has taken the place of the one whose partitions were started; nothing more is read.
    #[error("the command log was replaced by another one")]
    Replaced,
    /// Will not pass by itself: a damaged file, a missing permission.
    #[error("{0}")]
    Fatal(String),
}

fn out_of_range(partition: PartitionId, requested: Offset, earliest: Offset, latest: Offset) -> String {
    let remedy = format!(
        "set the offset of this partition in the table applied_offsets to {earliest}, and the worker goes on there"
    );
    if requested < earliest {
        return format!(
            "partition {partition} of the command log begins at {earliest}, and the store has applied up to {requested}: {} were \
             deleted from the log before this store applied them. Was an older copy of the store put back, or no worker there for \
             longer than the log keeps commands? Put back a copy that is not as old. If there is none, they are lost: {remedy}",
            Counted(earliest - requested, "commands")
        );
    }
    format!(
        "partition {partition} holds offsets {earliest} to {latest}, but the store has applied up to {requested}: the log was made \
         anew or has lost records. Compare both; when the log is right, {remedy}"
    )
}

/// What a log holds that a store has no place in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogHistory {
    /// The log's name, for people.
    pub log: String,
    /// Records that it holds.
    pub records: u64,
    /// The group by which a reader before has noted how far it had come; `None` where none has.
    pub read_by: Option<String>,
}

/// The reading end; a worker thread owns it.
pub trait CommandReader: Send {
    /// Waits up to `max_wait` for an event. Has to be called regularly (at least every few seconds), also while the
    /// caller has paused, because group membership depends on it: with `max_records` 0 no records are returned, only
    /// the other events, and no record is skipped by it.
    ///
    /// # Errors
    /// [`LogError`]; behind [`LogError::OffsetOutOfRange`] the named partition waits to be started again, and the others
    /// go on; behind [`LogError::Replaced`] all wait for that.
    fn poll(&mut self, max_records: usize, max_bytes: usize, max_wait: Duration) -> Result<LogEvent, LogError>;

    /// Which log this is at this moment; `None` when it has no id. Partitions that are started from now on are of this one:
    /// when another takes its place, [`CommandReader::poll`] says so.
    ///
    /// # Errors
    /// [`LogError`].
    fn log_id(&mut self) -> Result<Option<LogId>, LogError> {
        Ok(None)
    }

    /// Whether each of these partitions goes as far as this offset.
    ///
    /// # Errors
    /// [`LogError`].
    fn reaches(&mut self, _offsets: &BTreeMap<PartitionId, Offset>) -> Result<bool, LogError> {
        Ok(true)
    }

    /// Learns the epochs of what was applied, before partitions are started at these places: by them a log finds out that it has
    /// lost records and holds others at their offsets, which [`LogError::OffsetOutOfRange`] then tells.
    fn expect_epochs(&mut self, _epochs: LeaderEpochs) {}

    /// Starts, or starts again, reading an assigned partition at `next`; `None` is its beginning. Does not wait for a
    /// server.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] when the partition has no such place. A log may find that out only when it reads, and
    /// then says so in [`CommandReader::poll`].
    fn start(&mut self, partition: PartitionId, next: Option<Offset>) -> Result<(), LogError>;

    /// What there was before this reader: asked when the store has no place in the log. A log that belongs to its store
    /// has nothing to tell.
    ///
    /// # Errors
    /// [`LogError`].
    fn history(&mut self) -> Result<LogHistory, LogError> {
        Ok(LogHistory::default())
    }

    /// Tells the log how far the store has got, so that the usual tools can show it; the store's own offsets decide.
    fn applied(&mut self, partition: PartitionId, next: Offset);

    /// Whether [`CommandReader::applied`] with these would delete commands. The store has to be durable before.
    fn would_delete(&self, partition: PartitionId, next: Offset) -> bool;

    /// Records that have been written but not yet returned by `poll`, over all started partitions; `None` when unknown.
    fn lag(&mut self) -> Option<u64>;

    /// Puts a record that can never be applied aside, durably, with the reason.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: try again before going on.
    fn dead_letter(&mut self, partition: PartitionId, record: &Record, reason: &str) -> Result<(), LogError>;
}

/// A record that could never be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stood.
    pub partition: PartitionId,
    /// The record.
    pub record: Record,
    /// Why it could not be applied.
    pub reason: String,
}
