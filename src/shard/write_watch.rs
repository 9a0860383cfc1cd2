//! Whether a client takes what is sent to it.
//!
//! What a socket takes says little: it has room again only when a third of its buffer is free, which may be a megabyte. What the
//! client's system has acknowledged says it truly. It is asked now and then, by the sweep, and of connections alone whose answer
//! did not fit into the socket.

use std::time::Duration;

use super::clock::TICK;
use crate::limits::WRITE_STEP_BYTES_PER_SEC;
use crate::observe::expiry::Expiry;

/// Looks within the shortest time that is measured: how exact it is.
const LOOKS: u64 = 4;
/// Ticks after which it is known how fast a client is, roughly.
pub const SPEED_KNOWN_TICKS: u64 = 5;
const TICKS_PER_SEC: u64 = Duration::from_secs(1).as_millis() as u64 / TICK.as_millis() as u64;

/// How a client has to take an answer.
#[derive(Debug, Clone, Copy)]
pub struct WriteLimits {
    /// Ticks in which it takes something.
    stall_ticks: u64,
    /// What it takes in a second, on the average over `grace_ticks`.
    min_bytes_per_sec: u64,
    grace_ticks: u64,
}

impl WriteLimits {
    /// A client has to take something in each `timeout`, and `min_bytes_per_sec` over each `grace`.
    pub fn new(timeout: Duration, min_bytes_per_sec: u64, grace: Duration) -> WriteLimits {
        let ticks = |time: Duration| (time.as_millis() as u64).div_ceil(TICK.as_millis() as u64).max(1);
        WriteLimits { stall_ticks: ticks(timeout), min_bytes_per_sec, grace_ticks: ticks(grace) }
    }

    /// Ticks between two looks.
    pub fn look_ticks(&self) -> u64 {
        (self.stall_ticks.min(self.grace_ticks) / LOOKS).max(1)
    }

    /// The same as a time.
    pub fn look_interval(&self) -> Duration {
        TICK * u32::try_from(self.look_ticks()).unwrap_or(u32::MAX)
    }
}

/// What a client has taken at a tick. Only differences mean something.
#[derive(Debug, Clone, Copy)]
struct Taken {
    at: u64,
    bytes: i64,
}

/// A connection whose answer did not fit into its socket, from then on until it waits for a request again.
#[derive(Debug, Clone, Copy)]
pub struct WriteWatch {
    /// The last tick at which something was taken.
    progress_at: u64,
    /// Bytes that the socket has taken since this began.
    handed_bytes: i64,
    /// The version of the oldest list that it has still to send.
    oldest_list: Option<u64>,
    /// As of the first look.
    first: Option<Taken>,
    /// As of the last look.
    last: Option<Taken>,
    /// Where the present grace began.
    from: Option<Taken>,
}

impl WriteWatch {
    /// One that begins now.
    pub fn new(now: u64) -> WriteWatch {
        WriteWatch { progress_at: now, handed_bytes: 0, oldest_list: None, first: None, last: None, from: None }
    }

    /// The connection has its turn now, so that what it has waited for was not the client.
    pub fn go_on(&mut self, now: u64, oldest_list: Option<u64>) {
        self.progress_at = now;
        self.oldest_list = oldest_list;
    }

    /// Whether it has still to send of a list that is older than this version.
    pub fn holds_older_than(&self, version: u64) -> bool {
        self.oldest_list.is_some_and(|oldest| oldest < version)
    }

    /// What the client takes in a second, on the average since the first look; `None` while that cannot be said.
    pub fn bytes_per_sec(&mut self, now: u64, unacknowledged_bytes: u64) -> Option<u64> {
        let taken = self.note(now, unacknowledged_bytes);
        let first = self.first.unwrap_or(taken);
        let ticks = now - first.at;
        (ticks >= SPEED_KNOWN_TICKS).then(|| (taken.bytes - first.bytes).max(0) as u64 * TICKS_PER_SEC / ticks)
    }

    fn note(&mut self, now: u64, unacknowledged_bytes: u64) -> Taken {
        let taken = Taken { at: now, bytes: self.handed_bytes - unacknowledged_bytes as i64 };
        if self.last.is_some_and(|last| last.bytes < taken.bytes) {
            self.progress_at = now;
        }
        self.last = Some(taken);
        self.first.get_or_insert(taken);
        taken
    }

    /// The socket has taken so much more.
    pub fn hand_over(&mut self, bytes: usize) {
        self.handed_bytes += bytes as i64;
    }

