//! Records that could never be applied, each in a file of its own: `dead-letters/<offset, 20 digits>-<logged at>.letter`.
//!
//! The first line is the reason, as text; behind it stands the record, as in a segment. A record that is put aside
//! twice (the worker died before its offset moved) stands there once. The time in the name keeps letters of a log that was
//! made anew, whose offsets begin again, apart from those of the old one.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::fault::fatal;
use super::{PARTITION, open, record};
use crate::command_log::{
    Acknowledgement, AcknowledgementSink, CommandAppender, DeadLetter, LogError, Record, Submission, Ticket,
};
use crate::data_dir::{DataDir, FileError, private};
use crate::todo::TodoId;

/// Puts a record aside, durably.
pub(super) fn keep(data_dir: &DataDir, record: &Record, reason: &str) -> Result<(), LogError> {
    let folder = data_dir.dead_letters_path();
    let unavailable = |error: FileError| LogError::Unavailable(error.to_string());
    match DirBuilder::new().mode(private::FOLDER_MODE).create(&folder) {
        Ok(()) => private::sync_folder(data_dir.path()).map_err(unavailable)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(LogError::Unavailable(format!("cannot create {}: {error}", folder.display()))),
    }
    let mut content = reason.replace(['\n', '\r'], " ").into_bytes();
    content.push(b'\n');
    record::encode(&mut content, record.offset, record.logged_at, &record.key, &record.payload)
        .map_err(|size| LogError::Fatal(format!("the record at offset {} has {size} bytes", record.offset)))?;
    private::write_whole(&letter_path(data_dir, record), &content).map_err(unavailable)
}

fn letter_path(data_dir: &DataDir, record: &Record) -> PathBuf {
    let name = format!("{:020}-{}.letter", record.offset, record.logged_at.as_micros());
    data_dir.dead_letters_path().join(name)
}

/// The dead letters of a data folder, oldest first. Works beside a running server.
///
/// # Errors
/// [`LogError::Fatal`] when a letter cannot be read.
pub fn list_dead_letters(data_dir: &DataDir) -> Result<Vec<DeadLetter>, LogError> {
    let folder = data_dir.dead_letters_path();
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| fatal("read", &folder, &error))?,
    };
    let mut letters = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| fatal("read", &folder, &error))?.path();
        if path.extension().is_some_and(|extension| extension == "letter") {
            letters.push(read_letter(&path)?);
        }
    }
    letters.sort_by_key(|letter| letter.record.offset);
    Ok(letters)
}

fn read_letter(path: &Path) -> Result<DeadLetter, LogError> {
    let content = private::read(path).map_err(|error| fatal("read", path, &error))?;
    let damaged = |reason: &str| LogError::Fatal(format!("the dead letter {} is damaged: {reason}", path.display()));
    let line_end = content.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("it has no reason"))?;
    let record = record::decode(&content[line_end + 1..]).map_err(|error| damaged(&error.to_string()))?;
    Ok(DeadLetter {
        partition: PARTITION,
        record: record.to_record(),
        reason: String::from_utf8_lossy(&content[..line_end]).into_owned(),
    })
}

/// Forgets a dead letter. Returns whether it was there.
///
/// # Errors
/// [`LogError::Fatal`] when the system refuses.
pub fn remove_dead_letter(data_dir: &DataDir, letter: &DeadLetter) -> Result<bool, LogError> {
    let path = letter_path(data_dir, &letter.record);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(|error| fatal("remove", &path, &error))?,
    }
    private::sync_folder(&data_dir.dead_letters_path()).map_err(|error| LogError::Fatal(error.to_string()))?;
    Ok(true)
}

/// What [`replay_dead_letters`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Letters that stand in the log again, at its end, and are no letters any more.
    pub replayed: usize,
    /// Letters that stay: their key is no todo id, or the log refused them.
    pub kept: usize,
}

/// Appends the chosen dead letters to the log again, oldest first. The worker that comes next applies it, or puts it aside
/// again. Killed half-way, it may leave one letter both in the log and aside.
///
/// # Errors
/// [`LogError::Fatal`] when a server has the log open: stop it first.
pub fn replay_dead_letters(data_dir: &DataDir, is_chosen: impl Fn(&DeadLetter) -> bool) -> Result<Replayed, LogError> {
    let answers = Arc::new(Answers::default());
    let (mut appender, _reader) = open(data_dir, Arc::clone(&answers) as Arc<dyn AcknowledgementSink>)?;
    let mut done = Replayed::default();
    for letter in list_dead_letters(data_dir)?.into_iter().filter(|letter| is_chosen(letter)) {
        let key = std::str::from_utf8(&letter.record.key).ok().and_then(|key| key.parse::<TodoId>().ok());
        let appended = key.is_some_and(|id| {
            appender.append(&mut vec![Submission { ticket: Ticket(0), id, payload: letter.record.payload.clone() }]);
            answers.take_all_ok()
        });
        if appended && remove_dead_letter(data_dir, &letter)? {
            done.replayed += 1;
        } else {
            done.kept += 1;
        }
    }
    Ok(done)
}

/// Keeps the acknowledgements of the replay: the embedded log gives them before `append` returns.
#[derive(Default)]
struct Answers(Mutex<Vec<Acknowledgement>>);

impl Answers {
    fn take_all_ok(&self) -> bool {
        let answers = std::mem::take(&mut *self.0.lock().expect("no holder panics"));
        !answers.is_empty() && answers.iter().all(|answer| answer.result.is_ok())
    }
}

impl AcknowledgementSink for Answers {
    fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>) {
        self.0.lock().expect("no holder panics").append(acknowledgements);
    }
}
