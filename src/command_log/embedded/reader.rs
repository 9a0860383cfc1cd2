//! The reading end: woken by the appender, reads what is durable, deletes what is applied.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::segment::{self, Segment};
use super::{Extent, Log, PARTITION, dead_letters, identity, record};
use crate::command_log::{CommandReader, LogError, LogEvent, LogId, Offset, PartitionId, Record, RecordBatch};
use crate::data_dir::{DataDir, Fault, private};
use crate::limits::LOG_READ_BYTES;

/// How often the reading end looks whether folder and segments are still there, also while nobody writes.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The reading end of the embedded log.
pub struct EmbeddedReader {
    log: Arc<Log>,
    data_dir: DataDir,
    assigned: bool,
    /// Where reading goes on; `None` until started.
    cursor: Option<Cursor>,
    looked_at: Instant,
    /// What the last look found wrong.
    displaced: Option<String>,
}

struct Cursor {
    /// Offset of the next record to return.
    wanted: Offset,
    segment_first: Offset,
    /// Opened when there is something to read: an empty segment may still be replaced.
    file: Option<File>,
    /// The place of the next record in the file, and the offset that it has to have. It is below `wanted` at first,
    /// because a segment can only be read from its beginning.
    byte: u64,
    offset: Offset,
    buffer: Vec<u8>,
}

/// The part of a segment that can be read now.
struct Readable {
    bytes: u64,
    /// Offset after its last record.
    next: Offset,
}

impl EmbeddedReader {
    pub(super) fn new(log: Arc<Log>, data_dir: DataDir) -> EmbeddedReader {
        EmbeddedReader { log, data_dir, assigned: false, cursor: None, looked_at: Instant::now(), displaced: None }
    }

    /// Whether commands that the store had applied before are no longer in the log: the store cannot be made from it.
    pub fn begins_late(&self) -> bool {
        self.log.extent().segments[0].first > 0
    }

    /// The log's id.
    pub fn id(&self) -> LogId {
        self.log.id
    }

    /// The first offset that it holds, and the one that the next record will get.
    pub fn bounds(&self) -> (Offset, Offset) {
        let extent = self.log.extent();
        (extent.segments[0].first, extent.next)
    }

    /// Looks after folder and segments when it is time. While something is not at its place nothing is read: what has its
    /// name now may be another log's.
    fn look(&mut self) -> Result<(), LogError> {
        if self.looked_at.elapsed() >= LOOK_INTERVAL {
            self.looked_at = Instant::now();
            let segments = self.log.extent().segments.clone();
            let missing = segment::find_missing(&self.log.folder, segments);
            self.log.footing.set(Fault::Segment, missing.as_deref());
            self.displaced = self.log.footing.check().err();
            let unnamed = identity::find_missing(&self.log.folder, self.log.id);
            self.log.footing.set(Fault::LogId, unnamed.as_deref());
        }
        self.displaced.clone().map_or(Ok(()), |reason| Err(LogError::Unavailable(reason)))
    }

    /// Waits until there is a record for the cursor, `max_wait` at most.
    fn wait(&self, max_wait: Duration, wanted: Option<Offset>) -> bool {
        let nothing_new = |extent: &mut Extent| wanted.is_none_or(|wanted| extent.next <= wanted);
        let (mut extent, _) = self
            .log
            .grown
            .wait_timeout_while(self.log.extent(), max_wait, nothing_new)
            .unwrap_or_else(PoisonError::into_inner);
        !nothing_new(&mut extent)
    }
}

impl Cursor {
    fn new(segment: Segment, wanted: Offset) -> Cursor {
        let first = segment.first;
        Cursor { wanted, segment_first: first, file: None, byte: 0, offset: first, buffer: Vec::new() }
    }

    /// Reads records from `wanted` on into `records`, within the limits but at least one.
    fn read(
        &mut self,
        log: &Log,
        max_records: usize,
        max_bytes: usize,
        records: &mut Vec<Record>,
    ) -> Result<(), LogError> {
        let mut bytes_left = max_bytes;
        while records.len() < max_records {
            let Some(readable) = self.readable(log)? else { break };
            let length = readable.bytes.min(LOG_READ_BYTES as u64) as usize;
            let path = segment::path(&log.folder, self.segment_first);
            self.fill_buffer(&path, length).map_err(|error| unavailable(&path, &error))?;
            let mut at = 0;
            while records.len() < max_records && self.offset < readable.next {
                let record = match record::decode(&self.buffer[at..]) {
                    Ok(record) if record.offset == self.offset => record,
                    Ok(record) => {
                        let reason = format!("it holds offset {} where {} is due", record.offset, self.offset);
                        return Err(segment::damaged(&path, self.byte, &reason));
                    }
                    Err(record::DecodeError::Incomplete { .. }) if at > 0 && (length as u64) < readable.bytes => break,
                    Err(error) => return Err(segment::damaged(&path, self.byte, &error.to_string())),
                };
                if record.offset >= self.wanted {
                    if record.size > bytes_left && !records.is_empty() {
                        return Ok(());
                    }
                    bytes_left = bytes_left.saturating_sub(record.size);
                    records.push(record.to_record());
                    self.wanted = record.offset + 1;
                }
                at += record.size;
                self.byte += record.size as u64;
                self.offset += 1;
            }
        }
        Ok(())
    }

