//! The properties of Kafka's topic: how it is made, and what its changes mean while everything runs.

use std::sync::Arc;

use million_rps::command_log::kafka::{KafkaAppender, KafkaOptions, ensure_topic, groups_of_topic, set_group_offsets};
use million_rps::command_log::{CommandAppender, CommandReader, LogError, LogEvent, Refusal, Submission, Ticket};
use million_rps::todo::TodoId;
use rdkafka::admin::{AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::kafka::{Collected, Progress, WAIT, administrator, append, block_on, options, reader};
use crate::setting::eventually;

/// Raises the number of the topic's partitions, as kafka-topics does.
fn raise_partitions(options: &KafkaOptions, partitions: usize) {
    let more = NewPartitions::new(&options.topic, partitions);
    let results = block_on(administrator(options).create_partitions([&more], &AdminOptions::new()));
    results.expect("the broker answers")[0].as_ref().expect("raised");
}

/// What the topic's setting says.
fn topic_setting(options: &KafkaOptions, topic: &str, name: &str) -> String {
    let admin = administrator(options);
    let described = block_on(admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &AdminOptions::new()));
    let described = described.expect("the broker answers").remove(0).expect("described");
    described.get(name).and_then(|entry| entry.value.clone()).expect("the setting is there")
}

/// Writes one record where another program would, whatever its key.
fn write_to(options: &KafkaOptions, partition: i32) {
    let producer: BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &options.brokers).create().expect("a producer");
    let key = TodoId::new().to_string();
    let record = BaseRecord::to(&options.topic).partition(partition).key(&key).payload("0");
    producer.send(record).map_err(|(error, _)| error).expect("taken");
    producer.flush(std::time::Duration::from_secs(30)).expect("written");
}

#[test]
fn partitions_that_are_added_are_read_and_counted_while_the_worker_runs() {
    let options = options(1);
    append(&options, &[TodoId::new(); 3]);
    let mut reader = reader(&options);
    let mut progress = Progress::default();
    progress.run(&mut reader, "everything is read", |progress| progress.count() == 3);
    raise_partitions(&options, 4);
    write_to(&options, 3);
    // By librdkafka's own habit it would take up to five minutes.
    progress.run(&mut reader, "the new partition is read", |progress| progress.records.contains_key(&3));
    assert_eq!(progress.assigned, (0..4).collect());
    // How far behind it is there is known with the first answers of the broker.
    progress.run(&mut reader, "nothing more comes", |progress| progress.count() == 4);
    eventually("the lag of all four is known", || {
        assert_eq!(reader.poll(10, 1 << 20, WAIT).expect("the log can be read"), LogEvent::Idle);
        (reader.lag()? == 0).then_some(())
    });
}

#[test]
fn a_topic_gets_the_replicas_that_the_settings_ask_for() {
    let replicated = |replicas| KafkaOptions { replication_factor: Some(replicas), ..options(1) };
    // As many brokers as that are nowhere in the tests.
    let asked = replicated(9_000);
    let error = ensure_topic(&asked).expect_err("so many brokers are not there");
    assert!(matches!(error, LogError::Unavailable(_)), "brokers may come: {error:?}");
    let text = error.to_string();
    assert!(text.contains("KAFKA_REPLICATION_FACTOR=9000") && text.contains("broker"), "{text}");
    assert!(text.contains("start more brokers"), "{text}");
    // The same topic as soon as it can be made.
    let possible = KafkaOptions { replication_factor: Some(1), min_insync_replicas: Some(1), ..asked };
    assert_eq!(ensure_topic(&possible).expect("created"), 1);
    assert_eq!(topic_setting(&possible, &possible.topic, "min.insync.replicas"), "1");
}

#[test]
fn the_topic_of_dead_letters_gets_the_replicas_too() {
    let asked = KafkaOptions { min_insync_replicas: Some(2), ..options(1) };
    append(&KafkaOptions { min_insync_replicas: None, ..asked.clone() }, &[TodoId::new()]);
    let mut reader = reader(&asked);
    let mut progress = Progress::default();
    progress.run(&mut reader, "everything is read", |progress| progress.count() == 1);
    let record = progress.records[&0][0].clone();
    // On fewer brokers than that it cannot be written, which is said; the topic is there, as asked for.
    let _ = reader.dead_letter(0, &record, "a test");
    assert_eq!(topic_setting(&asked, &asked.dead_letter_topic(), "min.insync.replicas"), "2");
}

/// Sets the topic's `max.message.bytes`, as kafka-configs does.
fn set_message_max_bytes(options: &KafkaOptions, bytes: u32) {
    let text = bytes.to_string();
    let change = AlterConfig::new(ResourceSpecifier::Topic(&options.topic)).set("max.message.bytes", &text);
    let results = block_on(administrator(options).alter_configs([&change], &AdminOptions::new()));
    results.expect("the broker answers")[0].as_ref().expect("altered");
}

/// An appender, and what it has acknowledged, by ticket.
struct Writer {
    appender: KafkaAppender,
    sink: Arc<Collected>,
    next_ticket: u64,
}

