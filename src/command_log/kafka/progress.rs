//! How far the store has got, told to Kafka as the group's offsets: the usual tools show them, and nothing goes by them.
//!
//! What Kafka did not take is told again, so that the lag that the tools show ends at 0 also when nothing more is written.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use rdkafka::bindings as librdkafka;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{IsError as _, KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset as KafkaOffset;
use rdkafka::types::{RDKafkaQueue, RDKafkaRespErr};

use crate::command_log::kafka::extents::{known_extent, partition_list};
use crate::command_log::kafka::membership::Membership;
use crate::command_log::kafka::trouble::log_error;
use crate::command_log::{LogError, Offset, PartitionId};
use crate::limits::{KAFKA_COMMIT_INTERVAL_MS, KAFKA_LAST_COMMIT_TIMEOUT_MS};

/// What Kafka does not know yet. Has to be dropped before the consumer that it was told by.
pub(super) struct Progress {
    untold: BTreeMap<PartitionId, Offset>,
    /// Told, and not answered yet: one request at a time.
    request: Option<Request>,
    told_at: Instant,
}

/// Offsets on their way to Kafka.
struct Request {
    /// As far as they are still this worker's to tell.
    offsets: BTreeMap<PartitionId, Offset>,
    answer: AnswerQueue,
}

/// What became of a request.
#[derive(Debug, Default)]
struct Answer {
    /// Partitions whose offsets Kafka did not take.
    refused: Vec<PartitionId>,
    /// It took none of them.
    is_failure: bool,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress { untold: BTreeMap::new(), request: None, told_at: Instant::now() }
    }
}

impl Progress {
    /// The store has got so far.
    pub fn note(&mut self, partition: PartitionId, next: Offset) {
        self.untold.insert(partition, next);
    }

    /// Another worker tells it from now on.
    pub fn forget(&mut self, partition: PartitionId) {
        self.untold.remove(&partition);
        if let Some(request) = &mut self.request {
            request.offsets.remove(&partition);
        }
    }

    /// Tells it, unless that was a moment ago or the last request is not answered yet.
    pub fn tell(&mut self, consumer: &BaseConsumer<Membership>, topic: &str) {
        self.take_answer(Duration::ZERO);
        if self.told_at.elapsed() >= Duration::from_millis(KAFKA_COMMIT_INTERVAL_MS) {
            self.tell_now(consumer, topic);
        }
    }

    /// Tells it, before the worker leaves the group, and waits a moment for Kafka to take it.
    pub fn tell_the_last(mut self, consumer: &BaseConsumer<Membership>, topic: &str) {
        let give_up_at = Instant::now() + Duration::from_millis(KAFKA_LAST_COMMIT_TIMEOUT_MS);
        loop {
            self.take_answer(give_up_at.saturating_duration_since(Instant::now()));
            self.tell_now(consumer, topic);
            if self.request.is_none() {
                return;
            }
            if Instant::now() >= give_up_at {
                return tracing::debug!("Kafka has not taken the last offsets; the next worker tells them");
            }
        }
    }

    fn take_answer(&mut self, longest: Duration) {
        if let Some(request) = &self.request
            && let Some(answer) = request.answer.wait(longest)
            && let Some(request) = self.request.take()
        {
            self.take_back(request.offsets, &answer);
        }
    }

    /// What Kafka did not take is to be told again, unless the store has got further meanwhile.
    fn take_back(&mut self, offsets: BTreeMap<PartitionId, Offset>, answer: &Answer) {
        for (partition, next) in offsets {
            if answer.is_failure || answer.refused.contains(&partition) {
                self.untold.entry(partition).or_insert(next);
            }
        }
    }

    fn tell_now(&mut self, consumer: &BaseConsumer<Membership>, topic: &str) {
        if self.request.is_some() || self.untold.is_empty() {
            return;
        }
        self.told_at = Instant::now();
        // A place that no fetch has confirmed may be one that the partition does not have.
        let is_known = |(partition, next): &(PartitionId, Offset)| {
            known_extent(consumer.client(), topic, *partition).is_some_and(|extent| extent.latest >= *next)
        };
        let untold = std::mem::take(&mut self.untold).into_iter();
        let (offsets, untold): (BTreeMap<_, _>, BTreeMap<_, _>) = untold.partition(is_known);
        self.untold = untold;
        if offsets.is_empty() {
            return;
        }
        match AnswerQueue::of_commit(consumer, topic, &offsets) {
            Ok(answer) => self.request = Some(Request { offsets, answer }),
            Err(error) => {
                tracing::debug!(%error, "the group's offsets could not be committed to Kafka");
                self.take_back(offsets, &Answer { is_failure: true, ..Answer::default() });
            }
        }
    }
}

