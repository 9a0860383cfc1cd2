//! The writing end of the Kafka log.
//!
//! The producer thread hands messages to librdkafka; a thread of this module waits for librdkafka's delivery reports and
//! takes them to the sink in the groups in which they come, and gives up what has waited too long ([`Waiting`]). A message
//! carries its ticket in librdkafka's opaque number: there is nothing to allocate or look up per message.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext, PurgeConfig};

use crate::command_log::kafka::{KafkaOptions, ensure_topic, log_error, partition_count};
use crate::command_log::kafka_events::{Events, refusal};
use crate::command_log::kafka_host::KafkaHost;
use crate::command_log::kafka_topic::Topic;
use crate::command_log::kafka_trouble::{BrokerTrouble, log_client_error};
use crate::command_log::kafka_waiting::{Reported, Waiting};
use crate::command_log::new_ids::NewIds;
use crate::command_log::{
    Acknowledgement, AcknowledgementSink, CommandAppender, LogError, Refusal, Submission, Ticket,
};

/// How often the thread of delivery reports looks whether it shall end, in milliseconds.
const REPORT_WAIT_MS: i32 = 100;
/// Delivery reports from which on no further event is taken along: the shards get what there is, as the first have waited for
/// the last.
const REPORTS_TOGETHER_MAX: usize = 4096;
/// Shortest time between two attempts to give up what waits: the reports of the first are on their way.
const GIVE_UP_PAUSE: Duration = Duration::from_millis(100);
/// How long reports of purged messages may take: they come from within this process.
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bounds of the wait for a broker's answer to one request, in milliseconds.
const REQUEST_TIMEOUT_MIN_MS: u64 = 1_000;
const REQUEST_TIMEOUT_MAX_MS: u64 = 60_000;
/// librdkafka looks for requests that have waited too long once a second.
const REQUEST_TIMEOUT_LATENESS: Duration = Duration::from_millis(1_500);
/// Pause between attempts to create the topic, and to reach a broker that did not answer.
const TOPIC_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Pause between questions to a broker that answers.
const WATCH_PAUSE: Duration = Duration::from_secs(5);

/// The writing end.
pub struct KafkaAppender {
    options: KafkaOptions,
    sink: Arc<dyn AcknowledgementSink>,
    host: KafkaHost,
    /// `None` when closed.
    link: Option<Link>,
    refused: Vec<Acknowledgement>,
    new_ids: Arc<NewIds>,
}

/// One producer of librdkafka and the thread that serves its events.
struct Link {
    /// Opened with the first batch: librdkafka asks the brokers about it from then on.
    topic: Option<Topic<AppenderContext>>,
    producer: Arc<BaseProducer<AppenderContext>>,
    shared: Arc<Shared>,
    reports: JoinHandle<()>,
}

struct Shared {
    /// Messages whose delivery report has not been handed to the sink.
    waiting: Waiting,
    ending: AtomicBool,
}

impl KafkaAppender {
    /// Starts a producer. Brokers need not be there yet: until they are, messages are refused as unavailable. Creates the
    /// topic when it is missing.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when librdkafka does not take the options.
    pub fn new(options: KafkaOptions, sink: Arc<dyn AcknowledgementSink>) -> Result<KafkaAppender, LogError> {
        KafkaAppender::within(KafkaHost::default(), options, sink)
    }

    /// The same, for a process that wants to be told of what happens here.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when librdkafka does not take the options.
    pub fn within(
        host: KafkaHost,
        options: KafkaOptions,
        sink: Arc<dyn AcknowledgementSink>,
    ) -> Result<KafkaAppender, LogError> {
        let new_ids = Arc::new(NewIds::default());
        let link = Link::start(&options, &host, sink.clone(), new_ids.clone())?;
        Ok(KafkaAppender { options, sink, host, link: Some(link), refused: Vec::new(), new_ids })
    }

