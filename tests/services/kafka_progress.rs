//! The group's offsets, which show Kafka's own tools how far the store has got; and places that a partition does not have.

use million_rps::command_log::kafka::{KafkaOptions, KafkaReader};
use million_rps::command_log::{CommandReader, LogError, LogEvent};
use million_rps::todo::TodoId;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::kafka::{Progress, WAIT, append, committed, options, reader};
use crate::setting::eventually;

const RECORDS: usize = 10;

/// A cluster within this process, which refuses what it is told to, with a topic that a reader has read to its end.
fn read_from_a_cluster_that_can_refuse()
-> (MockCluster<'static, rdkafka::producer::DefaultProducerContext>, KafkaOptions, KafkaReader) {
    let cluster = MockCluster::new(1).expect("brokers within this process");
    let options = KafkaOptions { brokers: cluster.bootstrap_servers(), ..options(1) };
    cluster.create_topic(&options.topic, 1, 1).expect("created");
    write(&options);
    let mut reader = reader(&options);
    Progress::default().run(&mut reader, "everything is read", |progress| progress.count() == RECORDS);
    (cluster, options, reader)
}

/// Writes the records, as another program does: these brokers do not describe their topic, which ours asks them to.
fn write(options: &KafkaOptions) {
    let producer: BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &options.brokers).create().expect("a producer");
    let key = TodoId::new().to_string();
    for _ in 0..RECORDS {
        let record = BaseRecord::to(&options.topic).key(&key).payload("0");
        producer.send(record).map_err(|(error, _)| error).expect("taken");
    }
    producer.flush(std::time::Duration::from_secs(30)).expect("written");
}

/// Errors that pass: the group is being divided, its coordinator has just moved, a request took too long.
const PASSING: [RDKafkaRespErr; 3] = [
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
];

#[test]
fn offsets_that_kafka_does_not_take_are_told_again() {
    let (cluster, options, mut reader) = read_from_a_cluster_that_can_refuse();
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &PASSING);
    reader.applied(0, RECORDS as i64);
    eventually("Kafka knows how far the store has got", || {
        assert_eq!(reader.poll(10, 1_000, WAIT).expect("nothing to read"), LogEvent::Idle);
        (committed(&options) == [(0, RECORDS as i64)].into()).then_some(())
    });
}

#[test]
fn offsets_that_kafka_does_not_take_are_told_again_by_a_reader_that_stops() {
    let (cluster, options, mut reader) = read_from_a_cluster_that_can_refuse();
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &PASSING[..1]);
    reader.applied(0, RECORDS as i64);
    drop(reader);
    assert_eq!(committed(&options), [(0, RECORDS as i64)].into());
}

#[test]
fn what_one_reader_could_not_tell_the_next_one_tells() {
    let options = options(4);
    append(&options, &(0..40).map(|_| TodoId::new()).collect::<Vec<_>>());
    let mut first = reader(&options);
    let mut progress = Progress::default();
    progress.run(&mut first, "everything is read", |progress| progress.count() == 40);
    // It applies all and dies before it tells.
    drop(first);
    assert_eq!(committed(&options), [].into());
    let applied = progress.records.iter().map(|(&id, records)| (id, records.len() as i64)).collect();
    let mut second = reader(&options);
    let mut idle = Progress::default();
    eventually("Kafka knows how far the store has got, although nothing more is written", || {
        let next = |partition| progress.records.get(&partition).map(|records| records.len() as i64);
        idle.step(&mut second, &next).expect("the log can be read");
        (committed(&options) == applied).then_some(())
    });
    assert_eq!(idle.count(), 0);
}

#[test]
fn places_that_do_not_exist_hold_up_no_other_partition_and_are_not_told() {
    let options = options(4);
    append(&options, &(0..40).map(|_| TodoId::new()).collect::<Vec<_>>());
    let mut reader = reader(&options);
    let (mut lost, mut read, mut errors) = (vec![0, 2], 0, Vec::new());
    eventually("the others are read", || {
        match reader.poll(500, 1 << 20, WAIT) {
            Ok(LogEvent::Assigned(partitions)) => {
                for partition in partitions {
                    let beyond = lost.contains(&partition).then_some(1_000);
                    reader.start(partition, beyond).expect("nobody is asked");
                }
            }
            Ok(LogEvent::Records(batches)) => read += batches.iter().map(|batch| batch.records.len()).sum::<usize>(),
            Ok(_) => {}
            Err(LogError::OffsetOutOfRange { partition, requested: 1_000, earliest: 0, .. }) => errors.push(partition),
            Err(error) => panic!("{error}"),
        }
        (errors.len() >= 2 && read > 0).then_some(())
    });
    errors.sort_unstable();
    assert_eq!(errors, lost);
    // Tried again, they are refused at once.
    for &partition in &lost {
        let again = reader.start(partition, Some(1_000));
        assert!(matches!(again, Err(LogError::OffsetOutOfRange { .. })), "{again:?}");
    }
    assert_eq!(committed(&options), [].into());
    // Somebody has compared both and put it right.
    lost.drain(..).for_each(|partition| reader.start(partition, None).expect("it has a beginning"));
    eventually("all are read", || {
        if let LogEvent::Records(batches) = reader.poll(500, 1 << 20, WAIT).expect("the log can be read") {
            read += batches.iter().map(|batch| batch.records.len()).sum::<usize>();
        }
        (read == 40).then_some(())
    });
}