    fn fill_buffer(&mut self, path: &Path, length: usize) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(private::open(path)?),
        };
        self.buffer.resize(length, 0);
        file.read_exact_at(&mut self.buffer, self.byte)
    }

    /// What can be read at the cursor, which goes on to the next segment where one ends; `None` at the log's end.
    fn readable(&mut self, log: &Log) -> Result<Option<Readable>, LogError> {
        let (here, following, log_next) = {
            let extent = log.extent();
            let at = extent.segments.partition_point(|segment| segment.first <= self.offset).saturating_sub(1);
            (extent.segments[at], extent.segments.get(at + 1).copied(), extent.next)
        };
        if self.offset >= log_next {
            return Ok(None);
        }
        let next = following.map_or(log_next, |following| following.first);
        if here.first != self.segment_first {
            let path = segment::path(&log.folder, self.segment_first);
            if here.first != self.offset {
                return Err(segment::damaged(&path, self.byte, &format!("offset {} is missing", self.offset)));
            }
            *self = Cursor { buffer: std::mem::take(&mut self.buffer), ..Cursor::new(here, self.wanted) };
        }
        if self.byte >= here.bytes {
            let path = segment::path(&log.folder, self.segment_first);
            return Err(segment::damaged(&path, self.byte, &format!("it ends before offset {}", self.offset)));
        }
        Ok(Some(Readable { bytes: here.bytes - self.byte, next }))
    }
}

fn unavailable(path: &Path, error: &io::Error) -> LogError {
    LogError::Unavailable(format!("cannot read {}: {error}", path.display()))
}

impl CommandReader for EmbeddedReader {
    fn poll(&mut self, max_records: usize, max_bytes: usize, max_wait: Duration) -> Result<LogEvent, LogError> {
        if !self.assigned {
            self.assigned = true;
            return Ok(LogEvent::Assigned(vec![PARTITION]));
        }
        self.look()?;
        let wanted = self.cursor.as_ref().filter(|_| max_records > 0).map(|cursor| cursor.wanted);
        if !self.wait(max_wait, wanted) {
            return Ok(LogEvent::Idle);
        }
        let Some(cursor) = &mut self.cursor else { return Ok(LogEvent::Idle) };
        let mut records = Vec::new();
        match cursor.read(&self.log, max_records, max_bytes, &mut records) {
            // What was read before the error is good; the next call meets the error again.
            Err(_) if !records.is_empty() => {}
            other => other?,
        }
        let next = cursor.wanted;
        Ok(LogEvent::Records(vec![RecordBatch { partition: PARTITION, records, next, leader_epoch: None }]))
    }

    fn log_id(&mut self) -> Result<Option<LogId>, LogError> {
        Ok(Some(self.log.id))
    }

    fn reaches(&mut self, offsets: &BTreeMap<PartitionId, Offset>) -> Result<bool, LogError> {
        let (_, end) = self.bounds();
        Ok(offsets.iter().all(|(partition, next)| *partition == PARTITION && *next <= end))
    }

    fn start(&mut self, partition: PartitionId, next: Option<Offset>) -> Result<(), LogError> {
        if partition != PARTITION {
            return Err(LogError::Fatal(format!("the embedded log has no partition {partition}, only {PARTITION}")));
        }
        self.cursor = None;
        let (segment, wanted) = {
            let extent = self.log.extent();
            let earliest = extent.segments[0].first;
            let wanted = next.unwrap_or(earliest);
            if !(earliest..=extent.next).contains(&wanted) {
                let latest = extent.next;
                return Err(LogError::OffsetOutOfRange { partition, requested: wanted, earliest, latest });
            }
            let at = extent.segments.partition_point(|segment| segment.first <= wanted) - 1;
            (extent.segments[at], wanted)
        };
        self.cursor = Some(Cursor::new(segment, wanted));
        Ok(())
    }

    /// Deletes the segments that end at or before `next`, oldest first; the last segment stays.
    fn applied(&mut self, partition: PartitionId, next: Offset) {
        debug_assert_eq!(partition, PARTITION);
        if self.log.footing.check().is_err() {
            return;
        }
        loop {
            let path = {
                let mut extent = self.log.extent();
                if extent.segments.get(1).is_none_or(|following| following.first > next) {
                    return;
                }
                let segment = extent.segments.pop_front().expect("there are two");
                segment::path(&self.log.folder, segment.first)
            };
            self.log.footing.set(Fault::Full, None);
            // Each deletion is durable before the next, so that no crash leaves a gap between segments.
            let deleted = std::fs::remove_file(&path).and_then(|()| File::open(&self.log.folder)?.sync_all());
            if let Err(error) = deleted {
                tracing::warn!("cannot delete {}, which is applied and no longer needed: {error}", path.display());
            }
        }
    }

    fn would_delete(&self, partition: PartitionId, next: Offset) -> bool {
        debug_assert_eq!(partition, PARTITION);
        self.log.extent().segments.get(1).is_some_and(|following| following.first <= next)
    }

    fn lag(&mut self) -> Option<u64> {
        let next = self.log.extent().next;
        self.cursor.as_ref().map(|cursor| (next - cursor.wanted).unsigned_abs())
    }

    fn dead_letter(&mut self, partition: PartitionId, record: &Record, reason: &str) -> Result<(), LogError> {
        debug_assert_eq!(partition, PARTITION);
        self.log.footing.check().map_err(LogError::Unavailable)?;
        dead_letters::keep(&self.data_dir, record, reason)
    }
}
