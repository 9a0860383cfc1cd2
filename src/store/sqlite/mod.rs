//! The embedded store: one SQLite file.
//!
//! Settings of a connection, each for a reason:
//! - `journal_mode = WAL`: one writer and any number of readers at the same time, so a load of the whole list does not
//!   stop the worker.
//! - `synchronous = NORMAL`: a commit does not wait for the disk. A power cut may take back the last ones, whole and the offsets
//!   with them; they are applied again from the log, which keeps their commands until [`Store::make_durable`].
//! - `wal_autocheckpoint`: [`CHECKPOINT_PAGES`], because each checkpoint syncs the main file.
//! - `cache_size`: [`CACHE_KIB`], so that the pages that inserts and searches have in common stay in memory, and little else.
//! - `cache_spill`: [`SPILL_PAGES`], so that a batch writes each page once, however many it touches.
//! - `busy_timeout`: [`BUSY_TIMEOUT`], short, because the worker tries again by itself and has to stop promptly.
//!
//! Measured with batches of 5,000 todos of 230 bytes, one fsync each, on two shared cores, dependencies optimised: ids
//! as BLOB 212,000 to 235,000 rows/s, as TEXT 109,000 to 145,000; `WITHOUT ROWID` made no steady difference.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};

use crate::command_log::{KnownLogs, LogId, Offset, PartitionId};
use crate::data_dir::{Anchor, Fault, Footing, private};
use crate::store::identity::{IDENTITY_ID_BYTES, IDENTITY_SECRET_BYTES, Identity};
use crate::store::sqlite::rows::{STATEMENTS, read_rows, todo_of, write_changes};
use crate::store::{AppliedOffsets, Changes, Fold, OffsetStep, Store, StoreError};
use crate::todo::{Todo, TodoId};

/// The steps of the schema: the first makes version 1 out of an empty file, the next version 2 out of version 1, and so
/// on. A step that was released is never changed.
const SCHEMA_STEPS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
];
/// Version of the schema that this program reads and writes.
pub const SCHEMA_VERSION: u32 = SCHEMA_STEPS.len() as u32;

/// How long a statement waits for another connection's lock.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);
/// How long opening and migrating wait for it: several processes may start at once.
const START_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const START_RETRY: Duration = Duration::from_millis(5);
/// Pages of 4 KiB after which a commit copies the write-ahead log into the main file: 32 MiB of log.
const CHECKPOINT_PAGES: i64 = 8_000;
/// Page cache of a connection, in KiB. One that scans needs each page for a moment only, because the list's index and the rows
/// stand in the same order. One that writes to a long list finds the upper levels of its trees here, and the ends at which they
/// grow; the system has the other pages in memory too, and copies one in less time than SQLite takes to find it, and its
/// neighbours in the order of use, in a cache that is larger than the CPU's. After a batch that has taken pages from the
/// list of free ones, a commit also looks at each page of the cache.
const CACHE_KIB: i64 = 4 * 1024;
/// Pages of 4 KiB that may be in memory before SQLite writes changed ones to the log ahead of the commit: more than the largest
/// batch of updates and creates changes, one for each command and few for the indexes. It keeps them until the commit only.
const SPILL_PAGES: i64 = 8_000;

/// A connection to the SQLite file.
pub struct SqliteStore {
    connection: Connection,
    /// What has to stay where it is, where the data folder asks for that.
    footing: Option<Arc<Footing>>,
    /// Why a sync failed. No later one is evidence: the kernel tells of a page that it could not write only once.
    sync_failure: Option<String>,
}

