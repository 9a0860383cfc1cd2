//! Writes: what may be written, the way of commands to the producer, and the answers that wait for what comes back.
//!
//! ```text
//! request -> user_rates, room -> in_flight -> queue -> producer
//!                                    |  <- acknowledgement (shard's inbox)
//!                                 answer, or visibility -> answer, when the snapshot shows the write
//! ```

pub mod in_flight;
pub mod room;
pub mod user_rates;
mod visibility;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::in_flight::{InFlight, PendingWrite};
use self::room::ListRoom;
use self::user_rates::UserRates;
use self::visibility::Visibility;
use super::Settings;
use super::clock::Moment;
use crate::command_log::new_ids::NewIds;
use crate::command_log::{Acknowledgement, Coverage, Refusal, Submission};
use crate::http::{Problem, ProblemKind};
use crate::limits::{ID_KEY_RETRY_S, SUBMISSION_OVERHEAD_BYTES};
use crate::observe::metrics::ShardMetrics;
use crate::producer::SubmissionQueue;
use crate::todo::{Command, IdKey, Timestamp, TodoId};

/// The writes of a shard. One thread, so no lock and no atomic but for what users' rates and the room in the list share.
pub(crate) struct Writes {
    in_flight: RefCell<InFlight>,
    visibility: RefCell<Visibility>,
    /// `None` when the shard has ended: the runtime may keep tasks, and with them this, longer than the thread's work.
    submissions: RefCell<Option<SubmissionQueue>>,
    new_ids: Arc<NewIds>,
    /// The key of ids from `Idempotency-Key`; `None` until the store has been asked for it.
    id_key: RefCell<Option<IdKey>>,
    user_rates: Option<Arc<UserRates>>,
    room: Option<Arc<ListRoom>>,
    metrics: Arc<ShardMetrics>,
}

impl Writes {
    /// The writes of the shard of this number.
    pub fn new(
        shard: usize,
        settings: &Settings,
        submissions: SubmissionQueue,
        new_ids: Arc<NewIds>,
        user_rates: Option<Arc<UserRates>>,
        room: Option<Arc<ListRoom>>,
        metrics: Arc<ShardMetrics>,
    ) -> Writes {
        Writes {
            in_flight: RefCell::new(InFlight::new(shard, settings.commands_max, settings.command_bytes_max)),
            visibility: RefCell::default(),
            submissions: RefCell::new(Some(submissions)),
            new_ids,
            id_key: RefCell::default(),
            user_rates,
            room,
            metrics,
        }
    }

    /// From now on, ids are made of `Idempotency-Key` with this key.
    pub fn take_id_key(&self, key: IdKey) {
        self.id_key.replace(Some(key));
    }

    /// The id of a todo that is made now.
    pub fn new_id(&self, now: Timestamp) -> TodoId {
        self.new_ids.next(now)
    }

    /// The id of the todo of this user and `Idempotency-Key`: sent again, it is the same.
    ///
    /// # Errors
    /// The store has not been asked for the key that ids are made with.
    pub fn id_of_key(&self, user: &str, key: &[u8]) -> Result<TodoId, Problem> {
        let id_key = self.id_key.borrow();
        Ok(TodoId::of_key(id_key.as_ref().ok_or_else(no_id_key)?, user, key))
    }

    /// The id of the todo with this number in the array of this user and `Idempotency-Key`.
    ///
    /// # Errors
    /// As of a single one.
    pub fn id_of_key_in_array(&self, user: &str, key: &[u8], index: u32) -> Result<TodoId, Problem> {
        let id_key = self.id_key.borrow();
        Ok(TodoId::of_key_in_array(id_key.as_ref().ok_or_else(no_id_key)?, user, key, index))
    }

    /// Refuses a user who writes too fast, and counts nothing: the body is still to come.
    ///
    /// # Errors
    /// 429
    pub fn check_rate(&self, user: &str) -> Result<(), Problem> {
        self.user_rates.as_ref().map_or(Ok(()), |rates| rates.check(user)).map_err(|wait| self.too_fast(wait))
    }

    /// Counts a write, or refuses it.
    ///
    /// # Errors
    /// 429
    pub fn take_from_rate(&self, user: &str) -> Result<(), Problem> {
        self.user_rates.as_ref().map_or(Ok(()), |rates| rates.take(user)).map_err(|wait| self.too_fast(wait))
    }

    /// Counts so many writes more, or refuses all of them.
    ///
    /// # Errors
    /// 429
    pub fn take_all_from_rate(&self, user: &str, writes: u32) -> Result<(), Problem> {
        let Some(rates) = &self.user_rates else { return Ok(()) };
        rates.take_all(user, writes).map_err(|wait| match wait {
            Some(wait) => self.too_fast(wait),
            None => {
                self.metrics.writes_limited.add(1);
                let detail = "each todo of an array counts as a write, and these are more than WRITE_RATE_PER_USER allows in a \
                              second; nothing was written: send fewer at once";
                Problem::too_many_requests(ProblemKind::WriteRateExceeded, detail, 1)
            }
        })
    }

