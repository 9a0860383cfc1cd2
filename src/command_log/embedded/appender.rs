//! The writing end: group commit.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use super::segment::{self, Segment};
use super::{Log, PARTITION, record};
use crate::command_log::{
    Acknowledgement, AcknowledgementSink, CommandAppender, LogPosition, Offset, Refusal, Submission,
};
use crate::limits::LOG_WRITE_BUFFER_BYTES;
use crate::todo::{TODO_ID_TEXT_BYTES, Timestamp};

/// The writing end of the embedded log: one write and one fdatasync for each batch.
pub struct EmbeddedAppender {
    log: Arc<Log>,
    sink: Arc<dyn AcknowledgementSink>,
    segment_bytes: u64,
    /// The last segment; `None` after a failure, until the log could go on in a new one.
    file: Option<File>,
    /// Whether the last batch failed, so that a full disk is logged once and not for every batch.
    failing: bool,
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
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(EmbeddedAppender {
            log,
            sink,
            segment_bytes,
            file: Some(file),
            failing: false,
            buffer: Vec::new(),
            acknowledgements: Vec::new(),
        })
    }

    /// Writes the batch into the buffer; a record that is too large is refused here. Returns the offset after it.
    fn encode(&mut self, batch: &mut Vec<Submission>) -> Offset {
        let logged_at = Timestamp::now();
        let mut next = self.log.extent().next;
        for Submission { ticket, id, payload } in batch.drain(..) {
            let mut text = [0; TODO_ID_TEXT_BYTES];
            let key = id.write_text(&mut text).as_bytes();
            self.acknowledgements.push(match record::encode(&mut self.buffer, next, logged_at, key, &payload) {
                Ok(()) => {
                    let position = LogPosition { partition: PARTITION, offset: next };
                    next += 1;
                    Acknowledgement::durable(ticket, Some(position))
                }
                Err(_size) => Acknowledgement::refused(ticket, Refusal::TooLarge),
            });
        }
        next
    }

    /// Makes the buffer durable at the end of the log.
    fn commit(&mut self, next: Offset) -> io::Result<()> {
        let last = self.log.extent().last();
        if self.file.is_none() || last.bytes >= self.segment_bytes {
            self.file = None;
            self.file = Some(self.start_segment()?);
        }
        let file = self.file.as_mut().expect("was just opened");
        file.write_all(&self.buffer)?;
        file.sync_data()?;
        self.log.extent().grow(self.buffer.len() as u64, next);
        self.log.grown.notify_all();
        if std::mem::take(&mut self.failing) {
            tracing::info!("the command log in {} can be written again", self.log.folder.display());
        }
        Ok(())
    }

    /// Goes on in a new segment file, after cutting off whatever a failed batch has left in the last one.
    fn start_segment(&self) -> io::Result<File> {
        let (last, next) = {
            let extent = self.log.extent();
            (extent.last(), extent.next)
        };
        if last.bytes > 0 {
            segment::cut(&segment::path(&self.log.folder, last.first), last.bytes)?;
        }
        let file = segment::create(&self.log.folder, next)?;
        if last.bytes > 0 {
            self.log.extent().segments.push_back(Segment { first: next, bytes: 0 });
        }
        Ok(file)
    }

    /// Refuses the batch and tries to leave the failed file behind at once, so that a crash finds nothing of it.
    fn fail(&mut self, error: &io::Error) {
        self.file = None;
        for acknowledgement in &mut self.acknowledgements {
            if acknowledgement.result.is_ok() {
                *acknowledgement = Acknowledgement::refused(acknowledgement.ticket, Refusal::Unavailable);
            }
        }
        let started = self.start_segment();
        if !std::mem::replace(&mut self.failing, true) {
            let folder = self.log.folder.display();
            match &started {
                Ok(_) => tracing::error!(
                    "cannot write the command log in {folder}: {error}; commands are refused until it works"
                ),
                Err(again) => tracing::error!(
                    "cannot write the command log in {folder}: {error}; cannot start a new segment: {again}; commands are \
                     refused until that works"
                ),
            }
        }
        self.file = started.ok();
    }
}

impl CommandAppender for EmbeddedAppender {
    fn append(&mut self, batch: &mut Vec<Submission>) {
        let next = self.encode(batch);
        if !self.buffer.is_empty()
            && let Err(error) = self.commit(next)
        {
            self.fail(&error);
        }
        self.buffer.clear();
        self.buffer.shrink_to(LOG_WRITE_BUFFER_BYTES);
        self.sink.acknowledge(&mut self.acknowledgements);
        self.acknowledgements.clear();
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
    use std::path::Path;
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
        assert_eq!(append(&mut appender, &kept, &["lost"]), [Err(Refusal::Unavailable)]);
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
        for _ in 0..3 {
            assert_eq!(append(&mut appender, &kept, &["lost"]), [Err(Refusal::Unavailable)]);
        }
        std::fs::rename(&away, dir.log_path()).expect("moved back");
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
