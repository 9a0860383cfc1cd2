//! The end of a process: its threads are waited for, but not for ever.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::events::{Event, Events};
use crate::limits::THREADS_STOP_TIMEOUT_MS;

/// How often it is looked whether a thread has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits for the threads behind the shards. One that waits for a server that does not answer is left behind, and the
/// process ends without it: what it had not finished is taken up at the next start, as after a crash.
pub struct Farewell<'e> {
    events: &'e Events,
    give_up_at: Instant,
    has_left_one: bool,
}

impl<'e> Farewell<'e> {
    /// All threads together get [`THREADS_STOP_TIMEOUT_MS`] from now on; another signal ends the wait at once.
    pub fn begin(events: &'e Events) -> Farewell<'e> {
        let give_up_at = Instant::now() + Duration::from_millis(THREADS_STOP_TIMEOUT_MS);
        Farewell { events, give_up_at, has_left_one: false }
    }

    /// Waits for a thread that has been told to end.
    pub fn join(&mut self, name: &'static str, thread: JoinHandle<()>) {
        while !thread.is_finished() {
            if matches!(self.events.next_within(LOOK_AGAIN), Some(Event::Signal(_))) {
                self.give_up_at = Instant::now();
            }
            if Instant::now() >= self.give_up_at && !thread.is_finished() {
                tracing::warn!("the {name} thread waits for a server that does not answer; ending without it");
                self.has_left_one = true;
                return;
            }
        }
        if thread.join().is_err() {
            tracing::error!("the {name} thread panicked; what it had not finished is taken up at the next start");
        }
    }

    /// Whether all threads have ended.
    pub fn is_complete(&self) -> bool {
        !self.has_left_one
    }
}

/// Ends the process while some of its threads still run.
pub fn leave_threads_behind(exit_code: i32) -> ! {
    // SAFETY: `_exit` only ends the process. Unlike `exit` it runs no cleanup of libraries (OpenSSL's, for one), which
    // must not happen beside threads that use them; nothing of ours is left to be flushed.
    unsafe { libc::_exit(exit_code) }
}
