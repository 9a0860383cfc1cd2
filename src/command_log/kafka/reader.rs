//! The reading end of the Kafka log.
//!
//! The group decides which worker gets which partition; the store decides where reading goes on. So an assigned partition
//! is not handed to librdkafka before [`CommandReader::start`] names its offset: nothing is fetched from a place that
//! then turns out to be the wrong one.
//!
//! Nothing here asks a broker before it starts a partition. What is started between two polls goes to librdkafka in one
//! call, and a place that does not exist is refused by the broker when it is fetched from. To ask for each partition first
//! would cost each the half second that a broker may keep the answer to an empty fetch, as both use one connection.

#[path = "lost_places.rs"]
mod lost_places;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset as KafkaOffset;

use crate::command_log::kafka::dead_letters::DeadLetterWriter;
use crate::command_log::kafka::doubt::Doubt;
use crate::command_log::kafka::epochs::Epochs;
use crate::command_log::kafka::extents::{Extent, known_extent, partition_list, positions};
use crate::command_log::kafka::gathered::{Fetched, Gathered};
use crate::command_log::kafka::lost_brokers::LostBrokers;
use crate::command_log::kafka::membership::{Membership, Rebalance, kept_out, leave, member};
use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::place::{history, reaches};
use crate::command_log::kafka::progress::Progress;
use crate::command_log::kafka::seat::Seat;
use crate::command_log::kafka::topic_look::TopicLook;
use crate::command_log::kafka::trouble::log_error;
use crate::command_log::{
    CommandReader, LeaderEpochs, LogError, LogEvent, LogHistory, LogId, Offset, PartitionId, Record,
};
use crate::counted::Counted;
use crate::limits::{KAFKA_LAG_INTERVAL_MS, KAFKA_LAG_TIMEOUT_MS};

/// The reading end: one member of the workers' group.
pub struct KafkaReader {
    options: KafkaOptions,
    /// Joins the group at the first poll that finds the topic.
    consumer: Option<BaseConsumer<Membership>>,
    /// Whether the log says already that the topic is looked for.
    has_told: bool,
    dead_letters: DeadLetterWriter,
    /// The partitions that belong to this reader.
    assigned: BTreeMap<PartitionId, Place>,
    /// Partitions that the next poll hands to librdkafka, at their places.
    starting: BTreeSet<PartitionId>,
    /// Started partitions that librdkafka has been told not to fetch from, because the caller takes no records.
    paused: BTreeSet<PartitionId>,
    /// Records that librdkafka handed out all the same; the next poll that takes records begins with them.
    held: VecDeque<Fetched>,
    epochs: Epochs,
    /// The ends of paused partitions: nothing is fetched that would tell them.
    ends: BTreeMap<PartitionId, Offset>,
    ends_asked_at: Option<Instant>,
    /// Told to the caller one a poll, in this order.
    events: VecDeque<LogEvent>,
    /// The group does not let this reader in, until it is assigned something.
    is_kept_out: bool,
    /// Places that the broker does not have; told like the events, before them.
    failures: VecDeque<LogError>,
    /// librdkafka has stopped a partition, and it is not known yet which.
    has_lost_a_place: bool,
    /// Where partitions begin and end that were to be started at a place that they do not have.
    lost: BTreeMap<PartitionId, Extent>,
    lost_asked_at: Instant,
    progress: Progress,
    /// Given up last, when the group knows that this member has left.
    seat: Option<Seat>,
    brokers: LostBrokers,
    doubt: Doubt,
    topic: TopicLook,
    /// The topic that partitions are started of; `None` until the caller has asked, and where it has no id.
    log: Option<LogId>,
}

/// How far a partition has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It has to be started, perhaps again.
    Nowhere,
    /// Started at its beginning, of which nothing has been read yet.
    Beginning,
    /// The offset that comes next.
    At(Offset),
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
            has_told: false,
            dead_letters: DeadLetterWriter::new(&options),
            assigned: BTreeMap::new(),
            starting: BTreeSet::new(),
            paused: BTreeSet::new(),
            held: VecDeque::new(),
            epochs: Epochs::default(),
            ends: BTreeMap::new(),
            ends_asked_at: None,
            events: VecDeque::new(),
            is_kept_out: false,
            failures: VecDeque::new(),
            has_lost_a_place: false,
            lost: BTreeMap::new(),
            lost_asked_at: Instant::now(),
            progress: Progress::default(),
            seat: None,
            brokers: LostBrokers::new(&options),
            doubt: Doubt::default(),
            topic: TopicLook::new(&options),
            log: None,
            options,
        })
    }

    /// The same by a name that outlives it when it is killed.
    ///
    /// # Errors
    /// As [`KafkaReader::new`].
    pub fn seated(options: KafkaOptions, seat: Seat) -> Result<KafkaReader, LogError> {
        let group_instance = Some(seat.name().to_owned());
        let mut reader = KafkaReader::new(KafkaOptions { group_instance, ..options })?;
        reader.seat = Some(seat);
        Ok(reader)
    }

    fn join_group(&mut self) -> Result<(), LogError> {
        if self.consumer.is_none() {
            if !std::mem::replace(&mut self.has_told, true) {
                tracing::info!("the worker looks for Kafka's topic {} at {}", self.options.topic, self.options.brokers);
            }
            let partitions = self.topic.ensure(&self.options)?;
            let KafkaOptions { topic, group, .. } = &self.options;
            let consumer = member(&self.options)?;
            consumer.subscribe(&[topic]).map_err(log_error)?;
            tracing::info!(
                "the worker joins the group {group} and waits for its share of the {} of {topic}",
                Counted(partitions, "partitions")
            );
            self.consumer = Some(consumer);
            self.has_told = false;
        }
        Ok(())
    }
}

