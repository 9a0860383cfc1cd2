//! What the embedded log promises about its files.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use million_rps::command_log::embedded::{
    EmbeddedAppender, EmbeddedReader, PARTITION, Replayed, list_dead_letters, open, open_with_segment_bytes,
    remove_dead_letter, replay_dead_letters,
};
use million_rps::command_log::{CommandAppender, CommandReader, LogError, LogEvent, Record};

use crate::embedded::Embedded;
use crate::samples::{Acknowledged, id, submission};

fn append(appender: &mut EmbeddedAppender, texts: &[&str]) {
    let mut batch = texts.iter().map(|text| submission(0, id(1), *text)).collect();
    appender.append(&mut batch);
}

/// Reads everything from `from` on.
fn read(reader: &mut EmbeddedReader, from: i64) -> Result<Vec<Record>, LogError> {
    let mut records = Vec::new();
    reader.start(PARTITION, Some(from))?;
    loop {
        match reader.poll(3, 1 << 20, Duration::ZERO)? {
            LogEvent::Records(batches) => records.extend(batches.into_iter().flat_map(|batch| batch.records)),
            LogEvent::Idle => return Ok(records),
            _ => {}
        }
    }
}

fn texts(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| std::str::from_utf8(&record.payload).expect("text")).collect()
}

fn segments(fixture: &Embedded) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fixture.data_dir.log_path()).expect("readable");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.file_name().is_none_or(|name| name != "id")).collect();
    paths.sort();
    paths
}

/// A log of these records, each acknowledged in a batch of its own. Returns where each ends in the one segment.
fn written(fixture: &Embedded, payloads: &[&str]) -> Vec<u64> {
    let sink = Acknowledged::new();
    let (mut appender, _reader) = open(&fixture.data_dir, sink.clone()).expect("opened");
    let mut ends = Vec::new();
    for payload in payloads {
        append(&mut appender, &[payload]);
        ends.push(segments(fixture)[0].metadata().expect("a file").len());
    }
    assert!(sink.all().iter().all(|(_, result)| result.is_ok()));
    ends
}

fn open_quietly(fixture: &Embedded) -> Result<(EmbeddedAppender, EmbeddedReader), LogError> {
    open(&fixture.data_dir, Acknowledged::new())
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off_and_the_log_goes_on() {
    let fixture = Embedded::new();
    let ends = written(&fixture, &["a", "b", "the last"]);
    let path = &segments(&fixture)[0];
    let whole = std::fs::read(path).expect("readable");
    for length in ends[1]..ends[2] {
        // Cut, and cut with the rest of the page as zeros.
        for zeros in [0, 700] {
            let mut torn = whole[..length as usize].to_vec();
            torn.resize(torn.len() + zeros, 0);
            std::fs::write(path, torn).expect("written");
            let (mut appender, mut reader) = open_quietly(&fixture).expect("repaired");
            assert_eq!(std::fs::metadata(path).expect("a file").len(), ends[1], "cut at {length}, {zeros} zeros");
            append(&mut appender, &["again"]);
            let records = read(&mut reader, 0).expect("readable");
            assert_eq!(texts(&records), ["a", "b", "again"]);
            assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 1, 2]);
        }
    }
}

#[test]
fn a_torn_first_record_leaves_an_empty_log() {
    let fixture = Embedded::new();
    written(&fixture, &["a"]);
    OpenOptions::new().write(true).open(&segments(&fixture)[0]).and_then(|file| file.set_len(5)).expect("cut");
    let (mut appender, mut reader) = open_quietly(&fixture).expect("repaired");
    assert_eq!(read(&mut reader, 0).expect("readable"), []);
    append(&mut appender, &["b"]);
    assert_eq!(texts(&read(&mut reader, 0).expect("readable")), ["b"]);
}

