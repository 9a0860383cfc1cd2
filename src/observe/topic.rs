//! What is known of Kafka's topic: the metrics show it, and the writing end of the log goes by it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::exposition::Text;
use crate::command_log::KnownLogs;

/// Properties of the topic, as they were last read; all zero until then, and in an embedded process.
#[derive(Debug, Default)]
pub struct TopicFigures {
    /// Partitions of the topic.
    pub partitions: AtomicU32,
    /// Partitions over which todos are spread: as many as the topic had when they were first counted.
    pub partitions_written: AtomicU32,
    /// Copies of each partition, of the one that has the fewest.
    pub replicas: AtomicU32,
    /// Copies that a write waits for.
    pub min_insync_replicas: AtomicU32,
    /// Largest batch that the topic takes, in bytes; 0 while unknown.
    pub message_max_bytes: AtomicU32,
    /// How long the topic keeps what is written, in milliseconds; -1 is for ever.
    pub retention_ms: AtomicI64,
    /// Whether writes are refused: the topic loses what it is given, or is not the one that the store follows.
    pub refuses_writes: AtomicBool,
    /// The topics that the store knows, as far as it has told.
    known_logs: Mutex<KnownLogs>,
}

impl TopicFigures {
    /// The partition count that places todos; `None` while it is unknown.
    pub fn spread(&self) -> Option<u32> {
        Some(self.partitions_written.load(Ordering::Acquire)).filter(|partitions| *partitions > 0)
    }

    /// Takes what the store says of the topics that it knows.
    pub fn note_known_logs(&self, known: KnownLogs) {
        *self.known_logs.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// The topics that the store knows; none while it has not told.
    pub fn known_logs(&self) -> KnownLogs {
        self.known_logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether writes are refused.
    pub fn refuses_writes(&self) -> bool {
        self.refuses_writes.load(Ordering::Acquire)
    }

    /// Largest batch that the topic takes, in bytes; `None` while it is unknown.
    pub fn message_max_bytes(&self) -> Option<u32> {
        Some(self.message_max_bytes.load(Ordering::Acquire)).filter(|bytes| *bytes > 0)
    }

    /// Adds the families of a topic that is known.
    pub(super) fn render(&self, text: &mut Text) {
        let get = |figure: &AtomicU32| f64::from(figure.load(Ordering::Relaxed));
        if get(&self.partitions) == 0.0 {
            return;
        }
        let families = [
            ("million_rps_topic_partitions", "Partitions of Kafka's topic.", get(&self.partitions)),
            (
                "million_rps_topic_partitions_written",
                "Partitions over which todos are spread.",
                get(&self.partitions_written),
            ),
            (
                "million_rps_topic_replicas",
                "Copies of each partition, of the one with the fewest.",
                get(&self.replicas),
            ),
            (
                "million_rps_topic_min_insync_replicas",
                "Copies that a write waits for; 0 while unknown.",
                get(&self.min_insync_replicas),
            ),
            (
                "million_rps_topic_message_max_bytes",
                "Largest batch that the topic takes; 0 while unknown.",
                get(&self.message_max_bytes),
            ),
            (
                "million_rps_topic_retention_seconds",
                "How long the topic keeps what is written; -1 is for ever, 0 unknown.",
                match self.retention_ms.load(Ordering::Relaxed) {
                    forever @ ..0 => forever as f64,
                    milliseconds => milliseconds as f64 / 1e3,
                },
            ),
            (
                "million_rps_topic_writes_refused",
                "1 while writes are refused because the topic would lose them, or is not the one that the store follows.",
                f64::from(u8::from(self.refuses_writes())),
            ),
        ];
        for (name, help, value) in families {
            text.single(name, "gauge", help, value);
        }
    }
}
