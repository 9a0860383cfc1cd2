//! The writing end: group commit.

use std::fs::File;
use std::io::{self, Write};
use std::iter::Peekable;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::vec::Drain;

use super::segment::{self, Segment};
use super::{Log, PARTITION, record};
use crate::command_log::{
    Acknowledgement, AcknowledgementSink, CommandAppender, LogPosition, Offset, Refusal, Submission,
};
use crate::data_dir::{Anchor, Fault, displaced_text, private};
use crate::limits::{LOG_SEGMENTS_AT_LIMIT, LOG_WRITE_BUFFER_BYTES};
use crate::todo::{TODO_ID_TEXT_BYTES, Timestamp};

/// The writing end of the embedded log: one write and one fdatasync for each batch.
pub struct EmbeddedAppender {
    log: Arc<Log>,
    sink: Arc<dyn AcknowledgementSink>,
    segment_bytes: u64,
    /// Most bytes of all segments.
    max_bytes: u64,
    /// The last segment; `None` after a failure, until the log could go on in a new one.
    file: Option<File>,
    /// Where the last segment has to stand; kept after a failure, so that it is known again.
    anchor: Anchor,
    /// Whether the last segment is known to end with its last acknowledged record, and the disk to have it all.
    sealed: bool,
    buffer: Vec<u8>,
    acknowledgements: Vec<Acknowledgement>,
}

impl EmbeddedAppender {
    pub(super) fn new(
        log: Arc<Log>,
        sink: Arc<dyn AcknowledgementSink>,
        segment_bytes: u64,
    ) -> io::Result<EmbeddedAppender> {
        let path = segment::path(&log.folder, log.extent().last().first);
        let file = private::options().append(true).open(&path)?;
        let anchor = Anchor::at(&path)?;
        Ok(EmbeddedAppender {
            log,
            sink,
            segment_bytes,
            max_bytes: u64::MAX,
            file: Some(file),
            anchor,
            sealed: false,
            buffer: Vec::new(),
            acknowledgements: Vec::new(),
        })
    }

    /// Lets the log grow up to so many bytes. Segments are short enough that most of them can be deleted once they are applied.
    pub fn with_max_bytes(self, max_bytes: u64) -> EmbeddedAppender {
        let segment_bytes = self.segment_bytes.min(max_bytes / LOG_SEGMENTS_AT_LIMIT);
        EmbeddedAppender { segment_bytes, max_bytes, ..self }
    }

    /// Writes commands into the buffer, a segment of them at most; a record that is too large, or for which the log has no
    /// room, is refused here. Returns the offset after them.
    fn encode(&mut self, commands: &mut Peekable<Drain<'_, Submission>>) -> Offset {
        let logged_at = Timestamp::now();
        let (mut next, bytes_before) = {
            let extent = self.log.extent();
            let bytes = extent.segments.iter().map(|segment| segment.bytes).sum::<u64>();
            // The only segment may be longer than segments are now. It can be deleted once another one follows it.
            let is_only_one = extent.segments.len() == 1;
            (extent.next, if is_only_one { bytes.min(self.segment_bytes) } else { bytes })
        };
        let (segment_bytes, max_bytes) = (self.segment_bytes, self.max_bytes);
        let mut is_over_limit = false;
        while (self.buffer.len() as u64) < segment_bytes
            && let Some(Submission { ticket, id, payload }) = commands.next()
        {
            let length_before = self.buffer.len();
            let mut text = [0; TODO_ID_TEXT_BYTES];
            let key = id.write_text(&mut text).as_bytes();
            self.acknowledgements.push(match record::encode(&mut self.buffer, next, logged_at, key, &payload) {
                Ok(()) if bytes_before + self.buffer.len() as u64 > max_bytes => {
                    self.buffer.truncate(length_before);
                    is_over_limit = true;
                    Acknowledgement::refused(ticket, Refusal::OverLimit)
                }
                Ok(()) => {
                    let position = LogPosition { partition: PARTITION, offset: next };
                    next += 1;
                    Acknowledgement::durable(ticket, Some(position))
                }
                Err(_size) => Acknowledgement::refused(ticket, Refusal::TooLarge),
            });
        }
        if is_over_limit {
            self.log.footing.set(Fault::Full, Some(&full_text(&self.log.folder, max_bytes)));
        }
        next
    }