impl CommandReader for KafkaReader {
    fn poll(&mut self, max_records: usize, max_bytes: usize, max_wait: Duration) -> Result<LogEvent, LogError> {
        if let Some(failure) = self.failures.pop_front() {
            return Err(failure);
        }
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        self.join_group()?;
        self.tell_progress();
        if self.has_lost_a_place {
            self.find_lost_places()?;
        }
        self.begin_fetching()?;
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
            if takes_records && let Some(held) = self.held.pop_front() {
                self.take_record(held, &mut gathered);
                continue;
            }
            // Waits for the first record only, then takes what is there.
            let wait = match gathered.records {
                0 => deadline.saturating_duration_since(Instant::now()),
                _ => Duration::ZERO,
            };
            let consumer = self.consumer.as_ref().expect("joined above");
            let polled = consumer.poll(wait).map(|result| result.map(|message| Fetched::from_message(&message)));
            let nothing = polled.is_none();
            if matches!(polled, Some(Ok(_))) {
                self.brokers.note_answer();
            }
            self.brokers.look(consumer.client());
            match polled {
                Some(Ok(fetched)) if self.epochs.refutes(&fetched) => failure = self.part_from(fetched.partition).err(),
                Some(Ok(fetched)) if takes_records => self.take_record(fetched, &mut gathered),
                Some(Ok(held)) => self.held.push_back(held),
                Some(Err(error)) => {
                    self.brokers.note_silence();
                    failure = self.doubt.take(error).err().and_then(|error| self.judge(error));
                }
                None => {}
            }
            self.take_rebalances(&mut gathered);
            if failure.is_some() || (nothing && (gathered.records > 0 || Instant::now() >= deadline)) {
                break;
            }
        }
        if takes_records {
            // Behind the fetch: what was read before the topic had another id is of the old one.
            self.look_at_log()?;
        }
        if gathered.records > 0 {
            // What was read comes first; a failure that lasts shows itself again.
            return Ok(LogEvent::Records(gathered.batches));
        }
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        // librdkafka tells of it at each attempt to join; it is true in between as well.
        let failure = failure.or_else(|| self.is_kept_out.then(|| kept_out(&self.options.group)));
        failure.map_or_else(|| self.settle_doubt(), Err)
    }

    fn expect_epochs(&mut self, epochs: LeaderEpochs) {
        self.epochs.expect(epochs);
    }

    fn start(&mut self, partition: PartitionId, next: Option<Offset>) -> Result<(), LogError> {
        if !self.assigned.contains_key(&partition) {
            // Taken away in the meantime; the caller is about to be told.
            return Ok(());
        }
        if let Some(next) = next {
            self.check_lost_place(partition, next)?;
            // The one who had the partition before may have ended before it could tell.
            self.progress.note(partition, next);
        }
        self.start_at(partition, next.map_or(Place::Beginning, Place::At));
        Ok(())
    }

    fn log_id(&mut self) -> Result<Option<LogId>, LogError> {
        let found = self.topic.ask(&self.options)?;
        if self.log.is_some() && self.log != found {
            return Err(self.stop_reading());
        }
        self.log = found;
        Ok(found)
    }

    fn reaches(&mut self, offsets: &BTreeMap<PartitionId, Offset>) -> Result<bool, LogError> {
        reaches(&self.options, offsets)
    }

    fn history(&mut self) -> Result<LogHistory, LogError> {
        history(&self.options)
    }

    fn applied(&mut self, partition: PartitionId, next: Offset) {
        self.progress.note(partition, next);
    }

    /// The broker deletes by age and size, whatever is applied.
    fn would_delete(&self, _partition: PartitionId, _next: Offset) -> bool {
        false
    }

    fn lag(&mut self) -> Option<u64> {
        let consumer = self.consumer.as_ref()?;
        let mut lag = 0;
        for (&partition, &place) in &self.assigned {
            if place == Place::Nowhere {
                continue;
            }
            let known = known_extent(consumer.client(), &self.options.topic, partition)?;
            let next = if let Place::At(next) = place { next } else { known.earliest };
            let latest = self.ends.get(&partition).map_or(known.latest, |end| known.latest.max(*end));
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
        if let Some(consumer) = self.consumer.take() {
            std::mem::take(&mut self.progress).tell_the_last(&consumer, &self.options.topic);
            leave(consumer, self.seat.is_some());
        }
    }
}