    /// librdkafka stops for good at errors that break its promise of no gaps and no doubles, for example when the topic
    /// was made anew under it. Whoever waited has then been refused; a new producer starts with a new promise.
    fn replace_broken_link(&mut self) {
        let Some(link) = &self.link else { return };
        let Some((code, reason)) = link.producer.client().fatal_error() else { return };
        tracing::error!(%code, reason, "Kafka's producer stopped; starting another");
        match Link::start(&self.options, &self.host, self.sink.clone(), self.new_ids.clone()) {
            Ok(link) => {
                if let Some(broken) = self.link.replace(link) {
                    broken.end(Duration::ZERO);
                }
            }
            // The old one refuses every message until another attempt works.
            Err(error) => tracing::error!(%error, "Kafka's producer cannot be started again"),
        }
    }
}

impl CommandAppender for KafkaAppender {
    fn append(&mut self, batch: &mut Vec<Submission>) {
        self.replace_broken_link();
        let mut refuse = |ticket, refusal| self.refused.push(Acknowledgement::refused(ticket, refusal));
        match &mut self.link {
            Some(link) => link.send(&self.options.topic, batch, refuse),
            None => batch.iter().for_each(|Submission { ticket, .. }| refuse(*ticket, Refusal::Unavailable)),
        }
        batch.clear();
        if !self.refused.is_empty() {
            self.sink.acknowledge(&mut self.refused);
        }
    }

    fn new_ids(&self) -> Arc<NewIds> {
        self.new_ids.clone()
    }

    fn close(&mut self, deadline: Duration) {
        if let Some(link) = self.link.take() {
            link.end(deadline);
        }
    }
}

impl Drop for KafkaAppender {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

impl Link {
    fn start(
        options: &KafkaOptions,
        host: &KafkaHost,
        sink: Arc<dyn AcknowledgementSink>,
        new_ids: Arc<NewIds>,
    ) -> Result<Link, LogError> {
        let producer: BaseProducer<AppenderContext> = options
            .producer_config()
            .set("linger.ms", options.linger_ms.to_string())
            .set("compression.type", &options.compression)
            .set("queue.buffering.max.messages", options.queue_max_messages.to_string())
            .set("queue.buffering.max.kbytes", options.queue_max_kb.to_string())
            // Never: `serve_reports` gives up what has waited too long.
            .set("message.timeout.ms", "0")
            .set("socket.timeout.ms", request_timeout(options).as_millis().to_string())
            .create_with_context(AppenderContext::default())
            .map_err(log_error)?;
        let producer = Arc::new(producer);
        let shared = Arc::new(Shared { waiting: Waiting::new(longest_wait(options)), ending: AtomicBool::new(false) });
        spawn_watch(options.clone(), Arc::downgrade(&producer), shared.clone(), sink.clone(), new_ids);
        let reports = {
            let (producer, shared) = (producer.clone(), shared.clone());
            let guard = host.guard("kafka-reports");
            std::thread::Builder::new()
                .name("kafka-reports".into())
                .spawn(move || {
                    serve_reports(&producer, &shared, &*sink);
                    if shared.ending.load(Ordering::SeqCst) {
                        guard.end_in_order();
                    }
                })
                .map_err(|error| LogError::Unavailable(format!("no thread for Kafka's delivery reports: {error}")))?
        };
        Ok(Link { topic: None, producer, shared, reports })
    }

    fn send(&mut self, topic: &str, batch: &[Submission], mut refuse: impl FnMut(Ticket, Refusal)) {
        if self.topic.is_none() {
            self.topic = Topic::open(&self.producer, topic);
        }
        let Some(topic) = &self.topic else {
            return batch.iter().for_each(|submission| refuse(submission.ticket, Refusal::Unavailable));
        };
        // Counted before they are sent: reports may come at once.
        let period = self.shared.waiting.add(batch.len());
        topic.send(period, batch, |submission, code| {
            self.shared.waiting.remove(period, 1);
            refuse(submission.ticket, refusal(code));
        });
    }