    /// Appends commands up to the end of a segment, and acknowledges them.
    fn append_some(&mut self, commands: &mut Peekable<Drain<'_, Submission>>) {
        let next = self.encode(commands);
        if !self.buffer.is_empty()
            && let Err(failure) = self.commit(next)
        {
            self.fail(&failure);
        }
        self.buffer.clear();
        self.buffer.shrink_to(LOG_WRITE_BUFFER_BYTES);
        self.sink.acknowledge(&mut self.acknowledgements);
        self.acknowledgements.clear();
    }

    /// Makes the buffer durable at the end of the log.
    fn commit(&mut self, next: Offset) -> Result<(), Failure> {
        let last = self.log.extent().last();
        if self.file.is_none() || last.bytes >= self.segment_bytes {
            // A segment that is merely full ends with its last acknowledged record, and every sync of it succeeded.
            self.sealed |= self.file.take().is_some();
            self.file = Some(self.start_segment()?);
        }
        let file = self.file.as_mut().expect("was just opened");
        file.write_all(&self.buffer).map_err(Failure::system("cannot be written"))?;
        file.sync_data().map_err(Failure::system("cannot be made durable"))?;
        let written = self.log.extent().last().bytes + self.buffer.len() as u64;
        self.stand(|bytes| bytes == written)?;
        self.log.extent().grow(self.buffer.len() as u64, next);
        self.log.grown.notify_all();
        self.log.footing.set(Fault::Log, None);
        Ok(())
    }

    /// Makes sure that a restart will find the last segment, with a length that is as it should be, and everything else
    /// that it needs.
    fn stand(&self, has_length: impl FnOnce(u64) -> bool) -> Result<(), Failure> {
        self.log.footing.check().map_err(|_told| Failure::Footing)?;
        match self.anchor.check() {
            Ok(found) if has_length(found.len()) => Ok(()),
            Ok(_) => Err(Failure::Segment(changed_text(self.anchor.path()))),
            Err(displaced) => Err(Failure::Segment(displaced_text(self.anchor.path(), &displaced))),
        }
    }

    /// Goes on in a new segment file, after cutting off whatever a failed batch has left in the last one.
    fn start_segment(&mut self) -> Result<File, Failure> {
        let (last, next) = {
            let extent = self.log.extent();
            (extent.last(), extent.next)
        };
        self.stand(|bytes| bytes >= last.bytes)?;
        if last.bytes > 0 && !self.sealed {
            segment::seal(&self.log.folder, last, next)
                .map_err(Failure::system("cannot be read back after a failure"))?;
            self.sealed = true;
        }
        let file = segment::create(&self.log.folder, next).map_err(Failure::system("cannot get a new segment"))?;
        self.anchor =
            Anchor::at(&segment::path(&self.log.folder, next)).map_err(Failure::system("cannot get a new segment"))?;
        self.sealed = false;
        if last.bytes > 0 {
            self.log.extent().segments.push_back(Segment { first: next, bytes: 0 });
        }
        Ok(file)
    }

    /// Refuses the batch and tries to leave the failed file behind at once, so that a crash finds nothing of it.
    fn fail(&mut self, failure: &Failure) {
        // Without a file, the batch did not come so far as to be written.
        let was_written = self.file.take().is_some();
        match failure {
            Failure::Footing => {}
            // Whoever reads the log looks at its segments from time to time, and takes this back.
            Failure::Segment(reason) => self.log.footing.set(Fault::Segment, Some(reason)),
            Failure::System(action, error) => {
                self.log.footing.set(Fault::Log, Some(&system_text(&self.log.folder, action, error)));
            }
        }
        self.file = self.start_segment().ok();
        // What the failed file has of the batch is cut off once there is another.
        let refusal = if was_written && self.file.is_none() { Refusal::Unconfirmed } else { Refusal::Unavailable };
        for acknowledgement in &mut self.acknowledgements {
            if acknowledgement.result.is_ok() {
                *acknowledgement = Acknowledgement::refused(acknowledgement.ticket, refusal);
            }
        }
    }
}

/// Why a batch was not made durable.
#[derive(Debug)]
enum Failure {
    /// The footing has told what: no restart would find the batch.
    Footing,
    /// No restart would find the segment as it has to be; the text says all.
    Segment(String),
    /// The system refused; the text says what the log cannot do.
    System(&'static str, io::Error),
}

impl Failure {
    fn system(action: &'static str) -> impl FnOnce(io::Error) -> Failure {
        move |error| Failure::System(action, error)
    }
}

fn system_text(folder: &Path, action: &str, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "make room on its file system, and writes go on"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "mount its file system for writing again (the kernel's log says why it is not), and writes go on"
        }
        io::ErrorKind::PermissionDenied => "give this process's user the folder back, and writes go on",
        _ => "look into the kernel's log for a failing disk; writes go on when a new segment can be written",
    };
    format!("the command log in {} {action}: {error}. Writes are refused; {remedy}", folder.display())
}

