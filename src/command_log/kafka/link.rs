//! One producer of librdkafka, with the thread that takes its delivery reports to the sink in the groups in which they come,
//! and gives up what has waited too long ([`Waiting`]). A message carries its ticket in librdkafka's opaque number: there is
//! nothing to allocate or look up per message.
//!
//! The bounds of its batches are fixed when it is made. A topic that takes other ones gets another link.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext, PurgeConfig};

use crate::command_log::kafka::events::{Events, Reports, refusal};
use crate::command_log::kafka::host::KafkaHost;
use crate::command_log::kafka::lost_brokers::LostBrokers;
use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::returned::Returned;
use crate::command_log::kafka::topic::Topic;
use crate::command_log::kafka::trouble::log_error;
use crate::command_log::kafka::trouble::{BrokerTrouble, log_client_error, log_client_line};
use crate::command_log::kafka::waiting::Waiting;
use crate::command_log::{AcknowledgementSink, LogError, Refusal, Submission, Ticket};
use crate::limits::{BODY_LIMIT_MAX_BYTES, COMMAND_OVERHEAD_BYTES};
use crate::todo::TODO_ID_TEXT_BYTES;

/// How often the thread of delivery reports looks whether it shall end, in milliseconds.
const REPORT_WAIT_MS: i32 = 100;
/// Delivery reports from which on no further event is taken along: the shards get what there is, as the first have waited for
/// the last.
const REPORTS_TOGETHER_MAX: usize = 4096;
/// Shortest time between two attempts to give up what waits: the reports of the first are on their way.
const GIVE_UP_PAUSE: Duration = Duration::from_millis(100);
/// Shortest time without any delivery before a link can count as stuck.
const STUCK_MIN: Duration = Duration::from_secs(10);
/// How many times the longest wait passes without any delivery before a link can count as stuck.
const STUCK_WAITS: u32 = 3;
/// How long reports of purged messages may take: they come from within this process.
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bounds of the wait for a broker's answer to one request, in milliseconds.
const REQUEST_TIMEOUT_MIN_MS: u64 = 1_000;
const REQUEST_TIMEOUT_MAX_MS: u64 = 60_000;
/// librdkafka looks for requests that have waited too long once a second.
const REQUEST_TIMEOUT_LATENESS: Duration = Duration::from_millis(1_500);
/// Largest batch of several commands, in bytes; a larger command is one by itself.
const BATCH_MAX_BYTES: u32 = 512 * 1024;
/// Bytes of a batch around one command: 61 of the batch's head, at most 40 of the record's, and some to spare.
const BATCH_OVERHEAD_BYTES: u32 = 128;
/// Largest batch of one command, in bytes: what a topic takes out of the box (`max.message.bytes`).
const LARGEST_BATCH_BYTES: u32 = 1_048_588;

const _: () = {
    let largest = BODY_LIMIT_MAX_BYTES + COMMAND_OVERHEAD_BYTES + TODO_ID_TEXT_BYTES + BATCH_OVERHEAD_BYTES as usize;
    assert!(largest <= LARGEST_BATCH_BYTES as usize, "every command that a request makes");
};

/// How much goes into one request for a partition, and into one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchBounds {
    /// Bytes of a batch, without compression.
    batch_bytes: u32,
    /// Bytes of a batch of one command.
    largest_bytes: u32,
    /// Whether each command is a batch by itself, so that what is refused for its size is too large itself.
    singly: bool,
}

impl BatchBounds {
    /// What a topic takes whose `max.message.bytes` is this; `None` while it is unknown.
    pub fn of(message_max_bytes: Option<u32>) -> BatchBounds {
        let largest_bytes = message_max_bytes.unwrap_or(LARGEST_BATCH_BYTES).min(LARGEST_BATCH_BYTES);
        BatchBounds { batch_bytes: largest_bytes.min(BATCH_MAX_BYTES), largest_bytes, singly: false }
    }

