//! The properties of Kafka's topic: how it is made, and what its changes mean while everything runs.

use million_rps::command_log::kafka::{KafkaOptions, ensure_topic};
use million_rps::command_log::{CommandReader, LogError, LogEvent};
use million_rps::todo::TodoId;
use rdkafka::admin::{AdminOptions, NewPartitions, ResourceSpecifier};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::kafka::{Progress, WAIT, administrator, append, block_on, options, reader};
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