impl SqliteStore {
    /// Opens the file for reading and writing; makes an empty one when it is not there.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] when the file cannot be opened, is no database, or was written by a newer version.
    pub fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        // SQLite gives its other files the mode that this one has.
        private::create_if_missing(path)
            .map_err(|error| StoreError::Fatal(format!("cannot make the store {}: {error}", path.display())))?;
        let store = SqliteStore::open_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        while_busy(|| store.configure_writer()).map_err(|error| cannot_open(path, error))?;
        Ok(store)
    }

    /// Opens the file, which has to be there, for [`Store::scan`] and [`Store::applied_offsets`] alone.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_read_only(path: &Path) -> Result<SqliteStore, StoreError> {
        SqliteStore::open_with(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn open_with(path: &Path, flags: OpenFlags) -> Result<SqliteStore, StoreError> {
        // Each connection is used by one thread at a time, so SQLite's own mutex is not needed.
        let open = || {
            let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            let version = schema_version(&connection)?;
            Ok((connection, version))
        };
        let (connection, version) = while_busy(open).map_err(|error| cannot_open(path, error))?;
        check_version(version)?;
        Ok(SqliteStore { connection, footing: None, sync_failure: None })
    }

    /// Stands on the data folder's footing from now on, with its own files: batches are applied, and called durable, only
    /// while everything is where its name is. The schema has to be there.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] when the store's files cannot be looked at.
    pub fn standing_on(mut self, footing: &Arc<Footing>) -> Result<SqliteStore, StoreError> {
        let path = self.connection.path().map(PathBuf::from).unwrap_or_default();
        for path in [write_ahead_log(&path), path] {
            let anchor = Anchor::at(&path).map_err(|error| {
                StoreError::Fatal(format!("cannot look at the store's {}: {error}", path.display()))
            })?;
            footing.stand_on(anchor);
        }
        self.footing = Some(Arc::clone(footing));
        Ok(self)
    }

    /// Has the store follow this log, whichever it followed before, from this offset on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_log_place(&mut self, log: LogId, partition: PartitionId, next: Offset) -> Result<(), StoreError> {
        self.in_transaction(|transaction| place::set(transaction, log, partition, next))
    }

    fn in_transaction(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)?;
        work(&transaction).map_err(store_error)?;
        transaction.commit().map_err(store_error)
    }

    fn stand(&self) -> Result<(), StoreError> {
        self.footing.as_ref().map_or(Ok(()), |footing| footing.check()).map_err(StoreError::Unavailable)
    }

    /// Syncs the write-ahead log. What is in the main file was synced by the checkpoint that brought it there.
    fn sync(&self, path: &Path) -> io::Result<()> {
        #[cfg(test)]
        if std::fs::exists(path.with_extension("fails-once"))? {
            std::fs::remove_file(path.with_extension("fails-once"))?;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        match private::open(&write_ahead_log(path)) {
            // Unlike the main file, this one has no locks of SQLite that closing it here would give up.
            Ok(log) => log.sync_data()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // The log may have been made since.
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    fn configure_writer(&self) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "journal_mode", "WAL")?;
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        self.connection.pragma_update(None, "cache_spill", SPILL_PAGES)?;
        self.connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
    }
}

/// Tries again while other processes open the file, too: SQLite's own waiting does not cover the change to WAL, nor the
/// recovery of a WAL.
fn while_busy<T>(mut attempt: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let give_up_at = Instant::now() + START_BUSY_TIMEOUT;
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && Instant::now() < give_up_at => std::thread::sleep(START_RETRY),
            result => return result,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

impl Store for SqliteStore {
    fn migrate(&mut self) -> Result<(), StoreError> {
        let give_up_at = Instant::now() + START_BUSY_TIMEOUT;
        loop {
            match migrate(&mut self.connection) {
                Err(StoreError::Unavailable(_)) if Instant::now() < give_up_at => std::thread::sleep(START_RETRY),
                Err(StoreError::Unavailable(reason)) => {
                    let path = self.connection.path().unwrap_or_default();
                    return Err(StoreError::Unavailable(format!(
                        "the schema of {path} cannot be written: {reason}. Is the disk full, or does it fail?"
                    )));
                }
                result => return result,
            }
        }
    }

    fn identity(&mut self) -> Result<Identity, StoreError> {
        let query = "SELECT id, secret FROM deployment";
        self.connection
            .query_row(query, [], |row| Ok(Identity::new(row.get(0)?, row.get(1)?, &[])))
            .map_err(store_error)
    }

    fn applied_offsets(&mut self) -> Result<AppliedOffsets, StoreError> {
        place::read(&self.connection).map(|rows| rows.offsets).map_err(store_error)
    }

    fn known_logs(&mut self) -> Result<KnownLogs, StoreError> {
        place::known_logs(&self.connection).map_err(store_error)
    }

    fn note_log(&mut self, log: LogId) -> Result<LogId, StoreError> {
        place::note(&self.connection, log).map_err(store_error)
    }

    fn reject_log(&mut self, log: LogId) -> Result<(), StoreError> {
        self.in_transaction(|transaction| place::reject(transaction, log))
    }

    fn apply(&mut self, steps: &[OffsetStep], ids: &[TodoId], fold: Fold<'_>) -> Result<Changes, StoreError> {
        self.stand()?;
        // Immediate: the write lock is taken before anything is read, so that what is read stays true.
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)?;
        for step in steps {
            if !place::move_offset(&transaction, step).map_err(store_error)? {
                return Err(StoreError::Fenced { partition: step.partition });
            }
        }
        let (prior, places) = read_rows(&transaction, ids).map_err(store_error)?;
        let changes = fold(prior);
        write_changes(&transaction, &changes, &places).map_err(store_error)?;
        transaction.commit().map_err(store_error)?;
        Ok(changes)
    }

    fn scan(&mut self, each: &mut dyn FnMut(Todo)) -> Result<AppliedOffsets, StoreError> {
        // Its first read fixes the view for the whole transaction.
        let transaction = self.connection.transaction().map_err(store_error)?;
        let mut scan = || {
            let offsets = place::read(&transaction)?.offsets;
            let mut statement = transaction.prepare_cached(&STATEMENTS.scan)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                each(todo_of(row)?);
            }
            Ok(offsets)
        };
        scan().map_err(store_error)
    }

    fn make_durable(&mut self) -> Result<(), StoreError> {
        let Some(path) = self.connection.path().map(PathBuf::from) else { return Ok(()) };
        self.stand()?;
        if self.sync_failure.is_none() {
            self.sync_failure = self.sync(&path).err().map(|error| sync_failure_text(&path, &error));
        }
        if let Some(reason) = &self.sync_failure {
            self.footing.iter().for_each(|footing| footing.set(Fault::Store, Some(reason)));
            return Err(StoreError::Unavailable(reason.clone()));
        }
        // What was synced is of use only where a restart looks for it.
        self.stand()
    }
}

