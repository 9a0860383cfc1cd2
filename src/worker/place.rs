//! Whether the log is the one that the store has a place in, and where a worker begins when the store has none, or one that the
//! log has lost.

use std::time::Duration;

use super::metrics::add;
use super::{Partition, Trouble, Worker, WorkerState};
use crate::command_log::{AnotherLog, KnownLogs, LogError, LogHistory, LogId, Offset, PartitionId};
use crate::counted::Counted;
use crate::limits::{
    WORKER_PLACE_LOOK_MS, WORKER_PLACE_LOOK_PATIENCE_MS, WORKER_PLACE_LOOK_PAUSE_MS, WORKER_RETRY_MAX_MS,
};
use crate::observe::troubles::Component;
use crate::store::{AppliedOffsets, LogPlace};

/// What is known of the log that is there.
pub(super) enum Recognised {
    /// It has no id to know it by.
    Nameless,
    /// The store follows it.
    Followed,
    /// The store does not say which log it follows.
    Unnoted(LogId),
}

impl Worker {
    /// Finds out whether the log that is there is the one that the store follows.
    pub(super) fn recognise_log(&mut self) -> Result<Recognised, Trouble> {
        let found = match self.reader.log_id() {
            Err(LogError::Replaced) => {
                self.restart_all();
                self.reader.log_id()?
            }
            other => other?,
        };
        let Some(found) = found else { return Ok(Recognised::Nameless) };
        let known = self.store.known_logs()?;
        known.admit(found).map_err(another_log)?;
        Ok(known.followed.map_or(Recognised::Unnoted(found), |_| Recognised::Followed))
    }

    /// Notes which log the offsets of the store belong to: in a new deployment, or in one of a version that did not. It is the
    /// log that is found then, unless that ends before these offsets. One that does is noted, too, as it may grow past them.
    pub(super) fn note_log(&mut self, found: LogId, offsets: &AppliedOffsets) -> Result<(), Trouble> {
        if !self.reader.reaches(offsets)? {
            self.store.reject_log(found)?;
            return Err(another_log(AnotherLog::Rejected { found }));
        }
        let followed = Some(self.store.note_log(found)?);
        KnownLogs { followed, ..KnownLogs::default() }.admit(found).map_err(another_log)
    }

    /// The log that was read is another one by now.
    pub(super) fn restart_all(&mut self) {
        let partitions: Vec<PartitionId> = self.partitions.keys().copied().collect();
        partitions.into_iter().for_each(|partition| self.restart(partition, (self.clock)()));
    }

    /// A partition does not have the place that the store wants.
    ///
    /// When it is the log that the store follows, and ends before that place, it has lost records that were applied. What it is
    /// given from then on stands at offsets that the store takes for applied: so the store's place moves back to the end, at
    /// once, as each moment makes it more. In all other cases the worker tries again later, so that a repair needs no restart.
    pub(super) fn lose_place(&mut self, error: LogError) -> Result<(), Trouble> {
        let LogError::OffsetOutOfRange { partition, requested, latest, .. } = error else { return Ok(()) };
        self.restart(partition, (self.clock)() + Duration::from_millis(WORKER_RETRY_MAX_MS));
        self.show_lost_place(partition, error.to_string());
        if latest >= requested || !matches!(self.recognise_log()?, Recognised::Followed) {
            // Other partitions go on. It passes when none waits any more.
            self.metrics.troubles.note(Component::Store, &error.to_string());
            self.noted = Some(Component::Store);
            return Ok(());
        }
        self.store.move_back(partition, requested, latest)?;
        tracing::error!(
            "partition {partition} of the command log has lost the records from {latest} to {requested}, which are applied. \
             What it was given from {latest} on is applied. If its brokers tell no epochs, commands that were written between the \
             loss and this moment may be missing. Was a broker that was behind made leader (unclean.leader.election.enable), or a disk lost?"
        );
        add(&self.metrics.moved_back, 1);
        self.restart(partition, (self.clock)());
        Ok(())
    }

    /// Shows that a partition has not the place that the store wants: in the log once, as several partitions may take turns.
    fn show_lost_place(&mut self, partition: PartitionId, reason: String) {
        if self.lost_places.get(&partition) != Some(&reason) {
            tracing::warn!("the worker waits and tries again: {reason}");
            self.lost_places.insert(partition, reason.clone());
        }
        let state = if self.has_log { WorkerState::Retrying } else { WorkerState::Starting };
        self.metrics.set_state(self.lane, state, Some(reason.clone()));
        self.trouble = Some(reason);
    }

