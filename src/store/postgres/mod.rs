//! The store in PostgreSQL: for several API processes and workers, on one machine or many.
//!
//! The schema is `schema.sql` beside this file. A batch costs three round trips: offsets and rows, changes and commit
//! each travel as one pipelined group. Todos that are new go in by COPY, which is a round trip more and costs the server
//! half of what looking for them and inserting them does.

mod connection;
mod copy;
mod error;
mod identity;
mod migration;
mod place;
mod rows;
mod scan;
mod schema;
mod statements;
mod survey;
mod tls;
mod transaction;
mod url;
mod write;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryFutureExt;
use futures_util::future::{try_join, try_join5};
use tokio_postgres::Client;

pub use self::schema::SCHEMA;
use crate::command_log::{KnownLogs, LeaderEpochs, LogId, PartitionId};
use crate::limits::{POSTGRES_COPY_MIN_ROWS, POSTGRES_DOUBTED_BATCHES, POSTGRES_REPLY_TIMEOUT_MS};
use crate::observe::topic::TopicFigures;
use crate::store::log_rows::LogRows;
use crate::store::postgres::connection::{Connector, Session, in_time, within};
use crate::store::postgres::error::{is_missing_right, store_error};
use crate::store::postgres::identity::identity;
use crate::store::postgres::migration::make_schema;
use crate::store::postgres::place::FollowedLog;
use crate::store::postgres::rows::todo_from_row;
use crate::store::postgres::scan::scan;
use crate::store::postgres::statements::Statements;
use crate::store::postgres::survey::survey;
use crate::store::postgres::transaction::{TransactionNumber, has_committed};
use crate::store::postgres::write::write;
use crate::store::{AppliedOffsets, Changes, Fold, Identity, LogPlace, OffsetStep, Store, StoreError, all_ids};
use crate::todo::{Todo, TodoId};

/// A store in PostgreSQL: one connection, opened on need and opened again when it breaks.
pub struct PostgresStore {
    connector: Connector,
    log: FollowedLog,
    unresolved: Option<Unresolved>,
    /// Batches to come that are read as a whole first, because a todo that had to be new was there.
    doubted_batches: usize,
    /// See [`Store::set_patience`].
    patience: Option<Duration>,
}

/// A batch of which it is not known whether its transaction committed: the connection was lost while waiting for the
/// server's answer, and so far nobody could be asked.
struct Unresolved {
    steps: Vec<OffsetStep>,
    changes: Changes,
    transaction: TransactionNumber,
}

impl PostgresStore {
    /// A store for the database at `url`; it is connected to at the first use. `topic` names the command log whose
    /// offsets this store keeps, so that several logs may feed one database.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] when the URL is not usable; the text never holds its password.
    pub fn new(url: &str, topic: &str) -> Result<PostgresStore, StoreError> {
        Ok(PostgresStore {
            connector: Connector::new(url)?,
            log: FollowedLog::new(topic),
            unresolved: None,
            doubted_batches: 0,
            patience: None,
        })
    }

    /// Tells these figures which log the store follows, whenever it reads the offsets.
    pub fn telling(mut self, told: Arc<TopicFigures>) -> PostgresStore {
        self.log.told = told;
        self
    }
}

impl Store for PostgresStore {
    fn migrate(&mut self) -> Result<(), StoreError> {
        let mut bystander = self.connector.another()?;
        let (runtime, session) = self.connector.session()?;
        let run = make_schema(runtime, session, &mut bystander);
        // Column types may have changed, and a failed run leaves its transaction open: start afresh.
        self.connector.disconnect();
        let may_not = match run {
            Ok(Ok(())) => false,
            Err(silence) => return Err(silence),
            // A role that works with the tables need not be one that may make them.
            Ok(Err(error)) if is_missing_right(&error) => true,
            Ok(Err(error)) => {
                return Err(match store_error(error) {
                    // What is there already, or what the file itself raises.
                    StoreError::Refused(reason) => StoreError::Misconfigured(reason),
                    other => other,
                });
            }
        };
        let findings = self.with_session(async |session| in_time(survey(&session.client)).await)?;
        match findings.is_empty() {
            true if may_not => {
                tracing::info!("the schema is there; this role may not change it");
                Ok(())
            }
            true => Ok(()),
            false => Err(StoreError::Misconfigured(format!("PostgreSQL: {}", findings.join("; ")))),
        }
    }

    fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
        self.connector.connect_within(patience.unwrap_or(Duration::MAX));
    }

    fn identity(&mut self) -> Result<Identity, StoreError> {
        let (user, patience) = (self.connector.user().to_owned(), self.patience());
        self.with_session(async |session| within(patience, identity(&session.client, &user)).await)
    }

    fn applied_offsets(&mut self) -> Result<AppliedOffsets, StoreError> {
        self.read_place().map(|rows| rows.offsets)
    }

    fn known_logs(&mut self) -> Result<KnownLogs, StoreError> {
        let known = self.read_place()?.known;
        self.log.id = known.followed;
        Ok(known)
    }

    fn note_log(&mut self, log: LogId) -> Result<LogId, StoreError> {
        let noted = self.with_log(async |followed, client| followed.note(client, log).await)?;
        self.log.id = Some(noted);
        Ok(noted)
    }

    fn reject_log(&mut self, log: LogId) -> Result<(), StoreError> {
        self.with_log(async |followed, client| followed.reject(client, log).await)
    }

    fn leader_epochs(&mut self) -> Result<LeaderEpochs, StoreError> {
        self.read_place().map(|rows| rows.epochs)
    }

    fn note_epochs(&mut self, epochs: LeaderEpochs) {
        self.log.epochs = epochs;
    }

    fn log_place(&mut self) -> Result<LogPlace, StoreError> {
        self.with_log(async |log, client| log.place(client).await)
    }

    fn follow_log(&mut self) -> Result<(), StoreError> {
        self.with_log(async |log, client| log.follow(client).await)
    }

    fn apply(&mut self, steps: &[OffsetStep], ids: &[TodoId], fold: Fold<'_>) -> Result<Changes, StoreError> {
        self.apply_once(steps, ids, &[], fold).map_err(|error| self.explained(error))
    }

    fn apply_new(
        &mut self,
        steps: &[OffsetStep],
        ids: &[TodoId],
        new_ids: &[TodoId],
        fold: Fold<'_>,
    ) -> Result<Changes, StoreError> {
        let is_doubted = self.doubted_batches > 0;
        self.doubted_batches = self.doubted_batches.saturating_sub(1);
        // COPY works with a named statement, which a pooler may not take.
        if !is_doubted && new_ids.len() >= POSTGRES_COPY_MIN_ROWS && !self.connector.is_pooled() {
            match self.apply_once(steps, ids, new_ids, &mut *fold) {
                // One of them is there, or has something in it that the database does not take.
                Err(StoreError::Refused(_)) => self.doubted_batches = POSTGRES_DOUBTED_BATCHES,
                other => return other.map_err(|error| self.explained(error)),
            }
        }
        self.apply(steps, &all_ids(ids, new_ids), fold)
    }

    fn scan(&mut self, each: &mut dyn FnMut(Todo)) -> Result<AppliedOffsets, StoreError> {
        let log = self.log.clone();
        let started = Cell::new(false);
        let mut each = |todo| {
            started.set(true);
            each(todo);
        };
        let reused = self.connector.is_connected();
        match self.scan_once(&log, &mut each) {
            // The connection had died unnoticed since its last use.
            Err(StoreError::Unavailable(_)) if reused && !started.get() => self.scan_once(&log, &mut each),
            other => other,
        }
        .map_err(|error| self.explained(error))
    }

    /// Nothing is left to do: each commit was durable when it returned.
    fn make_durable(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl PostgresStore {
    /// Has the store follow this log, whichever it followed before, and says where each partition of it goes on; at its
    /// beginning where `offsets` has nothing. A worker that is at work notices, and begins there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_log_place(&mut self, log: Option<LogId>, offsets: &AppliedOffsets) -> Result<(), StoreError> {
        let followed = self.log.clone();
        self.with_session(async |session| followed.set_place(&session.client, log, offsets).await)
    }

    /// Asks or tells the table of offsets.
    fn with_log<T>(
        &mut self,
        mut work: impl AsyncFnMut(&FollowedLog, &Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let log = self.log.clone();
        let done = self.with_session(async |session| in_time(work(&log, &session.client)).await);
        done.map_err(|error| self.explained(error))
    }

    fn read_place(&mut self) -> Result<LogRows, StoreError> {
        let (log, patience) = (self.log.clone(), self.patience());
        let read = self.with_session(async |session| within(patience, log.read(&session.client)).await);
        read.map_err(|error| self.explained(error))
    }

    /// Where the server is.
    pub fn places(&self) -> String {
        self.connector.places()
    }

    /// Asks the server for nothing but an answer, with the patience of [`Store::set_patience`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not answer; any other is an answer.
    pub fn ask(&mut self) -> Result<(), StoreError> {
        self.connector.ask(self.patience())
    }

    /// The same error, where it is about the deployment with all that has to be changed: the server tells only of the first
    /// thing that it meets.
    fn explained(&mut self, error: StoreError) -> StoreError {
        let StoreError::Misconfigured(reason) = error else { return error };
        let findings = self.with_session(async |session| in_time(survey(&session.client)).await);
        match findings {
            Ok(findings) if !findings.is_empty() => {
                StoreError::Misconfigured(format!("{reason}; {}", findings.join("; ")))
            }
            _ => StoreError::Misconfigured(reason),
        }
    }

    fn patience(&self) -> Duration {
        self.patience.unwrap_or(Duration::from_millis(POSTGRES_REPLY_TIMEOUT_MS))
    }

    /// One transaction. `new_ids` are written without being read; one that is there refuses the batch.
    fn apply_once(
        &mut self,
        steps: &[OffsetStep],
        ids: &[TodoId],
        new_ids: &[TodoId],
        fold: Fold<'_>,
    ) -> Result<Changes, StoreError> {
        if self.unresolved.as_ref().is_some_and(|unresolved| unresolved.steps == steps) {
            // The caller tries a batch again of which nobody knew whether it had committed.
            if let Some(changes) = self.resolve()? {
                return Ok(changes);
            }
        }
        self.unresolved = None;
        let (rows, transaction) = self.begin(steps, ids)?;
        let mut changes = fold(rows);
        // Rows are locked in the order of their ids: two transactions cannot wait for each other.
        changes.upserts.sort_unstable_by_key(|todo| todo.id);
        match self.finish(&changes, new_ids) {
            Ok(()) => Ok(changes),
            Err(Unfinished { commit_sent: false, error }) => Err(error),
            Err(Unfinished { commit_sent: true, error }) => {
                self.unresolved = Some(Unresolved { steps: steps.to_vec(), changes, transaction });
                self.resolve().ok().flatten().ok_or(error)
            }
        }
    }

    /// Runs one conversation; drops the connection when it fails in a way that leaves the session's state unknown. A
    /// connection may have died unnoticed since its last use: then the conversation is held once more, on a new one.
    fn with_session<T>(
        &mut self,
        mut conversation: impl AsyncFnMut(&mut Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut reused = self.connector.is_connected();
        loop {
            let (runtime, session) = self.connector.session()?;
            let result = runtime.block_on(conversation(session));
            match &result {
                Ok(_) | Err(StoreError::Fenced { .. } | StoreError::Refused(_)) => return result,
                Err(StoreError::Unavailable(_)) if reused => {
                    self.connector.disconnect();
                    reused = false;
                }
                Err(_) => {
                    self.connector.disconnect();
                    return result;
                }
            }
        }
    }

    /// Opens the transaction, moves the offsets and reads the rows.
    fn begin(
        &mut self,
        steps: &[OffsetStep],
        ids: &[TodoId],
    ) -> Result<(HashMap<TodoId, Todo>, TransactionNumber), StoreError> {
        let log = self.log.clone();
        self.with_session(async |session| {
            let statements = in_time(session.statements()).await?;
            let result = in_time(begin(session, &statements, &log, steps, ids)).await;
            if let Err(StoreError::Fenced { .. } | StoreError::Refused(_)) = &result {
                in_time(session.client.batch_execute("ROLLBACK").map_err(store_error)).await?;
            }
            result
        })
    }

    /// Writes the changes and commits what `begin` has begun.
    fn finish(&mut self, changes: &Changes, new_ids: &[TodoId]) -> Result<(), Unfinished> {
        let mut commit_sent = false;
        let result = self.connector.same_session().and_then(|(runtime, session)| {
            runtime.block_on(async {
                let statements = in_time(session.statements()).await?;
                in_time(write(session, &statements, changes, new_ids)).await?;
                commit_sent = true;
                in_time(session.client.batch_execute("COMMIT").map_err(store_error)).await
            })
        });
        result.map_err(|error| {
            // Ends the transaction, if it has not ended yet. A session that only refused a row goes on: until that row is
            // found, there will be many of these.
            let is_refusal = matches!(error, StoreError::Refused(_)) && !commit_sent && new_ids.is_empty();
            if !(is_refusal && self.roll_back()) {
                self.connector.disconnect();
            }
            Unfinished { commit_sent, error }
        })
    }

    /// Ends the transaction of the open session; `false` when that does not work.
    fn roll_back(&mut self) -> bool {
        let ended = self.connector.same_session().and_then(|(runtime, session)| {
            runtime.block_on(in_time(session.client.batch_execute("ROLLBACK").map_err(store_error)))
        });
        ended.is_ok()
    }

    /// Asks what became of the unresolved batch: its changes when it was committed, `None` when it was not.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the server cannot be asked; the batch stays unresolved.
    fn resolve(&mut self) -> Result<Option<Changes>, StoreError> {
        let Some(unresolved) = self.unresolved.take() else { return Ok(None) };
        let transaction = unresolved.transaction;
        match self.with_session(async |session| in_time(has_committed(&session.client, transaction)).await) {
            Ok(true) => Ok(Some(unresolved.changes)),
            // Refused: after a failover to a server that never heard of this transaction.
            Ok(false) | Err(StoreError::Refused(_)) => Ok(None),
            Err(error) => {
                self.unresolved = Some(unresolved);
                Err(error)
            }
        }
    }

    fn scan_once(&mut self, log: &FollowedLog, each: &mut dyn FnMut(Todo)) -> Result<AppliedOffsets, StoreError> {
        let (runtime, session) = self.connector.session()?;
        let result = runtime.block_on(scan(&session.client, log, each));
        if result.is_err() {
            // Rows may still be on their way.
            self.connector.disconnect();
        }
        result
    }
}

/// A batch that did not get to its end.
struct Unfinished {
    /// Whether it may have been committed all the same.
    commit_sent: bool,
    error: StoreError,
}

async fn begin(
    session: &Session,
    statements: &Statements,
    log: &FollowedLog,
    steps: &[OffsetStep],
    ids: &[TodoId],
) -> Result<(HashMap<TodoId, Todo>, TransactionNumber), StoreError> {
    let client = &session.client;
    let (mut new_partitions, mut new_nexts) = (Vec::new(), Vec::new());
    let (mut partitions, mut priors, mut nexts) = (Vec::new(), Vec::new(), Vec::new());
    for step in steps {
        match step.from {
            None => {
                new_partitions.push(step.partition);
                new_nexts.push(step.to);
            }
            Some(from) => {
                partitions.push(step.partition);
                priors.push(from);
                nexts.push(step.to);
            }
        }
    }
    let FollowedLog { topic, id, .. } = log;
    let [high, low] = id.map_or([None; 2], |id| id.halves().map(Some));
    let id_texts: Vec<String> = ids.iter().map(TodoId::to_string).collect();
    // One group on the wire, which the server runs one after the other. READ COMMITTED: each statement sees what was
    // committed when it began, so the rows are read as the last owner of the partition left them.
    let ((_, transaction, inserted, moved, rows), ()) = try_join(
        try_join5(
            client.batch_execute(&session.begin_batch),
            statements.transaction.query(client, &[]),
            statements.insert_offsets.query(client, &[topic, &new_partitions, &new_nexts, &high, &low]),
            statements.move_offsets.query(client, &[topic, &partitions, &priors, &nexts, &high, &low]),
            statements.select_rows.query(client, &[&id_texts]),
        ),
        log.note_epochs(client, &statements.note_epochs, steps),
    )
    .await
    .map_err(|error| session.error(error))?;
    let (number, backend) = (transaction[0].get(0), transaction[0].get(1));
    session.check_backend(backend)?;
    let done: Vec<PartitionId> = inserted.iter().chain(&moved).map(|row| row.get(0)).collect();
    if let Some(step) = steps.iter().find(|step| !done.contains(&step.partition)) {
        return Err(StoreError::Fenced { partition: step.partition });
    }
    let rows = rows.iter().map(|row| todo_from_row(row).map(|todo| (todo.id, todo))).collect::<Result<_, _>>()?;
    Ok((rows, number))
}
