//! The embedded command log: one partition (0) in segment files, written by one thread and read by another of the same
//! process.
//!
//! # Files
//! `log/<offset of its first record, 20 digits>.log`, one after the other without a gap. A file holds records only:
//! [`record`] describes their bytes. A segment that has reached [`LOG_SEGMENT_BYTES`] is followed by a new one; a segment
//! that the store has applied to its end is deleted, the last one never. `log/id` is the log's identity ([`LogId`]): by it the
//! store knows its log, also when another one has been put into the folder.
//!
//! # Durability
//! The appender writes a batch with one write(2), makes it durable with one fdatasync(2), and only then acknowledges it
//! and shows it to the reader. So whatever the store has applied is durable in the log, and what stands behind the last
//! acknowledged record was never promised to anyone.
//!
//! A sync says that a descriptor's file is on the disk, not that a restart will find it. So before each acknowledgement the
//! log also makes sure that its name still leads to that segment, and the names of folder and store to those in use
//! ([`Footing`]). When they do not, batches are refused until they do again; the log never begins anew in a folder or a
//! segment that took the place of the one in use.
//!
//! After a failed write or sync the kernel may hold pages that the disk does not have, and say nothing of it at the
//! next sync. The failed batch is refused and cut off, the segment is read back from the disk up to its last
//! acknowledged record, and the log goes on in a new file, whose pages are all new; until all of that works, every batch
//! is refused.
//!
//! # Opening
//! The last segment is synced, dropped from the page cache and read from the disk. A damaged end with no whole record
//! behind it is what a crash leaves (a torn tail): it is cut off. A damaged record with whole ones behind it was
//! acknowledged once: the log refuses to open. This relies on a file system that grows a file only after writing the
//! data (ext4, XFS, Btrfs, ZFS): on it a power cut leaves the beginning of a batch, never its end alone.

mod appender;
mod dead_letters;
mod fault;
mod identity;
mod reader;
pub mod record;
mod segment;

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use appender::EmbeddedAppender;
pub use dead_letters::{Replayed, list_dead_letters, remove_dead_letter, replay_dead_letters};
pub use reader::EmbeddedReader;

use super::{AcknowledgementSink, LogError, LogId, Offset, PartitionId};
use crate::data_dir::{DataDir, Footing};
use crate::limits::LOG_SEGMENT_BYTES;
use fault::fatal;
use segment::Segment;

/// The one partition of the embedded log.
pub const PARTITION: PartitionId = 0;

/// Opens both ends of the log in `data_dir`, repairing what a crash has left.
///
/// # Errors
/// [`LogError::Fatal`] when another process has the log open, when a record is damaged (with the file and the byte), or
/// when the system refuses access.
pub fn open(
    data_dir: &DataDir,
    sink: Arc<dyn AcknowledgementSink>,
) -> Result<(EmbeddedAppender, EmbeddedReader), LogError> {
    open_with_segment_bytes(data_dir, sink, LOG_SEGMENT_BYTES)
}

/// Has the log of `data_dir` begin at `first`, an offset behind its end, which the store has applied: the log was deleted, cut,
/// or is an older copy, or the store is another's. From its own end it would give new commands offsets that count as applied.
/// What it holds is put aside; the store has applied that many.
///
/// # Errors
/// [`LogError::Fatal`] when the log is open, or the system refuses access.
pub fn begin_at(data_dir: &DataDir, first: Offset) -> Result<(), LogError> {
    let folder = data_dir.log_path();
    let _lock = lock_folder(&folder)?;
    segment::begin_at(&folder, first)
}

/// The id of the log in `data_dir`, the first offset that it holds, and the one that its next record will get.
///
/// # Errors
/// As [`open`].
pub fn bounds(data_dir: &DataDir) -> Result<(LogId, Offset, Offset), LogError> {
    let folder = data_dir.log_path();
    let _lock = lock_folder(&folder)?;
    let id = identity::read_or_make(&folder)?;
    let (segments, next) = segment::recover(&folder)?;
    Ok((id, segments[0].first, next))
}

/// [`open`], with another size at which a new segment starts.
///
/// # Errors
/// As [`open`].
pub fn open_with_segment_bytes(
    data_dir: &DataDir,
    sink: Arc<dyn AcknowledgementSink>,
    segment_bytes: u64,
) -> Result<(EmbeddedAppender, EmbeddedReader), LogError> {
    let folder = data_dir.log_path();
    let lock = lock_folder(&folder)?;
    let id = identity::read_or_make(&folder)?;
    let (segments, next) = segment::recover(&folder)?;
    let log = Arc::new(Log {
        id,
        folder,
        footing: Arc::clone(data_dir.footing()),
        extent: Mutex::new(Extent { segments: segments.into(), next }),
        grown: Condvar::new(),
        _lock: lock,
    });
    let appender = EmbeddedAppender::new(Arc::clone(&log), sink, segment_bytes)
        .map_err(|error| fatal("open the last segment in", &log.folder, &error))?;
    Ok((appender, EmbeddedReader::new(log, data_dir.clone())))
}

/// What both ends share.
struct Log {
    id: LogId,
    folder: PathBuf,
    footing: Arc<Footing>,
    extent: Mutex<Extent>,
    /// Notified when records were added.
    grown: Condvar,
    /// Keeps a second process from the log.
    _lock: File,
}

/// What is durable in the log, and so can be read.
struct Extent {
    /// Oldest first; never empty.
    segments: VecDeque<Segment>,
    /// The offset that the next record will get.
    next: Offset,
}

impl Log {
    fn extent(&self) -> MutexGuard<'_, Extent> {
        // Every change to the extent is one assignment or one push: a panic elsewhere leaves it whole.
        self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock_folder(folder: &Path) -> Result<File, LogError> {
    let file = File::open(folder).map_err(|error| fatal("open", folder, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(LogError::Fatal(format!("the command log {} is in use by another process", folder.display())))
        }
        Err(TryLockError::Error(error)) => Err(fatal("lock", folder, &error)),
    }
}
