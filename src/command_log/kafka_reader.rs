//! The reading end of the Kafka log.
//!
//! The group decides which worker gets which partition; the store decides where reading goes on. So an assigned partition
//! is not handed to librdkafka before [`CommandReader::start`] names its offset: nothing is fetched from a place that
//! then turns out to be the wrong one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rdkafka::bindings as librdkafka;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::command_log::kafka::{KafkaOptions, ensure_topic, log_error};
use crate::command_log::kafka_dead_letters::DeadLetterWriter;
use crate::command_log::kafka_membership::{Membership, Rebalance, leave, member};
use crate::command_log::kafka_place::history;
use crate::command_log::{CommandReader, LogError, LogEvent, LogHistory, Offset, PartitionId, Record, RecordBatch};
use crate::limits::{KAFKA_COMMIT_INTERVAL_MS, KAFKA_LAG_INTERVAL_MS, KAFKA_LAG_TIMEOUT_MS, KAFKA_REQUEST_TIMEOUT_MS};
use crate::todo::Timestamp;

/// The reading end: one member of the workers' group.
pub struct KafkaReader {
    options: KafkaOptions,
    /// Joins the group at the first poll that finds the topic.
    consumer: Option<BaseConsumer<Membership>>,
    dead_letters: DeadLetterWriter,
    /// The partitions that belong to this reader; `Some`: started, and the offset that comes next.
    assigned: BTreeMap<PartitionId, Option<Offset>>,
    /// Started partitions that librdkafka has been told not to fetch from, because the caller takes no records.
    paused: BTreeSet<PartitionId>,
    /// Records that librdkafka handed out all the same; the next poll that takes records begins with them.
    held: VecDeque<(PartitionId, Record)>,
    /// The ends of paused partitions: nothing is fetched that would tell them.
    ends: BTreeMap<PartitionId, Offset>,
    ends_asked_at: Option<Instant>,
    /// Told to the caller one a poll, in this order.
    events: VecDeque<LogEvent>,
    /// How far the store has got, where Kafka does not know it yet.
    uncommitted: BTreeMap<PartitionId, Offset>,
    committed_at: Instant,
}

impl KafkaReader {
    /// A member of the group; it joins when it is first polled and a broker is there.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when librdkafka does not take the options.
    pub fn new(options: KafkaOptions) -> Result<KafkaReader, LogError> {
        // Made only to find out whether the options are usable: without a subscription it does nothing.
        member(&options)?;
        Ok(KafkaReader {
            consumer: None,
            dead_letters: DeadLetterWriter::new(&options),
            assigned: BTreeMap::new(),
            paused: BTreeSet::new(),
            held: VecDeque::new(),
            ends: BTreeMap::new(),
            ends_asked_at: None,
            events: VecDeque::new(),
            uncommitted: BTreeMap::new(),
            committed_at: Instant::now(),
            options,
        })
    }

    fn join_group(&mut self) -> Result<(), LogError> {
        if self.consumer.is_none() {
            ensure_topic(&self.options)?;
            let consumer = member(&self.options)?;
            consumer.subscribe(&[&self.options.topic]).map_err(log_error)?;
            self.consumer = Some(consumer);
        }
        Ok(())
    }
}