    /// The same bound for commands that are sent one by one.
    pub fn singly(self) -> BatchBounds {
        BatchBounds { singly: true, ..self }
    }

    /// Whether batches are smaller by these.
    pub fn is_below(self, other: BatchBounds) -> bool {
        self.batch_bytes < other.batch_bytes || self.largest_bytes < other.largest_bytes
    }

    /// Largest command, key included, in bytes.
    fn command_max_bytes(self) -> usize {
        // A topic that takes next to nothing refuses each by itself.
        (self.largest_bytes.max(2 * BATCH_OVERHEAD_BYTES) - BATCH_OVERHEAD_BYTES) as usize
    }

    /// Whether a command fits, which is decided here: a broker's refusal costs all that is on its way a new beginning.
    pub fn takes(self, payload: &[u8]) -> bool {
        payload.len() + TODO_ID_TEXT_BYTES <= self.command_max_bytes()
    }
}

/// One producer and its thread.
pub(super) struct Link {
    /// Opened with the first batch: librdkafka asks the brokers about it from then on.
    topic: Option<Topic<AppenderContext>>,
    producer: Arc<BaseProducer<AppenderContext>>,
    shared: Arc<Shared>,
    reports: JoinHandle<Returned>,
    bounds: BatchBounds,
}

struct Shared {
    /// Messages whose delivery report has not been handed to the sink.
    waiting: Waiting,
    ending: AtomicBool,
    has_returned: AtomicBool,
    deliveries: Mutex<Deliveries>,
}

/// What is known of deliveries.
#[derive(Debug, Clone, Copy, Default)]
struct Deliveries {
    is_any: bool,
    /// When messages were first given up, with no delivery since.
    none_since: Option<Instant>,
}

impl Shared {
    fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// `wake` is sent to when commands have come back.
    pub fn start(
        options: &KafkaOptions,
        host: &KafkaHost,
        sink: Arc<dyn AcknowledgementSink>,
        bounds: BatchBounds,
        wake: Sender<()>,
    ) -> Result<Link, LogError> {
        let mut config = options.producer_config();
        config
            .set("linger.ms", options.linger_ms.to_string())
            .set("compression.type", &options.compression)
            .set("queue.buffering.max.messages", options.queue_max_messages.to_string())
            .set("queue.buffering.max.kbytes", options.queue_max_kb.to_string())
            .set("batch.size", bounds.batch_bytes.to_string())
            // Never: `serve_reports` gives up what has waited too long.
            .set("message.timeout.ms", "0")
            .set("socket.timeout.ms", request_timeout(options).as_millis().to_string());
        if bounds.singly {
            config.set("batch.num.messages", "1");
        }
        let producer: BaseProducer<AppenderContext> =
            config.create_with_context(AppenderContext(Arc::clone(host.brokers()))).map_err(log_error)?;
        let producer = Arc::new(producer);
        let shared = Arc::new(Shared {
            waiting: Waiting::new(longest_wait(options)),
            ending: AtomicBool::new(false),
            has_returned: AtomicBool::new(false),
            deliveries: Mutex::default(),
        });
        let reports = {
            let (producer, shared, lost) = (producer.clone(), shared.clone(), LostBrokers::new(options));
            let guard = host.guard("kafka-reports");
            std::thread::Builder::new()
                .name("kafka-reports".into())
                .spawn(move || {
                    let returned = serve_reports(&producer, &shared, &*sink, bounds, lost, &wake);
                    if shared.ending.load(Ordering::SeqCst) {
                        guard.end_in_order();
                    }
                    returned
                })
                .map_err(|error| LogError::Unavailable(format!("no thread for Kafka's delivery reports: {error}")))?
        };
        Ok(Link { topic: None, producer, shared, reports, bounds })
    }

    /// What fits into its batches.
    pub fn bounds(&self) -> BatchBounds {
        self.bounds
    }

