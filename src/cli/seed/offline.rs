//! Seeding without a server: the commands go through the embedded log and a worker of this process, as a server's would.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::progress::SeedProgress;
use super::texts::SeedTodo;
use super::{SeedPlan, SeedReport};
use crate::command_log::{Acknowledgement, AcknowledgementSink, CommandAppender, Submission, Ticket, embedded};
use crate::data_dir::DataDir;
use crate::feed::in_process;
use crate::process::ProcessError;
use crate::store::Store;
use crate::store::sqlite::SqliteStore;
use crate::todo::{Action, Command, Timestamp, TodoId};
use crate::worker::{Worker, WorkerMetrics, WorkerState};

/// Commands that are appended, and made durable, together.
const BATCH_COMMANDS: u64 = 5_000;
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
    let failures = Arc::new(Failures::default());
    let (mut appender, reader) = embedded::open(data_dir, Arc::clone(&failures) as Arc<dyn AcknowledgementSink>)?;
    let mut store = SqliteStore::open(&data_dir.store_path())?;
    store.migrate()?;
    // Nobody reads the feed: a server that starts later loads the list.
    let (publisher, _) = in_process::channel();
    let metrics = Arc::new(WorkerMetrics::default());
    let worker = Worker::new(Box::new(reader), Box::new(store), Box::new(publisher), Arc::clone(&metrics));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| worker.run(&stop));
        let outcome = append_all(&mut appender, &failures, user, plan, progress)
            .and_then(|()| wait_until_applied(&metrics, plan.count));
        stop.store(true, Ordering::Relaxed);
        let _ = working.join();
        outcome
    })?;
    progress.finish();
    Ok(SeedReport { accepted: plan.count, retried: 0, elapsed: progress.elapsed() })
}

fn append_all(
    appender: &mut dyn CommandAppender,
    failures: &Failures,
    user: &str,
    plan: SeedPlan,
    progress: &SeedProgress,
) -> Result<(), ProcessError> {
    let mut batch = Vec::new();
    for first in (0..plan.count).step_by(BATCH_COMMANDS as usize) {
        let end = plan.count.min(first + BATCH_COMMANDS);
        batch.extend((first..end).map(|number| submission(user, SeedTodo::new(plan.variety, number))));
        appender.append(&mut batch);
        if failures.any() {
            let reason = "the command log refused a batch; its log lines say why".to_owned();
            return Err(crate::command_log::LogError::Unavailable(reason).into());
        }
        progress.add(end - first);
    }
    Ok(())
}

fn submission(user: &str, todo: SeedTodo) -> Submission {
    let id = TodoId::new();
    let command = Command {
        id,
        user_id: Cow::Borrowed(user),
        requested_at: Timestamp::now(),
        action: Action::Create {
            title: todo.title.into(),
            description: todo.description.into(),
            completed: todo.completed,
        },
    };
    let mut payload = Vec::with_capacity(256);
    command.write_json(&mut payload);
    Submission { ticket: Ticket(0), id, payload }
}

/// The worker has applied the seed when nothing of the log is left to read and it has counted as many commands, or more
/// if an earlier process had left some.
fn wait_until_applied(metrics: &WorkerMetrics, count: u64) -> Result<(), ProcessError> {
    while metrics.commands.load(Ordering::Relaxed) < count || metrics.lag.load(Ordering::Relaxed) > 0 {
        if metrics.state() == WorkerState::Failed {
            let reason = metrics.last_error().unwrap_or_default();
            return Err(crate::store::StoreError::Fatal(reason).into());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Remembers whether the log refused anything.
#[derive(Default)]
struct Failures(Mutex<bool>);

impl Failures {
    fn any(&self) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AcknowledgementSink for Failures {
    fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>) {
        if acknowledgements.drain(..).any(|acknowledgement| acknowledgement.result.is_err()) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        }
    }
}