impl CommandReader for KafkaReader {
    fn poll(&mut self, max_records: usize, max_bytes: usize, max_wait: Duration) -> Result<LogEvent, LogError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        self.join_group()?;
        self.commit_progress(Duration::from_millis(KAFKA_COMMIT_INTERVAL_MS));
        let takes_records = max_records > 0;
        if takes_records {
            self.resume()?
        } else {
            self.pause()?
        }
        let deadline = Instant::now() + max_wait;
        let mut gathered = Gathered::default();
        let mut failure = None;
        while self.events.is_empty()
            && (!takes_records || (gathered.records < max_records && gathered.bytes < max_bytes))
        {
            if takes_records && let Some((partition, record)) = self.held.pop_front() {
                self.take_record(partition, record, &mut gathered);
                continue;
            }
            // Waits for the first record only, then takes what is there.
            let wait = match gathered.records {
                0 => deadline.saturating_duration_since(Instant::now()),
                _ => Duration::ZERO,
            };
            let consumer = self.consumer.as_ref().expect("joined above");
            let polled = consumer.poll(wait).map(|result| result.map(|message| record_from(&message)));
            let nothing = polled.is_none();
            match polled {
                Some(Ok((partition, record))) if takes_records => self.take_record(partition, record, &mut gathered),
                Some(Ok(held)) => self.held.push_back(held),
                Some(Err(error)) => failure = self.judge(error),
                None => {}
            }
            self.take_rebalances(&mut gathered);
            if failure.is_some() || (nothing && (gathered.records > 0 || Instant::now() >= deadline)) {
                break;
            }
        }
        if gathered.records > 0 {
            // What was read comes first; a failure that lasts shows itself again.
            return Ok(LogEvent::Records(gathered.batches));
        }
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        failure.map_or(Ok(LogEvent::Idle), Err)
    }

    fn start(&mut self, partition: PartitionId, next: Option<Offset>) -> Result<(), LogError> {
        let (Some(consumer), Some(state)) = (&self.consumer, self.assigned.get_mut(&partition)) else {
            // Taken away in the meantime; the caller is about to be told.
            return Ok(());
        };
        let (earliest, latest) = watermarks(consumer, &self.options.topic, partition)?;
        let next = next.unwrap_or(earliest);
        if next < earliest || next > latest {
            return Err(LogError::OffsetOutOfRange { partition, requested: next, earliest, latest });
        }
        self.held.retain(|(held, _)| *held != partition);
        self.paused.remove(&partition);
        if state.take().is_some() {
            let list = partition_list(&self.options.topic, [(partition, KafkaOffset::Invalid)])?;
            consumer.context().forget_started(partition);
            consumer.incremental_unassign(&list).map_err(log_error)?;
        }
        let list = partition_list(&self.options.topic, [(partition, KafkaOffset::Offset(next))])?;
        consumer.incremental_assign(&list).map_err(log_error)?;
        // It may have been paused before it was started again.
        consumer.resume(&list).map_err(log_error)?;
        consumer.context().remember_started(partition);
        *state = Some(next);
        Ok(())
    }

    fn history(&mut self) -> Result<LogHistory, LogError> {
        history(&self.options)
    }

    fn applied(&mut self, partition: PartitionId, next: Offset) {
        self.uncommitted.insert(partition, next);
    }

    /// The broker deletes by age and size, whatever is applied.
    fn would_delete(&self, _partition: PartitionId, _next: Offset) -> bool {
        false
    }

    fn lag(&mut self) -> Option<u64> {
        let client = self.consumer.as_ref()?.client();
        let topic = std::ffi::CString::new(self.options.topic.as_str()).ok()?;
        let mut lag = 0;
        for (&partition, next) in &self.assigned {
            let Some(next) = *next else { continue };
            let (mut earliest, mut latest) = (-1, -1);
            // SAFETY: the client is alive, the topic is a C string, and both numbers outlive the call, which reads what
            // the latest answers of the broker said and asks nobody.
            let error = unsafe {
                librdkafka::rd_kafka_get_watermark_offsets(
                    client.native_ptr(),
                    topic.as_ptr(),
                    partition,
                    &mut earliest,
                    &mut latest,
                )
            };
            if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || latest < 0 {
                return None;
            }
            let latest = self.ends.get(&partition).map_or(latest, |end| latest.max(*end));
            lag += u64::try_from(latest - next).unwrap_or(0);
        }
        Some(lag)
    }

    fn dead_letter(&mut self, partition: PartitionId, record: &Record, reason: &str) -> Result<(), LogError> {
        self.dead_letters.write(partition, record, reason)
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.commit_progress(Duration::ZERO);
        if let Some(consumer) = self.consumer.take() {
            leave(consumer);
        }
    }
}