    /// Judges the client by what it has not acknowledged of all that the socket has been given. A client's system tells of room
    /// when that is worth a segment or two, which can be much (64 KiB on loopback): so long, a client that reads looks like one
    /// that does not. `segment_bytes` is asked when it matters.
    ///
    /// # Errors
    /// It takes too little.
    pub fn look(
        &mut self,
        now: u64,
        unacknowledged_bytes: u64,
        segment_bytes: impl FnOnce() -> u64,
        limits: &WriteLimits,
    ) -> Result<(), Expiry> {
        let taken = self.note(now, unacknowledged_bytes);
        let stalled_ticks = now - self.progress_at;
        if stalled_ticks >= limits.stall_ticks {
            let step_ticks = 2 * segment_bytes() * TICKS_PER_SEC / WRITE_STEP_BYTES_PER_SEC;
            if stalled_ticks >= limits.stall_ticks + step_ticks {
                return Err(Expiry::Stalled);
            }
        }
        let from = *self.from.get_or_insert(taken);
        let ticks = now - from.at;
        if ticks >= limits.grace_ticks {
            let wanted_bytes = limits.min_bytes_per_sec.saturating_mul(ticks) / TICKS_PER_SEC;
            if ((taken.bytes - from.bytes).max(0) as u64) < wanted_bytes {
                return Err(Expiry::Slow);
            }
            self.from = Some(taken);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second without progress; 1,000 bytes a second over three.
    fn limits() -> WriteLimits {
        WriteLimits::new(Duration::from_secs(1), 1_000, Duration::from_secs(3))
    }

    /// How a client ends that takes `bytes` at each of the ticks for which `takes` says so, of an endless answer; and when.
    fn end(segment_bytes: u64, bytes: u64, takes: impl Fn(u64) -> bool) -> Option<(Expiry, u64)> {
        let (mut watch, mut unacknowledged_bytes) = (WriteWatch::new(0), 2_000_000);
        watch.hand_over(2_000_000);
        for now in 1..1_000 {
            if takes(now) {
                unacknowledged_bytes -= bytes;
            }
            // A third of the buffer is free.
            if unacknowledged_bytes < 1_400_000 {
                unacknowledged_bytes += 600_000;
                watch.hand_over(600_000);
                watch.go_on(now, None);
            }
            if now % limits().look_ticks() == 0
                && let Err(expiry) = watch.look(now, unacknowledged_bytes, || segment_bytes, &limits())
            {
                return Some((expiry, now));
            }
        }
        None
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut_off_after_the_timeout() {
        assert_eq!(end(1_448, 0, |_| false), Some((Expiry::Stalled, 10)));
        assert_eq!(end(1_448, 1_448, |now| now < 50).map(|(expiry, _)| expiry), Some(Expiry::Stalled));
        let patient = WriteLimits::new(Duration::from_secs(1), 0, Duration::from_secs(3));
        let mut watch = WriteWatch::new(0);
        let mut look = |now| watch.look(now, 1_000, || 65_483, &patient);
        assert_eq!(
            (look(10), look(48), look(50)),
            (Ok(()), Ok(()), Err(Expiry::Stalled)),
            "a little later on loopback"
        );
    }

    #[test]
    fn a_steady_client_is_served_however_large_the_buffers_are() {
        // 50 KB/s in small segments, and on loopback, where the news of it comes each 1.9 seconds.
        assert_eq!(end(1_448, 5_000, |_| true), None);
        assert_eq!(end(65_483, 95_000, |now| now % 19 == 0), None);
        // A slow phone line.
        assert_eq!(end(1_448, 1_448, |now| now % 5 == 0), None);
    }

    #[test]
    fn a_client_below_the_minimum_is_cut_off_after_the_grace() {
        let (expiry, at) = end(1_448, 90, |_| true).expect("it ends");
        assert_eq!((expiry, at < 40), (Expiry::Slow, true), "{at}");
        assert_eq!(end(1_448, 110, |_| true), None);
        // The minimum holds for each grace anew, not for the average since the beginning.
        let (expiry, at) = end(1_448, 90, |now| now > 400 || { now < 300 }).expect("it ends");
        assert!(at < 1_000, "{expiry:?}");
    }

    #[test]
    fn a_slow_client_that_was_fast_before_is_cut_off_too() {
        let mut watch = WriteWatch::new(0);
        watch.hand_over(100_000_000);
        watch.look(1, 99_000_000, || 1_448, &limits()).expect("it has just begun");
        watch.look(31, 1_000_000, || 1_448, &limits()).expect("it is fast");
        watch.look(40, 999_990, || 1_448, &limits()).expect("it takes something");
        watch.look(49, 999_980, || 1_448, &limits()).expect("it takes something");
        watch.look(57, 999_970, || 1_448, &limits()).expect("it takes something");
        assert_eq!(watch.look(61, 999_960, || 1_448, &limits()), Err(Expiry::Slow));
    }
}
