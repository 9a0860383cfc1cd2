//! Watches the topic: makes it when it is missing, says whether a broker answers, and reads what the topic promises.
//!
//! A thread of its own asks every few seconds, so that nobody who reads or writes waits for an answer. What breaks a promise
//! is noted as a trouble of [`Component::Topic`]; what the writing end goes by stands in [`TopicFigures`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;

use crate::command_log::LogError;
use crate::command_log::kafka::backlog::Backlog;
use crate::command_log::kafka::creation::ensure_commands_by;
use crate::command_log::kafka::host::KafkaHost;
use crate::command_log::kafka::lost_brokers::LostBrokers;
use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::promise::{Judgement, judge, judge_dead_letters, judge_identity, judge_note};
use crate::command_log::kafka::shape::{TopicSettings, TopicShape, settings, shape};
use crate::command_log::kafka::silence;
use crate::command_log::kafka::spread::{note_topic, spread};
use crate::command_log::kafka::trouble::hear;
use crate::limits::KAFKA_TOPIC_WATCH_MS;
use crate::observe::topic::TopicFigures;
use crate::observe::troubles::Component;

/// Pause before the next attempt to make the topic, or to reach a broker that did not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Who watches.
struct TopicWatch {
    options: KafkaOptions,
    host: KafkaHost,
    admin: Arc<AdminClient<DefaultClientContext>>,
    brokers: LostBrokers,
    is_there: bool,
    /// The topic whose number of partitions is noted, by Kafka's id.
    noted: Option<String>,
    /// Why it is not.
    unnoted: Option<String>,
    /// Partitions that were last told of in the log.
    told_partitions: usize,
    backlog: Backlog,
}

/// Watches the topic for a process that has no writing end, which would do it: see [`KafkaHost`].
///
/// # Errors
/// [`LogError::Unavailable`]: the system refuses another thread.
pub fn watch_topic(host: KafkaHost, options: KafkaOptions) -> Result<(), LogError> {
    // The reading end says whether the brokers can be reached.
    start(options, host, Arc::default(), |_| {})
}

/// Starts the thread; it ends soon after `ending` is set. `seen` learns of each round whether a broker answered.
///
/// # Errors
/// [`LogError::Unavailable`]: the system refuses another thread. [`LogError::Fatal`] when librdkafka does not take the options.
pub(super) fn start(
    options: KafkaOptions,
    host: KafkaHost,
    ending: Arc<AtomicBool>,
    mut seen: impl FnMut(Result<(), &LogError>) + Send + 'static,
) -> Result<(), LogError> {
    let guard = host.guard("kafka-watch");
    let admin = Arc::new(options.administrator()?);
    silence::start(Arc::clone(&admin), &options, host.clone(), Arc::clone(&ending))?;
    let mut watch = TopicWatch {
        brokers: LostBrokers::new(&options),
        options,
        host,
        admin,
        is_there: false,
        noted: None,
        unnoted: None,
        told_partitions: 0,
        backlog: Backlog::default(),
    };
    let watching = move || {
        while !ending.load(Ordering::SeqCst) {
            let result = watch.round();
            // What comes after the end is about a log that nobody uses.
            if !ending.load(Ordering::SeqCst) {
                seen(result.as_ref().copied());
            }
            let pause = match result {
                Ok(()) => Duration::from_millis(KAFKA_TOPIC_WATCH_MS),
                Err(_) => RETRY_PAUSE,
            };
            std::thread::sleep(pause);
        }
        guard.end_in_order();
    };
    match std::thread::Builder::new().name("kafka-watch".into()).spawn(watching) {
        Ok(_) => Ok(()),
        Err(error) => Err(LogError::Unavailable(format!("no thread to watch Kafka's topic: {error}"))),
    }
}

impl TopicWatch {
    /// Asks once, and tells what has changed.
    fn round(&mut self) -> Result<(), LogError> {
        let admin = Arc::clone(&self.admin);
        let result = self.round_by(&admin);
        match result {
            Ok(()) => self.brokers.note_answer(),
            Err(_) => self.brokers.note_silence(),
        }
        self.brokers.look(admin.inner());
        // In each round: a broker may have been lost and found again, and what nobody takes stays in memory.
        hear(admin.inner(), self.host.brokers());
        result.map_err(|error| self.host.brokers().explain(error))
    }

