//! The writing end of the Kafka log.
//!
//! The producer thread hands messages to a [`Link`], one producer of librdkafka. Until the topic is known (its partitions, the
//! largest batch that it takes, whether it keeps what it is given) commands are held here. A thread of this module looks after
//! what has to be done while nobody writes: sending what was held, and giving the topic another link when it takes other
//! batches, or when librdkafka has stopped for good.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;

use crate::command_log::kafka::KafkaOptions;
use crate::command_log::kafka_host::KafkaHost;
use crate::command_log::kafka_link::{BatchBounds, Link, longest_wait};
use crate::command_log::kafka_returned::Returned;
use crate::command_log::new_ids::NewIds;
use crate::command_log::{
    Acknowledgement, AcknowledgementSink, CommandAppender, LogError, Refusal, Submission, Ticket, kafka_shape,
    kafka_watch,
};

/// Longest pause between two looks at what has to be done while nobody writes.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// The same while commands wait for the topic to be known.
const HELD_PAUSE: Duration = Duration::from_millis(50);

/// The writing end.
pub struct KafkaAppender {
    core: Arc<Mutex<Core>>,
    new_ids: Arc<NewIds>,
    ending: Arc<AtomicBool>,
    wake: Sender<()>,
    /// `None` when closed.
    looking: Option<JoinHandle<()>>,
}

/// What the producer's thread and the one that looks after things share. The lock is free nearly always.
struct Core {
    options: KafkaOptions,
    sink: Arc<dyn AcknowledgementSink>,
    host: KafkaHost,
    /// `None` when closed, and when librdkafka could not be started again.
    link: Option<Link>,
    held: Held,
    refused: Vec<Acknowledgement>,
    /// The `max.message.bytes` under which a batch was refused that had to fit: commands are sent one by one while it is that.
    singly_under: Option<Option<u32>>,
    wake: Sender<()>,
    is_closed: bool,
}

/// Commands that wait for the topic to be known, in their order.
#[derive(Default)]
struct Held {
    submissions: VecDeque<(Instant, Submission)>,
    bytes: usize,
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
        new_ids.set_partitions(host.figures().spread().unwrap_or(0) as usize);
        let ending = Arc::new(AtomicBool::new(false));
        // One is enough: whoever is woken looks at everything.
        let (wake, woken) = crossbeam_channel::bounded(1);
        let link = Link::start(&options, &host, sink.clone(), BatchBounds::of(None), wake.clone())?;
        let core = Arc::new(Mutex::new(Core {
            options: options.clone(),
            sink: sink.clone(),
            host: host.clone(),
            link: Some(link),
            held: Held::default(),
            refused: Vec::new(),
            singly_under: None,
            wake: wake.clone(),
            is_closed: false,
        }));
        let looking = look_after(&core, &host, ending.clone(), woken)?;
        let appender =
            KafkaAppender { core, new_ids: new_ids.clone(), ending: ending.clone(), wake, looking: Some(looking) };
        let (figures, wake) = (Arc::clone(host.figures()), appender.wake.clone());
        kafka_watch::start(options, host, ending, move |reachable| {
            new_ids.set_partitions(figures.spread().unwrap_or(0) as usize);
            sink.note_reachable(reachable);
            let _ = wake.try_send(());
        })?;
        Ok(appender)
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }
}

/// A thread that panicked while it held the lock has ended the process.
fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread that looks after what has to be done while nobody writes.
fn look_after(
    core: &Arc<Mutex<Core>>,
    host: &KafkaHost,
    ending: Arc<AtomicBool>,
    woken: Receiver<()>,
) -> Result<JoinHandle<()>, LogError> {
    let (core, guard) = (Arc::clone(core), host.guard("kafka-upkeep"));
    let look = move || {
        let mut pause = LOOK_PAUSE;
        while !ending.load(Ordering::SeqCst) {
            // Nothing came within the pause, or everybody who could wake has gone.
            let _ = woken.recv_timeout(pause);
            let mut core = lock(&core);
            core.look();
            core.hand_over_refused();
            pause = if core.held.submissions.is_empty() { LOOK_PAUSE } else { HELD_PAUSE };
        }
        guard.end_in_order();
    };
    let spawned = std::thread::Builder::new().name("kafka-upkeep".into()).spawn(look);
    spawned.map_err(|error| LogError::Unavailable(format!("no thread to look after Kafka's producer: {error}")))
}

