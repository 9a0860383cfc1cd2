//! Waiting for what has to heal.

use std::time::{Duration, Instant};

/// Looks again and again until `look` finds something; returns it and how long it took.
///
/// # Panics
/// When it has not after `longest`.
#[track_caller]
pub fn within_time<T>(longest: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return (found, start.elapsed());
        }
        assert!(start.elapsed() < longest, "waited {} s in vain for {what}", longest.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Writes one line past the test runner, which hides what passing tests print.
pub fn say_past_the_runner(suite: &str, line: &str) {
    use std::io::Write as _;
    // Nobody may be reading.
    let _ = writeln!(std::io::stderr(), "{suite}: {line}");
}