    fn too_fast(&self, wait: Duration) -> Problem {
        self.metrics.writes_limited.add(1);
        let retry_after_s = u32::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1);
        Problem::too_many_requests(
            ProblemKind::WriteRateExceeded,
            "this user writes faster than WRITE_RATE_PER_USER allows; nothing was written",
            retry_after_s,
        )
    }

    /// Hands a command to the producer. What `pending` makes holds the place of its answer until the log has it.
    ///
    /// # Errors
    /// As many commands are on their way as may, or as many bytes.
    pub fn submit(
        &self,
        command: &Command<'_>,
        now: Moment,
        pending: impl FnOnce() -> PendingWrite,
    ) -> Result<Rc<PendingWrite>, Refusal> {
        let mut payload = Vec::new();
        command.write_json(&mut payload);
        let bytes = payload.len() + SUBMISSION_OVERHEAD_BYTES;
        let mut in_flight = self.in_flight.borrow_mut();
        if !in_flight.admits(bytes) {
            return Err(Refusal::Full);
        }
        let pending = Rc::new(pending());
        let ticket = in_flight.insert(Rc::clone(&pending), bytes, now.instant);
        let submission = Submission { ticket, id: command.id, payload };
        let is_queued = self.submissions.borrow().as_ref().is_some_and(|queue| queue.try_send(submission).is_ok());
        if !is_queued {
            in_flight.acknowledge(ticket, Err(Refusal::Full), now.instant);
            return Err(Refusal::Full);
        }
        self.metrics.commands_submitted.add(1);
        self.metrics.commands_in_flight.add(1);
        self.metrics.command_bytes_in_flight.add(bytes as u64);
        Ok(pending)
    }

    /// Hands the commands of an array to the producer, as [`Writes::submit`] does with one. When the queue takes some of them and not
    /// all, the answer says so.
    ///
    /// # Errors
    /// There is no room for all of them: none was handed over.
    pub fn submit_all<'c>(
        &self,
        commands: impl Iterator<Item = Command<'c>>,
        now: Moment,
        pending: impl FnOnce() -> PendingWrite,
    ) -> Result<Rc<PendingWrite>, Refusal> {
        let payloads: Vec<(TodoId, Vec<u8>)> = commands
            .map(|command| {
                let mut payload = Vec::new();
                command.write_json(&mut payload);
                (command.id, payload)
            })
            .collect();
        let bytes_of = |payload: &[u8]| payload.len() + SUBMISSION_OVERHEAD_BYTES;
        let mut in_flight = self.in_flight.borrow_mut();
        if !in_flight.admits_all(payloads.len(), payloads.iter().map(|(_, payload)| bytes_of(payload)).sum()) {
            return Err(Refusal::Full);
        }
        let pending = Rc::new(pending());
        let submissions = self.submissions.borrow();
        for (number, (id, payload)) in payloads.into_iter().enumerate() {
            let bytes = bytes_of(&payload);
            let ticket = in_flight.insert(Rc::clone(&pending), bytes, now.instant);
            let submission = Submission { ticket, id, payload };
            let is_queued = submissions.as_ref().is_some_and(|queue| queue.try_send(submission).is_ok());
            if !is_queued {
                in_flight.acknowledge(ticket, Err(Refusal::Full), now.instant);
                if number == 0 {
                    return Err(Refusal::Full);
                }
                break;
            }
            self.metrics.commands_submitted.add(1);
            self.metrics.commands_in_flight.add(1);
            self.metrics.command_bytes_in_flight.add(bytes as u64);
        }
        Ok(pending)
    }

    /// Decides the answers to writes that come back from the log `now`.
    pub fn acknowledge(&self, acknowledgements: &[Acknowledgement], now: Instant) {
        let mut in_flight = self.in_flight.borrow_mut();
        for Acknowledgement { ticket, result, position } in acknowledgements {
            let Some(returned) = in_flight.acknowledge(*ticket, *result, now) else { continue };
            let outcome =
                if result.is_ok() { &self.metrics.commands_acknowledged } else { &self.metrics.commands_refused };
            outcome.add(1);
            self.metrics.commands_in_flight.subtract(1);
            self.metrics.command_bytes_in_flight.subtract(returned.bytes as u64);
            self.metrics.acknowledgement_latency.observe_time(returned.latency);
            if let Some(write) = returned.waiting {
                self.change_visibility(|visibility| visibility.hold(*position, write, now));
            }
        }
    }

    /// Tells those who wait for it that the snapshot, which was swapped in just before, shows their writes.
    pub fn show(&self, coverage: &Coverage) {
        self.change_visibility(|visibility| visibility.advance(coverage));
    }

    /// Answers those that the log does not answer in time, and those whose wait for the snapshot is over.
    pub fn expire(&self, now: Instant, ack_timeout: Duration) {
        let expired = self.in_flight.borrow_mut().expire(now, ack_timeout);
        self.metrics.commands_refused.add(expired as u64);
        let oldest_us = self.in_flight.borrow().oldest_age(now).map_or(0, |age| age.as_micros() as u64);
        self.metrics.oldest_command_us.set(oldest_us);
        self.change_visibility(|visibility| visibility.expire(now));
    }

    /// Lets nobody wait for the snapshot beyond this moment.
    pub fn shorten_waits(&self, until: Instant) {
        self.change_visibility(|visibility| visibility.shorten(until));
    }

    /// Takes no more commands. The producer ends when the last shard has let go of its queue.
    pub fn end(&self) {
        self.submissions.take();
    }

    fn change_visibility(&self, change: impl FnOnce(&mut Visibility)) {
        let mut visibility = self.visibility.borrow_mut();
        change(&mut visibility);
        self.metrics.writes_waiting.set(visibility.len() as u64);
    }
}

/// The store keeps the key of ids from `Idempotency-Key`, and has not been reached since the start.
fn no_id_key() -> Problem {
    Problem::unavailable(
        ProblemKind::WriteNotTaken,
        "Idempotency-Key: what its ids are made with is kept in the store, which has not been reached yet; nothing was written",
        ID_KEY_RETRY_S,
    )
}
