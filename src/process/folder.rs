//! The embedded deployment behind the seams: its log, its store and the channel between worker and API.

use std::sync::Arc;

use super::error::ProcessError;
use super::roles::Roles;
use super::seams::{ApiSeams, Seams, WorkerSeams};
use crate::command_log::embedded::{EmbeddedAppender, EmbeddedReader};
use crate::command_log::{AcknowledgementSink, embedded};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::feed::in_process;
use crate::producer::ShardAcknowledgements;
use crate::store::Store;
use crate::store::sqlite::{SqliteStore, forget_cached_pages};

/// Opens the seams of a process that has everything in one folder. `address` is where it answers HTTP, and empty when it does not.
///
/// # Errors
/// [`ProcessError`].
pub fn open(
    config: &Config,
    roles: Roles,
    data_dir: &DataDir,
    address: &str,
    acknowledgements: Arc<ShardAcknowledgements>,
) -> Result<Seams, ProcessError> {
    let lock = data_dir.lock(address)?;
    let (appender, reader, store) = open_log_and_store(data_dir, acknowledgements)?;
    let appender = appender.with_max_bytes(config.write.log_max_bytes);
    let (publisher, subscriber) = in_process::channel();
    let api = if roles.api {
        if config.auth.secret.is_none() && !config.auth.has_public_keys() {
            // Made at the first start; the keys are read together.
            data_dir.jwt_secret()?;
        }
        Some(ApiSeams {
            appender: Box::new(appender),
            feed: Box::new(subscriber),
            store: Box::new(SqliteStore::open_read_only(&data_dir.store_path())?),
            key_folder: Some(data_dir.clone()),
        })
    } else {
        None
    };
    let worker = WorkerSeams { reader: Box::new(reader), store: Box::new(store), publisher: Box::new(publisher) };
    // The embedded log has one partition.
    let worker = roles.worker.then_some(worker).into_iter().collect();
    Ok(Seams { api, worker, data_dir_lock: Some(lock) })
}

/// Opens the log, and the store that follows it, so that the log goes on where the store stands.
fn open_log_and_store(
    data_dir: &DataDir,
    acknowledgements: Arc<dyn AcknowledgementSink>,
) -> Result<(EmbeddedAppender, EmbeddedReader, SqliteStore), ProcessError> {
    let (mut appender, mut reader) = embedded::open(data_dir, Arc::clone(&acknowledgements))?;
    let mut store = open_store(data_dir, &reader)?;
    let applied = store.applied_offsets()?.get(&embedded::PARTITION).copied().unwrap_or_default();
    let (_, end) = reader.bounds();
    let is_new = is_new_log(data_dir, &reader, &mut store)?;
    if end < applied || (is_new && end > applied) {
        tracing::warn!(
            "the command log {} ends at offset {end}, and the store has applied all before {applied}: the log was deleted or \
             cut, or log or store are older copies. New commands begin at {applied}; what stood in the log is put aside there",
            data_dir.log_path().display()
        );
        drop((appender, reader));
        embedded::begin_at(data_dir, applied)?;
        (appender, reader) = embedded::open(data_dir, acknowledgements)?;
    }
    if is_new {
        // Behind the last command that was applied: from here on it is the store's.
        store.set_log_place(reader.id(), embedded::PARTITION, applied)?;
        // Before the log is given anything: a power cut that took this back would leave another log with commands in it.
        store.make_durable()?;
    }
    Ok((appender, reader, store))
}

/// Makes sure that the log is the one that the store follows. One without any commands may be another: it is new.
///
/// # Errors
/// [`ProcessError::Unsupported`] for another log that holds commands.
fn is_new_log(data_dir: &DataDir, reader: &EmbeddedReader, store: &mut SqliteStore) -> Result<bool, ProcessError> {
    let found = reader.id();
    let Err(another) = store.known_logs()?.admit(found) else { return Ok(false) };
    let (begin, end) = reader.bounds();
    if begin == end {
        return Ok(true);
    }
    Err(ProcessError::Unsupported(format!(
        "the command log {} is not the one of {}: {another}",
        data_dir.log_path().display(),
        data_dir.store_path().display()
    )))
}

/// Opens the embedded store, with its schema, so that it notices when its files are no longer where their names are.
fn open_store(data_dir: &DataDir, log: &EmbeddedReader) -> Result<SqliteStore, ProcessError> {
    let path = data_dir.store_path();
    if log.begins_late() && !path.try_exists()? {
        return Err(ProcessError::Unsupported(format!(
            "the store {path} is gone, and the command log has only its last commands: it cannot be made again from them. \
             Restore {path} from a backup. To go on with those commands alone, make an empty file there: touch {path}",
            path = path.display()
        )));
    }
    forget_cached_pages(&path);
    let mut store = SqliteStore::open(&path)?;
    store.migrate()?;
    Ok(store.standing_on(data_dir.footing())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_log::Acknowledgement;

    struct Nobody;

    impl AcknowledgementSink for Nobody {
        fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>) {
            acknowledgements.clear();
        }
    }

    /// The log folder was deleted: what the store notes of the new one has to be on the disk before that takes commands.
    #[test]
    fn a_new_log_is_not_used_before_the_store_follows_it_durably() {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = DataDir::open(folder.path().join("data")).expect("made");
        let (_, reader, mut store) = open_log_and_store(&data_dir, Arc::new(Nobody)).expect("a first start");
        store.note_log(reader.id()).expect("noted");
        drop((reader, store));
        std::fs::remove_dir_all(data_dir.log_path()).expect("removed");
        let data_dir = DataDir::open(folder.path().join("data")).expect("the folder is made again");
        let open = || open_log_and_store(&data_dir, Arc::new(Nobody));
        // The next sync of the store fails.
        std::fs::write(data_dir.store_path().with_extension("fails-once"), "").expect("written");
        let failed = open().err().expect("it is not durable").to_string();
        assert!(failed.contains("could not be made durable"), "{failed}");
        let (_, reader, mut store) = open().expect("the disk is well again");
        assert_eq!(store.known_logs().expect("readable").followed, Some(reader.id()));
    }
}
