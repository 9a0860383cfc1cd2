//! The life of a worker, or of one of its lanes, as its log tells it: the partitions that it is given and loses, the first
//! batch, a backlog and its end. One line each, and not more often than somebody can read.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::command_log::PartitionId;
use crate::counted::Counted;
use crate::limits::{
    WORKER_BACKLOG_AGE_MS, WORKER_BACKLOG_CONFIRM_MS, WORKER_BACKLOG_LOG_INTERVAL_MS, WORKER_PARTITIONS_LOG_INTERVAL_MS,
};

/// What there is to tell of a lane.
#[derive(Debug)]
pub(super) struct Life {
    /// The worker, or which lane of it.
    who: String,
    gained: BTreeSet<PartitionId>,
    lost: BTreeSet<PartitionId>,
    partitions_told_at: Option<Instant>,
    has_applied: bool,
    backlog: Backlog,
    /// Commands applied so far.
    applied: u64,
}

/// Whether commands wait that should not.
#[derive(Debug)]
enum Backlog {
    /// Nobody knows yet.
    Unknown,
    None {
        /// Since when the oldest command has waited for too long.
        late_since: Option<Instant>,
    },
    Some {
        since: Instant,
        told_at: Instant,
        /// Commands that had been applied by then.
        applied_before: u64,
        /// Whether it is more than what a restart leaves for a moment.
        is_late: bool,
    },
}

/// How far behind the log a lane is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind {
    /// Commands that are written and not applied.
    pub commands: u64,
    /// How long the oldest of them has waited, or a little more; `None` when unknown.
    pub age: Option<Duration>,
}

impl Life {
    /// Of the lane with this number, from 0.
    pub fn new(lane: usize) -> Life {
        let who = if lane == 0 { "the worker".to_owned() } else { format!("lane {} of the worker", lane + 1) };
        Life {
            who,
            gained: BTreeSet::new(),
            lost: BTreeSet::new(),
            partitions_told_at: None,
            has_applied: false,
            backlog: Backlog::Unknown,
            applied: 0,
        }
    }