impl CommandAppender for KafkaAppender {
    fn append(&mut self, batch: &mut Vec<Submission>) {
        let mut core = lock(&self.core);
        core.look();
        core.take(batch);
        core.hand_over_refused();
    }

    fn new_ids(&self) -> Arc<NewIds> {
        self.new_ids.clone()
    }

    fn close(&mut self, deadline: Duration) {
        let Some(looking) = self.looking.take() else { return };
        let give_up_at = Instant::now() + deadline;
        while !self.core().held.submissions.is_empty() && Instant::now() < give_up_at {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.core().close(give_up_at);
        self.ending.store(true, Ordering::SeqCst);
        let _ = self.wake.try_send(());
        if looking.join().is_err() {
            tracing::error!("the thread that looks after Kafka's producer panicked");
        }
    }
}

impl Drop for KafkaAppender {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

impl Core {
    /// Does what is due: another link, and what was held.
    fn look(&mut self) {
        if self.is_closed {
            return;
        }
        self.renew_link();
        let Some(spread) = self.host.figures().spread() else {
            let longest = longest_wait(&self.options);
            while let Some(submission) = self.held.overdue(longest) {
                self.refuse(submission.ticket, Refusal::Unavailable);
            }
            return;
        };
        let held = self.held.take_all();
        if !held.is_empty() {
            self.send(spread, &held);
        }
    }

    fn take(&mut self, batch: &mut Vec<Submission>) {
        match self.host.figures().spread() {
            // What is held goes before.
            Some(spread) if self.held.submissions.is_empty() => self.send(spread, batch),
            _ if self.is_closed => self.refuse_all(batch),
            _ => {
                for submission in batch.drain(..) {
                    if let Err((ticket, refusal)) = self.held.add(submission, &self.options) {
                        self.refuse(ticket, refusal);
                    }
                }
            }
        }
        batch.clear();
    }

    fn send(&mut self, spread: u32, batch: &[Submission]) {
        match &mut self.link {
            // It would be lost, sooner or later.
            _ if self.host.figures().refuses_writes() => self.refuse_all(batch),
            Some(link) => {
                let refused = &mut self.refused;
                link.send(&self.options.topic, spread, batch, |ticket, refusal| {
                    refused.push(Acknowledgement::refused(ticket, refusal));
                });
            }
            None => self.refuse_all(batch),
        }
    }

    fn refuse(&mut self, ticket: Ticket, refusal: Refusal) {
        self.refused.push(Acknowledgement::refused(ticket, refusal));
    }

    fn refuse_all(&mut self, batch: &[Submission]) {
        batch.iter().for_each(|submission| self.refuse(submission.ticket, Refusal::Unavailable));
    }

    fn hand_over_refused(&mut self) {
        if !self.refused.is_empty() {
            self.sink.acknowledge(&mut self.refused);
        }
    }

    /// What the topic takes, as far as that is known.
    fn wanted_bounds(&self) -> BatchBounds {
        let message_max_bytes = self.host.figures().message_max_bytes();
        let bounds = BatchBounds::of(message_max_bytes);
        if self.singly_under == Some(message_max_bytes) { bounds.singly() } else { bounds }
    }

    /// Takes another link where this one has commands that came back, does not fit the topic, or has stopped. librdkafka stops
    /// for good at errors that break its promise of no gaps and no doubles, for example when the topic was made anew under it;
    /// whoever waited has then been refused, and a new producer starts with a new promise.
    fn renew_link(&mut self) {
        let Some(link) = &self.link else {
            let bounds = self.wanted_bounds();
            return self.start_link(bounds);
        };
        let patience = if let Some((code, reason)) = link.fatal_error() {
            tracing::error!(%code, reason, "Kafka's producer stopped; starting another");
            Duration::ZERO
        } else if link.has_returned() || link.bounds() != self.wanted_bounds() {
            // What is on its way comes first: a todo's commands keep their order.
            longest_wait(&self.options)
        } else {
            return;
        };
        if let Some(link) = self.link.take() {
            let bounds = link.bounds();
            let returned = link.end(patience);
            self.replace_link(bounds, returned);
        }
    }

