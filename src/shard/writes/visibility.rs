//! The writes of a shard that are durable and whose clients wait until the shard's own snapshot shows them
//! (`Prefer: wait`).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use super::in_flight::{Outcome, PendingWrite};
use crate::command_log::{Coverage, LogPosition, Offset, PartitionId};
use crate::limits::WAITING_WRITES_MAX;

/// What the snapshot has taken in, and who waits for more.
#[derive(Default)]
pub struct Visibility {
    /// For each partition the offset of the next command.
    covered: BTreeMap<PartitionId, Offset>,
    waiting: BTreeMap<LogPosition, Rc<PendingWrite>>,
}

impl Visibility {
    /// Writes that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Decides the answer to a write that stands in the log, now or later. Where there is nothing to wait for, because the
    /// log has not said where it stands, because the time is over or because too many wait already, the client hears at
    /// once that the write is durable.
    pub fn hold(&mut self, position: Option<LogPosition>, write: Rc<PendingWrite>, now: Instant) {
        let has_time = write.wait_until().is_some_and(|until| now < until);
        match position {
            Some(position) if self.covers(position) => write.decide(Outcome::Visible),
            Some(position) if has_time && self.waiting.len() < WAITING_WRITES_MAX => {
                if let Some(other) = self.waiting.insert(position, write) {
                    // Only a log that was made anew gives a place twice.
                    other.decide(Outcome::Accepted);
                }
            }
            _ => write.decide(Outcome::Accepted),
        }
    }

    fn covers(&self, LogPosition { partition, offset }: LogPosition) -> bool {
        self.covered.get(&partition).is_some_and(|next| offset < *next)
    }

    /// The snapshot has taken in more of the log: who waited for that is told.
    pub fn advance(&mut self, coverage: &Coverage) {
        match coverage {
            Coverage::Whole(offsets) => {
                self.covered.clone_from(offsets);
                offsets.iter().for_each(|(partition, next)| self.release(*partition, *next));
            }
            Coverage::Steps(steps) => {
                for (partition, next) in steps {
                    self.covered.insert(*partition, *next);
                    self.release(*partition, *next);
                }
            }
        }
    }

    fn release(&mut self, partition: PartitionId, next: Offset) {
        while let Some(entry) = self.waiting.range(LogPosition { partition, offset: Offset::MIN }..).next()
            && entry.0.partition == partition
            && entry.0.offset < next
        {
            let position = *entry.0;
            if let Some(write) = self.waiting.remove(&position) {
                write.decide(Outcome::Visible);
            }
        }
    }

    /// Answers those whose time is over.
    pub fn expire(&mut self, now: Instant) {
        self.waiting.retain(|_, write| {
            let goes_on = write.wait_until().is_some_and(|until| now < until);
            if !goes_on {
                write.decide(Outcome::Accepted);
            }
            goes_on
        });
    }

    /// Lets nobody wait beyond this moment.
    pub fn shorten(&mut self, until: Instant) {
        self.waiting.values().for_each(|write| write.shorten_wait(until));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reactor::Socket;

    use super::*;
    use crate::http::Connection;
    use crate::shard::registry::ConnectionState;
    use crate::shard::writes::in_flight::WriteKind;
    use crate::todo::TodoId;

    fn at(partition: PartitionId, offset: Offset) -> Option<LogPosition> {
        Some(LogPosition { partition, offset })
    }

    fn write(until: Instant) -> Rc<PendingWrite> {
        let state = Rc::new(ConnectionState::new(Socket::unconnected()));
        let write = PendingWrite::new(TodoId::new(), WriteKind::Create, Connection::KeepAlive, state);
        Rc::new(write.waiting_until(Some(until)))
    }

    #[test]
    fn a_write_is_told_when_its_place_is_covered_and_not_before() {
        let now = Instant::now();
        let later = now + Duration::from_secs(9);
        let mut visibility = Visibility::default();
        let writes: Vec<_> = [(0, 5), (0, 6), (1, 5), (-1, 5)]
            .map(|(partition, offset)| {
                let held = write(later);
                visibility.hold(at(partition, offset), Rc::clone(&held), now);
                held
            })
            .into();
        let told = || writes.iter().map(|write| write.outcome().is_some()).collect::<Vec<_>>();
        assert_eq!(told(), [false; 4]);
        visibility.advance(&Coverage::Whole(BTreeMap::from([(0, 5)])));
        assert_eq!(told(), [false; 4], "offset 5 is the next");
        visibility.advance(&Coverage::Steps(vec![(0, 6)]));
        assert_eq!(told(), [true, false, false, false]);
        visibility.advance(&Coverage::Steps(vec![(2, 100), (1, 6)]));
        assert_eq!(told(), [true, false, true, false]);
        visibility.advance(&Coverage::Whole(BTreeMap::from([(0, 9), (-1, 6)])));
        assert_eq!(told(), [true; 4]);
        assert!(writes.iter().all(|write| write.outcome() == Some(Outcome::Visible)));
        assert_eq!(visibility.len(), 0);

        let late = write(later);
        visibility.hold(at(0, 8), Rc::clone(&late), now);
        assert_eq!(late.outcome(), Some(Outcome::Visible), "the snapshot was faster than the acknowledgement");
        let other = write(later);
        visibility.hold(at(1, 5), Rc::clone(&other), now);
        assert_eq!(other.outcome(), None, "the list that was loaded last does not say how far it has partition 1");
    }

    #[test]
    fn nobody_waits_for_ever() {
        let now = Instant::now();
        let mut visibility = Visibility::default();
        let second = Duration::from_secs(1);
        let (without_place, too_late) = (write(now + second), write(now));
        visibility.hold(None, Rc::clone(&without_place), now);
        visibility.hold(at(0, 0), Rc::clone(&too_late), now);
        assert_eq!((without_place.outcome(), too_late.outcome()), (Some(Outcome::Accepted), Some(Outcome::Accepted)));

        let writes = [1, 2, 30].map(|seconds| write(now + seconds * second));
        for (offset, write) in (0..).zip(&writes) {
            visibility.hold(at(0, offset), Rc::clone(write), now);
        }
        let told = || writes.each_ref().map(|write| write.outcome().is_some());
        visibility.expire(now + second);
        assert_eq!(told(), [true, false, false]);
        visibility.shorten(now + 2 * second);
        visibility.expire(now + 2 * second);
        assert_eq!(told(), [true; 3]);
        assert_eq!((writes[2].outcome(), visibility.len()), (Some(Outcome::Accepted), 0));
    }

    #[test]
    fn as_many_wait_as_may() {
        let now = Instant::now();
        let mut visibility = Visibility::default();
        for offset in 0..WAITING_WRITES_MAX as Offset {
            visibility.hold(at(0, offset), write(now + Duration::from_secs(9)), now);
        }
        let one_more = write(now + Duration::from_secs(9));
        visibility.hold(at(1, 0), Rc::clone(&one_more), now);
        assert_eq!(one_more.outcome(), Some(Outcome::Accepted));
        assert_eq!(visibility.len(), WAITING_WRITES_MAX);
    }
}
