//! The Kafka log: acknowledgements, partitions, the group, places that are gone, dead letters, the Java tools.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use million_rps::command_log::kafka::{
    KafkaAppender, KafkaOptions, KafkaReader, ensure_topic, list_dead_letters, replay_dead_letters,
};
use million_rps::command_log::{
    Acknowledgement, AcknowledgementSink, CommandAppender, CommandReader, LogError, LogEvent, Offset, PartitionId,
    Record, Submission, Ticket,
};
use million_rps::todo::TodoId;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use crate::setting::{eventually, required, unique};

pub const WAIT: Duration = Duration::from_millis(100);

#[derive(Default)]
pub struct Collected(pub Mutex<Vec<Acknowledgement>>);

impl AcknowledgementSink for Collected {
    fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>) {
        self.0.lock().expect("unpoisoned").append(acknowledgements);
    }
}

pub fn options(partitions: i32) -> KafkaOptions {
    let topic = unique("todo-commands");
    KafkaOptions {
        partitions,
        group: format!("{topic}-workers"),
        ..KafkaOptions::new(&required("KAFKA_BROKERS"), &topic)
    }
}

/// Appends payloads `0`, `1`, … under these keys and waits until all are acknowledged.
pub fn append(options: &KafkaOptions, keys: &[TodoId]) {
    let sink = Arc::new(Collected::default());
    // Whatever a busy machine needs to make the topic and to get to know it.
    let options = KafkaOptions { acknowledge_timeout_ms: 30_000, ..options.clone() };
    let mut appender = KafkaAppender::new(options, sink.clone()).expect("usable options");
    let submission = |(number, &id): (usize, &TodoId)| Submission {
        ticket: Ticket(number as u64),
        id,
        payload: number.to_string().into_bytes(),
    };
    appender.append(&mut keys.iter().enumerate().map(submission).collect());
    appender.close(Duration::from_secs(30));
    let acknowledged = sink.0.lock().expect("unpoisoned");
    let tickets: BTreeSet<u64> = acknowledged.iter().map(|taken| taken.ticket.0).collect();
    assert!(acknowledged.iter().all(|taken| taken.result.is_ok()), "{:?}", acknowledged.first());
    assert_eq!((acknowledged.len(), tickets.len()), (keys.len(), keys.len()), "each ticket once");
}

pub fn reader(options: &KafkaOptions) -> KafkaReader {
    KafkaReader::new(options.clone()).expect("usable options")
}

/// What a worker remembers of its reader.
#[derive(Default)]
pub struct Progress {
    pub assigned: BTreeSet<PartitionId>,
    pub records: BTreeMap<PartitionId, Vec<Record>>,
}

impl Progress {
    pub fn count(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }

    /// One poll; starts what is assigned where `next` says.
    pub fn step(
        &mut self,
        reader: &mut KafkaReader,
        next: &dyn Fn(PartitionId) -> Option<Offset>,
    ) -> Result<(), LogError> {
        match reader.poll(500, 1 << 20, WAIT)? {
            LogEvent::Assigned(partitions) => {
                for partition in partitions {
                    assert!(self.assigned.insert(partition), "{partition} was assigned twice");
                    reader.start(partition, next(partition))?;
                }
            }
            LogEvent::Revoked(partitions) => {
                for partition in partitions {
                    assert!(self.assigned.remove(&partition), "{partition} was not assigned");
                }
            }
            LogEvent::Records(batches) => {
                for batch in batches {
                    assert!(self.assigned.contains(&batch.partition), "records of a partition that is not ours");
                    let records = self.records.entry(batch.partition).or_default();
                    for record in batch.records {
                        assert!(records.last().is_none_or(|last| last.offset < record.offset));
                        records.push(record);
                    }
                    assert_eq!(batch.next, records.last().expect("never empty").offset + 1);
                }
            }
            LogEvent::Idle => {}
        }
        Ok(())
    }

