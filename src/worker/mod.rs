//! The worker: reads the command log, applies batches to the store, publishes the changes on the feed.
//!
//! ```text
//! reader.poll -> parse -> dead letters -> store.apply (offsets + fold, one transaction) -> publisher.publish -> reader.applied
//! ```
//! One thread, one loop. What was taken from the log and is not finished stands in a queue ([`work::Work`]); a step that
//! fails stays at its head and is tried again, while the loop goes on polling the reader (which returns no records
//! meanwhile), so that the worker keeps its place in the group. While the feed takes a batch in, the next one is read and
//! applied; its publishing waits for the answer to the one before, so sets are published in their order. Nothing is lost
//! or reordered by that, and a crash at any point is repaired by what the store holds: rows and offsets move together,
//! and the feed is told at the next start where the store stands.

mod back_off;
mod fold;
mod life;
mod metrics;
mod outlet;
mod place;
mod trouble;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fold::ids;
pub use fold::{Folded, fold};
use life::{Behind, Life};
pub use metrics::{WorkerMetrics, WorkerState};

use crate::command_log::{CommandReader, LogError, LogEvent, Offset, PartitionId, RecordBatch};
use crate::feed::{ChangeSet, FeedPublisher};
use crate::limits::{APPLY_BATCH_MAX_BYTES, APPLY_BATCH_MAX_COMMANDS, WORKER_POLL_WAIT_MS};
use crate::observe::troubles::Component;
use crate::store::{AppliedOffsets, Changes, OffsetStep, Store, StoreError};
use crate::todo::Timestamp;
use back_off::BackOff;
use metrics::{LaneNumber, add};
use outlet::{Outlet, Sent};
use place::Recognised;
use trouble::Trouble;
pub use trouble::WorkerError;
use work::{CommandParser, PartitionWork, Work, divide};

/// A partition that belongs to this worker.
#[derive(Debug, Clone, Copy)]
enum Partition {
    /// To be started at the store's offset, not before this moment.
    Waiting(Instant),
    /// Being read; `None` when the store does not know it yet.
    Started { applied: Option<Offset> },
}

/// A worker: the reading end of the log, a connection to the store, the writing end of the feed.
pub struct Worker {
    reader: Box<dyn CommandReader>,
    store: Box<dyn Store>,
    outlet: Outlet,
    metrics: Arc<WorkerMetrics>,
    lane: LaneNumber,
    life: Life,
    clock: Box<dyn Fn() -> Instant + Send>,
    /// A random number, for the jitter of its pauses.
    chance: Box<dyn FnMut() -> u64 + Send>,
    partitions: BTreeMap<PartitionId, Partition>,
    work: VecDeque<Work>,
    /// A set that the feed was handed, whose answer has not been waited for; the earliest of what is unfinished.
    sent: Option<Sent>,
    back_off: BackOff,
    /// What the batch with these steps left as it had found it. The store may find out late that a batch has been
    /// committed, and does not fold it again then.
    found: (Vec<OffsetStep>, Changes),
    /// When the newest record that was taken from the log had been written: what is not read yet is younger.
    newest_taken: Option<Timestamp>,
    /// Why partitions wait that have not the place that the store wants, as the log has it.
    lost_places: BTreeMap<PartitionId, String>,
    /// The trouble that was logged last, so that each is logged once.
    trouble: Option<String>,
    /// What this lane has noted as being in trouble.
    noted: Option<Component>,
    /// Whether the log has answered since the start.
    has_log: bool,
    /// Whether the store is known to have a place in the log.
    has_place: bool,
    /// When to look whether the store's place is still the one that this worker knows.
    look_at_place_at: Option<Instant>,
    parser: CommandParser,
}

impl Worker {
    /// A worker over these ends; the store's schema has to be there. Several may share their metrics: they are then lanes
    /// of one worker.
    pub fn new(
        reader: Box<dyn CommandReader>,
        store: Box<dyn Store>,
        publisher: Box<dyn FeedPublisher>,
        metrics: Arc<WorkerMetrics>,
    ) -> Worker {
        let lane = metrics.add_lane();
        Worker {
            reader,
            store,
            outlet: Outlet::new(publisher),
            life: Life::new(lane.index()),
            lane,
            metrics,
            clock: Box::new(Instant::now),
            chance: Box::new(|| RandomState::new().hash_one(())),
            partitions: BTreeMap::new(),
            work: VecDeque::new(),
            sent: None,
            back_off: BackOff::default(),
            found: Default::default(),
            newest_taken: None,
            lost_places: BTreeMap::new(),
            trouble: None,
            noted: None,
            has_log: false,
            has_place: false,
            look_at_place_at: None,
            parser: CommandParser::default(),
        }
    }

