//! Seeding without a server: the commands go through the embedded log and a worker of this process, as a server's would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::log::{Tally, append_all};
use super::progress::SeedProgress;
use super::{SeedPlan, SeedReport};
use crate::command_log::{AcknowledgementSink, embedded};
use crate::data_dir::DataDir;
use crate::feed::in_process;
use crate::process::ProcessError;
use crate::store::Store;
use crate::store::sqlite::SqliteStore;
use crate::worker::{Worker, WorkerMetrics, WorkerState};

/// How often the worker's progress is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Makes the todos of `plan` for `user` in a data folder that no server has open, and returns when all are stored.
///
/// # Errors
/// [`ProcessError`].
pub fn seed_offline(
    data_dir: &DataDir,
    user: &str,
    plan: SeedPlan,
    progress: &SeedProgress,
) -> Result<SeedReport, ProcessError> {
    let _lock = data_dir.lock("")?;
    let tally = Arc::new(Tally::default());
    let (mut appender, reader) = embedded::open(data_dir, Arc::clone(&tally) as Arc<dyn AcknowledgementSink>)?;
    let mut store = SqliteStore::open(&data_dir.store_path())?;
    store.migrate()?;
    // Nobody reads the feed: a server that starts later loads the list.
    let (publisher, _) = in_process::channel();
    let metrics = Arc::new(WorkerMetrics::default());
    let worker = Worker::new(Box::new(reader), Box::new(store), Box::new(publisher), Arc::clone(&metrics));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| worker.run(&stop));
        let outcome = append_all(&mut appender, &tally, user, plan, progress)
            .map_err(ProcessError::from)
            .and_then(|()| wait_until_applied(&metrics, plan.count));
        stop.store(true, Ordering::Relaxed);
        let _ = working.join();
        outcome
    })?;
    progress.finish();
    Ok(SeedReport { accepted: plan.count, retried: 0, elapsed: progress.elapsed() })
}

/// The worker has applied the seed when nothing of the log is left to read and it has counted as many commands, or more
/// if an earlier process had left some.
fn wait_until_applied(metrics: &WorkerMetrics, count: u64) -> Result<(), ProcessError> {
    while metrics.commands.load(Ordering::Relaxed) < count || metrics.lag() != Some(0) {
        if metrics.state() == WorkerState::Failed {
            let reason = metrics.last_error().unwrap_or_default();
            return Err(crate::store::StoreError::Fatal(reason).into());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