    /// Polls until `done`.
    pub fn run(&mut self, reader: &mut KafkaReader, what: &str, done: impl Fn(&Progress) -> bool) {
        eventually(what, || {
            self.step(reader, &|_| None).expect("the log can be read");
            done(self).then_some(())
        });
    }
}

#[test]
fn what_is_acknowledged_is_read_in_the_order_of_each_key() {
    let options = options(4);
    let keys: Vec<TodoId> = (0..50).map(|_| TodoId::new()).collect();
    let appended: Vec<TodoId> = (0..2_000).map(|number| keys[number % keys.len()]).collect();
    append(&options, &appended);

    let mut reader = reader(&options);
    let mut progress = Progress::default();
    progress.run(&mut reader, "everything is read", |progress| progress.count() == appended.len());
    assert_eq!(progress.assigned, (0..4).collect());
    let mut last_of_key = BTreeMap::new();
    for (partition, records) in &progress.records {
        for record in records {
            let number: usize = String::from_utf8_lossy(&record.payload).parse().expect("a number");
            assert_eq!(record.key, appended[number].to_string().as_bytes(), "the key is the id's text");
            let (known_partition, last) = last_of_key.entry(record.key.clone()).or_insert((*partition, number));
            assert!(*known_partition == *partition && *last <= number, "out of order");
            *last = number;
            assert!(record.logged_at.as_micros() > 1_600_000_000_000_000, "stamped with a time");
        }
    }
    assert_eq!(reader.lag(), Some(0));

    // What the store has applied is shown to Kafka's tools.
    for (partition, records) in &progress.records {
        reader.applied(*partition, records.last().expect("not empty").offset + 1);
    }
    drop(reader);
    assert_eq!(committed(&options), progress.records.iter().map(|(&id, records)| (id, records.len() as i64)).collect());
}

/// The group's offsets, as Kafka's own tools would show them.
pub fn committed(options: &KafkaOptions) -> BTreeMap<PartitionId, Offset> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &options.brokers)
        .set("group.id", &options.group)
        .create()
        .expect("a consumer");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_range(&options.topic, 0, options.partitions - 1);
    let offsets = consumer.committed_offsets(list, Duration::from_secs(10)).expect("the broker answers");
    offsets
        .elements()
        .iter()
        .filter_map(|element| {
            element.offset().to_raw().filter(|&offset| offset >= 0).map(|offset| (element.partition(), offset))
        })
        .collect()
}