    /// Takes the time and its random numbers from elsewhere than the system, for tests that play hours in a moment and
    /// can be played again.
    pub fn with_clock_and_chance(
        self,
        clock: impl Fn() -> Instant + Send + 'static,
        chance: impl FnMut() -> u64 + Send + 'static,
    ) -> Worker {
        Worker { clock: Box::new(clock), chance: Box::new(chance), ..self }
    }

    /// Works until `stop` is set, which it notices between two steps. What is then unfinished is not lost: the next start
    /// takes it up from the log.
    ///
    /// # Errors
    /// [`WorkerError`]: nothing more can be applied until a person has acted.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), WorkerError> {
        let result = self.run_until(stop);
        match &result {
            Ok(()) => self.metrics.set_state(self.lane, WorkerState::Stopped, None),
            Err(error) => {
                tracing::error!("the worker has ended: {error}");
                self.metrics.set_state(self.lane, WorkerState::Failed, Some(error.to_string()));
            }
        }
        result
    }

    fn run_until(&mut self, stop: &AtomicBool) -> Result<(), WorkerError> {
        while !stop.load(Ordering::Relaxed) {
            self.turn(Duration::from_millis(WORKER_POLL_WAIT_MS), stop)?;
        }
        // What is committed is published if it can be, so that no API process has to load the list for it.
        let _ = self.settle();
        while let Some(Work::Publish(set)) = self.work.pop_front() {
            if self.publish(set).and_then(|()| self.settle()).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// One turn of the loop: does what is due, until it is done, a step fails or `stop` is set; then takes what the log
    /// has, for which it waits up to `max_wait`. [`Worker::run`] is this, again and again.
    ///
    /// # Errors
    /// [`WorkerError`], as for [`Worker::run`]; no further turn will succeed.
    pub fn turn(&mut self, max_wait: Duration, stop: &AtomicBool) -> Result<(), WorkerError> {
        self.catch_up();
        let advanced = self.advance_when_due(stop);
        // Also after a failure: the worker's place in the group depends on it.
        let polled = self.poll(max_wait);
        if polled.is_ok() && !std::mem::replace(&mut self.has_log, true) {
            self.metrics.set_state(self.lane, WorkerState::Running, None);
        }
        // The feed's answer is waited for when there is nothing to apply meanwhile.
        let goes_on = advanced.is_ok() && matches!(self.work.front(), Some(Work::Apply(_)));
        let settled = if goes_on { Ok(()) } else { self.settle() };
        if settled.is_err() {
            self.back_off.grow((self.clock)(), (self.chance)());
        }
        self.note(advanced.and(polled).and(settled))?;
        self.metrics.look_at_dead_letters((self.clock)());
        self.measure_lag();
        Ok(())
    }

    fn measure_lag(&mut self) {
        let unread = self.reader.lag();
        let taken: usize = self.work.iter().map(Work::records).sum();
        let oldest = self.work.iter().filter_map(Work::oldest).min();
        let lag = unread.map(|unread| unread + taken as u64);
        self.metrics.set_lag(self.lane, lag, oldest.or(self.newest_taken));
        self.tell_of_life();
    }

    /// Tells the log, and `/ready`, what has become of its partitions and its backlog.
    fn tell_of_life(&mut self) {
        let now = (self.clock)();
        self.life.tell_partitions(now, self.partitions.len());
        // What waits in a partition that has not been started is not known.
        let is_started = |partition: &Partition| matches!(partition, Partition::Started { .. });
        let change = if self.partitions.is_empty() {
            // A session that ran out while no broker answers proves not that others have the partitions.
            let is_known = !self.metrics.troubles.has(Component::LogLink);
            is_known.then(|| self.life.forget_backlog()).flatten()
        } else if self.partitions.values().all(is_started) {
            let (commands, age) = self.metrics.lag_of(self.lane);
            self.life.tell_backlog(now, commands.map(|commands| Behind { commands, age }))
        } else {
            None
        };
        if let Some(change) = change {
            self.metrics.show_backlog(self.lane, change);
        }
    }

    /// Logs and counts trouble, each once while it lasts.
    fn note(&mut self, result: Result<(), Trouble>) -> Result<(), WorkerError> {
        match result {
            Ok(()) => {
                let waits = self.partitions.values().any(|partition| matches!(partition, Partition::Waiting(_)));
                if self.back_off.is_over() && !waits && self.trouble.take().is_some() {
                    tracing::info!("the worker goes on");
                    self.lost_places.clear();
                    self.metrics.set_state(self.lane, WorkerState::Running, None);
                    self.noted.take().inspect(|component| self.metrics.troubles.clear(*component));
                }
                Ok(())
            }
            Err(Trouble::Waiting(component, reason)) => {
                add(&self.metrics.retries, 1);
                self.metrics.troubles.note(component, &reason);
                if let Some(before) = self.noted.replace(component).filter(|before| *before != component) {
                    self.metrics.troubles.clear(before);
                }
                self.show_trouble(format!("it waits until the trouble of the {} is over", component.name()));
                Ok(())
            }
            Err(Trouble::Passing(reason)) => {
                add(&self.metrics.retries, 1);
                self.show_trouble(reason);
                Ok(())
            }
            Err(Trouble::Lasting(error)) => Err(error),
        }
    }

    fn show_trouble(&mut self, reason: String) {
        if self.trouble.as_ref() != Some(&reason) {
            tracing::warn!("the worker waits and tries again: {reason}");
            let state = if self.has_log { WorkerState::Retrying } else { WorkerState::Starting };
            self.metrics.set_state(self.lane, state, Some(reason.clone()));
            self.trouble = Some(reason);
        }
    }

    fn advance_when_due(&mut self, stop: &AtomicBool) -> Result<(), Trouble> {
        if !self.back_off.wait((self.clock)()).is_zero() {
            return Ok(());
        }
        let advanced = self.advance(stop);
        match &advanced {
            Ok(()) => self.back_off.reset(),
            Err(_) => self.back_off.grow((self.clock)(), (self.chance)()),
        }
        advanced
    }

    /// Does what there is to do, until it is done or a step fails.
    fn advance(&mut self, stop: &AtomicBool) -> Result<(), Trouble> {
        while !stop.load(Ordering::Relaxed)
            && let Some(work) = self.work.front()
        {
            if matches!(work, Work::Publish(_)) {
                // Sets are published in their order.
                self.settle()?;
            }
            match self.work.pop_front() {
                Some(Work::Apply(parts)) => self.apply(parts)?,
                Some(Work::Publish(set)) => self.publish(set)?,
                None => {}
            }
        }
        if self.work.is_empty() {
            self.look_at_place();
        }
        self.start_partitions()
    }

    /// Takes what the log has: new records only when all earlier ones are finished.
    fn poll(&mut self, max_wait: Duration) -> Result<(), Trouble> {
        let max_records = if self.work.is_empty() { APPLY_BATCH_MAX_COMMANDS } else { 0 };
        let wait = match (&self.sent, self.work.is_empty()) {
            // What has come by now can be applied while the feed works.
            (Some(_), _) => Duration::ZERO,
            (None, true) => max_wait,
            (None, false) => max_wait.min(self.back_off.wait((self.clock)())),
        };
        let event = match self.reader.poll(max_records, APPLY_BATCH_MAX_BYTES, wait) {
            // The other partitions go on.
            Err(error @ LogError::OffsetOutOfRange { .. }) => {
                return self.lose_place(error);
            }
            Err(LogError::Replaced) => {
                self.restart_all();
                return Ok(());
            }
            polled => polled.inspect_err(|_| std::thread::sleep(wait))?,
        };
        match event {
            LogEvent::Records(batches) => self.take(batches),
            LogEvent::Assigned(partitions) => {
                self.life.gain(&partitions);
                for partition in partitions {
                    self.restart(partition, (self.clock)());
                }
            }
            LogEvent::Revoked(partitions) => {
                self.life.lose(&partitions);
                for partition in partitions {
                    self.drop_work(partition);
                    self.partitions.remove(&partition);
                }
            }
            LogEvent::Idle => {}
        }
        Ok(())
    }

    fn take(&mut self, batches: Vec<RecordBatch>) {
        let mut parts = Vec::new();
        for batch in batches {
            let Some(Partition::Started { applied }) = self.partitions.get(&batch.partition).copied() else { continue };
            if applied.is_some_and(|applied| batch.next <= applied) {
                continue;
            }
            self.newest_taken = batch.records.last().map(|record| record.logged_at).max(self.newest_taken);
            parts.push(self.parser.parse(batch, applied, &self.metrics));
        }
        if !parts.is_empty() {
            self.work.push_back(Work::Apply(parts));
        }
    }

    /// Forgets what was read from a partition; it is to be started again at the store's offset.
    fn restart(&mut self, partition: PartitionId, not_before: Instant) {
        self.drop_work(partition);
        self.partitions.insert(partition, Partition::Waiting(not_before));
    }

    /// Drops the unapplied work of a partition. What is committed stays to be published.
    fn drop_work(&mut self, partition: PartitionId) {
        self.work.retain_mut(|work| match work {
            Work::Apply(parts) => {
                parts.retain(|part| part.partition != partition);
                !parts.is_empty()
            }
            Work::Publish(_) => true,
        });
    }

    /// Starts the partitions that wait for it: the store says where, and the feed is told.
    fn start_partitions(&mut self) -> Result<(), Trouble> {
        let now = (self.clock)();
        let due = |partition: &Partition| matches!(partition, Partition::Waiting(not_before) if *not_before <= now);
        let waiting: Vec<PartitionId> =
            self.partitions.iter().filter(|(_, partition)| due(partition)).map(|(id, _)| *id).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        self.settle()?;
        // Before the offsets: those that are read then are of this log, or of one that no batch of this one is applied to.
        let log = self.recognise_log()?;
        let mut offsets: AppliedOffsets = self.store.applied_offsets()?;
        if offsets.is_empty() {
            self.take_place()?;
        }
        if let Recognised::Unnoted(found) = log {
            self.note_log(found, &offsets)?;
        }
        offsets.retain(|partition, _| waiting.contains(partition));
        let identity = self.store.identity()?;
        self.outlet.publisher.identify(&identity);
        self.resume(&offsets)?;
        self.reader.expect_epochs(self.store.leader_epochs()?);
        for partition in waiting {
            let applied = offsets.get(&partition).copied();
            let state = match self.reader.start(partition, applied) {
                Ok(()) => Partition::Started { applied },
                Err(error @ LogError::OffsetOutOfRange { .. }) => {
                    self.lose_place(error)?;
                    continue;
                }
                Err(other) => return Err(other.into()),
            };
            self.partitions.insert(partition, state);
        }
        Ok(())
    }

    /// Applies one batch in one transaction, and queues what it changed for publishing.
    fn apply(&mut self, mut parts: Vec<PartitionWork>) -> Result<(), Trouble> {
        if let Err(trouble) = self.put_aside(&mut parts) {
            self.work.push_front(Work::Apply(parts));
            return Err(trouble);
        }
        let steps: Vec<OffsetStep> = parts.iter().map(|part| self.step(part)).collect();
        let commands = || parts.iter().flat_map(|part| &part.commands).map(|(_, command)| command);
        let (ids, new_ids) = ids(commands());
        let epoch = |part: &PartitionWork| Some((part.partition, (part.next, part.leader_epoch?)));
        self.store.note_epochs(parts.iter().filter_map(epoch).collect());
        let started_at = Instant::now();
        let found = &mut self.found;
        let applied = self.store.apply_new(&steps, &ids, &new_ids, &mut |existing| {
            let folded = fold(commands(), existing);
            *found = (steps.clone(), folded.found);
            folded.changes
        });
        self.metrics.apply_time.observe_time(started_at.elapsed());
        match applied {
            Ok(mut changes) => {
                let count = commands().count() as u64;
                self.metrics.count_batch(count, changes.len() as u64);
                self.life.apply(count);
                let (found_by, found) = std::mem::take(&mut self.found);
                if found_by == steps {
                    add(&self.metrics.found_todos, found.len() as u64);
                    changes.deletes.extend(found.deletes);
                    changes.upserts.extend(found.upserts);
                }
                for step in &steps {
                    self.partitions.insert(step.partition, Partition::Started { applied: Some(step.to) });
                }
                self.work.push_front(Work::Publish(ChangeSet { steps, changes }));
                Ok(())
            }
            Err(StoreError::Refused(reason)) => {
                let smaller = match divide(parts, &reason) {
                    Ok(smaller) => smaller,
                    Err(parts) => {
                        self.work.push_front(Work::Apply(parts));
                        return Err(StoreError::Refused(reason).into());
                    }
                };
                for work in smaller.into_iter().rev() {
                    self.work.push_front(work);
                }
                Ok(())
            }
            Err(error) => {
                self.work.push_front(Work::Apply(parts));
                if let StoreError::Fenced { partition } = error {
                    add(&self.metrics.fenced, 1);
                    self.restart(partition, (self.clock)());
                }
                Err(error.into())
            }
        }
    }

    fn step(&self, part: &PartitionWork) -> OffsetStep {
        let from = match self.partitions.get(&part.partition) {
            Some(Partition::Started { applied }) => *applied,
            Some(Partition::Waiting(_)) | None => unreachable!("work of a partition is dropped when it is not started"),
        };
        OffsetStep { partition: part.partition, from, to: part.next }
    }

    /// Makes dead letters durable; only then may the offset move past them.
    fn put_aside(&mut self, parts: &mut [PartitionWork]) -> Result<(), Trouble> {
        for part in parts {
            while let Some((record, reason)) = part.dead.front() {
                self.reader.dead_letter(part.partition, record, reason)?;
                tracing::error!(
                    "the record at offset {} of partition {} can never be applied and is a dead letter now: {reason}",
                    record.offset,
                    part.partition
                );
                self.metrics.count_dead_letter((self.clock)());
                part.dead.pop_front();
            }
        }
        Ok(())
    }
}
