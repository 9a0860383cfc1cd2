//! The messages of a producer that wait for their delivery reports, and for how long they have.
//!
//! librdkafka can give messages up by itself (`message.timeout.ms`), but then takes a new epoch for all the others, and sends
//! again under it what a broker may have written under the old one: the log would hold it twice (librdkafka's issue 4953,
//! version 2.12). So its own timeout is off, and what waits is given up as a whole when the oldest has waited too long.
//!
//! The age of the oldest is known without a look at any: messages are counted by the period in which they were sent, and a
//! message carries the number of its period beside its ticket.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::command_log::Ticket;

/// Periods that are counted apart, as many as the bits beside a ticket tell apart.
const PERIODS: usize = 1 << (u64::BITS - Ticket::BITS);
/// Periods that make up the longest wait. The rest of them is for messages that are being given up.
const PERIODS_OF_WAIT: u32 = PERIODS as u32 / 2;

// What a message carries goes through C as a pointer-sized number.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

/// What a message carries: the period in which it was sent, and its ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(usize);

/// When a message was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period(usize);

impl Tag {
    /// Of a message that is sent in this period.
    pub(super) fn new(period: Period, ticket: Ticket) -> Tag {
        debug_assert!(ticket.0 <= Ticket::MAX.0);
        Tag(period.0 << Ticket::BITS | ticket.0 as usize)
    }

    /// The number that librdkafka carries.
    pub(super) fn to_opaque(self) -> usize {
        self.0
    }

    /// From the number that librdkafka carried.
    pub(super) fn from_opaque(opaque: usize) -> Tag {
        Tag(opaque)
    }

    pub(super) fn ticket(self) -> Ticket {
        Ticket(self.0 as u64 & Ticket::MAX.0)
    }

    pub(super) fn period(self) -> Period {
        Period(self.0 >> Ticket::BITS)
    }
}

/// Counts of messages by period.
#[derive(Debug)]
pub(super) struct Waiting {
    started_at: Instant,
    period: Duration,
    messages: [AtomicUsize; PERIODS],
}

/// Messages of each period that need not be waited for any longer, to be taken off together.
#[derive(Debug, Default)]
pub(super) struct Reported([usize; PERIODS]);

impl Reported {
    /// One more.
    pub(super) fn add(&mut self, period: Period) {
        self.0[period.0] += 1;
    }
}

impl Waiting {
    /// Nothing waits yet; what has waited for `longest`, and an eighth of it at most, is overdue.
    pub(super) fn new(longest: Duration) -> Waiting {
        let period = (longest / PERIODS_OF_WAIT).max(Duration::from_millis(1));
        Waiting { started_at: Instant::now(), period, messages: Default::default() }
    }

    /// Counts messages that are going to be sent.
    pub(super) fn add(&self, count: usize) -> Period {
        let period = self.period_at(Instant::now());
        self.messages[period.0].fetch_add(count, Ordering::SeqCst);
        period
    }

    /// Messages of this period were not sent after all.
    pub(super) fn remove(&self, period: Period, count: usize) {
        self.messages[period.0].fetch_sub(count, Ordering::SeqCst);
    }

    /// Takes off what was reported, and leaves nothing in it.
    pub(super) fn remove_reported(&self, reported: &mut Reported) {
        for (period, count) in reported.0.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            self.remove(Period(period), std::mem::take(count));
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.iter().all(|messages| messages.load(Ordering::SeqCst) == 0)
    }

    /// Whether any message has waited for longer than it should.
    pub(super) fn is_overdue(&self) -> bool {
        self.is_overdue_at(Instant::now())
    }

    fn is_overdue_at(&self, now: Instant) -> bool {
        let current = self.period_at(now).0;
        // A message of the last moment of its period has to have waited as long as the others.
        let overdue = PERIODS_OF_WAIT as usize + 1..PERIODS;
        overdue
            .map(|periods_ago| (current + PERIODS - periods_ago) % PERIODS)
            .any(|period| self.messages[period].load(Ordering::SeqCst) > 0)
    }

    fn period_at(&self, now: Instant) -> Period {
        let periods = now.saturating_duration_since(self.started_at).as_nanos() / self.period.as_nanos();
        Period((periods % PERIODS as u128) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_keeps_its_period_and_its_ticket() {
        for period in (0..PERIODS).map(Period) {
            for ticket in [Ticket(0), Ticket(1), Ticket::MAX] {
                let tag = Tag::from_opaque(Tag::new(period, ticket).to_opaque());
                assert_eq!((tag.period(), tag.ticket()), (period, ticket));
            }
        }
    }

    #[test]
    fn a_message_is_overdue_when_it_has_waited_as_long_as_it_may_and_not_before() {
        const LONGEST: Duration = Duration::from_secs(8);
        // As the periods are counted round and round, a message may be sent in each of them.
        for start in (0..200).map(|step| Duration::from_millis(step * 250)) {
            let waiting = Waiting::new(LONGEST);
            let sent_at = waiting.started_at + start;
            let period = waiting.period_at(sent_at);
            waiting.messages[period.0].fetch_add(3, Ordering::SeqCst);
            for waited in (0..60).map(|step| Duration::from_millis(step * 250)) {
                let is_overdue = waiting.is_overdue_at(sent_at + waited);
                assert!(!is_overdue || waited >= LONGEST, "after {waited:?}");
                assert!(is_overdue || waited < LONGEST * 9 / 8, "after {waited:?}");
            }
            let mut reported = Reported::default();
            (0..2).for_each(|_| reported.add(period));
            waiting.remove_reported(&mut reported);
            assert!(!waiting.is_empty() && waiting.is_overdue_at(sent_at + LONGEST * 3 / 2));
            waiting.remove(period, 1);
            waiting.remove_reported(&mut reported);
            assert!(waiting.is_empty() && !waiting.is_overdue_at(sent_at + LONGEST * 3 / 2));
        }
    }

    #[test]
    fn a_wait_of_no_time_is_counted_too() {
        let waiting = Waiting::new(Duration::ZERO);
        let period = waiting.add(1);
        assert!(!waiting.is_empty());
        waiting.remove(period, 1);
        assert!(waiting.is_empty());
    }
}
