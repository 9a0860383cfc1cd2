//! What every command log has to do. Nothing here knows how many partitions there are, or at which offset they begin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use million_rps::command_log::{
    AcknowledgementSink, CommandAppender, CommandReader, DeadLetter, LogError, LogEvent, LogPosition, Offset,
    PartitionId, Record, Refusal,
};

use crate::samples::{Acknowledged, id, submission};

/// A log of its own for one case.
pub trait LogFixture {
    /// Opens both ends. When it is called again, the ends of the first call have been dropped, as in a restart.
    fn open(&self, sink: Arc<dyn AcknowledgementSink>) -> (Box<dyn CommandAppender>, Box<dyn CommandReader>);

    /// The dead letters that the log holds.
    fn dead_letters(&self) -> Vec<DeadLetter>;
}

/// Runs the suite: `log_suite!(make)`, where `make()` is a new [`LogFixture`].
macro_rules! log_suite {
    ($make:expr) => {
        suite!(
            log_suite,
            $make,
            [
                every_submission_is_acknowledged_once_and_read_as_written,
                an_acknowledgement_says_where_the_command_stands,
                commands_of_one_todo_keep_their_order,
                nothing_is_read_before_the_start,
                reading_goes_on_where_it_is_told,
                reading_starts_again_when_told,
                records_outlive_a_restart,
                a_place_that_does_not_exist_is_named,
                too_large_a_record_harms_no_other,
                a_paused_reader_gets_no_records_and_skips_none,
                limits_of_a_poll_are_kept,
                lag_counts_what_is_not_read,
                dead_letters_are_kept_with_their_reason,
            ]
        );
    };
}

/// How long a case waits for what has to come, before it fails.
const PATIENCE: Duration = Duration::from_secs(60);
const MOST_BYTES: usize = 1 << 20;

type Records = BTreeMap<PartitionId, Vec<Record>>;
type Starts = BTreeMap<PartitionId, Offset>;

fn append(appender: &mut dyn CommandAppender, payloads: impl IntoIterator<Item = (u32, String)>) -> usize {
    let mut batch: Vec<_> =
        (0..).zip(payloads).map(|(ticket, (key, text))| submission(ticket, id(key), text)).collect();
    let count = batch.len();
    appender.append(&mut batch);
    assert!(batch.is_empty(), "append leaves the vector empty");
    count
}

