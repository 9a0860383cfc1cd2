//! No command gets into the log under two epochs of a producer: the broker would not know that it has it.
//!
//! librdkafka takes a new epoch of its identity when a broker misses a request before the one that it got, and sends again
//! under it whatever waits, also what another broker may have written under the old epoch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use million_rps::command_log::kafka::{KafkaAppender, KafkaOptions, ensure_topic};
use million_rps::command_log::{Acknowledgement, AcknowledgementSink, CommandAppender, Submission, Ticket};
use million_rps::todo::TodoId;

use crate::brokers::{clients_of, deployment, heal, leaders};
use crate::deployment::PARTITIONS;
use crate::log::Log;
use crate::{say, within};

/// How long a command may wait; half of it, a request for its answer.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(20);
/// Until requests without an answer are given up and all is drained, which librdkafka looks for once a second.
const DRAINED: Duration = Duration::from_millis(12_500);

#[derive(Default)]
struct Collected(Mutex<BTreeMap<u64, Acknowledgement>>);

impl AcknowledgementSink for Collected {
    fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>) {
        self.0.lock().expect("unpoisoned").extend(acknowledgements.drain(..).map(|taken| (taken.ticket.0, taken)));
    }
}

struct Sender {
    appender: KafkaAppender,
    sink: Arc<Collected>,
    sent: u64,
}

impl Sender {
    /// Sends a command with this title, and says under which number.
    fn send(&mut self, id: TodoId, title: &str) -> u64 {
        self.sent += 1;
        let payload = serde_json::json!({ "action": "update", "id": id.to_string(), "title": title }).to_string();
        let ticket = Ticket(self.sent);
        self.appender.append(&mut vec![Submission { ticket, id, payload: payload.into_bytes() }]);
        self.sent
    }

    fn answer(&self, number: u64) -> Acknowledgement {
        within("an answer", || self.sink.0.lock().expect("unpoisoned").get(&number).copied()).0
    }
}

#[test]
fn a_gap_at_one_broker_sends_nothing_again_that_another_broker_has() {
    let deployment = deployment();
    let options = KafkaOptions {
        partitions: PARTITIONS as i32,
        acknowledge_timeout_ms: ACKNOWLEDGE_TIMEOUT.as_millis() as u64,
        ..KafkaOptions::new(&deployment.setting("KAFKA_BROKERS"), &deployment.topic)
    };
    ensure_topic(&options).expect("created");
    let leaders = leaders(&deployment);
    let sink = Arc::new(Collected::default());
    let appender = KafkaAppender::new(options, sink.clone()).expect("usable options");
    let mut sender = Sender { appender, sink, sent: 0 };

    // A todo of each partition, and the connections to all brokers.
    let mut todos: BTreeMap<i32, TodoId> = BTreeMap::new();
    within("a todo of each partition", || {
        let id = TodoId::new();
        let number = sender.send(id, "greeting");
        if let Some(position) = sender.answer(number).position {
            todos.insert(position.partition, id);
        }
        (todos.len() == PARTITIONS).then_some(())
    });
    let (&here, &broker) = leaders.first_key_value().expect("eight");
    let (&there, &other) = leaders.iter().find(|(_, leader)| **leader != broker).expect("leaders are spread");

    // One broker writes a command, and its answer is lost; it cannot be reached for a while.
    clients_of(broker).refuse();
    clients_of(broker).cut_reply_to("written and not confirmed");
    let written = sender.send(todos[&here], "written and not confirmed");
    // The other one gets the second of two requests.
    clients_of(other).swallow("lost on the way");
    std::thread::sleep(Duration::from_millis(500));
    let lost = sender.send(todos[&there], "lost on the way");
    std::thread::sleep(Duration::from_millis(500));
    let second = sender.send(todos[&there], "behind a gap");
    std::thread::sleep(DRAINED);
    heal();

    let answers = [written, lost, second].map(|number| sender.answer(number).result);
    say(&format!("a gap at one broker while another's answer is lost: {answers:?}"));
    sender.appender.close(ACKNOWLEDGE_TIMEOUT);
    let mut log = Log::open(&deployment);
    log.catch_up();
    for (title, result) in ["written and not confirmed", "lost on the way", "behind a gap"].into_iter().zip(answers) {
        let times = log.records.iter().filter(|record| record.text("title") == Some(title)).count();
        assert!(times <= 1, "{title:?} stands in the log {times} times");
        assert!(times == 1 || result.is_err(), "{title:?} is lost");
    }
}
