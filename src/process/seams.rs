//! The ends of the three seams that a process holds, whatever stands behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::events::EndReporter;
use super::roles::STOP_POLL;
use crate::command_log::{CommandAppender, CommandReader};
use crate::data_dir::{DataDir, DataDirLock};
use crate::feed::{FeedPublisher, FeedSubscriber};
use crate::limits::WORKER_RETRY_MAX_MS;
use crate::observe::troubles::{Component, Troubles};
use crate::store::{Store, StoreError};
use crate::worker::{Worker, WorkerMetrics};

/// The seams of a process.
pub struct Seams {
    /// What the API needs, when the process has one.
    pub api: Option<ApiSeams>,
    /// What each lane of the worker needs; none when the process has no worker.
    pub worker: Vec<WorkerSeams>,
    /// Held until everything has stopped.
    pub data_dir_lock: Option<DataDirLock>,
}

/// The ends that the API holds.
pub struct ApiSeams {
    /// Where commands go.
    pub appender: Box<dyn CommandAppender>,
    /// Where changes come from.
    pub feed: Box<dyn FeedSubscriber>,
    /// Where the list comes from when the feed has none.
    pub store: Box<dyn Store>,
    /// The data folder, when it may have the key of the tokens.
    pub key_folder: Option<DataDir>,
}

/// The ends that one lane of the worker holds.
pub struct WorkerSeams {
    /// Where commands come from.
    pub reader: Box<dyn CommandReader>,
    /// Where they are applied.
    pub store: Box<dyn Store>,
    /// Where changes go.
    pub publisher: Box<dyn FeedPublisher>,
}

impl WorkerSeams {
    /// Starts the thread of the lane with this number, from 0; it ends soon after `stop` is set. `at_end` is dropped then, also after a failure.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub fn start(
        self,
        lane: usize,
        metrics: Arc<WorkerMetrics>,
        stop: Arc<AtomicBool>,
        at_end: EndReporter,
    ) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("worker".into()).spawn(move || {
            let _at_end = at_end;
            let mut store = self.store;
            if migrate_until_done(store.as_mut(), &metrics.troubles, lane == 0, &stop) {
                // The worker has logged why it ended; the report of its end takes the process down.
                let _ = Worker::new(self.reader, store, self.publisher, metrics).run(&stop);
            }
        })
    }
}

/// Brings the schema up to date, however long the store takes to appear; `false` when that is hopeless, or when the
/// process stops first.
fn migrate_until_done(store: &mut dyn Store, troubles: &Troubles, tells: bool, stop: &AtomicBool) -> bool {
    let mut waits = false;
    while !stop.load(Ordering::Relaxed) {
        let pause = match store.migrate() {
            Ok(()) => {
                troubles.clear(Component::Store);
                if waits && tells {
                    tracing::info!("the worker has the database, and goes on");
                }
                return true;
            }
            Err(StoreError::Unavailable(reason)) => {
                troubles.note(Component::Store, &reason);
                STOP_POLL
            }
            Err(StoreError::Misconfigured(reason)) => {
                troubles.note(Component::Store, &reason);
                Duration::from_millis(WORKER_RETRY_MAX_MS)
            }
            Err(error) => {
                tracing::error!(%error, "the store's schema cannot be brought up to date");
                return false;
            }
        };
        if !std::mem::replace(&mut waits, true) && tells {
            tracing::info!("the worker waits for the database");
        }
        let resume_at = Instant::now() + pause;
        while !stop.load(Ordering::Relaxed) && Instant::now() < resume_at {
            std::thread::sleep(STOP_POLL);
        }
    }
    false
}
