//! Looks at the topic for a process that reads it: makes it where it is missing, and says which one it is.
//!
//! By a client of its own: on the consumer's connections an answer stands behind that to a fetch, which a broker may keep for
//! half a second.

use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;

use crate::command_log::kafka::creation::ensure_commands_by;
use crate::command_log::kafka::lost_brokers::LostBrokers;
use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::shape::{Question, shape};
use crate::command_log::kafka::trouble::{BrokerTrouble, hear};
use crate::command_log::{LogError, LogId};
use crate::limits::KAFKA_LOG_LOOK_MS;

/// Longest time between two looks of a reader that reads: twice the interval. It is longer when the reader was paused, or the
/// process was stopped.
const STALE: Duration = Duration::from_millis(2 * KAFKA_LOG_LOOK_MS);
/// Longest wait for an answer then.
const STALE_WAIT_MS: i32 = KAFKA_LOG_LOOK_MS as i32;

/// An administrator who stays: of a broker that says nothing it tells only after some time.
pub(super) struct TopicLook {
    /// On its way to the administrator's brokers; dropped before the administrator.
    question: Option<Question>,
    asked_at: Option<Instant>,
    looked_at: Option<Instant>,
    admin: Option<AdminClient<DefaultClientContext>>,
    brokers: LostBrokers,
    /// Whether the log says that the topic has no id.
    has_told: bool,
    /// What it has told about its connections.
    trouble: BrokerTrouble,
}

impl TopicLook {
    pub fn new(options: &KafkaOptions) -> TopicLook {
        TopicLook {
            question: None,
            asked_at: None,
            looked_at: None,
            admin: None,
            brokers: LostBrokers::new(options),
            has_told: false,
            trouble: BrokerTrouble::default(),
        }
    }

    /// Makes the topic of commands where it is missing; returns the number of its partitions.
    ///
    /// # Errors
    /// As [`ensure_commands_by`], with what is known of the brokers.
    pub fn ensure(&mut self, options: &KafkaOptions) -> Result<usize, LogError> {
        self.by_admin(options, |admin| ensure_commands_by(admin, options))
    }

    /// Which topic it is at this moment; `None` where the brokers give topics no ids.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] also when there is none of this name.
    pub fn ask(&mut self, options: &KafkaOptions) -> Result<Option<LogId>, LogError> {
        self.question = None;
        let shape = self.by_admin(options, |admin| shape(admin.inner(), &options.topic))?;
        let now = Instant::now();
        (self.asked_at, self.looked_at) = (Some(now), Some(now));
        let missing = || LogError::Unavailable(format!("the topic {} is not there", options.topic));
        let id = shape.ok_or_else(missing)?.log_id();
        if id.is_none() && !std::mem::replace(&mut self.has_told, true) {
            tracing::warn!(
                "Kafka's brokers give the topic {} no id, as those before 2.8: if it is made anew, its first commands may count as \
                 applied",
                options.topic
            );
        }
        Ok(id)
    }

    /// Which topic it was a moment ago, each time that an answer has come: asks now and then. Waits only where nobody has looked
    /// for long, and then not long: without an answer, reading goes on as before.
    pub fn look(&mut self, options: &KafkaOptions) -> Option<LogId> {
        let admin = self.admin.as_ref()?;
        let now = Instant::now();
        let has_passed = |since: Option<Instant>, time| since.is_none_or(|since| now.duration_since(since) >= time);
        let is_stale = has_passed(self.looked_at.replace(now), STALE);
        if is_stale {
            // Its answer may be as old.
            (self.question, self.asked_at) = (None, None);
        }
        if self.question.is_none() && has_passed(self.asked_at, Duration::from_millis(KAFKA_LOG_LOOK_MS)) {
            self.asked_at = Some(now);
            self.question = Question::ask(admin.inner(), &options.topic).ok();
            hear(admin.inner(), &self.trouble);
            self.brokers.look(admin.inner());
        }
        let answer = self.question.as_ref()?.answer(if is_stale { STALE_WAIT_MS } else { 0 })?;
        self.question = None;
        match answer {
            Ok(shape) => {
                self.brokers.note_answer();
                shape.log_id()
            }
            Err(error) => {
                tracing::debug!(%error, "Kafka does not say which topic this is");
                self.brokers.note_silence();
                None
            }
        }
    }

    fn by_admin<T>(
        &mut self,
        options: &KafkaOptions,
        work: impl FnOnce(&AdminClient<DefaultClientContext>) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let admin = self.admin.take().map_or_else(|| options.administrator(), Ok)?;
        let done = work(&admin);
        match done {
            Ok(_) => self.brokers.note_answer(),
            Err(_) => self.brokers.note_silence(),
        }
        self.brokers.look(admin.inner());
        hear(admin.inner(), &self.trouble);
        self.admin = Some(admin);
        done.map_err(|error| self.trouble.explain(error))
    }
}