    /// Whether commands have come back that may be sent again by another link.
    pub fn has_returned(&self) -> bool {
        self.shared.has_returned.load(Ordering::Acquire)
    }

    /// For how long nothing has been delivered, counted from the first message that was given up since the last delivery.
    pub fn undelivered_for(&self) -> Option<Duration> {
        self.shared.deliveries().none_since.map(|since| since.elapsed())
    }

    /// Whether it delivers: the last that is known of a message is its delivery.
    pub fn delivers(&self) -> bool {
        let deliveries = *self.shared.deliveries();
        deliveries.is_any && deliveries.none_since.is_none()
    }

    /// Why librdkafka has stopped for good, if it has.
    pub fn fatal_error(&self) -> Option<(rdkafka::types::RDKafkaErrorCode, String)> {
        self.producer.client().fatal_error()
    }

    /// Has librdkafka stop for good.
    #[cfg(test)]
    pub fn fail_for_good(&self) {
        use rdkafka::bindings as librdkafka;
        let code = librdkafka::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        // SAFETY: the client is alive, and the text is a C string; this function exists for such tests.
        unsafe {
            librdkafka::rd_kafka_test_fatal_error(self.producer.client().native_ptr(), code, c"by a test".as_ptr());
        }
    }

    /// Hands a batch over, each command to the partition of its todo among so many.
    pub fn send(&mut self, topic: &str, spread: u32, batch: &[Submission], mut refuse: impl FnMut(Ticket, Refusal)) {
        if self.topic.is_none() {
            self.topic = Topic::open(&self.producer, topic);
        }
        let Some(topic) = &self.topic else {
            return batch.iter().for_each(|submission| refuse(submission.ticket, Refusal::Unavailable));
        };
        let bounds = self.bounds;
        let fits = |submission: &&Submission| bounds.takes(&submission.payload);
        batch.iter().filter(|submission| !fits(submission)).for_each(|large| refuse(large.ticket, Refusal::TooLarge));
        let count = batch.iter().filter(fits).count();
        // Counted before they are sent: reports may come at once.
        let period = self.shared.waiting.add(count);
        topic.send(period, spread, batch.iter().filter(fits), |ticket, code| {
            self.shared.waiting.remove(period, 1);
            refuse(ticket, refusal(code));
        });
    }

    /// Waits for what is on its way, gives up what is not delivered by then, and ends the thread. Returns the commands that
    /// have come back and are not answered.
    pub fn end(self, deadline: Duration) -> Returned {
        if !self.delivered_within(deadline) {
            give_up(&self.producer);
            if !self.delivered_within(PURGE_TIMEOUT) {
                tracing::error!("Kafka's client did not report the messages that it gave up");
            }
        }
        self.shared.ending.store(true, Ordering::SeqCst);
        self.reports.join().unwrap_or_else(|_| {
            tracing::error!("the thread of Kafka's delivery reports panicked");
            Returned::default()
        })
    }

