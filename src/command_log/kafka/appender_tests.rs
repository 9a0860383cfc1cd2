//! Tests of the writing end.

use std::sync::Mutex;

use super::*;
use crate::todo::TodoId;

#[derive(Default)]
struct Collected(Mutex<Vec<Acknowledgement>>);

impl AcknowledgementSink for Collected {
    fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>) {
        self.0.lock().expect("unpoisoned").append(acknowledgements);
    }
}

fn submission(ticket: u64, payload_bytes: usize) -> Submission {
    Submission { ticket: Ticket(ticket), id: TodoId::new(), payload: vec![b'x'; payload_bytes] }
}

/// An appender without any broker: port 1 of loopback refuses connections.
fn appender_without_broker(change: impl FnOnce(&mut KafkaOptions)) -> (KafkaAppender, Arc<Collected>) {
    appender(KafkaHost::default(), change)
}

fn appender(host: KafkaHost, change: impl FnOnce(&mut KafkaOptions)) -> (KafkaAppender, Arc<Collected>) {
    let mut options = KafkaOptions::new("127.0.0.1:1", "todo-commands");
    change(&mut options);
    let sink = Arc::new(Collected::default());
    (KafkaAppender::within(host, options, sink.clone()).expect("usable options"), sink)
}

fn results(sink: &Collected) -> Vec<(u64, Result<(), Refusal>)> {
    let mut results: Vec<_> =
        sink.0.lock().expect("unpoisoned").iter().map(|taken| (taken.ticket.0, taken.result)).collect();
    results.sort_by_key(|(ticket, _)| *ticket);
    results
}

#[test]
fn every_ticket_is_refused_once_when_there_is_no_broker() {
    let (mut appender, sink) = appender_without_broker(|_| {});
    appender.append(&mut vec![submission(0, 10), submission(7, 10), submission(Ticket::MAX.0, 10)]);
    appender.close(Duration::ZERO);
    appender.append(&mut vec![submission(8, 10)]);
    let refused = Err(Refusal::Unavailable);
    assert_eq!(results(&sink), [(0, refused), (7, refused), (8, refused), (Ticket::MAX.0, refused)]);
}

#[test]
fn a_message_that_waits_too_long_is_refused_without_closing() {
    let (mut appender, sink) = appender_without_broker(|options| options.acknowledge_timeout_ms = 100);
    appender.append(&mut vec![submission(1, 10)]);
    while results(&sink).is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(results(&sink), [(1, Err(Refusal::Unavailable))]);
    appender.close(Duration::ZERO);
}

#[test]
fn a_full_queue_and_a_large_record_have_refusals_of_their_own() {
    let (mut appender, sink) = appender_without_broker(|options| options.queue_max_messages = 2);
    appender.append(&mut vec![submission(1, 2_000_000), submission(2, 10), submission(3, 10), submission(4, 10)]);
    assert_eq!(results(&sink), [(1, Err(Refusal::TooLarge)), (4, Err(Refusal::Full))]);
    appender.close(Duration::ZERO);
    assert_eq!(results(&sink).len(), 4);
}

#[test]
fn a_producer_that_stopped_for_good_is_replaced() {
    let brokers = rdkafka::mocking::MockCluster::new(1).expect("brokers within this process");
    brokers.create_topic("todo-commands", 4, 1).expect("created");
    let (mut appender, sink) =
        appender(KafkaHost::of_known_topic(4), |options| options.brokers = brokers.bootstrap_servers());
    brokers.broker_down(1).expect("stopped");
    appender.append(&mut vec![submission(1, 10)]);
    appender.core().link.as_ref().expect("open").fail_for_good();
    brokers.broker_up(1).expect("started");
    appender.append(&mut vec![submission(2, 10)]);
    assert!(appender.core().link.as_ref().expect("open").fatal_error().is_none());
    appender.close(Duration::from_secs(30));
    assert_eq!(results(&sink), [(1, Err(Refusal::Unconfirmed)), (2, Ok(()))], "the first was given up");
}

#[test]
fn a_broker_that_falls_silent_costs_a_refusal_and_is_used_again_when_it_answers() {
    let brokers = rdkafka::mocking::MockCluster::new(1).expect("brokers within this process");
    brokers.create_topic("todo-commands", 4, 1).expect("created");
    let (mut appender, sink) = appender(KafkaHost::of_known_topic(4), |options| {
        options.brokers = brokers.bootstrap_servers();
        // The first write opens the connection, perhaps on a machine that is busy with other tests.
        options.acknowledge_timeout_ms = 4_000;
    });
    let mut ask = |ticket| {
        appender.append(&mut vec![submission(ticket, 10)]);
        loop {
            if let Some(&(_, result)) = results(&sink).iter().find(|(answered, _)| *answered == ticket) {
                return result;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    assert_eq!(ask(1), Ok(()));
    brokers.broker_round_trip_time(1, Duration::from_secs(600)).expect("slowed");
    assert_eq!(ask(2), Err(Refusal::Unconfirmed), "the broker has it");
    brokers.broker_round_trip_time(1, Duration::ZERO).expect("quick again");
    let mut ticket = 3;
    while ask(ticket) != Ok(()) {
        ticket += 1;
        assert!(ticket < 100, "the broker answers again, but no message is acknowledged");
    }
    appender.close(Duration::ZERO);
}

#[test]
fn a_producer_that_delivers_nothing_is_replaced_when_brokers_answer_others() {
    let brokers = rdkafka::mocking::MockCluster::new(1).expect("brokers within this process");
    brokers.create_topic("todo-commands", 4, 1).expect("created");
    let (mut appender, sink) = appender(KafkaHost::of_known_topic(4), |options| {
        options.brokers = brokers.bootstrap_servers();
        options.acknowledge_timeout_ms = 1_000;
    });
    let answered = |ticket| results(&sink).iter().any(|(known, _)| *known == ticket);
    let usual = appender.core().stuck_after;
    let patience = Duration::from_millis(200);
    brokers.broker_round_trip_time(1, Duration::from_secs(600)).expect("slowed");
    appender.append(&mut vec![submission(1, 10)]);
    while !answered(1) {
        std::thread::sleep(Duration::from_millis(5));
    }
    appender.core().stuck_after = patience;
    std::thread::sleep(2 * LOOK_PAUSE);
    assert_eq!(appender.core().stuck_after, patience, "nobody has been answered: the brokers are away");
    appender.core().answered_since = Some(Instant::now());
    while appender.core().stuck_after == patience {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(appender.core().stuck_after, 2 * patience);
    brokers.broker_round_trip_time(1, Duration::ZERO).expect("quick again");
    let mut ticket = 2;
    while results(&sink).last().is_none_or(|(_, result)| result.is_err()) {
        appender.append(&mut vec![submission(ticket, 10)]);
        while !answered(ticket) {
            std::thread::sleep(Duration::from_millis(5));
        }
        ticket += 1;
        assert!(ticket < 100, "the next producer delivers nothing either");
    }
    while appender.core().stuck_after != usual {
        std::thread::sleep(Duration::from_millis(5));
    }
    appender.close(Duration::ZERO);
}

#[test]
fn options_that_librdkafka_does_not_take_are_named() {
    let options = KafkaOptions { compression: "shrink".into(), ..KafkaOptions::new("127.0.0.1:1", "t") };
    let Err(error) = KafkaAppender::new(options, Arc::new(Collected::default())) else {
        panic!("the option has to be refused");
    };
    assert!(matches!(&error, LogError::Fatal(text) if text.contains("compression.type")), "{error}");
}