/// murmur2 as the Java client computes it (seed 0x9747b28c), written from its description: the test's own opinion.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (index, &byte) in rest.iter().enumerate() {
        hash ^= u32::from(byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[test]
fn keys_go_to_the_partitions_that_the_java_client_chooses() {
    // Vectors of the Java client's own test.
    assert_eq!(murmur2(b"21") as i32, -973_932_308);
    assert_eq!(murmur2(b"foobar") as i32, -790_332_482);
    assert_eq!(murmur2(b"a-little-bit-long-string") as i32, -985_981_536);
    assert_eq!(murmur2(b"abc") as i32, 479_470_107);

    let options = options(16);
    let keys: Vec<TodoId> = (0..200).map(|_| TodoId::new()).collect();
    append(&options, &keys);
    let mut progress = Progress::default();
    progress.run(&mut reader(&options), "everything is read", |progress| progress.count() == keys.len());
    for (partition, records) in progress.records {
        for record in records {
            assert_eq!((murmur2(&record.key) & 0x7fff_ffff) % 16, partition as u32);
        }
    }
}

#[test]
fn javas_console_tools_and_ours_read_each_other() {
    let options = options(16);
    ensure_topic(&options).expect("created");
    let ids: Vec<TodoId> = (0..40).map(|_| TodoId::new()).collect();

    let mut producer = java("org.apache.kafka.tools.ConsoleProducer", &options)
        .args(["--property", "parse.key=true", "--property", "key.separator=|"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("java runs");
    let mut input = producer.stdin.take().expect("piped");
    for round in 0..3 {
        for id in &ids {
            writeln!(input, "{id}|{round}").expect("the tool reads");
        }
    }
    drop(input);
    assert!(producer.wait().expect("it ends").success());
    append(&options, &ids);

    // Each key stands in one partition: Java's choice and ours are the same, so the order of a todo is kept.
    let mut progress = Progress::default();
    progress.run(&mut reader(&options), "everything is read", |progress| progress.count() == 4 * ids.len());
    for id in &ids {
        let holds = |records: &Vec<Record>| {
            let key = id.to_string();
            let own = records.iter().filter(|record| record.key == key.as_bytes());
            own.map(|record| String::from_utf8_lossy(&record.payload).into_owned()).collect::<Vec<_>>()
        };
        let found: Vec<_> = progress.records.values().map(holds).filter(|payloads| !payloads.is_empty()).collect();
        assert_eq!(found.len(), 1, "{id} is spread over {} partitions", found.len());
        assert_eq!(found[0][..3], ["0", "1", "2"]);
    }

    // And Java's consumer reads a dead letter of ours with its headers.
    let record = Record {
        key: ids[0].to_string().into_bytes(),
        payload: b"poison".to_vec(),
        ..progress.records.values().flatten().next().expect("records").clone()
    };
    reader(&options).dead_letter(3, &record, "not JSON").expect("durable");
    let dead = KafkaOptions { topic: options.dead_letter_topic(), ..options.clone() };
    let output = java("org.apache.kafka.tools.consumer.ConsoleConsumer", &dead)
        .args(["--from-beginning", "--max-messages", "1", "--timeout-ms", "30000"])
        .args(["--property", "print.key=true", "--property", "print.headers=true"])
        .output()
        .expect("java runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("reason:not JSON,source-partition:3,source-offset:"), "{text}");
    assert!(text.contains(&format!("{}\tpoison", ids[0])), "{text}");
}

fn java(class: &str, options: &KafkaOptions) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx128m", "-cp", &format!("{}/*", required("KAFKA_JARS")), class]);
    command.args(["--bootstrap-server", &options.brokers, "--topic", &options.topic]);
    command.stderr(Stdio::null());
    command
}

#[test]
fn reading_goes_on_where_the_store_says() {
    let options = options(1);
    append(&options, &[TodoId::new(); 100]);
    let mut reader = reader(&options);
    let mut progress = Progress::default();
    eventually("the rest is read", || {
        progress.step(&mut reader, &|_| Some(90)).expect("the log can be read");
        (progress.count() == 10).then_some(())
    });
    assert_eq!(progress.records[&0][0].offset, 90);
    // Started again at an earlier place, as after a rolled back batch.
    progress.records.clear();
    reader.start(0, Some(40)).expect("the place is there");
    progress.run(&mut reader, "read again", |progress| progress.count() == 60);
    assert_eq!(progress.records[&0][0].offset, 40);
    // And from the end.
    reader.start(0, Some(100)).expect("the end is a place");
    assert_eq!(reader.poll(10, 1_000, WAIT).expect("nothing to read"), LogEvent::Idle);
}

#[test]
fn a_poll_keeps_to_its_bounds() {
    let options = options(1);
    append(&options, &[TodoId::new(); 100]);
    let mut reader = reader(&options);
    let mut sizes = Vec::new();
    eventually("everything is read", || {
        match reader.poll(7, 1 << 20, WAIT).expect("the log can be read") {
            LogEvent::Assigned(partitions) => reader.start(partitions[0], None).expect("started"),
            LogEvent::Records(batches) => sizes.push(batches[0].records.len()),
            _ => {}
        }
        (sizes.iter().sum::<usize>() == 100).then_some(())
    });
    assert!(sizes.iter().all(|&size| size <= 7), "{sizes:?}");
    reader.start(0, None).expect("started");
    let first = eventually("something is read", || match reader.poll(100, 1, WAIT).expect("the log can be read") {
        LogEvent::Records(batches) => Some(batches),
        _ => None,
    });
    assert_eq!(first[0].records.len(), 1, "the bytes of one record pass the bound");
}

#[test]
fn a_topic_made_anew_is_noticed_and_named() {
    let options = options(1);
    append(&options, &[TodoId::new(); 20]);
    let mut running = reader(&options);
    Progress::default().run(&mut running, "everything is read", |progress| progress.count() == 20);
    drop(running);

    delete_topic(&options);
    append(&options, &[TodoId::new(); 5]);
    let mut later = reader(&options);
    let error = eventually("the change is noticed", || Progress::default().step(&mut later, &|_| Some(20)).err());
    let LogError::OffsetOutOfRange { partition: 0, requested: 20, earliest: 0, latest: 5 } = error else {
        panic!("{error:?}");
    };
    assert!(error.to_string().contains("made anew"), "{error}");
}

#[test]
fn records_that_the_log_has_dropped_are_noticed_and_named() {
    let options = options(1);
    append(&options, &[TodoId::new(); 20]);
    let admin = administrator(&options);
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(&options.topic, 0, rdkafka::Offset::Offset(15)).expect("an offset");
    block_on(admin.delete_records(&list, &AdminOptions::new())).expect("the broker answers");
    let mut reader = reader(&options);
    let error = eventually("the gap is noticed", || Progress::default().step(&mut reader, &|_| Some(3)).err());
    assert!(matches!(error, LogError::OffsetOutOfRange { requested: 3, earliest: 15, latest: 20, .. }), "{error:?}");
}

pub fn administrator(options: &KafkaOptions) -> AdminClient<DefaultClientContext> {
    rdkafka::ClientConfig::new().set("bootstrap.servers", &options.brokers).create().expect("a client")
}

pub fn block_on<T>(answer: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(answer)
}

fn delete_topic(options: &KafkaOptions) {
    let admin = administrator(options);
    let results = block_on(admin.delete_topics(&[&options.topic], &AdminOptions::new())).expect("the broker answers");
    results[0].as_ref().expect("deleted");
    eventually("the topic is gone", || {
        let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(5)).expect("the broker answers");
        metadata.topics().iter().all(|topic| topic.name() != options.topic).then_some(())
    });
}

#[test]
fn two_readers_share_the_partitions_and_take_over_from_each_other() {
    let options = options(4);
    let keys: Vec<TodoId> = (0..400).map(|_| TodoId::new()).collect();
    append(&options, &keys);
    let (mut first, mut first_progress) = (reader(&options), Progress::default());
    first_progress.run(&mut first, "everything is read", |progress| progress.count() == keys.len());

    // Each goes on where the other has been, as the store would say.
    let (second, second_progress) = (reader(&options), Progress::default());
    let step_both = |first: &mut (KafkaReader, Progress), second: &mut (KafkaReader, Progress)| {
        let mut applied: BTreeMap<PartitionId, Offset> = BTreeMap::new();
        for (partition, records) in first.1.records.iter().chain(&second.1.records) {
            let next = applied.entry(*partition).or_default();
            *next = records.last().map_or(*next, |record| (*next).max(record.offset + 1));
        }
        for (reader, progress) in [first, second] {
            let next = |partition| applied.get(&partition).copied();
            progress.step(reader, &next).expect("the log can be read");
        }
    };
    let (mut first, mut second) = ((first, first_progress), (second, second_progress));
    eventually("both have two partitions", || {
        step_both(&mut first, &mut second);
        (first.1.assigned.len() == 2 && second.1.assigned.len() == 2).then_some(())
    });
    assert!(first.1.assigned.is_disjoint(&second.1.assigned));

    // What is written now is read by the owner, once.
    append(&options, &keys);
    eventually("the new records are read", || {
        step_both(&mut first, &mut second);
        (first.1.count() + second.1.count() >= 2 * keys.len()).then_some(())
    });
    assert_eq!(first.1.count() + second.1.count(), 2 * keys.len());
    assert!(second.1.count() > 0);
    let ((mut first, mut first_progress), (second, _)) = (first, second);

    // The second leaves in order: its partitions come back at once, not only when its session ends.
    let left_at = Instant::now();
    drop(second);
    first_progress.run(&mut first, "all partitions are back", |progress| progress.assigned.len() == 4);
    assert!(left_at.elapsed() < Duration::from_millis(options.session_timeout_ms));
}

#[test]
fn a_paused_reader_takes_part_in_the_group_and_skips_nothing() {
    let options = options(4);
    let keys: Vec<TodoId> = (0..200).map(|_| TodoId::new()).collect();
    append(&options, &keys);
    let (mut first, mut first_progress) = (reader(&options), Progress::default());
    first_progress.run(&mut first, "everything is read", |progress| progress.count() == keys.len());
    append(&options, &keys);

    // Paused, it learns how far behind it is, and that another member takes half of its partitions.
    let (mut second, mut second_progress) = (reader(&options), Progress::default());
    let mut known_lag = 0;
    eventually("both have two partitions", || {
        match first.poll(0, 1 << 20, WAIT).expect("the log is there") {
            LogEvent::Revoked(partitions) => first_progress.assigned.retain(|id| !partitions.contains(id)),
            other => assert_eq!(other, LogEvent::Idle),
        }
        known_lag = known_lag.max(first.lag().unwrap_or(0));
        second_progress.step(&mut second, &|_| None).expect("the log can be read");
        let halves = first_progress.assigned.len() == 2 && second_progress.assigned.len() == 2;
        (halves && known_lag > 0).then_some(())
    });

    // Then it goes on with what it still has.
    let kept: BTreeMap<PartitionId, usize> =
        first_progress.assigned.iter().map(|id| (*id, first_progress.records[id].len())).collect();
    first_progress.run(&mut first, "the rest is read", |progress| {
        kept.iter().all(|(id, count)| progress.records[id].len() == 2 * count)
    });
    second_progress.run(&mut second, "the other half is read", |progress| {
        progress.count() == 2 * keys.len() - 2 * kept.values().sum::<usize>()
    });
}

#[test]
fn a_dead_letter_can_be_listed_and_replayed() {
    let options = options(1);
    append(&options, &[TodoId::new(); 3]);
    let mut reader = reader(&options);
    let mut progress = Progress::default();
    progress.run(&mut reader, "everything is read", |progress| progress.count() == 3);
    let poison = progress.records[&0][1].clone();

    let listed = || {
        let mut letters = Vec::new();
        list_dead_letters(&options, &mut |letter| letters.push(letter)).expect("the topic can be read");
        letters
    };
    assert_eq!(listed(), [], "no letter, and not even a topic for them");
    reader.dead_letter(0, &poison, "unknown action \"explode\"").expect("durable");
    reader.dead_letter(0, &poison, "unknown action \"explode\"").expect("durable a second time");
    let letters = listed();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].partition, letters[0].reason.as_str()), (0, "unknown action \"explode\""));
    assert_eq!((letters[0].record.offset, &letters[0].record.key), (1, &poison.key));
    assert_eq!(letters[0].record.payload, poison.payload);

    assert_eq!(replay_dead_letters(&options).expect("replayed"), 1);
    assert_eq!(listed(), []);
    progress.run(&mut reader, "the record is back", |progress| progress.count() == 4);
    let back = progress.records[&0].last().expect("not empty");
    assert_eq!((back.offset, &back.key, &back.payload), (3, &poison.key, &poison.payload));
}

#[test]
fn an_existing_topic_keeps_its_partitions() {
    let options = options(3);
    assert_eq!(ensure_topic(&options).expect("created"), 3);
    let more = KafkaOptions { partitions: 7, ..options };
    assert_eq!(ensure_topic(&more).expect("found"), 3);
}