    fn round_by(&mut self, admin: &AdminClient<DefaultClientContext>) -> Result<(), LogError> {
        if !self.is_there {
            ensure_commands_by(admin, &self.options)?;
            self.is_there = true;
        }
        let Some((shape, settings)) = self.ask(admin)? else {
            let topic = &self.options.topic;
            let reason = format!(
                "the topic {topic} is not there any more, and what it held is lost. A worker or an API that is started makes \
                 it anew; it is applied after `million-rps migrate --from-beginning`"
            );
            self.host.troubles().note(Component::Topic, &reason);
            return Ok(());
        };
        let mut judgement = judge(&self.options, &shape, settings.as_ref());
        judge_identity(shape.log_id(), &self.host.figures().known_logs(), &mut judgement);
        self.tell_refusal(&judgement);
        self.show(&shape, settings.as_ref(), &judgement);
        self.note_spread(admin, &shape)?;
        judgement.reasons.extend(self.unnoted.clone());
        judgement.reasons.extend(self.beside(admin)?);
        if let Some(settings) = &settings {
            judgement.reasons.extend(self.backlog.look(&self.options, shape.partitions, settings));
        }
        let reasons = judgement.reasons.join("; ");
        let reason = Some(reasons.as_str()).filter(|reasons| !reasons.is_empty());
        self.host.troubles().set(Component::Topic, reason);
        Ok(())
    }

    fn ask(
        &self,
        admin: &AdminClient<DefaultClientContext>,
    ) -> Result<Option<(TopicShape, Option<TopicSettings>)>, LogError> {
        match shape(admin.inner(), &self.options.topic)? {
            Some(shape) => settings(admin, &self.options.topic).map(|settings| Some((shape, settings))),
            None => Ok(None),
        }
    }

    /// What is to be said of the topics that belong to the topic of commands, as far as they are there.
    fn beside(
        &self,
        admin: &AdminClient<DefaultClientContext>,
    ) -> Result<impl Iterator<Item = String> + use<>, LogError> {
        let letters = settings(admin, &self.options.dead_letter_topic())?;
        let letters = letters.and_then(|settings| judge_dead_letters(&self.options, &settings));
        let topic = note_topic(&self.options);
        let note = settings(admin, &topic)?.and_then(|settings| judge_note(&self.options, &topic, &settings));
        Ok(letters.into_iter().chain(note))
    }

    /// Says why writes are about to be refused: a client that is refused looks into `/ready`, and what the rest of the round
    /// asks may take seconds.
    fn tell_refusal(&self, judgement: &Judgement) {
        if judgement.loses_commands && !self.host.figures().refuses_writes() {
            self.host.troubles().note(Component::Topic, &judgement.reasons.join("; "));
        }
    }

    /// Tells the writing end, and the metrics. Bounds come before the number of partitions, which opens the way for writes.
    fn show(&self, shape: &TopicShape, settings: Option<&TopicSettings>, judgement: &Judgement) {
        let figures = self.host.figures();
        figures.refuses_writes.store(judgement.loses_commands, Ordering::Release);
        if let Some(settings) = settings {
            figures.message_max_bytes.store(settings.message_max_bytes, Ordering::Release);
            figures.min_insync_replicas.store(settings.min_insync_replicas, Ordering::Relaxed);
            figures.retention_ms.store(settings.retention_ms, Ordering::Relaxed);
        }
        figures.replicas.store(u32::try_from(shape.replicas).unwrap_or(u32::MAX), Ordering::Relaxed);
        figures.partitions.store(u32::try_from(shape.partitions).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Learns over how many partitions todos are spread, once for each topic.
    fn note_spread(&mut self, admin: &AdminClient<DefaultClientContext>, shape: &TopicShape) -> Result<(), LogError> {
        let figures = Arc::clone(self.host.figures());
        if self.noted.as_ref() != Some(&shape.id) {
            match spread(admin, &self.options, shape) {
                Ok(partitions) => {
                    figures.partitions_written.store(partitions, Ordering::Release);
                    self.noted = Some(shape.id.clone());
                    self.unnoted = None;
                }
                Err(LogError::Fatal(reason)) => {
                    self.note_nowhere(&figures, shape, &reason);
                }
                Err(error) => return Err(error),
            }
        }
        self.tell_unused(&figures, shape);
        Ok(())
    }

    /// The note cannot be kept: this process goes on with the number that it has seen first.
    fn note_nowhere(&mut self, figures: &TopicFigures, shape: &TopicShape, reason: &str) {
        let note = note_topic(&self.options);
        if self.unnoted.is_none() {
            let partitions = u32::try_from(shape.partitions).unwrap_or(u32::MAX);
            figures.partitions_written.store(partitions, Ordering::Release);
        }
        self.unnoted = Some(format!(
            "the number of partitions cannot be noted in the topic {note} ({reason}): partitions that are added now would \
             break the order of a todo's commands. Let this user create, write and read that topic, or create it by hand with \
             one partition and retention.ms=-1"
        ));
    }

    fn tell_unused(&mut self, figures: &TopicFigures, shape: &TopicShape) {
        let written = figures.spread().map_or(0, |spread| spread as usize);
        if shape.partitions > written && shape.partitions != self.told_partitions {
            let topic = &self.options.topic;
            tracing::info!(
                topic,
                partitions = shape.partitions,
                written,
                "the topic has more partitions than todos are spread over, which keeps the order of each todo; all are read"
            );
        }
        self.told_partitions = shape.partitions;
    }
}