/// What one poll has collected.
#[derive(Default)]
struct Gathered {
    batches: Vec<RecordBatch>,
    records: usize,
    bytes: usize,
}

impl KafkaReader {
    /// Stops fetching. The consumer is still polled, so that the group hears of this member, but hands out no records.
    fn pause(&mut self) -> Result<(), LogError> {
        let consumer = self.consumer.as_ref().expect("the group was joined");
        let started = self.assigned.iter().filter(|(_, next)| next.is_some()).map(|(partition, _)| *partition);
        let fetching: Vec<PartitionId> = started.filter(|partition| !self.paused.contains(partition)).collect();
        if !fetching.is_empty() {
            consumer.pause(&positions(&self.options.topic, &fetching)?).map_err(log_error)?;
            self.paused.extend(fetching);
        }
        self.ask_ends();
        Ok(())
    }

    /// Goes on fetching, behind the last record that librdkafka has handed out.
    fn resume(&mut self) -> Result<(), LogError> {
        if self.paused.is_empty() {
            return Ok(());
        }
        let consumer = self.consumer.as_ref().expect("the group was joined");
        let paused: Vec<PartitionId> = self.paused.iter().copied().collect();
        consumer.resume(&positions(&self.options.topic, &paused)?).map_err(log_error)?;
        self.paused.clear();
        self.ends.clear();
        self.ends_asked_at = None;
        Ok(())
    }

    /// Asks now and then where the paused partitions end: how far behind it is matters most while a worker cannot go on.
    fn ask_ends(&mut self) {
        let interval = Duration::from_millis(KAFKA_LAG_INTERVAL_MS);
        if self.paused.is_empty() || self.ends_asked_at.is_some_and(|asked_at| asked_at.elapsed() < interval) {
            return;
        }
        let Some(consumer) = &self.consumer else { return };
        let paused: Vec<PartitionId> = self.paused.iter().copied().collect();
        let asked =
            partition_list(&self.options.topic, paused.into_iter().map(|partition| (partition, KafkaOffset::End)));
        let timeout = Duration::from_millis(KAFKA_LAG_TIMEOUT_MS);
        let answered = asked.and_then(|ends| consumer.offsets_for_times(ends, timeout).map_err(log_error));
        match answered {
            Ok(ends) => {
                let known =
                    ends.elements().into_iter().filter_map(|end| Some((end.partition(), end.offset().to_raw()?)));
                self.ends.extend(known);
            }
            Err(error) => tracing::debug!(%error, "Kafka does not say where the partitions end"),
        }
        // After the answer: a broker that takes its time must not have the reader wait for it all the time.
        self.ends_asked_at = Some(Instant::now());
    }

    fn forget(&mut self, partition: PartitionId) {
        self.assigned.remove(&partition);
        self.uncommitted.remove(&partition);
        self.paused.remove(&partition);
        self.ends.remove(&partition);
        self.held.retain(|(held, _)| *held != partition);
    }

    fn take_record(&mut self, partition: PartitionId, record: Record, gathered: &mut Gathered) {
        let Some(Some(next)) = self.assigned.get_mut(&partition) else { return };
        if record.offset < *next {
            return;
        }
        *next = record.offset + 1;
        gathered.records += 1;
        gathered.bytes += record.key.len() + record.payload.len();
        let batch = match gathered.batches.iter_mut().find(|batch| batch.partition == partition) {
            Some(batch) => batch,
            None => {
                gathered.batches.push(RecordBatch { partition, ..RecordBatch::default() });
                gathered.batches.last_mut().expect("just pushed")
            }
        };
        batch.next = record.offset + 1;
        batch.records.push(record);
    }