/// Appends and waits until all of it is acknowledged.
fn append_durably(appender: &mut dyn CommandAppender, sink: &Acknowledged, payloads: &[(u32, &str)]) {
    let before = sink.all().len();
    let count = append(appender, payloads.iter().map(|(key, text)| (*key, (*text).to_owned())));
    wait_until(|| sink.all().len() >= before + count);
    assert!(sink.all().iter().all(|(_, result)| result.is_ok()), "{:?}", sink.all());
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let give_up_at = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < give_up_at, "it has not come within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads until `done`, starting each assigned partition where `starts` says, else at its beginning.
fn read_until(reader: &mut dyn CommandReader, starts: &Starts, mut done: impl FnMut(&Records) -> bool) -> Records {
    let mut read = Records::new();
    let give_up_at = Instant::now() + PATIENCE;
    while !done(&read) {
        assert!(Instant::now() < give_up_at, "only this was read within {PATIENCE:?}: {read:?}");
        match reader.poll(1000, MOST_BYTES, Duration::from_millis(20)).expect("readable") {
            LogEvent::Assigned(partitions) => {
                for partition in partitions {
                    reader.start(partition, starts.get(&partition).copied()).expect("a place that exists");
                }
            }
            LogEvent::Records(batches) => {
                for batch in batches {
                    let last = batch.records.last().expect("a batch has records");
                    assert!(batch.next > last.offset);
                    read.entry(batch.partition).or_default().extend(batch.records);
                }
            }
            LogEvent::Revoked(partitions) => panic!("{partitions:?} were revoked, but there is one reader"),
            LogEvent::Idle => {}
        }
    }
    for records in read.values() {
        assert!(records.is_sorted_by_key(|record| record.offset));
    }
    read
}

fn read_count(reader: &mut dyn CommandReader, count: usize) -> Records {
    read_until(reader, &Starts::new(), |read| read.values().map(Vec::len).sum::<usize>() >= count)
}

fn texts(records: &Records) -> Vec<String> {
    let mut texts: Vec<String> = records.values().flatten().map(|record| text(record).to_owned()).collect();
    texts.sort();
    texts
}

fn text(record: &Record) -> &str {
    std::str::from_utf8(&record.payload).expect("text")
}

pub fn every_submission_is_acknowledged_once_and_read_as_written(fixture: &impl LogFixture) {
    let sink = Acknowledged::new();
    let (mut appender, mut reader) = fixture.open(sink.clone());
    let payloads: Vec<(u32, String)> = (0..500).map(|n| (n % 50, format!("{{\"payload\":\"{n:05}é\"}}"))).collect();
    let count = append(appender.as_mut(), payloads.clone());
    wait_until(|| sink.all().len() >= count);
    assert_eq!(sink.all(), (0..500).map(|ticket| (ticket, Ok(()))).collect::<Vec<_>>());
    let records = read_count(reader.as_mut(), count);
    let mut expected: Vec<String> = payloads.iter().map(|(_, text)| text.clone()).collect();
    expected.sort();
    assert_eq!(texts(&records), expected);
    for record in records.values().flatten() {
        let (key, _) = payloads.iter().find(|(_, payload)| payload == text(record)).expect("was written");
        assert_eq!(record.key, id(*key).to_string().into_bytes());
        assert!(record.logged_at.as_micros() > 0);
    }
    append(appender.as_mut(), []);
    appender.close(PATIENCE);
    assert_eq!(sink.all().len(), count, "no ticket is acknowledged twice");
}

pub fn an_acknowledgement_says_where_the_command_stands(fixture: &impl LogFixture) {
    let sink = Acknowledged::new();
    let (mut appender, mut reader) = fixture.open(sink.clone());
    let payloads: Vec<(u32, String)> = (0..300).map(|n| (n, format!("{n}"))).collect();
    let count = append(appender.as_mut(), payloads);
    wait_until(|| sink.all().len() >= count);
    let records = read_count(reader.as_mut(), count);
    for (number, position) in sink.positions().into_iter().enumerate() {
        let LogPosition { partition, offset } = position.expect("the log says where it stands");
        let record = records[&partition].iter().find(|record| record.offset == offset).expect("a record stands there");
        assert_eq!(text(record), number.to_string());
    }
}

pub fn commands_of_one_todo_keep_their_order(fixture: &impl LogFixture) {
    let sink = Acknowledged::new();
    let (mut appender, mut reader) = fixture.open(sink.clone());
    for batch in 0..20 {
        append(appender.as_mut(), (0..50).map(|n| (n % 7, format!("{:05}", batch * 50 + n))));
    }
    let records = read_count(reader.as_mut(), 1000);
    let mut by_key: BTreeMap<&[u8], Vec<&str>> = BTreeMap::new();
    for record in records.values().flatten() {
        by_key.entry(&record.key).or_default().push(text(record));
    }
    assert_eq!(by_key.len(), 7);
    assert!(by_key.values().all(|texts| texts.is_sorted()));
}

pub fn nothing_is_read_before_the_start(fixture: &impl LogFixture) {
    let sink = Acknowledged::new();
    let (mut appender, mut reader) = fixture.open(sink.clone());
    append_durably(appender.as_mut(), &sink, &[(1, "a")]);
    let mut assigned = Vec::new();
    let give_up_at = Instant::now() + PATIENCE;
    while assigned.is_empty() {
        assert!(Instant::now() < give_up_at, "no partition was assigned");
        match reader.poll(10, MOST_BYTES, Duration::from_millis(20)).expect("readable") {
            LogEvent::Assigned(partitions) => assigned = partitions,
            other => assert_eq!(other, LogEvent::Idle),
        }
    }
    for _ in 0..3 {
        assert_eq!(reader.poll(10, MOST_BYTES, Duration::from_millis(1)).expect("readable"), LogEvent::Idle);
    }
    for partition in assigned {
        reader.start(partition, None).expect("the beginning exists");
    }
    assert_eq!(texts(&read_count(reader.as_mut(), 1)), ["a"]);
}

pub fn reading_goes_on_where_it_is_told(fixture: &impl LogFixture) {
    let sink = Acknowledged::new();
    let (mut appender, mut reader) = fixture.open(sink.clone());
    let payloads: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let payloads: Vec<(u32, &str)> = payloads.iter().map(|text| (1, text.as_str())).collect();
    append_durably(appender.as_mut(), &sink, &payloads);
    let records = read_count(reader.as_mut(), 10);
    let (partition, all) = records.first_key_value().expect("one key is in one partition");
    drop((appender, reader));
    for from in [0, 1, 5, 9] {
        let (_appender, mut reader) = fixture.open(Acknowledged::new());
        let starts = Starts::from([(*partition, all[from].offset)]);
        let rest = read_until(reader.as_mut(), &starts, |read| read.values().map(Vec::len).sum::<usize>() >= 10 - from);
        assert_eq!(rest[partition], all[from..]);
    }
}

pub fn reading_starts_again_when_told(fixture: &impl LogFixture) {
    let sink = Acknowledged::new();
    let (mut appender, mut reader) = fixture.open(sink.clone());
    append_durably(appender.as_mut(), &sink, &[(1, "a"), (1, "b"), (1, "c")]);
    let records = read_count(reader.as_mut(), 3);
    let (partition, all) = records.first_key_value().expect("one key is in one partition");
    for from in [2, 0, 1] {
        reader.start(*partition, Some(all[from].offset)).expect("a place that exists");
        assert_eq!(read_count(reader.as_mut(), 3 - from)[partition], all[from..]);
    }
    // At the end there is nothing, until something is written.
    reader.start(*partition, Some(all[2].offset + 1)).expect("the end exists");
    append_durably(appender.as_mut(), &sink, &[(1, "d")]);
    assert_eq!(texts(&read_count(reader.as_mut(), 1)), ["d"]);
}

pub fn records_outlive_a_restart(fixture: &impl LogFixture) {
    for round in 1..=3 {
        let sink = Acknowledged::new();
        let (mut appender, mut reader) = fixture.open(sink.clone());
        append_durably(appender.as_mut(), &sink, &[(1, "a"), (2, "b"), (3, "c")]);
        let mut expected = ["a", "b", "c"].repeat(round);
        expected.sort_unstable();
        assert_eq!(texts(&read_count(reader.as_mut(), 3 * round)), expected);
    }
}

pub fn a_place_that_does_not_exist_is_named(fixture: &impl LogFixture) {
    let sink = Acknowledged::new();
    let (mut appender, mut reader) = fixture.open(sink.clone());
    append_durably(appender.as_mut(), &sink, &[(1, "a"), (1, "b")]);
    let records = read_count(reader.as_mut(), 2);
    let (&partition, all) = records.first_key_value().expect("one key is in one partition");
    let beyond = all[1].offset + 1000;
    let error = reader.start(partition, Some(beyond)).and_then(|()| {
        // A log may find it only when it reads.
        let give_up_at = Instant::now() + PATIENCE;
        while Instant::now() < give_up_at {
            match reader.poll(10, MOST_BYTES, Duration::from_millis(20))? {
                LogEvent::Records(records) => panic!("{records:?} were read from nowhere"),
                _ => continue,
            }
        }
        Ok(())
    });
    match error {
        Err(LogError::OffsetOutOfRange { partition: named, requested, latest, .. }) => {
            assert_eq!((named, requested), (partition, beyond));
            assert!(latest > all[1].offset && latest < beyond);
        }
        other => panic!("{other:?}"),
    }
    reader.start(partition, Some(all[0].offset)).expect("a place that exists");
    assert_eq!(texts(&read_count(reader.as_mut(), 2)), ["a", "b"]);
}

pub fn too_large_a_record_harms_no_other(fixture: &impl LogFixture) {
    let sink = Acknowledged::new();
    let (mut appender, mut reader) = fixture.open(sink.clone());
    let large = "x".repeat(8 * 1024 * 1024);
    append(appender.as_mut(), [(1, "a".to_owned()), (2, large), (3, "c".to_owned())]);
    wait_until(|| sink.all().len() >= 3);
    assert_eq!(sink.all(), [(0, Ok(())), (1, Err(Refusal::TooLarge)), (2, Ok(()))]);
    assert_eq!(texts(&read_count(reader.as_mut(), 2)), ["a", "c"]);
}

pub fn a_paused_reader_gets_no_records_and_skips_none(fixture: &impl LogFixture) {
    let sink = Acknowledged::new();
    let (mut appender, mut reader) = fixture.open(sink.clone());
    append_durably(appender.as_mut(), &sink, &[(1, "a")]);
    read_count(reader.as_mut(), 1);
    append_durably(appender.as_mut(), &sink, &[(1, "b"), (2, "c")]);
    for _ in 0..10 {
        assert_eq!(reader.poll(0, MOST_BYTES, Duration::from_millis(5)).expect("readable"), LogEvent::Idle);
    }
    let records = read_count(reader.as_mut(), 2);
    assert_eq!(texts(&records), ["b", "c"]);
}

pub fn limits_of_a_poll_are_kept(fixture: &impl LogFixture) {
    let sink = Acknowledged::new();
    let (mut appender, mut reader) = fixture.open(sink.clone());
    append(appender.as_mut(), (0..100).map(|n| (1, format!("{n:0100}"))));
    wait_until(|| sink.all().len() >= 100);
    let mut read = read_count(reader.as_mut(), 100);
    let (partition, all) = read.pop_first().expect("one key is in one partition");
    for (max_records, max_bytes, most_expected) in [(7, MOST_BYTES, 7), (1000, 1, 1), (1000, 1000, 10)] {
        reader.start(partition, Some(all[0].offset)).expect("a place that exists");
        let mut again = Vec::new();
        let give_up_at = Instant::now() + PATIENCE;
        while again.len() < 100 {
            assert!(Instant::now() < give_up_at, "only {} records came", again.len());
            if let LogEvent::Records(batches) =
                reader.poll(max_records, max_bytes, Duration::from_millis(20)).expect("readable")
            {
                let count: usize = batches.iter().map(|batch| batch.records.len()).sum();
                assert!((1..=most_expected).contains(&count), "{count} records with {max_records}, {max_bytes}");
                again.extend(batches.into_iter().flat_map(|batch| batch.records));
            }
        }
        assert_eq!(again, all);
    }
}

pub fn lag_counts_what_is_not_read(fixture: &impl LogFixture) {
    let sink = Acknowledged::new();
    let (mut appender, mut reader) = fixture.open(sink.clone());
    append_durably(appender.as_mut(), &sink, &[(1, "a")]);
    read_count(reader.as_mut(), 1);
    append_durably(appender.as_mut(), &sink, &[(1, "b"), (1, "c")]);
    let give_up_at = Instant::now() + PATIENCE;
    // A log may learn its end only now and then, with a poll; it may also not know.
    while reader.lag().is_some_and(|lag| lag != 2) {
        assert!(Instant::now() < give_up_at, "the lag stays {:?}", reader.lag());
        reader.poll(0, MOST_BYTES, Duration::from_millis(20)).expect("readable");
    }
    read_count(reader.as_mut(), 2);
    while reader.lag().is_some_and(|lag| lag != 0) {
        assert!(Instant::now() < give_up_at, "the lag stays {:?}", reader.lag());
        reader.poll(0, MOST_BYTES, Duration::from_millis(20)).expect("readable");
    }
}

pub fn dead_letters_are_kept_with_their_reason(fixture: &impl LogFixture) {
    let sink = Acknowledged::new();
    let (mut appender, mut reader) = fixture.open(sink.clone());
    append_durably(appender.as_mut(), &sink, &[(1, "no command"), (1, "good"), (1, "no command either")]);
    let records = read_count(reader.as_mut(), 3);
    let (&partition, all) = records.first_key_value().expect("one key is in one partition");
    assert_eq!(fixture.dead_letters(), []);
    reader.dead_letter(partition, &all[0], "it is \"no\" command, né").expect("kept");
    reader.dead_letter(partition, &all[2], "of two\nlines").expect("kept");
    drop((appender, reader));
    let letters = fixture.dead_letters();
    let kept: Vec<(PartitionId, Offset, &[u8], &[u8])> = letters
        .iter()
        .map(|letter| {
            let record = &letter.record;
            (letter.partition, record.offset, record.key.as_slice(), record.payload.as_slice())
        })
        .collect();
    let expected =
        [&all[0], &all[2]].map(|record| (partition, record.offset, record.key.as_slice(), record.payload.as_slice()));
    assert_eq!(kept, expected);
    assert_eq!(letters[0].reason, "it is \"no\" command, né");
    assert!(letters[1].reason.starts_with("of two"));
}
