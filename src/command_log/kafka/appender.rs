//! The writing end of the Kafka log.
//!
//! The producer thread hands messages to a [`Link`], one producer of librdkafka. Until the topic is known (its partitions, the
//! largest batch that it takes, whether it keeps what it is given) commands are held here. A thread of this module looks after
//! what has to be done while nobody writes: sending what was held, and giving the topic another link when it takes other
//! batches, or when librdkafka has stopped for good.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::command_log::kafka::held::Held;
use crate::command_log::kafka::host::KafkaHost;
use crate::command_log::kafka::link::{BatchBounds, Link, longest_wait, stuck_after};
use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::returned::Returned;
use crate::command_log::kafka::{shape, watch};
use crate::command_log::new_ids::NewIds;
use crate::command_log::{
    Acknowledgement, AcknowledgementSink, CommandAppender, LogError, Refusal, Submission, Ticket,
};

/// Longest pause between two looks at what has to be done while nobody writes.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// The same while commands wait for the topic to be known.
const HELD_PAUSE: Duration = Duration::from_millis(50);
/// Longest time without any delivery before another link is taken, when those before did not help.
const STUCK_MAX: Duration = Duration::from_secs(300);

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
    /// Since when every look at the topic was answered by a broker; `None` when the last was not.
    answered_since: Option<Instant>,
    /// How long nothing may be delivered before another link is taken: twice as long after each that did not help.
    stuck_after: Duration,
    is_closed: bool,
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
            answered_since: None,
            stuck_after: stuck_after(&options),
            is_closed: false,
        }));
        let looking = look_after(&core, &host, ending.clone(), woken)?;
        let appender =
            KafkaAppender { core, new_ids: new_ids.clone(), ending: ending.clone(), wake, looking: Some(looking) };
        let (figures, core, wake) = (Arc::clone(host.figures()), appender.core.clone(), appender.wake.clone());
        watch::start(options, host, ending, move |reachable| {
            lock(&core).note_answer(reachable.is_ok());
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
            pause = if core.held.is_empty() { LOOK_PAUSE } else { HELD_PAUSE };
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
        while !self.core().held.is_empty() && Instant::now() < give_up_at {
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
        if self.link.as_ref().is_some_and(Link::delivers) {
            self.stuck_after = stuck_after(&self.options);
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

    fn note_answer(&mut self, has_answered: bool) {
        self.answered_since = if has_answered { self.answered_since.or_else(|| Some(Instant::now())) } else { None };
    }

    /// Whether nothing gets through this link although brokers answer others: librdkafka can wait for ever for partitions
    /// whose leader was away (confluent-kafka-dotnet's issue 2519). What it had sent has been refused and is not sent again;
    /// a broker that answers has dealt with it long ago, so that nothing of it comes after what the next link sends.
    fn is_stuck(&self, link: &Link) -> bool {
        let is_long = |since: Duration| since >= self.stuck_after;
        link.undelivered_for().is_some_and(is_long) && self.answered_since.is_some_and(|since| is_long(since.elapsed()))
    }

    fn take(&mut self, batch: &mut Vec<Submission>) {
        match self.host.figures().spread() {
            // What is held goes before.
            Some(spread) if self.held.is_empty() => self.send(spread, batch),
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
        } else if self.is_stuck(link) {
            let stuck_after = self.stuck_after;
            tracing::error!(
                seconds = stuck_after.as_secs(),
                "Kafka's brokers answer, but its producer has delivered nothing; starting another"
            );
            self.stuck_after = (2 * stuck_after).min(STUCK_MAX);
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
        let admin = self.options.administrator().ok()?;
        let settings = shape::settings(&admin, &self.options.topic).ok()??;
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

#[cfg(test)]
#[path = "appender_tests.rs"]
mod tests;