    /// Takes over what the group decided during the last call of librdkafka.
    fn take_rebalances(&mut self, gathered: &mut Gathered) {
        let Some(consumer) = &self.consumer else { return };
        let rebalances = consumer.context().take_rebalances();
        for rebalance in rebalances {
            match rebalance {
                // The group was divided anew, and nothing changed for this member.
                Rebalance::Assigned(partitions) | Rebalance::Revoked(partitions) if partitions.is_empty() => {}
                Rebalance::Assigned(partitions) => {
                    self.assigned.extend(partitions.iter().map(|&partition| (partition, None)));
                    self.events.push_back(LogEvent::Assigned(partitions));
                }
                Rebalance::Revoked(partitions) => {
                    for partition in &partitions {
                        self.forget(*partition);
                    }
                    gathered.batches.retain(|batch| !partitions.contains(&batch.partition));
                    gathered.records = gathered.batches.iter().map(|batch| batch.records.len()).sum();
                    self.events.push_back(LogEvent::Revoked(partitions));
                }
            }
        }
    }

    /// What an error between the messages means; `None` when it means nothing to the caller.
    fn judge(&mut self, error: KafkaError) -> Option<LogError> {
        match error.rdkafka_error_code() {
            // The broker does not have the offset that a partition stands at.
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.find_lost_place().err()
            }
            // The topic was deleted: joining again creates it, and the offsets then tell that it is another one.
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                self.leave_group();
                Some(log_error(error))
            }
            // The caller was away for too long (stopped, or at a very slow store): the group has taken the partitions
            // away, which comes as an event of its own.
            Some(RDKafkaErrorCode::PollExceeded) => None,
            _ => Some(log_error(error)),
        }
    }

    /// Looks for the partition whose place is gone. The others are started again, because librdkafka has stopped one
    /// without saying which.
    fn find_lost_place(&mut self) -> Result<(), LogError> {
        let started: Vec<_> =
            self.assigned.iter().filter_map(|(&partition, next)| next.map(|next| (partition, next))).collect();
        for (partition, next) in started {
            self.start(partition, Some(next))?;
        }
        Ok(())
    }

    fn leave_group(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            leave(consumer);
        }
        let partitions: Vec<_> = self.assigned.keys().copied().collect();
        for partition in &partitions {
            self.forget(*partition);
        }
        if !partitions.is_empty() {
            self.events.push_back(LogEvent::Revoked(partitions));
        }
    }

    /// Tells Kafka how far the store has got, if the last time is `interval` ago.
    fn commit_progress(&mut self, interval: Duration) {
        let Some(consumer) = &self.consumer else { return };
        if self.uncommitted.is_empty() || self.committed_at.elapsed() < interval {
            return;
        }
        self.committed_at = Instant::now();
        let offsets = std::mem::take(&mut self.uncommitted).into_iter();
        let list = partition_list(&self.options.topic, offsets.map(|(id, next)| (id, KafkaOffset::Offset(next))));
        let committed = list.and_then(|list| consumer.commit(&list, CommitMode::Async).map_err(log_error));
        if let Err(error) = committed {
            tracing::debug!(%error, "the group's offsets could not be committed to Kafka");
        }
    }
}

fn record_from(message: &BorrowedMessage<'_>) -> (PartitionId, Record) {
    let record = Record {
        offset: message.offset(),
        logged_at: Timestamp::from_micros(message.timestamp().to_millis().unwrap_or(0).saturating_mul(1_000)),
        key: message.key().unwrap_or_default().to_vec(),
        payload: message.payload().unwrap_or_default().to_vec(),
    };
    (message.partition(), record)
}

pub(super) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: PartitionId,
) -> Result<(Offset, Offset), LogError> {
    consumer.fetch_watermarks(topic, partition, Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS)).map_err(log_error)
}

/// A list of partitions for calls that look at no offset.
fn positions(topic: &str, partitions: &[PartitionId]) -> Result<TopicPartitionList, LogError> {
    partition_list(topic, partitions.iter().map(|&partition| (partition, KafkaOffset::Invalid)))
}

pub(super) fn partition_list(
    topic: &str,
    offsets: impl IntoIterator<Item = (PartitionId, KafkaOffset)>,
) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, partition, offset).map_err(log_error)?;
    }
    Ok(list)
}
