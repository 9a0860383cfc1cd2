//! Seeding into a command log: the todos go where the API's commands go, and workers apply them.

use std::borrow::Cow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::SeedPlan;
use super::progress::SeedProgress;
use super::texts::SeedTodo;
use crate::command_log::{
    Acknowledgement, AcknowledgementSink, CommandAppender, LogError, Refusal, Submission, Ticket,
};
use crate::counted::Counted;
use crate::todo::{Action, Command, Timestamp, TodoId};

/// Commands that are appended together.
const BATCH_COMMANDS: u64 = 5_000;
/// Commands that may wait for their acknowledgement.
const IN_FLIGHT_MAX: u64 = 4 * BATCH_COMMANDS;
/// How long the log may acknowledge nothing before the seeding gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts the acknowledgements of a seeding.
#[derive(Default)]
pub struct Tally {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Default)]
struct Counts {
    acknowledged: u64,
    /// Numbers of todos that the log had no room for: they are sent again.
    full: Vec<u64>,
    failed: bool,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AcknowledgementSink for Tally {
    fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>) {
        let mut counts = self.counts();
        for Acknowledgement { ticket, result, .. } in acknowledgements.drain(..) {
            match result {
                Ok(()) => counts.acknowledged += 1,
                Err(Refusal::Full | Refusal::OverLimit) => counts.full.push(ticket.0),
                Err(Refusal::Unconfirmed | Refusal::Unavailable | Refusal::TooLarge) => counts.failed = true,
            }
        }
        self.changed.notify_all();
    }
}

/// Appends the todos of `plan` for `user`, and returns when the log has acknowledged all of them; the appender was made
/// with `tally` as its sink.
///
/// # Errors
/// [`LogError::Unavailable`] when the log refuses a command or acknowledges nothing for too long. What was acknowledged
/// before stays.
pub fn append_all(
    appender: &mut dyn CommandAppender,
    tally: &Arc<Tally>,
    user: &str,
    plan: SeedPlan,
    progress: &SeedProgress,
) -> Result<(), LogError> {
    let mut next = 0;
    let mut batch = Vec::new();
    loop {
        let (acknowledged, again) = wait_for_room(tally, next, plan.count)?;
        progress.add(acknowledged.saturating_sub(progress.done()));
        if acknowledged == plan.count {
            return Ok(());
        }
        let end = plan.count.min(next + BATCH_COMMANDS);
        let numbers = again.into_iter().chain(next..end);
        batch.extend(numbers.map(|number| submission(number, user, SeedTodo::new(plan.variety, number))));
        next = end;
        appender.append(&mut batch);
    }
}

/// Waits until more may be sent, or everything is acknowledged. Returns how many are, and what has to be sent again.
fn wait_for_room(tally: &Tally, sent: u64, count: u64) -> Result<(u64, Vec<u64>), LogError> {
    let must_wait = |counts: &mut Counts| {
        let in_flight = sent - counts.acknowledged;
        let has_more = sent < count || !counts.full.is_empty();
        !counts.failed && in_flight > 0 && (!has_more || in_flight > IN_FLIGHT_MAX)
    };
    let (mut counts, waited) =
        tally.changed.wait_timeout_while(tally.counts(), PATIENCE, must_wait).unwrap_or_else(PoisonError::into_inner);
    if counts.failed || waited.timed_out() {
        let done = counts.acknowledged;
        return Err(LogError::Unavailable(format!(
            "after {} it refused one or stopped answering",
            Counted(done, "todos")
        )));
    }
    Ok((counts.acknowledged, std::mem::take(&mut counts.full)))
}

fn submission(number: u64, user: &str, todo: SeedTodo) -> Submission {
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
    Submission { ticket: Ticket(number), id, payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acknowledges from within `append`; has room for so many commands a batch.
    struct Narrow {
        tally: Arc<Tally>,
        room: usize,
        taken: Vec<u64>,
        breaks_at: usize,
    }

    impl CommandAppender for Narrow {
        fn append(&mut self, batch: &mut Vec<Submission>) {
            let mut answers = Vec::new();
            for (at, Submission { ticket, .. }) in batch.drain(..).enumerate() {
                let result = match () {
                    () if self.taken.len() >= self.breaks_at => Err(Refusal::Unavailable),
                    () if at >= self.room => Err(Refusal::Full),
                    () => Ok(()),
                };
                if result.is_ok() {
                    self.taken.push(ticket.0);
                }
                answers.push(Acknowledgement { ticket, result, position: None });
            }
            self.tally.acknowledge(&mut answers);
        }

        fn close(&mut self, _deadline: Duration) {}
    }

    fn seed(room: usize, breaks_at: usize) -> (Result<(), LogError>, Vec<u64>) {
        let tally = Arc::new(Tally::default());
        let mut log = Narrow { tally: Arc::clone(&tally), room, taken: Vec::new(), breaks_at };
        let plan = SeedPlan { count: 12_345, variety: 1 };
        let progress = SeedProgress::plain(plan.count, Box::new(std::io::sink()));
        let outcome = append_all(&mut log, &tally, "seed", plan, &progress);
        log.taken.sort_unstable();
        (outcome, log.taken)
    }

    #[test]
    fn each_todo_is_sent_until_it_is_taken_once() {
        for room in [usize::MAX, 3_000] {
            let (outcome, taken) = seed(room, usize::MAX);
            assert!(outcome.is_ok());
            assert_eq!(taken, (0..12_345).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_log_that_breaks_ends_the_seeding() {
        let (outcome, taken) = seed(usize::MAX, 6_000);
        assert!(
            matches!(outcome, Err(LogError::Unavailable(reason)) if reason.contains("5000 todos") || reason.contains("6000 todos"))
        );
        assert_eq!(taken.len(), 6_000);
    }
}