    fn delivered_within(&self, deadline: Duration) -> bool {
        let start = Instant::now();
        while !self.shared.waiting.is_empty() {
            if start.elapsed() >= deadline || self.reports.is_finished() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

/// Takes delivery reports to the sink until the link ends. The first event is waited for; what has come with it is taken along,
/// for one wake-up of each shard. Returns what came back and is not answered.
fn serve_reports(
    producer: &BaseProducer<AppenderContext>,
    shared: &Shared,
    sink: &dyn AcknowledgementSink,
    bounds: BatchBounds,
    mut lost: LostBrokers,
    wake: &Sender<()>,
) -> Returned {
    let mut reports = Reports::new(bounds.singly);
    let Some(events) = Events::of(producer.client()) else {
        tracing::error!("Kafka's client has no queue of events");
        return reports.returned;
    };
    let mut given_up_at: Option<Instant> = None;
    while !shared.ending.load(Ordering::SeqCst) {
        let mut wait_ms = REPORT_WAIT_MS;
        while reports.acknowledgements.len() < REPORTS_TOGETHER_MAX
            && let Some(event) = events.next(wait_ms)
        {
            event.serve(&mut reports);
            wait_ms = 0;
        }
        #[cfg(feature = "fault-injection")]
        if !reports.acknowledgements.is_empty() && std::env::var_os("FAULT_KAFKA_REPORTS").is_some() {
            panic!("a test asked for it");
        }
        if reports.acknowledgements.iter().any(|acknowledgement| acknowledgement.result.is_ok()) {
            *shared.deliveries() = Deliveries { is_any: true, none_since: None };
            lost.note_answer();
        }
        if !reports.acknowledgements.is_empty() {
            let refused = reports.acknowledgements.iter().any(|report| report.result.is_err_and(Refusal::is_trouble));
            sink.acknowledge(&mut reports.acknowledgements);
            if refused && let Some(reason) = producer.client().context().0.reason() {
                let reason = format!("commands were refused or not acknowledged in time: {reason}");
                sink.note_reachable(Err(&LogError::Unavailable(reason)));
            }
        }
        shared.waiting.remove_reported(&mut reports.reported);
        if !reports.returned.is_empty() && !shared.has_returned.swap(true, Ordering::AcqRel) {
            // Full: it is about to look anyway.
            let _ = wake.try_send(());
        }
        if shared.waiting.is_overdue() && given_up_at.is_none_or(|at| at.elapsed() >= GIVE_UP_PAUSE) {
            tracing::debug!("Kafka did not acknowledge in time: everything that waits is refused");
            give_up(producer);
            let now = Instant::now();
            shared.deliveries().none_since.get_or_insert(now);
            given_up_at = Some(now);
            lost.note_silence();
        }
        if std::mem::take(&mut reports.is_cut_off) {
            lost.note_silence();
        }
        lost.look(producer.client());
    }
    reports.returned
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
pub(super) fn longest_wait(options: &KafkaOptions) -> Duration {
    Duration::from_millis(options.acknowledge_timeout_ms).max(request_timeout(options) + REQUEST_TIMEOUT_LATENESS)
}

/// How long nothing may be delivered by a producer whose brokers answer, before another one takes its place.
pub(super) fn stuck_after(options: &KafkaOptions) -> Duration {
    (longest_wait(options) * STUCK_WAITS).max(STUCK_MIN)
}

pub(super) struct AppenderContext(Arc<BrokerTrouble>);

impl ClientContext for AppenderContext {
    fn error(&self, error: KafkaError, reason: &str) {
        log_client_error(&error, reason);
        self.0.note(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_client_line(level, facility, line);
        self.0.note_line(facility, line);
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
    use super::*;

    #[test]
    fn bounds_follow_the_topic_and_leave_room_for_a_batchs_head() {
        let usual = BatchBounds::of(Some(1_048_588));
        assert_eq!((BatchBounds::of(None), BatchBounds::of(Some(2_000_000))), (usual, usual));
        // The largest command is a batch by itself.
        assert_eq!(usual.batch_bytes, BATCH_MAX_BYTES);
        assert!(
            usual.takes(&vec![0; BODY_LIMIT_MAX_BYTES + COMMAND_OVERHEAD_BYTES]) && !usual.takes(&vec![0; 1 << 20])
        );
        let small = BatchBounds::of(Some(20_000));
        assert!(small.is_below(BatchBounds::of(None)) && !BatchBounds::of(None).is_below(small));
        assert!(small.takes(&[0; 19_800]) && !small.takes(&[0; 19_900]) && !small.takes(&[0; 30_000]));
        assert!(small.singly() != small && small.singly().takes(&[0; 19_800]));
        // A topic that takes next to nothing: nothing here goes below zero.
        assert!(!BatchBounds::of(Some(1)).takes(&[0; 200]));
    }
}
