//! `million-rps dead-letters`: commands that could never be applied.

use super::{DeadLettersAction, RecordPlace};
use crate::command_log::DeadLetter;
use crate::command_log::embedded::{list_dead_letters, replay_dead_letters};
use crate::config::{Config, Deployment};
use crate::data_dir::DataDir;
use crate::process::ProcessError;

/// Most bytes of a payload that `list` shows.
const PAYLOAD_SHOWN_BYTES: usize = 200;

/// Lists or replays the dead letters of the deployment.
///
/// # Errors
/// [`ProcessError`].
pub fn dead_letters(config: &Config, action: &DeadLettersAction) -> Result<(), ProcessError> {
    let data_dir = match &config.deployment {
        Deployment::Embedded { data_dir } => DataDir::open(data_dir)?,
        Deployment::Services(_) => return Err(crate::process::services_unsupported()),
    };
    match action {
        DeadLettersAction::List { limit } => {
            let letters = list_dead_letters(&data_dir)?;
            let shown = usize::try_from(*limit).unwrap_or(usize::MAX);
            letters.iter().take(shown).for_each(|letter| println!("{}", line(letter)));
            eprintln!("{} dead letters", letters.len());
        }
        DeadLettersAction::Replay { records, all } => {
            let is_chosen = |letter: &DeadLetter| *all || records.contains(&place(letter));
            let done = replay_dead_letters(&data_dir, is_chosen)?;
            println!("{} sent to the command log again, {} kept", done.replayed, done.kept);
        }
    }
    Ok(())
}

fn place(letter: &DeadLetter) -> RecordPlace {
    RecordPlace { partition: letter.partition, offset: letter.record.offset }
}

/// One letter as one line: place, time, reason, and the beginning of the payload, escaped.
fn line(letter: &DeadLetter) -> String {
    let RecordPlace { partition, offset } = place(letter);
    let payload = &letter.record.payload[..letter.record.payload.len().min(PAYLOAD_SHOWN_BYTES)];
    let logged_at = letter.record.logged_at;
    format!("{partition}:{offset}\t{logged_at}\t{}\t{}", letter.reason, payload.escape_ascii())
}