fn full_text(folder: &Path, max_bytes: u64) -> String {
    format!(
        "the command log in {} has reached LOG_MAX_BYTES ({max_bytes}), because the store does not keep up: writes are refused. \
         See to the store, or raise LOG_MAX_BYTES",
        folder.display()
    )
}

fn changed_text(path: &Path) -> String {
    format!(
        "another program has changed {}: it has not the length that was written. Writes are refused; restart the server, \
         which reads what is left",
        path.display()
    )
}

impl CommandAppender for EmbeddedAppender {
    fn append(&mut self, batch: &mut Vec<Submission>) {
        let mut commands = batch.drain(..).peekable();
        while commands.peek().is_some() {
            self.append_some(&mut commands);
        }
    }

    /// Nothing to wait for: `append` acknowledges before it returns.
    fn close(&mut self, _deadline: Duration) {}
}

impl super::Extent {
    /// The segment that is written.
    pub(super) fn last(&self) -> Segment {
        *self.segments.back().expect("a log has a segment")
    }

    fn grow(&mut self, bytes: u64, next: Offset) {
        self.segments.back_mut().expect("a log has a segment").bytes += bytes;
        self.next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EmbeddedReader, open};
    use super::*;
    use crate::command_log::{CommandReader, LogEvent, Ticket};
    use crate::data_dir::DataDir;
    use crate::todo::TodoId;
    use std::fs::OpenOptions;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Kept(Mutex<Vec<Acknowledgement>>);