    /// Waits for what is on its way, gives up what is not delivered by then, and ends the thread.
    fn end(self, deadline: Duration) {
        if !self.delivered_within(deadline) {
            give_up(&self.producer);
            if !self.delivered_within(PURGE_TIMEOUT) {
                tracing::error!("Kafka's client did not report the messages that it gave up");
            }
        }
        self.shared.ending.store(true, Ordering::SeqCst);
        if self.reports.join().is_err() {
            tracing::error!("the thread of Kafka's delivery reports panicked");
        }
    }

    fn delivered_within(&self, deadline: Duration) -> bool {
        let start = Instant::now();
        while !self.shared.waiting.is_empty() {
            if start.elapsed() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

/// Creates the topic as soon as a broker can be asked, without holding anybody up. Then goes on asking whether a broker is
/// there, so that the sink knows it also while nobody writes.
fn spawn_watch(
    options: KafkaOptions,
    producer: Weak<BaseProducer<AppenderContext>>,
    shared: Arc<Shared>,
    sink: Arc<dyn AcknowledgementSink>,
    new_ids: Arc<NewIds>,
) {
    let watch = move || {
        let mut topic_is_there = false;
        while !shared.ending.load(Ordering::SeqCst) {
            let asked = match (topic_is_there, producer.upgrade()) {
                (_, None) => return,
                (false, _) => ensure_topic(&options),
                (true, Some(producer)) => ask_brokers(&producer, &options.topic),
            };
            if let Ok(partitions) = asked {
                new_ids.set_partitions(partitions);
            }
            // What comes after the end is about a link that nobody uses.
            if !shared.ending.load(Ordering::SeqCst) {
                sink.note_reachable(asked.as_ref().map(|_| ()));
            }
            if let Err(error) = &asked
                && !topic_is_there
            {
                // The sink has warned, once.
                tracing::debug!(%error, topic = options.topic, "waiting for Kafka's topic");
            }
            topic_is_there |= asked.is_ok();
            std::thread::sleep(if asked.is_ok() { WATCH_PAUSE } else { TOPIC_RETRY_PAUSE });
        }
    };
    if let Err(error) = std::thread::Builder::new().name("kafka-watch".into()).spawn(watch) {
        tracing::error!(%error, "no thread to create Kafka's topic and to watch the brokers; the topic has to exist already");
    }
}

/// Whether a broker answers a question about the topic: its partitions, 0 when it is not there.
fn ask_brokers(producer: &BaseProducer<AppenderContext>, topic: &str) -> Result<usize, LogError> {
    let trouble = &producer.client().context().trouble;
    match partition_count(producer.client(), topic) {
        // The topic may be gone for a moment.
        Ok(partitions) => {
            trouble.clear();
            Ok(partitions.unwrap_or(0))
        }
        Err(error) => Err(trouble.explain(error)),
    }
}

/// Takes delivery reports to the sink until the link ends. The first event is waited for; what has come with it is taken along,
/// for one wake-up of each shard.
fn serve_reports(producer: &BaseProducer<AppenderContext>, shared: &Shared, sink: &dyn AcknowledgementSink) {
    let Some(events) = Events::of(producer.client()) else {
        return tracing::error!("Kafka's client has no queue of events");
    };
    let (mut acknowledgements, mut reported) = (Vec::new(), Reported::default());
    let mut given_up_at: Option<Instant> = None;
    while !shared.ending.load(Ordering::SeqCst) {
        let mut wait_ms = REPORT_WAIT_MS;
        while acknowledgements.len() < REPORTS_TOGETHER_MAX
            && let Some(event) = events.next(wait_ms)
        {
            event.serve(&mut acknowledgements, &mut reported);
            wait_ms = 0;
        }
        #[cfg(feature = "fault-injection")]
        if !acknowledgements.is_empty() && std::env::var_os("FAULT_KAFKA_REPORTS").is_some() {
            panic!("a test asked for it");
        }
        if !acknowledgements.is_empty() {
            sink.acknowledge(&mut acknowledgements);
            shared.waiting.remove_reported(&mut reported);
        }
        if shared.waiting.is_overdue() && given_up_at.is_none_or(|at| at.elapsed() >= GIVE_UP_PAUSE) {
            tracing::debug!("Kafka did not acknowledge in time: everything that waits is refused");
            give_up(producer);
            given_up_at = Some(Instant::now());
        }
    }
}

/// Has everything that waits refused, soon: it is not sent again, also what a broker may have got.
fn give_up(producer: &BaseProducer<AppenderContext>) {
    // A thread of librdkafka may be held up, for example by a name server.
    producer.purge(PurgeConfig::default().queue().inflight().non_blocking());
}

/// How long a broker may take for an answer before librdkafka takes another connection and asks again: a frozen one keeps its
/// connection. Half of the longest wait, which leaves time for the other connection.
fn request_timeout(options: &KafkaOptions) -> Duration {
    Duration::from_millis((options.acknowledge_timeout_ms / 2).clamp(REQUEST_TIMEOUT_MIN_MS, REQUEST_TIMEOUT_MAX_MS))
}

/// How long a message may wait before it is given up: longer than requests, whose timeouts end connections that have died.
fn longest_wait(options: &KafkaOptions) -> Duration {
    Duration::from_millis(options.acknowledge_timeout_ms).max(request_timeout(options) + REQUEST_TIMEOUT_LATENESS)
}

#[derive(Default)]
struct AppenderContext {
    trouble: BrokerTrouble,
}

impl ClientContext for AppenderContext {
    fn error(&self, error: KafkaError, reason: &str) {
        log_client_error(&error, reason);
        self.trouble.note(&error, reason);
    }
}

impl ProducerContext for AppenderContext {
    /// See `Tag`.
    type DeliveryOpaque = usize;

    /// Reports are taken by `serve_reports`. When the producer is dropped, its own loop may still find some; none is
    /// left by then.
    fn delivery(&self, _: &DeliveryResult<'_>, _: usize) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rdkafka::bindings as librdkafka;

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
        let mut options = KafkaOptions::new("127.0.0.1:1", "todo-commands");
        change(&mut options);
        let sink = Arc::new(Collected::default());
        (KafkaAppender::new(options, sink.clone()).expect("usable options"), sink)
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
        let (mut appender, sink) = appender_without_broker(|_| {});
        appender.append(&mut vec![submission(1, 10)]);
        let link = appender.link.as_ref().expect("open");
        // SAFETY: the client is alive, and the text is a C string; this function exists for such tests.
        unsafe {
            librdkafka::rd_kafka_test_fatal_error(
                link.producer.client().native_ptr(),
                librdkafka::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
                c"by a test".as_ptr(),
            );
        }
        appender.append(&mut vec![submission(2, 10)]);
        assert!(appender.link.as_ref().expect("open").producer.client().fatal_error().is_none());
        assert_eq!(
            results(&sink),
            [(1, Err(Refusal::Unavailable))],
            "the first was given up, the second is on its way"
        );
        appender.close(Duration::ZERO);
        assert_eq!(results(&sink).len(), 2);
    }

    #[test]
    fn a_broker_that_falls_silent_costs_a_refusal_and_is_used_again_when_it_answers() {
        let brokers = rdkafka::mocking::MockCluster::new(1).expect("brokers within this process");
        brokers.create_topic("todo-commands", 4, 1).expect("created");
        let (mut appender, sink) = appender_without_broker(|options| {
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
        assert_eq!(ask(2), Err(Refusal::Unavailable));
        brokers.broker_round_trip_time(1, Duration::ZERO).expect("quick again");
        let mut ticket = 3;
        while ask(ticket) != Ok(()) {
            ticket += 1;
            assert!(ticket < 100, "the broker answers again, but no message is acknowledged");
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
}