    /// Notices when somebody else has moved the store's place: `migrate`, or who put an older copy of the store in its place. By
    /// what it applies a worker learns of that, too, but it may have nothing to apply. Only while no batch is at hand, whose
    /// outcome might not be known.
    pub(super) fn look_at_place(&mut self) {
        let now = (self.clock)();
        let reads = self.partitions.values().any(|partition| matches!(partition, Partition::Started { .. }));
        if !reads || self.look_at_place_at.is_some_and(|at| now < at) {
            return;
        }
        self.store.set_patience(Some(Duration::from_millis(WORKER_PLACE_LOOK_PATIENCE_MS)));
        let offsets = self.store.applied_offsets();
        self.store.set_patience(None);
        let pause_ms = if offsets.is_ok() { WORKER_PLACE_LOOK_MS } else { WORKER_PLACE_LOOK_PAUSE_MS };
        // After the answer: a store that takes its time must not have the worker wait for it all the time.
        self.look_at_place_at = Some((self.clock)() + Duration::from_millis(pause_ms));
        let offsets = match offsets {
            Ok(offsets) => offsets,
            // Who has something to apply tells of it, and the watch over the store.
            Err(error) => return tracing::debug!(%error, "the store does not say how far it has applied the log"),
        };
        let is_moved = |(id, partition): (&PartitionId, &Partition)| match partition {
            Partition::Started { applied } if *applied != offsets.get(id).copied() => Some((*id, *applied)),
            Partition::Started { .. } | Partition::Waiting(_) => None,
        };
        let moved: Vec<(PartitionId, Option<Offset>)> = self.partitions.iter().filter_map(is_moved).collect();
        for (partition, applied) in moved {
            let place = |offset: Option<Offset>| offset.map_or("its beginning".to_owned(), |offset| offset.to_string());
            let next = offsets.get(&partition).copied();
            // Somebody may have removed all that the store said of the log.
            self.has_place &= next.is_some();
            tracing::info!(
                "the store's place in partition {partition} of the command log is {} and was {}: somebody else has moved it, \
                 as `million-rps migrate` does. The worker goes on from there",
                place(next),
                place(applied)
            );
            self.restart(partition, now);
        }
    }

    /// Lets the store follow the log from its beginning, where that is safe: nobody has applied any of it before.
    ///
    /// A program that was here before this one, as the original, notes its place with the log. To begin at the earliest
    /// record then applies again what is long done: deleted todos return, and old titles.
    pub(super) fn take_place(&mut self) -> Result<(), Trouble> {
        if self.has_place {
            return Ok(());
        }
        if let LogPlace::Unknown { .. } = self.store.log_place()? {
            let history = self.reader.history()?;
            // Asked again: another lane or worker may have begun since.
            match self.store.log_place()? {
                LogPlace::Unknown { has_todos } if history.records > 0 && (has_todos || history.read_by.is_some()) => {
                    return Err(Trouble::Waiting(Component::Store, unknown_place(&history, has_todos)));
                }
                LogPlace::Unknown { .. } => self.store.follow_log()?,
                LogPlace::Known => {}
            }
        }
        self.has_place = true;
        Ok(())
    }
}

fn another_log(another: AnotherLog) -> Trouble {
    Trouble::Waiting(Component::Store, another.to_string())
}

fn unknown_place(history: &LogHistory, has_todos: bool) -> String {
    let LogHistory { log, records, read_by } = history;
    let group = read_by.as_deref().unwrap_or("NAME");
    let known = match (has_todos, read_by) {
        (true, Some(_)) => format!("the table todos has rows, and the group {group} has read it"),
        (true, None) => "the table todos has rows".to_owned(),
        (false, _) => format!("the group {group} has read it"),
    };
    format!(
        "the store does not say how far it has applied {log}, which holds {}, but {known}: to apply them again \
         could bring deleted todos and old values back. Nothing is applied until one of these has been run: `million-rps \
         migrate --from-group {group}` goes on where that consumer group stands, `million-rps migrate --from-end` takes all \
         of it for applied, `million-rps migrate --from-beginning` applies all of it",
        Counted(records, "records")
    )
}
