//! The watch over workers of an API that has none in its process: whether there are any, whether they keep up, and whether
//! what it has acknowledged was put aside there. Its `/ready` is the one that is looked at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ProcessError, greeting};
use crate::command_log::LogError;
use crate::command_log::kafka::{KafkaOptions, WorkerWatch, WorkersSeen};
use crate::limits::WORKER_WATCH_INTERVAL_MS;
use crate::observe::dead_letter_burst::DeadLetterBurst;
use crate::observe::troubles::{Component, Troubles};

/// Starts the thread. It ends with the process: a broker that does not answer would hold it up.
///
/// # Errors
/// [`ProcessError`].
pub fn start(options: &KafkaOptions, troubles: Arc<Troubles>) -> Result<(), ProcessError> {
    let mut watch = WorkerWatch::new(options)?;
    let mut workers = Workers { group: options.group.clone(), has_seen: false, misses: 0 };
    let mut letters = Letters::default();
    std::thread::Builder::new().name("worker-watch".into()).spawn(move || {
        loop {
            workers.take(watch.look(), &troubles);
            letters.take(watch.dead_letters_ever(), &troubles);
            std::thread::sleep(Duration::from_millis(WORKER_WATCH_INTERVAL_MS));
        }
    })?;
    Ok(())
}

struct Workers {
    group: String,
    /// Whether the brokers have answered before.
    has_seen: bool,
    /// Answers in a row that told of a trouble.
    misses: usize,
}

impl Workers {
    fn take(&mut self, seen: Result<Option<WorkersSeen>, LogError>, troubles: &Troubles) {
        let trouble = match seen {
            Ok(Some(seen)) => seen.trouble(&self.group),
            // The topic is about to be made, or its watch says that it is gone.
            Ok(None) => return,
            // The appender says so when no broker answers.
            Err(error) => return tracing::debug!(%error, "Kafka does not say who works"),
        };
        let is_first = !std::mem::replace(&mut self.has_seen, true);
        self.misses = if trouble.is_some() { self.misses + 1 } else { 0 };
        if let Some(trouble) = trouble.as_deref().filter(|_| is_first) {
            greeting::print_workers(trouble);
        }
        // A worker that is replaced by another is no trouble: one look may fall between the two.
        if is_first || self.misses != 1 {
            troubles.set(Component::Workers, trouble.as_deref());
        }
    }
}

#[derive(Default)]
struct Letters {
    known: Option<u64>,
    burst: DeadLetterBurst,
}

impl Letters {
    fn take(&mut self, ever: Result<u64, LogError>, troubles: &Troubles) {
        match ever {
            Ok(ever) => {
                let now = Instant::now();
                // Those that were there before this process began are none of a burst.
                self.burst.add(now, ever.saturating_sub(self.known.replace(ever).unwrap_or(ever)));
                troubles.set(Component::DeadLetters, self.burst.reason(now).as_deref());
            }
            // The appender says so when no broker answers.
            Err(error) => tracing::debug!(%error, "the dead letters cannot be counted"),
        }
    }
}
