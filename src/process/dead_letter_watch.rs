//! The watch over dead letters of an API that has no worker in its process: what it has acknowledged may be put aside
//! elsewhere, and its `/ready` is the one that is looked at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ProcessError;
use crate::command_log::kafka::{DeadLetterCount, KafkaOptions};
use crate::limits::DEAD_LETTER_WATCH_INTERVAL_MS;
use crate::observe::dead_letter_burst::DeadLetterBurst;
use crate::observe::troubles::{Component, Troubles};

/// Starts the thread. It ends with the process: a broker that does not answer would hold it up.
///
/// # Errors
/// [`ProcessError`].
pub fn start(options: &KafkaOptions, troubles: Arc<Troubles>) -> Result<(), ProcessError> {
    let mut count = DeadLetterCount::new(options)?;
    std::thread::Builder::new().name("dead-letters".into()).spawn(move || watch(&mut count, &troubles))?;
    Ok(())
}

fn watch(count: &mut DeadLetterCount, troubles: &Troubles) {
    let mut known = None;
    let mut burst = DeadLetterBurst::default();
    loop {
        match count.ever() {
            Ok(ever) => {
                let now = Instant::now();
                // Those that were there before this process began are none of a burst.
                burst.add(now, ever.saturating_sub(known.replace(ever).unwrap_or(ever)));
                troubles.set(Component::DeadLetters, burst.reason(now).as_deref());
            }
            // The appender says so when no broker answers.
            Err(error) => tracing::debug!(%error, "the dead letters cannot be counted"),
        }
        std::thread::sleep(Duration::from_millis(DEAD_LETTER_WATCH_INTERVAL_MS));
    }
}