impl Writer {
    fn new(options: &KafkaOptions) -> Writer {
        let sink = Arc::new(Collected::default());
        let appender = KafkaAppender::new(options.clone(), sink.clone()).expect("usable options");
        Writer { appender, sink, next_ticket: 0 }
    }

    /// Hands over commands of so many bytes of these todos, together, and returns what becomes of each.
    fn write(&mut self, ids: &[TodoId], payload_bytes: usize) -> Vec<Result<(), Refusal>> {
        let first = self.next_ticket;
        self.next_ticket += ids.len() as u64;
        let submission = |(ticket, &id)| Submission { ticket: Ticket(ticket), id, payload: vec![b'x'; payload_bytes] };
        self.appender.append(&mut (first..).zip(ids).map(submission).collect());
        eventually("every command is answered", || {
            let answered = self.sink.0.lock().expect("unpoisoned");
            let result = |ticket| answered.iter().find(|one| one.ticket.0 == ticket).map(|one| one.result);
            (first..self.next_ticket).map(result).collect()
        })
    }
}

fn new_ids(count: usize) -> Vec<TodoId> {
    (0..count).map(|_| TodoId::new()).collect()
}

/// Keys in the topic, in their order.
fn keys_in(options: &KafkaOptions, count: usize) -> Vec<String> {
    let mut reader = reader(options);
    let mut progress = Progress::default();
    progress.run(&mut reader, "everything is read", |progress| progress.count() >= count);
    let keys = progress.records[&0].iter().map(|record| String::from_utf8_lossy(&record.key).into_owned());
    keys.collect()
}

#[test]
fn batches_fit_into_what_the_topic_takes() {
    let options = options(1);
    ensure_topic(&options).expect("created");
    set_message_max_bytes(&options, 20_000);
    let mut writer = Writer::new(&options);
    let ids = new_ids(400);
    assert!(writer.write(&ids, 1_000).iter().all(Result::is_ok), "all of them are small enough");
    assert_eq!(writer.write(&new_ids(1), 30_000), [Err(Refusal::TooLarge)]);
    // One that is too large harms no other that comes with it.
    let mixed = writer.write(&new_ids(2), 19_000);
    assert_eq!(mixed, [Ok(()), Ok(())]);
    let expected: Vec<String> = ids.iter().map(ToString::to_string).collect();
    assert_eq!(keys_in(&options, 402)[..400], expected, "each once, in their order");
}

#[test]
fn a_bound_that_is_lowered_under_writes_costs_the_commands_that_are_too_large_alone() {
    let options = KafkaOptions { linger_ms: 20, acknowledge_timeout_ms: 30_000, ..options(1) };
    let mut writer = Writer::new(&options);
    let mut ids = new_ids(400);
    assert!(writer.write(&ids, 1_000).iter().all(Result::is_ok));
    // At once: the writing end has not heard of it, and its next batch is refused as a whole.
    set_message_max_bytes(&options, 20_000);
    let after = new_ids(400);
    assert!(writer.write(&after, 1_000).iter().all(Result::is_ok), "a refused batch is sent again in smaller ones");
    assert_eq!(writer.write(&new_ids(1), 30_000), [Err(Refusal::TooLarge)]);
    // And further down, and up again.
    set_message_max_bytes(&options, 5_000);
    let few = new_ids(50);
    assert!(writer.write(&few, 1_000).iter().all(Result::is_ok));
    set_message_max_bytes(&options, 1_048_588);
    let large = new_ids(1);
    eventually("large commands are taken again", || writer.write(&large, 30_000)[0].is_ok().then_some(()));
    ids.extend(after);
    ids.extend(few);
    ids.extend(large);
    let expected: Vec<String> = ids.iter().map(ToString::to_string).collect();
    assert_eq!(keys_in(&options, expected.len()), expected, "each once, in their order");
}

/// Of a cluster with many groups, those of the topic are found by one client.
#[test]
fn the_groups_of_a_topic_are_found_among_a_hundred() {
    const GROUPS: usize = 100;
    let (ours, others) = (options(1), options(1));
    ensure_topic(&ours).expect("the topic");
    ensure_topic(&others).expect("another topic");
    std::thread::scope(|scope| {
        for part in 0..10 {
            let others = &others;
            scope.spawn(move || {
                for number in (part..GROUPS).step_by(10) {
                    let group = format!("{}-{number}", others.group);
                    set_group_offsets(others, &group, &[(0, 0)].into()).expect("committed");
                }
            });
        }
    });
    set_group_offsets(&ours, &ours.group, &[(0, 0)].into()).expect("committed");
    eventually("all groups have told", || {
        let found = groups_of_topic(&ours).expect("the broker answers");
        (found.untold == 0 && found.names == [ours.group.clone()]).then_some(())
    });
    eventually("the groups of the other topic", || {
        (groups_of_topic(&others).expect("the broker answers").names.len() == GROUPS).then_some(())
    });
}