    /// Starts a link after one with these bounds, and sends what came back there.
    fn replace_link(&mut self, before: BatchBounds, returned: Returned) {
        if returned.is_empty() {
            let bounds = self.wanted_bounds();
            return self.start_link(bounds);
        }
        if let Some(message_max_bytes) = self.ask_message_max_bytes() {
            self.host.figures().message_max_bytes.store(message_max_bytes, Ordering::Release);
        }
        let known = self.host.figures().message_max_bytes();
        if !BatchBounds::of(known).is_below(before) {
            // Nobody says what the topic takes, or it takes less than it says.
            self.singly_under = Some(known);
        }
        let bounds = self.wanted_bounds();
        let (again, overtaken) = returned.divide();
        tracing::warn!(
            topic = self.options.topic,
            message_max_bytes = known,
            again = again.len(),
            refused = overtaken.len(),
            "the topic refused a batch for its size; its commands are sent again in smaller ones"
        );
        self.start_link(bounds);
        self.refuse_all(&overtaken);
        match self.host.figures().spread() {
            Some(spread) => self.send(spread, &again),
            None => self.refuse_all(&again),
        }
    }

    fn start_link(&mut self, bounds: BatchBounds) {
        match Link::start(&self.options, &self.host, self.sink.clone(), bounds, self.wake.clone()) {
            Ok(link) => self.link = Some(link),
            // Every message is refused until another attempt works.
            Err(error) => tracing::error!(%error, "Kafka's producer cannot be started again"),
        }
    }

    /// What the topic takes at this moment.
    fn ask_message_max_bytes(&self) -> Option<u32> {
        let admin: AdminClient<DefaultClientContext> = self.options.client_config().create().ok()?;
        let settings = kafka_shape::settings(&admin, &self.options.topic).ok()??;
        Some(settings.message_max_bytes)
    }

    fn close(&mut self, give_up_at: Instant) {
        let held = self.held.take_all();
        self.refuse_all(&held);
        while let Some(link) = self.link.take() {
            let bounds = link.bounds();
            let returned = link.end(give_up_at.saturating_duration_since(Instant::now()));
            if returned.is_empty() {
                break;
            }
            // At the latest when they are sent one by one, none comes back.
            self.replace_link(bounds, returned);
        }
        self.is_closed = true;
        self.hand_over_refused();
    }
}

impl Held {
    /// Takes one more, within the bounds of librdkafka's own queue.
    fn add(&mut self, submission: Submission, options: &KafkaOptions) -> Result<(), (Ticket, Refusal)> {
        let bytes = submission.payload.len();
        if !BatchBounds::of(None).takes(&submission.payload) {
            return Err((submission.ticket, Refusal::TooLarge));
        }
        if self.submissions.len() >= options.queue_max_messages as usize
            || self.bytes + bytes > options.queue_max_kb as usize * 1024
        {
            return Err((submission.ticket, Refusal::Full));
        }
        self.bytes += bytes;
        self.submissions.push_back((Instant::now(), submission));
        Ok(())
    }

    /// The oldest, if it has waited for so long.
    fn overdue(&mut self, longest: Duration) -> Option<Submission> {
        let (held_at, _) = self.submissions.front()?;
        if held_at.elapsed() < longest {
            return None;
        }
        let (_, submission) = self.submissions.pop_front()?;
        self.bytes -= submission.payload.len();
        Some(submission)
    }

    fn take_all(&mut self) -> Vec<Submission> {
        self.bytes = 0;
        std::mem::take(&mut self.submissions).into_iter().map(|(_, submission)| submission).collect()
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(results(&sink), [(1, Err(Refusal::Unavailable)), (2, Ok(()))], "the first was given up");
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