fn sync_failure_text(path: &Path, error: &io::Error) -> String {
    format!(
        "{} could not be made durable: {error}. Nothing that it says of this can be trusted until a restart, so the command \
         log keeps all commands from here on, and a restart applies them again. Look into the kernel's log for a failing \
         disk, then restart the server",
        path.display()
    )
}

/// The file beside the main one that has the last batches.
fn write_ahead_log(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Makes the next opening of the store see what the disk has: after a sync that failed, the page cache may show a
/// write-ahead log that the disk does not have. SQLite ends its recovery at the first frame whose check sum is wrong, and
/// the command log still has what stood behind it. For a process that owns the store and has not opened it.
pub fn forget_cached_pages(path: &Path) {
    // Where this fails, opening the store fails too, or there is nothing to forget.
    if let Ok(file) = private::open(&write_ahead_log(path))
        && file.sync_all().is_ok()
    {
        // SAFETY: posix_fadvise takes numbers only and the descriptor is open. Its result does not matter: it is advice.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    // Immediate, so that of several processes one migrates and the others find it done.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)?;
    let version = schema_version(&transaction).map_err(store_error)?;
    check_version(version)?;
    for step in &SCHEMA_STEPS[version as usize..] {
        transaction.execute_batch(step).map_err(store_error)?;
    }
    make_identity(&transaction)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(store_error)?;
    transaction.commit().map_err(store_error)
}

/// Gives the deployment an identity, if it has none.
fn make_identity(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let (mut id, mut secret) = ([0_u8; IDENTITY_ID_BYTES], [0_u8; IDENTITY_SECRET_BYTES]);
    getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut secret)).map_err(|error| {
        StoreError::Unavailable(format!("the system gives no random numbers for the deployment's secret: {error}"))
    })?;
    let insert = "INSERT OR IGNORE INTO deployment (only_row, id, secret) VALUES (1, ?1, ?2)";
    transaction.execute(insert, params![id, secret]).map_err(store_error).map(|_| ())
}

fn schema_version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn check_version(version: u32) -> Result<(), StoreError> {
    if version > SCHEMA_VERSION {
        return Err(StoreError::Fatal(format!(
            "the store has schema version {version}, but this program reads up to version {SCHEMA_VERSION}: start the \
             version of million-rps that wrote it"
        )));
    }
    Ok(())
}

/// Opening fails for good where a running connection would only be disturbed: a wrong path, a missing permission.
fn cannot_open(path: &Path, error: rusqlite::Error) -> StoreError {
    match store_error(error) {
        StoreError::Unavailable(reason) | StoreError::Fatal(reason) => {
            StoreError::Fatal(format!("cannot open the store {}: {reason}", path.display()))
        }
        other => other,
    }
}

fn store_error(error: rusqlite::Error) -> StoreError {
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::CannotOpen
            | ErrorCode::OperationInterrupted
            | ErrorCode::OperationAborted,
        ) => StoreError::Unavailable(text),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => StoreError::Refused(text),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Fatal(format!(
            "the store is damaged: {text}. Restore the data folder from a backup, or recover the rows with sqlite3's \
             `.recover`"
        )),
        _ if text.contains("no such table") => {
            StoreError::Fatal(format!("the store has no schema yet ({text}): run `million-rps migrate`"))
        }
        _ => StoreError::Fatal(format!("the store failed: {text}")),
    }
}

mod place;
mod rows;
#[cfg(test)]
mod tests;