    impl AcknowledgementSink for Kept {
        fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>) {
            self.0.lock().expect("not poisoned").append(acknowledgements);
        }
    }

    fn append(appender: &mut EmbeddedAppender, kept: &Kept, payloads: &[&str]) -> Vec<Result<(), Refusal>> {
        let mut batch = payloads
            .iter()
            .map(|payload| Submission {
                ticket: Ticket(1),
                id: TodoId::from_u128(1),
                payload: payload.as_bytes().to_vec(),
            })
            .collect();
        appender.append(&mut batch);
        std::mem::take(&mut *kept.0.lock().expect("not poisoned")).into_iter().map(|given| given.result).collect()
    }

    fn read_all(reader: &mut EmbeddedReader) -> Vec<String> {
        let mut payloads = Vec::new();
        reader.start(PARTITION, Some(0)).expect("the beginning is there");
        loop {
            match reader.poll(100, 1 << 20, Duration::ZERO).expect("readable") {
                LogEvent::Records(batches) => payloads.extend(
                    batches
                        .into_iter()
                        .flat_map(|batch| batch.records)
                        .map(|record| String::from_utf8(record.payload).expect("text")),
                ),
                LogEvent::Assigned(_) => {}
                LogEvent::Idle => return payloads,
                other => panic!("{other:?}"),
            }
        }
    }

    /// `/dev/full` fails every write; `/dev/null` takes every write and fails every sync.
    fn failing(device: &str) -> Option<File> {
        Some(OpenOptions::new().append(true).open(Path::new("/dev").join(device)).expect("a device of Linux"))
    }

    #[test]
    fn a_failed_batch_is_refused_and_the_next_goes_on_behind_what_was_durable() {
        for device in ["full", "null"] {
            let folder = tempfile::tempdir().expect("temporary folder");
            let dir = DataDir::open(folder.path()).expect("opened");
            let kept = Arc::new(Kept::default());
            let (mut appender, mut reader) = open(&dir, Arc::clone(&kept) as _).expect("opened");
            // Started now, so that it waits in the segment that the first failure replaces.
            assert_eq!(read_all(&mut reader), Vec::<String>::new());
            // A failure in an empty segment, then one behind a record.
            for payloads in [["lost", "1"], ["lost", "2"], ["lost", "3"]] {
                appender.file = failing(device);
                assert_eq!(append(&mut appender, &kept, &payloads[..1]), [Err(Refusal::Unavailable)]);
                assert_eq!(append(&mut appender, &kept, &payloads[1..]), [Ok(())]);
                match reader.poll(100, 1 << 20, Duration::ZERO).expect("readable") {
                    LogEvent::Records(batches) => assert_eq!(batches[0].records[0].payload, payloads[1].as_bytes()),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(read_all(&mut reader), ["1", "2", "3"]);
            assert_eq!(reader.lag(), Some(0));
            drop((appender, reader));
            let (_appender, mut reader) = open(&dir, kept).expect("opened again");
            assert_eq!(read_all(&mut reader), ["1", "2", "3"]);
        }
    }

    #[test]
    fn what_a_failed_batch_has_written_is_cut_off() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let dir = DataDir::open(folder.path()).expect("opened");
        let kept = Arc::new(Kept::default());
        let (mut appender, reader) = open(&dir, Arc::clone(&kept) as _).expect("opened");
        assert_eq!(append(&mut appender, &kept, &["1"]), [Ok(())]);
        // As if the write had reached the file and the sync had failed.
        let path = segment::path(&dir.log_path(), 0);
        let mut lost = Vec::new();
        record::encode(&mut lost, 1, Timestamp::now(), b"key", b"lost").expect("small");
        OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(&lost)).expect("written");
        // And as if the process then died before it could go on: no new segment can be made here.
        let in_the_way = segment::path(&dir.log_path(), 1);
        std::fs::create_dir(&in_the_way).expect("made");
        appender.file = failing("null");
        // It is still there, and no file has taken its place.
        assert_eq!(append(&mut appender, &kept, &["lost"]), [Err(Refusal::Unconfirmed)]);
        drop((appender, reader));
        std::fs::remove_dir(&in_the_way).expect("removed");
        let (mut appender, mut reader) = open(&dir, Arc::clone(&kept) as _).expect("opened again");
        assert_eq!(append(&mut appender, &kept, &["2"]), [Ok(())]);
        assert_eq!(read_all(&mut reader), ["1", "2"]);
    }

    #[test]
    fn while_no_segment_can_be_made_everything_is_refused_and_then_it_heals() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let dir = DataDir::open(folder.path()).expect("opened");
        let kept = Arc::new(Kept::default());
        let (mut appender, mut reader) = open(&dir, Arc::clone(&kept) as _).expect("opened");
        assert_eq!(append(&mut appender, &kept, &["1"]), [Ok(())]);
        let away = folder.path().join("away");
        std::fs::rename(dir.log_path(), &away).expect("moved");
        appender.file = failing("full");
        assert_eq!(append(&mut appender, &kept, &["lost"]), [Err(Refusal::Unconfirmed)]);
        for _ in 0..3 {
            assert_eq!(append(&mut appender, &kept, &["lost"]), [Err(Refusal::Unavailable)], "it was not even tried");
        }
        std::fs::rename(&away, dir.log_path()).expect("moved back");
        assert_eq!(append(&mut appender, &kept, &["2"]), [Ok(())]);
        assert_eq!(read_all(&mut reader), ["1", "2"]);
    }

    #[test]
    fn after_a_failure_the_segment_is_read_back_before_the_log_goes_on() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let dir = DataDir::open(folder.path()).expect("opened");
        let kept = Arc::new(Kept::default());
        let (mut appender, mut reader) = open(&dir, Arc::clone(&kept) as _).expect("opened");
        assert_eq!(append(&mut appender, &kept, &["1"]), [Ok(())]);
        // As if the disk had not kept what an earlier sync had promised.
        let path = segment::path(&dir.log_path(), 0);
        let whole = std::fs::read(&path).expect("readable");
        let mut damaged = whole.clone();
        *damaged.last_mut().expect("a record") ^= 1;
        std::fs::write(&path, damaged).expect("written");
        appender.file = failing("null");
        assert_eq!(append(&mut appender, &kept, &["lost"]), [Err(Refusal::Unconfirmed)]);
        for _ in 0..3 {
            assert_eq!(append(&mut appender, &kept, &["lost"]), [Err(Refusal::Unavailable)], "it was not even tried");
        }
        std::fs::write(&path, whole).expect("written");
        assert_eq!(append(&mut appender, &kept, &["2"]), [Ok(())]);
        assert_eq!(read_all(&mut reader), ["1", "2"]);
    }

    #[test]
    fn a_record_that_is_too_large_harms_no_other() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let dir = DataDir::open(folder.path()).expect("opened");
        let kept = Arc::new(Kept::default());
        let (mut appender, mut reader) = open(&dir, Arc::clone(&kept) as _).expect("opened");
        let large = "x".repeat(crate::limits::LOG_RECORD_MAX_BYTES);
        assert_eq!(append(&mut appender, &kept, &["1", &large, "2"]), [Ok(()), Err(Refusal::TooLarge), Ok(())]);
        assert_eq!(append(&mut appender, &kept, &[&large]), [Err(Refusal::TooLarge)]);
        assert_eq!(read_all(&mut reader), ["1", "2"]);
    }
}