    /// These partitions belong to it from now on.
    pub fn gain(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            if !self.lost.remove(partition) {
                self.gained.insert(*partition);
            }
        }
    }

    /// These do no longer.
    pub fn lose(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            if !self.gained.remove(partition) {
                self.lost.insert(*partition);
            }
        }
    }

    /// A batch has been committed.
    pub fn apply(&mut self, commands: u64) {
        self.applied += commands;
        if !self.has_applied {
            self.has_applied = true;
            tracing::info!("{} has applied its first batch: {}", self.who, Counted(commands, "commands"));
        }
    }

    /// Tells what has changed in its partitions, of which it has `owned` now, unless it has told something a moment ago.
    pub fn tell_partitions(&mut self, now: Instant, owned: usize) {
        let interval = Duration::from_millis(WORKER_PARTITIONS_LOG_INTERVAL_MS);
        let is_early = self.partitions_told_at.is_some_and(|at| now.saturating_duration_since(at) < interval);
        if is_early || (self.gained.is_empty() && self.lost.is_empty()) {
            return;
        }
        self.partitions_told_at = Some(now);
        let (gained, lost) = (std::mem::take(&mut self.gained), std::mem::take(&mut self.lost));
        tracing::info!("{} {}", self.who, partitions_text(&gained, &lost, owned));
    }

    /// Tells of a backlog: at the start, when one lasts, and when it is worked off. `behind` is `None` while nobody knows.
    /// Returns what `/ready` should say, when that has changed.
    pub fn tell_backlog(&mut self, now: Instant, behind: Option<Behind>) -> Option<Option<String>> {
        let behind = behind?;
        let who = &self.who;
        let elapsed_s = |since: Instant| now.saturating_duration_since(since).as_secs_f64();
        match &mut self.backlog {
            Backlog::Unknown if behind.commands == 0 => {
                tracing::info!("{who} has no backlog: all that the log holds for it is applied");
                self.backlog = Backlog::None { late_since: None };
                None
            }
            Backlog::Unknown => {
                tracing::info!("{who} begins with a backlog: {}", behind.text());
                self.begin_backlog(now, false);
                None
            }
            Backlog::None { late_since } => {
                if !behind.is_late() {
                    *late_since = None;
                    return None;
                }
                // One look may be at commands that are being taken from the log, and nobody knows their age yet.
                let since = *late_since.get_or_insert(now);
                if elapsed_s(since) * 1e3 < WORKER_BACKLOG_CONFIRM_MS as f64 {
                    return None;
                }
                let text = behind.text();
                tracing::warn!("{who} is behind the log: {text}");
                self.begin_backlog(now, true);
                Some(Some(text))
            }
            Backlog::Some { since, applied_before, is_late, .. } if behind.commands == 0 => {
                let commands = self.applied - *applied_before;
                tracing::info!(
                    "{who} has worked off its backlog: {} in {:.1} s",
                    Counted(commands, "commands"),
                    elapsed_s(*since)
                );
                let was_late = *is_late;
                self.backlog = Backlog::None { late_since: None };
                was_late.then_some(None)
            }
            Backlog::Some { since, told_at, applied_before, is_late } => {
                let interval_s = WORKER_BACKLOG_LOG_INTERVAL_MS as f64 / 1e3;
                let becomes_late = !*is_late && elapsed_s(*since) * 1e3 >= WORKER_BACKLOG_AGE_MS as f64;
                if !becomes_late && elapsed_s(*told_at) < interval_s {
                    return None;
                }
                *told_at = now;
                *is_late |= becomes_late;
                let text = behind.text();
                let commands = self.applied - *applied_before;
                tracing::info!("{who} works on its backlog: it has applied {}; {text}", Counted(commands, "commands"));
                is_late.then_some(Some(text))
            }
        }
    }

    /// It has no partitions any more: what waits in them is another's.
    pub fn forget_backlog(&mut self) -> Option<Option<String>> {
        let Backlog::Some { is_late, .. } = self.backlog else { return None };
        self.backlog = Backlog::None { late_since: None };
        is_late.then_some(None)
    }

    fn begin_backlog(&mut self, now: Instant, is_late: bool) {
        self.backlog = Backlog::Some { since: now, told_at: now, applied_before: self.applied, is_late };
    }
}

impl Behind {
    fn is_late(self) -> bool {
        self.commands > 0 && self.age.is_some_and(|age| age >= Duration::from_millis(WORKER_BACKLOG_AGE_MS))
    }

    fn text(self) -> String {
        let waiting = Counted(self.commands, "commands");
        match self.age {
            Some(age) => format!("{waiting} not applied yet, the oldest {:.1} s old", age.as_secs_f64()),
            None => format!("{waiting} not applied yet"),
        }
    }
}

/// What has changed in a worker's partitions, of which it has `owned` now.
fn partitions_text(gained: &BTreeSet<PartitionId>, lost: &BTreeSet<PartitionId>, owned: usize) -> String {
    let changes = [("was given", gained), ("has lost", lost)].into_iter().filter(|(_, those)| !those.is_empty());
    let changes: Vec<String> = changes.map(|(verb, those)| format!("{verb} {}", ranges(those))).collect();
    format!("{}; it has {} of the log now", changes.join(" and "), Counted(owned, "partitions"))
}