impl KafkaReader {
    /// Stops fetching. The consumer is still polled, so that the group hears of this member, but hands out no records.
    fn pause(&mut self) -> Result<(), LogError> {
        let consumer = self.consumer.as_ref().expect("the group was joined");
        let started =
            self.assigned.iter().filter(|(_, place)| **place != Place::Nowhere).map(|(partition, _)| *partition);
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

    /// Nothing has come. That is no trouble, unless it is in doubt whether anything could have.
    fn settle_doubt(&mut self) -> Result<LogEvent, LogError> {
        if let Some(consumer) = &self.consumer {
            let partitions: Vec<PartitionId> = self.assigned.keys().copied().collect();
            self.doubt.settle(consumer, &self.options.topic, &partitions)?;
        }
        Ok(LogEvent::Idle)
    }

    fn forget(&mut self, partition: PartitionId) {
        self.assigned.remove(&partition);
        self.starting.remove(&partition);
        self.lost.remove(&partition);
        self.progress.forget(partition);
        self.paused.remove(&partition);
        self.ends.remove(&partition);
        self.held.retain(|held| held.partition != partition);
        self.epochs.leave_unchecked(partition);
    }

    fn take_record(&mut self, fetched: Fetched, gathered: &mut Gathered) {
        let Some(place) = self.assigned.get_mut(&fetched.partition) else { return };
        let offset = fetched.record.offset;
        match *place {
            Place::Nowhere => return,
            Place::At(next) if offset < next => return,
            Place::Beginning | Place::At(_) => *place = Place::At(offset + 1),
        }
        self.epochs.note(&fetched);
        gathered.add(fetched);
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
                    self.is_kept_out = false;
                    self.assigned.extend(partitions.iter().map(|&partition| (partition, Place::Nowhere)));
                    self.events.push_back(LogEvent::Assigned(partitions));
                }
                Rebalance::Revoked(partitions) => {
                    for partition in &partitions {
                        self.forget(*partition);
                    }
                    gathered.forget(&partitions);
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
                self.has_lost_a_place = true;
                self.find_lost_places().err()
            }
            // The topic was deleted: joining again creates it, and the offsets then tell that it is another one.
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                self.leave_group();
                Some(log_error(error))
            }
            Some(RDKafkaErrorCode::InconsistentGroupProtocol) => {
                self.is_kept_out = true;
                Some(kept_out(&self.options.group))
            }
            // The caller was away for too long (stopped, or at a very slow store): the group has taken the partitions
            // away, which comes as an event of its own.
            Some(RDKafkaErrorCode::PollExceeded) => None,
            _ => Some(log_error(error)),
        }
    }

    /// Has the next poll start a partition at a place, or start it again there.
    fn start_at(&mut self, partition: PartitionId, place: Place) {
        self.held.retain(|held| held.partition != partition);
        self.paused.remove(&partition);
        self.lost.remove(&partition);
        if let Place::At(next) = place {
            self.epochs.start(partition, next);
        }
        self.assigned.insert(partition, place);
        self.starting.insert(partition);
    }

    /// Hands everything that is to be started to librdkafka, at once.
    fn begin_fetching(&mut self) -> Result<(), LogError> {
        if self.starting.is_empty() {
            return Ok(());
        }
        let consumer = self.consumer.as_ref().expect("the group was joined");
        let topic = &self.options.topic;
        let again = consumer.context().forget_started(&self.starting);
        if !again.is_empty() {
            consumer.incremental_unassign(&positions(topic, &again)?).map_err(log_error)?;
        }
        let place_of = |partition: &PartitionId| match self.assigned[partition] {
            Place::At(next) => KafkaOffset::Offset(self.epochs.first(*partition, next)),
            Place::Beginning | Place::Nowhere => KafkaOffset::Beginning,
        };
        let list = partition_list(topic, self.starting.iter().map(|partition| (*partition, place_of(partition))))?;
        consumer.incremental_assign(&list).map_err(log_error)?;
        consumer.context().remember_started(&self.starting);
        // They may have been paused before they were started again.
        consumer.resume(&list).map_err(log_error)?;
        self.starting.clear();
        Ok(())
    }

    fn leave_group(&mut self) {
        // Before the consumer that it belongs to.
        self.progress = Progress::default();
        self.log = None;
        if let Some(consumer) = self.consumer.take() {
            leave(consumer, self.seat.is_some());
        }
        self.has_lost_a_place = false;
        let partitions: Vec<_> = self.assigned.keys().copied().collect();
        for partition in &partitions {
            self.forget(*partition);
        }
        if !partitions.is_empty() {
            self.events.push_back(LogEvent::Revoked(partitions));
        }
    }

    /// Tells Kafka how far the store has got, if it is time.
    fn tell_progress(&mut self) {
        if let Some(consumer) = &self.consumer {
            self.progress.tell(consumer, &self.options.topic);
        }
    }
}
