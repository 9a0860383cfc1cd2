//! Segment files: their names, and what is done with them when the log opens.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::fault::fatal;
use super::{identity, record};
use crate::command_log::{LogError, Offset};
use crate::counted::Counted;
use crate::data_dir::private;

/// A segment file, as far as it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Offset of its first record, and its name.
    pub(super) first: Offset,
    /// Its length, in bytes.
    pub(super) bytes: u64,
}

pub(super) fn path(folder: &Path, first: Offset) -> PathBuf {
    folder.join(format!("{first:020}.log"))
}

/// Makes an empty segment. A file of that name can only be one that failed before anything was acknowledged from it; it
/// is replaced, not reused, so that none of its pages are.
pub(super) fn create(folder: &Path, first: Offset) -> io::Result<File> {
    let path = path(folder, first);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = private::options().append(true).create_new(true).open(&path)?;
    file.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// Finds the segments, oldest first, repairs the last one, and tells the offset of the next record. An empty folder gets
/// its first segment.
pub(super) fn recover(folder: &Path) -> Result<(Vec<Segment>, Offset), LogError> {
    let mut segments = list(folder).map_err(|error| fatal("read", folder, &error))?;
    let Some(last) = segments.last_mut() else {
        create(folder, 0).map_err(|error| fatal("create a segment in", folder, &error))?;
        return Ok((vec![Segment { first: 0, bytes: 0 }], 0));
    };
    let next = repair(folder, last)?;
    Ok((segments, next))
}

/// Puts the segments aside, under names that are none of the log's, and begins at `first`. A crash in between leaves a log that
/// ends before `first`, as it was.
pub(super) fn begin_at(folder: &Path, first: Offset) -> Result<(), LogError> {
    for segment in list(folder).map_err(|error| fatal("read", folder, &error))? {
        let from = path(folder, segment.first);
        let to = from.with_extension(format!("log.before-{first}"));
        std::fs::rename(&from, &to).map_err(|error| fatal("rename", &from, &error))?;
    }
    create(folder, first).map_err(|error| fatal("create a segment in", folder, &error))?;
    Ok(())
}

fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str();
        if name.is_some_and(|name| identity::FILE_NAMES.contains(&name)) {
            continue;
        }
        let first = name
            .and_then(|name| name.strip_suffix(".log"))
            .filter(|digits| digits.len() == 20)
            .and_then(|digits| digits.parse::<Offset>().ok())
            .filter(|first| *first >= 0);
        let Some(first) = first else {
            tracing::warn!("{} is no segment of the command log and is left alone", entry.path().display());
            continue;
        };
        segments.push(Segment { first, bytes: entry.metadata()?.len() });
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// Cuts the torn tail off the last segment and returns the offset after its last record.
fn repair(folder: &Path, last: &mut Segment) -> Result<Offset, LogError> {
    let path = path(folder, last.first);
    let content = read_from_disk(&path).map_err(|error| fatal("read", &path, &error))?;
    let Whole { bytes: at, next, end } = Whole::of(&content, last.first);
    if let Err(reason) = end {
        if record::holds_record_after(&content[at..], next) {
            return Err(damaged(&path, at as u64, &reason));
        }
        let torn_bytes = content.len() - at;
        tracing::warn!(
            "{}: cut {} off at byte {at} that a crash left unfinished ({reason}); none of them was \
             acknowledged",
            path.display(),
            Counted(torn_bytes, "bytes")
        );
        cut(&path, at as u64).map_err(|error| fatal("cut", &path, &error))?;
    }
    last.bytes = at as u64;
    Ok(next)
}

/// The whole records at the beginning of a segment.
struct Whole {
    /// Bytes that they take.
    bytes: usize,
    /// Offset after the last one.
    next: Offset,
    /// Why there is no record behind them; `Ok` when there is nothing.
    end: Result<(), String>,
}

impl Whole {
    fn of(content: &[u8], first: Offset) -> Whole {
        let (mut bytes, mut next) = (0, first);
        while bytes < content.len() {
            let reason = match record::decode(&content[bytes..]) {
                Ok(record) if record.offset == next => {
                    bytes += record.size;
                    next += 1;
                    continue;
                }
                Ok(record) => format!("it holds offset {} where {next} is due", record.offset),
                Err(error) => error.to_string(),
            };
            return Whole { bytes, next, end: Err(reason) };
        }
        Whole { bytes, next, end: Ok(()) }
    }
}

/// Cuts whatever stands behind the last acknowledged record off a segment, and makes sure that the disk has all records
/// before: after a failed sync, what the page cache shows is no evidence.
///
/// # Errors
/// The system's, or `InvalidData` when a record before `next` is not there.
pub(super) fn seal(folder: &Path, segment: Segment, next: Offset) -> io::Result<()> {
    let path = path(folder, segment.first);
    if std::fs::metadata(&path)?.len() > segment.bytes {
        cut(&path, segment.bytes)?;
    }
    let content = read_from_disk(&path)?;
    let whole = Whole::of(&content, segment.first);
    if whole.bytes as u64 == segment.bytes && whole.next == next {
        return Ok(());
    }
    let reason = whole.end.err().unwrap_or_else(|| format!("it ends before offset {next}"));
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{}, byte {}: {reason}; restore the data folder from a backup", path.display(), whole.bytes),
    ))
}

/// The first of these segments that is not there as long as it is, as text. One look at each.
pub(super) fn find_missing(folder: &Path, segments: impl IntoIterator<Item = Segment>) -> Option<String> {
    // An empty one may just be replaced.
    segments.into_iter().filter(|segment| segment.bytes > 0).find_map(|segment| {
        let path = path(folder, segment.first);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.len() >= segment.bytes => None,
            Ok(_) => Some(missing_text(&path, "is shorter than what was written to it")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(missing_text(&path, "is gone")),
            Err(error) => Some(missing_text(&path, &format!("cannot be looked at ({error})"))),
        }
    })
}

fn missing_text(path: &Path, what: &str) -> String {
    format!(
        "{} {what}, and holds acknowledged commands: writes are refused. Put it back, and writes go on; or stop the server \
         and restore the data folder from a backup",
        path.display()
    )
}

/// Reads a file as the disk has it: what a killed process has written is synced first, and then the pages are dropped,
/// because a page whose writing failed earlier still shows its content while the disk does not have it.
fn read_from_disk(path: &Path) -> io::Result<Vec<u8>> {
    let file = private::open(path)?;
    file.sync_all()?;
    // SAFETY: posix_fadvise takes numbers only and the descriptor is open. Its result does not matter: it is advice.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    private::read(path)
}

/// Shortens a segment to its first `bytes`, durably.
fn cut(path: &Path, bytes: u64) -> io::Result<()> {
    let file = private::options().write(true).open(path)?;
    file.set_len(bytes)?;
    file.sync_all()
}

/// A record that was acknowledged cannot be read.
pub(super) fn damaged(path: &Path, at: u64, reason: &str) -> LogError {
    let path = path.display();
    LogError::Fatal(format!(
        "the command log is damaged: {path}, byte {at}: {reason}. Acknowledged commands from there on cannot be read. \
         Restore the data folder from a backup; or give up the unapplied commands: stop the server, move the log's \
         folder away, and delete the row of partition 0 from the table applied_offsets"
    ))
}