/// Partitions as a person writes them: `partitions 0 to 3, 7`.
fn ranges(partitions: &BTreeSet<PartitionId>) -> String {
    let mut ranges: Vec<(PartitionId, PartitionId)> = Vec::new();
    for &partition in partitions {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == partition => *last = partition,
            _ => ranges.push((partition, partition)),
        }
    }
    let text = |(first, last)| if first == last { format!("{first}") } else { format!("{first} to {last}") };
    let noun = if partitions.len() == 1 { "partition" } else { "partitions" };
    format!("{noun} {}", ranges.into_iter().map(text).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_millis(WORKER_BACKLOG_AGE_MS);
    const CONFIRM: Duration = Duration::from_millis(WORKER_BACKLOG_CONFIRM_MS);

    fn behind(commands: u64, age: Duration) -> Option<Behind> {
        Some(Behind { commands, age: Some(age) })
    }

    #[test]
    fn partitions_are_written_as_ranges() {
        assert_eq!(ranges(&[7, 0, 1, 2, 3].into()), "partitions 0 to 3, 7");
        assert_eq!(ranges(&[5].into()), "partition 5");
        assert_eq!(ranges(&[1, 3, 4].into()), "partitions 1, 3 to 4");
    }

    #[test]
    fn numbers_of_partitions_are_told_from_how_many_they_are() {
        let none = BTreeSet::new();
        assert_eq!(partitions_text(&[0].into(), &none, 1), "was given partition 0; it has 1 partition of the log now");
        assert_eq!(
            partitions_text(&[2, 3].into(), &[7].into(), 0),
            "was given partitions 2 to 3 and has lost partition 7; it has 0 partitions of the log now"
        );
    }

    #[test]
    fn changes_of_one_moment_are_told_together_and_those_that_undo_each_other_not_at_all() {
        let (mut life, start) = (Life::new(0), Instant::now());
        life.gain(&[0, 1, 2]);
        life.tell_partitions(start, 3);
        assert!(life.gained.is_empty() && life.partitions_told_at == Some(start));
        life.lose(&[2]);
        life.tell_partitions(start, 2);
        assert_eq!(life.lost, [2].into(), "told a moment ago");
        life.gain(&[2]);
        assert!(life.gained.is_empty() && life.lost.is_empty());
        life.lose(&[1]);
        let later = start + Duration::from_millis(WORKER_PARTITIONS_LOG_INTERVAL_MS);
        life.tell_partitions(later, 2);
        assert!(life.lost.is_empty() && life.partitions_told_at == Some(later));
    }

    #[test]
    fn a_backlog_is_shown_when_it_lasts_and_until_it_is_worked_off() {
        let (mut life, start) = (Life::new(0), Instant::now());
        assert_eq!(life.tell_backlog(start, None), None, "nobody knows yet");
        // What a restart leaves is logged, and is no trouble while it is soon gone.
        assert_eq!(life.tell_backlog(start, behind(500, 60 * AGE)), None);
        life.apply(500);
        assert_eq!(life.tell_backlog(start + CONFIRM, behind(0, Duration::ZERO)), None);
        // One that lasts is.
        let mut now = start + AGE;
        assert_eq!(life.tell_backlog(now, behind(5, AGE)), None, "one look proves nothing");
        assert_eq!(life.tell_backlog(now + CONFIRM, behind(1, AGE / 2)), None);
        assert_eq!(life.tell_backlog(now + CONFIRM, behind(9, AGE)), None, "it begins anew");
        now += 2 * CONFIRM;
        let text = life.tell_backlog(now, behind(9, AGE)).flatten().expect("it lasts");
        assert!(text.starts_with("9 commands not applied yet, the oldest 10.0 s old"), "{text}");
        assert_eq!(life.tell_backlog(now + CONFIRM, behind(8, AGE)), None, "told a moment ago");
        assert_eq!(life.tell_backlog(now + 2 * CONFIRM, behind(0, Duration::ZERO)), Some(None));
    }

    #[test]
    fn a_backlog_of_the_start_that_is_not_worked_off_is_shown_too() {
        let (mut life, start) = (Life::new(1), Instant::now());
        assert_eq!(life.tell_backlog(start, behind(500, AGE)), None);
        assert_eq!(life.tell_backlog(start + AGE / 2, behind(500, AGE)), None);
        assert!(life.tell_backlog(start + AGE, behind(400, AGE)).flatten().is_some());
        assert_eq!(life.forget_backlog(), Some(None), "all its partitions are another's");
        assert_eq!(life.forget_backlog(), None);
        assert_eq!(life.who, "lane 2 of the worker");
    }
}