#[test]
fn a_damaged_record_before_others_is_refused_with_its_place() {
    let fixture = Embedded::new();
    let ends = written(&fixture, &["a", "the damaged one", "c"]);
    let path = &segments(&fixture)[0];
    let whole = std::fs::read(path).expect("readable");
    for at in ends[0]..ends[1] {
        let mut damaged = whole.clone();
        damaged[at as usize] ^= 0x10;
        std::fs::write(path, &damaged).expect("written");
        match open_quietly(&fixture).map(|_| ()) {
            Err(LogError::Fatal(reason)) => {
                assert!(reason.contains("00000000000000000000.log"), "{reason}");
                assert!(reason.contains(&format!("byte {}:", ends[0])), "{reason}");
            }
            other => panic!("damage at byte {at}: {other:?}"),
        }
        assert_eq!(std::fs::read(path).expect("readable"), damaged, "nothing was cut");
    }
}

#[test]
fn damage_in_an_old_segment_is_named_when_it_is_read() {
    let fixture = Embedded::new();
    let (mut appender, reader) = open_with_segment_bytes(&fixture.data_dir, Acknowledged::new(), 1).expect("opened");
    for text in ["a", "b", "c"] {
        append(&mut appender, &[text]);
    }
    drop((appender, reader));
    let damaged = segments(&fixture)[1].clone();
    OpenOptions::new().write(true).open(&damaged).and_then(|file| file.write_all_at(b"X", 30)).expect("written");
    let (appender, mut reader) = open_quietly(&fixture).expect("the last segment is whole");
    match read(&mut reader, 0) {
        Err(LogError::Fatal(reason)) => assert!(reason.contains("00000000000000000001.log, byte 0"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(texts(&read(&mut reader, 2).expect("behind the damage")), ["c"]);

    std::fs::remove_file(&damaged).expect("removed");
    drop((appender, reader));
    let (_appender, mut reader) = open_quietly(&fixture).expect("opened");
    match read(&mut reader, 0) {
        Err(LogError::Fatal(reason)) => assert!(reason.contains("00000000000000000000.log"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn segments_follow_each_other_and_go_when_applied() {
    let fixture = Embedded::new();
    let (mut appender, mut reader) =
        open_with_segment_bytes(&fixture.data_dir, Acknowledged::new(), 200).expect("opened");
    let payloads: Vec<String> = (0..50).map(|number| format!("payload {number}")).collect();
    for pair in payloads.chunks(2) {
        append(&mut appender, &[&pair[0], &pair[1]]);
    }
    let count = segments(&fixture).len();
    assert!(count > 10, "{count} segments");
    let records = read(&mut reader, 0).expect("readable");
    assert_eq!(texts(&records), payloads);
    for from in 0..50 {
        assert_eq!(read(&mut reader, from).expect("readable"), records[from as usize..]);
    }

    let mut before = count;
    for applied in 0..=50 {
        reader.applied(PARTITION, applied);
        let rest = segments(&fixture);
        assert!(rest.len() <= before);
        before = rest.len();
        // Whatever is not applied is still there.
        assert_eq!(read(&mut reader, applied).expect("readable"), records[applied as usize..]);
    }
    assert_eq!(before, 1, "the last segment stays");
    let first: i64 =
        segments(&fixture)[0].file_stem().and_then(|name| name.to_str()).expect("a name").parse().expect("digits");
    match reader.start(PARTITION, Some(0)) {
        Err(LogError::OffsetOutOfRange { requested: 0, earliest, latest: 50, .. }) => assert_eq!(earliest, first),
        other => panic!("{other:?}"),
    }

    drop((appender, reader));
    let (mut appender, mut reader) = open_quietly(&fixture).expect("opened again");
    append(&mut appender, &["after"]);
    assert_eq!(texts(&read(&mut reader, 50).expect("readable")), ["after"], "offsets go on");
}

#[test]
fn the_appender_wakes_the_reader() {
    let fixture = Embedded::new();
    let (mut appender, mut reader) = open_quietly(&fixture).expect("opened");
    assert_eq!(read(&mut reader, 0).expect("readable"), []);
    let (sender, woken) = std::sync::mpsc::channel();
    // Without the wake-up, its wait outlasts the patience below by far.
    std::thread::spawn(move || sender.send(reader.poll(1, 1 << 20, Duration::from_secs(3600))));
    append(&mut appender, &["a"]);
    match woken.recv_timeout(Duration::from_secs(60)).expect("woken").expect("readable") {
        LogEvent::Records(batches) => assert_eq!(texts(&batches[0].records), ["a"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_opener_is_refused() {
    let fixture = Embedded::new();
    let first = open_quietly(&fixture).expect("opened");
    match open_quietly(&fixture).map(|_| ()) {
        Err(LogError::Fatal(reason)) => assert!(reason.contains("in use by another process"), "{reason}"),
        other => panic!("{other:?}"),
    }
    drop(first);
    open_quietly(&fixture).expect("free again");
}

#[test]
fn dead_letters_are_replayed_or_forgotten() {
    let fixture = Embedded::new();
    let (mut appender, mut reader) = open_quietly(&fixture).expect("opened");
    append(&mut appender, &["a", "b", "c"]);
    let mut records = read(&mut reader, 0).expect("readable");
    records[2].key = b"no todo id".to_vec();
    for record in &records {
        reader.dead_letter(PARTITION, record, "first").expect("kept");
        reader.dead_letter(PARTITION, record, "second").expect("kept");
    }
    let letters = list_dead_letters(&fixture.data_dir).expect("readable");
    assert_eq!(letters.iter().map(|letter| &letter.record).collect::<Vec<_>>(), records.iter().collect::<Vec<_>>());
    assert!(letters.iter().all(|letter| letter.reason == "second"));
    for letter in std::fs::read_dir(fixture.data_dir.dead_letters_path()).expect("readable").flatten() {
        assert_eq!(letter.metadata().expect("there").mode() & 0o777, 0o600, "{letter:?}");
    }
    assert!(matches!(replay_dead_letters(&fixture.data_dir, |_| true), Err(LogError::Fatal(_))), "the log is open");

    drop((appender, reader));
    assert!(remove_dead_letter(&fixture.data_dir, &letters[0]).expect("removed"));
    assert!(!remove_dead_letter(&fixture.data_dir, &letters[0]).expect("it is gone"));
    assert_eq!(replay_dead_letters(&fixture.data_dir, |_| true).expect("replayed"), Replayed { replayed: 1, kept: 1 });
    assert_eq!(list_dead_letters(&fixture.data_dir).expect("readable"), letters[2..]);
    let (_appender, mut reader) = open_quietly(&fixture).expect("opened");
    assert_eq!(texts(&read(&mut reader, 0).expect("readable")), ["a", "b", "c", "b"]);
}

/// Both ends at work: every record that the reader sees was acknowledged, in order, over many segments.
#[test]
fn reading_keeps_up_with_writing() {
    let fixture = Embedded::new();
    let sink = Acknowledged::new();
    let (mut appender, mut reader) =
        open_with_segment_bytes(&fixture.data_dir, Arc::clone(&sink) as _, 4096).expect("opened");
    reader.start(PARTITION, None).expect("the beginning");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for batch in 0..100 {
                let texts: Vec<String> = (0..10).map(|number| (batch * 10 + number).to_string()).collect();
                append(&mut appender, &texts.iter().map(String::as_str).collect::<Vec<_>>());
            }
        });
        let mut expected = 0;
        while expected < 1000 {
            if let LogEvent::Records(batches) = reader.poll(64, 2000, Duration::from_secs(60)).expect("readable") {
                for record in &batches[0].records {
                    assert_eq!(
                        (record.offset, texts(std::slice::from_ref(record))[0]),
                        (expected, expected.to_string().as_str())
                    );
                    expected += 1;
                }
                reader.applied(PARTITION, batches[0].next);
            }
        }
    });
    assert_eq!(sink.all().len(), 1000);
    assert_eq!(segments(&fixture).len(), 1);
}
