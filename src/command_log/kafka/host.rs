//! The process that the ends of the Kafka log work in, as far as they have something to tell it.

use std::sync::Arc;

use crate::command_log::kafka::trouble::BrokerTrouble;
use crate::observe::topic::TopicFigures;
use crate::observe::troubles::Troubles;

/// Told the name of a thread that ended although nobody asked it to.
type ThreadEnded = dyn Fn(&'static str) + Send + Sync;

/// What a process wants to be told; by default nothing.
#[derive(Clone, Default)]
pub struct KafkaHost {
    thread_ended: Option<Arc<ThreadEnded>>,
    troubles: Arc<Troubles>,
    figures: Arc<TopicFigures>,
    brokers: Arc<BrokerTrouble>,
}

impl KafkaHost {
    /// A process that shows these troubles, and these figures of the topic.
    pub fn new(troubles: Arc<Troubles>, figures: Arc<TopicFigures>) -> KafkaHost {
        KafkaHost { thread_ended: None, troubles, figures, brokers: Arc::default() }
    }

    /// A process that knows the topic already: brokers within a test's process do not describe theirs.
    #[cfg(test)]
    pub fn of_known_topic(partitions: u32) -> KafkaHost {
        let host = KafkaHost::default();
        host.figures.partitions_written.store(partitions, std::sync::atomic::Ordering::Relaxed);
        host
    }

    pub(super) fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// What its clients have told about their connections.
    pub(super) fn brokers(&self) -> &Arc<BrokerTrouble> {
        &self.brokers
    }

    pub(super) fn figures(&self) -> &Arc<TopicFigures> {
        &self.figures
    }

    /// Calls this with the name of a thread of the log that ended although nobody asked it to: without it, commands would wait
    /// for an acknowledgement that never comes.
    pub fn on_thread_end(mut self, told: impl Fn(&'static str) + Send + Sync + 'static) -> KafkaHost {
        self.thread_ended = Some(Arc::new(told));
        self
    }

    /// For a thread to hold as long as it runs.
    pub(super) fn guard(&self, thread: &'static str) -> ThreadGuard {
        ThreadGuard { thread, thread_ended: self.thread_ended.clone() }
    }
}

/// Tells the process when it is dropped, as by a panic, unless the thread ended in order.
pub(super) struct ThreadGuard {
    thread: &'static str,
    thread_ended: Option<Arc<ThreadEnded>>,
}

impl ThreadGuard {
    /// The thread was asked to end.
    pub fn end_in_order(mut self) {
        self.thread_ended = None;
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        if let Some(told) = &self.thread_ended {
            tracing::error!(
                thread = self.thread,
                "a thread of Kafka's client ended unexpectedly; writes cannot be acknowledged"
            );
            told(self.thread);
        }
    }
}