/// Where the answer to one commit comes. The crate's own asynchronous commit has none: librdkafka answers to a queue that
/// the caller names, or to a function of C that the crate does not set.
struct AnswerQueue(NonNull<RDKafkaQueue>);

// SAFETY: librdkafka's queues may be used from every thread.
unsafe impl Send for AnswerQueue {}

impl AnswerQueue {
    /// Sends these offsets.
    fn of_commit(
        consumer: &BaseConsumer<Membership>,
        topic: &str,
        offsets: &BTreeMap<PartitionId, Offset>,
    ) -> Result<AnswerQueue, LogError> {
        let list = partition_list(topic, offsets.iter().map(|(id, next)| (*id, KafkaOffset::Offset(*next))))?;
        let client = consumer.client().native_ptr();
        // SAFETY: the client is alive; the queue is checked, and destroyed once, by `drop`.
        let queue = NonNull::new(unsafe { librdkafka::rd_kafka_queue_new(client) });
        let queue = AnswerQueue(queue.ok_or_else(|| LogError::Unavailable("Kafka's client has no queue".into()))?);
        // SAFETY: the client, the list, which is copied, and the queue are alive. Without a function the answer becomes an
        // event of the queue.
        let error = unsafe {
            librdkafka::rd_kafka_commit_queue(client, list.ptr(), queue.0.as_ptr(), None, std::ptr::null_mut())
        };
        if error.is_error() { Err(log_error(KafkaError::ConsumerCommit(error.into()))) } else { Ok(queue) }
    }

    /// The answer; `None` when it does not come within `longest`.
    fn wait(&self, longest: Duration) -> Option<Answer> {
        let wait_ms = i32::try_from(longest.as_millis()).unwrap_or(i32::MAX);
        let mut answer = Answer::default();
        // SAFETY: the queue is alive. The event belongs to this function, and is destroyed behind its last use; the list of
        // partitions belongs to it and is only read, within its count.
        unsafe {
            let event = NonNull::new(librdkafka::rd_kafka_queue_poll(self.0.as_ptr(), wait_ms))?.as_ptr();
            let error = librdkafka::rd_kafka_event_error(event);
            answer.is_failure = error.is_error();
            if error.is_error() {
                let code = RDKafkaErrorCode::from(error);
                tracing::debug!(%code, "Kafka did not take the group's offsets");
            }
            if let Some(list) = librdkafka::rd_kafka_event_topic_partition_list(event).as_ref() {
                let count = usize::try_from(list.cnt).unwrap_or(0);
                let elements = if count == 0 { &[] } else { std::slice::from_raw_parts(list.elems, count) };
                let refused =
                    elements.iter().filter(|element| element.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
                answer.refused = refused.map(|element| element.partition).collect();
            }
            librdkafka::rd_kafka_event_destroy(event);
        }
        Some(answer)
    }
}

impl Drop for AnswerQueue {
    fn drop(&mut self) {
        // SAFETY: made by `of_commit`, destroyed once, not used afterwards.
        unsafe { librdkafka::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_is_told_again_unless_there_is_something_newer() {
        let sent = || [(0, 10), (1, 20), (2, 30)].into();
        let mut progress = Progress::default();
        progress.note(1, 25);
        progress.take_back(sent(), &Answer { refused: vec![0, 1], is_failure: false });
        assert_eq!(progress.untold, [(0, 10), (1, 25)].into());
        progress.take_back(sent(), &Answer { refused: Vec::new(), is_failure: true });
        assert_eq!(progress.untold, [(0, 10), (1, 25), (2, 30)].into());
        progress.forget(1);
        assert_eq!(progress.untold, [(0, 10), (2, 30)].into());
    }
}
