//! The shard's own clock, read once a tick instead of once a request.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use reactor::Reactor;

use crate::todo::Timestamp;

/// How often deadlines are looked at: the precision of every timeout.
pub const TICK: Duration = Duration::from_millis(100);
/// [`TICK`] as a plain number: this division is made for every request, and one of 128 bits is a call.
const TICK_MS: u64 = TICK.as_millis() as u64;
use crate::http::response::{DATE_BYTES, date};

/// Most ticks that one call of [`Clock::advance`] counts: timers are a little late under load.
const TICKS_AT_ONCE_MAX: u64 = 3;

/// A moment by both of the system's clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the clock that nobody sets: for how long something takes.
    pub instant: Instant,
    /// By the clock on the wall: for people, and for other processes.
    pub timestamp: Timestamp,
}

/// Ticks, seconds and the date of the present moment, at most one tick old.
pub struct Clock {
    reactor: Rc<Reactor>,
    started_at: Instant,
    /// Ticks since then, as of the last call of [`Clock::advance`].
    elapsed_ticks: Cell<u64>,
    ticks: Cell<u64>,
    unix_seconds: Cell<i64>,
    date: Cell<[u8; DATE_BYTES]>,
    /// Both clocks at the last call of [`Clock::advance`].
    advanced_at: Cell<Moment>,
}

/// The system's.
#[cfg(test)]
impl Default for Clock {
    fn default() -> Clock {
        Clock::new(&Reactor::new(reactor::Driver::Epoll).expect("epoll needs a descriptor"))
    }
}

impl Clock {
    /// A clock by what this reactor says.
    pub fn new(reactor: &Rc<Reactor>) -> Clock {
        let now = Moment { instant: reactor.now(), timestamp: reactor.wall_time().into() };
        let clock = Clock {
            reactor: Rc::clone(reactor),
            started_at: now.instant,
            elapsed_ticks: Cell::new(0),
            ticks: Cell::new(0),
            unix_seconds: Cell::new(-1),
            date: Cell::new([b' '; DATE_BYTES]),
            advanced_at: Cell::new(now),
        };
        clock.advance();
        clock
    }

    /// Reads the system's clocks; called once a tick. Ticks that were missed are not caught up with: they are what
    /// deadlines are counted in, and a shard that was too busy to look, or a process that was stopped for a while, has not
    /// given its clients that time.
    pub fn advance(&self) {
        let instant = self.reactor.now();
        let ticks = instant.saturating_duration_since(self.started_at).as_millis() / TICK.as_millis();
        let elapsed_ticks = u64::try_from(ticks).unwrap_or(u64::MAX - 1);
        let passed_ticks = elapsed_ticks - self.elapsed_ticks.replace(elapsed_ticks);
        self.ticks.set(self.ticks.get() + passed_ticks.min(TICKS_AT_ONCE_MAX));
        let now = self.reactor.wall_time();
        self.advanced_at.set(Moment { instant, timestamp: now.into() });
        let unix_seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        if unix_seconds != self.unix_seconds.get() {
            self.unix_seconds.set(unix_seconds);
            self.date.set(date(now));
        }
    }

    /// The tick at which `duration` will have passed, rounded up.
    #[inline]
    pub fn after(&self, duration: Duration) -> u64 {
        self.ticks.get() + (duration.as_millis() as u64).div_ceil(TICK_MS) + 1
    }

    /// The present tick.
    #[inline]
    pub fn ticks(&self) -> u64 {
        self.ticks.get()
    }

    /// The present moment by the clock that nobody sets.
    #[inline]
    pub fn now(&self) -> Instant {
        self.reactor.now()
    }

    /// The present moment, to the microsecond, for the price of one clock: the one on the wall is followed from where it stood
    /// at the last tick, so that whoever sets it is noticed a tick later.
    #[inline]
    pub fn moment(&self) -> Moment {
        let (Moment { instant: ticked_at, timestamp }, instant) = (self.advanced_at.get(), self.reactor.now());
        let since = instant.saturating_duration_since(ticked_at);
        let since_us = since.as_secs() as i64 * 1_000_000 + i64::from(since.subsec_micros());
        Moment { instant, timestamp: Timestamp::from_micros(timestamp.as_micros() + since_us) }
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    #[inline]
    pub fn unix_seconds(&self) -> i64 {
        self.unix_seconds.get()
    }

    /// The present second as an HTTP date.
    #[inline]
    pub fn date(&self) -> [u8; DATE_BYTES] {
        self.date.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_that_of_both_clocks() {
        let clock = Clock::default();
        let mut last = clock.moment();
        for round in 0..1_000 {
            if round == 500 {
                clock.advance();
            }
            let before = (Instant::now(), Timestamp::now());
            let now = clock.moment();
            assert!(before.0 <= now.instant && now.instant <= Instant::now());
            let ahead_us = now.timestamp.as_micros() - before.1.as_micros();
            // Who sets the machine's clock in just this moment gets a failed test.
            assert!(ahead_us.abs() < 60_000_000, "{ahead_us}");
            assert!(round == 500 || last.timestamp <= now.timestamp);
            last = now;
        }
    }

    #[test]
    fn missed_ticks_are_not_caught_up_with() {
        let mut clock = Clock::default();
        let deadline = clock.after(Duration::from_secs(1));
        clock.started_at -= Duration::from_secs(60);
        clock.advance();
        assert!(clock.ticks() <= TICKS_AT_ONCE_MAX && clock.ticks() < deadline, "{}", clock.ticks());
        clock.started_at -= TICK;
        let before = clock.ticks();
        clock.advance();
        assert!(clock.ticks() > before, "time goes on from there");
    }
}
