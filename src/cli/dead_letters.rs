//! `million-rps dead-letters`: commands that could never be applied.

use super::{DeadLettersAction, RecordPlace};
use crate::command_log::{DeadLetter, embedded};
use crate::config::{Config, Deployment};
use crate::counted::Counted;
use crate::data_dir::DataDir;
use crate::process::ProcessError;

/// Most bytes of a payload that `list` shows.
const PAYLOAD_SHOWN_BYTES: usize = 200;

/// Lists or replays the dead letters of the deployment.
///
/// # Errors
/// [`ProcessError`].
pub fn dead_letters(config: &Config, action: &DeadLettersAction) -> Result<(), ProcessError> {
    match &config.deployment {
        Deployment::Embedded { data_dir } => in_data_dir(&DataDir::open(data_dir)?, action),
        #[cfg(feature = "services")]
        Deployment::Services(services) => in_topic(&crate::process::services::kafka_options(config, services), action),
        #[cfg(not(feature = "services"))]
        Deployment::Services(_) => Err(crate::process::services_missing()),
    }
}

fn in_data_dir(data_dir: &DataDir, action: &DeadLettersAction) -> Result<(), ProcessError> {
    match action {
        DeadLettersAction::List { limit } => {
            let mut listing = Listing::new(*limit);
            embedded::list_dead_letters(data_dir)?.iter().for_each(|letter| listing.add(letter));
            listing.finish();
        }
        DeadLettersAction::Replay { records, all } => {
            let is_chosen = |letter: &DeadLetter| *all || records.contains(&place(letter));
            let done = embedded::replay_dead_letters(data_dir, is_chosen)?;
            println!("{} sent to the command log again, {} kept", done.replayed, done.kept);
        }
    }
    Ok(())
}

#[cfg(feature = "services")]
fn in_topic(options: &crate::command_log::kafka::KafkaOptions, action: &DeadLettersAction) -> Result<(), ProcessError> {
    use crate::command_log::kafka;
    match action {
        DeadLettersAction::List { limit } => {
            let mut listing = Listing::new(*limit);
            kafka::list_dead_letters(options, &mut |letter| listing.add(&letter))?;
            listing.finish();
        }
        DeadLettersAction::Replay { all: true, .. } => {
            let count = kafka::replay_dead_letters(options)?;
            println!("{count} sent to the command log again");
        }
        // Kafka removes records from the beginning of a partition only.
        DeadLettersAction::Replay { .. } => {
            let reason = "the dead letters of a topic can only be replayed together: use --all".to_owned();
            return Err(ProcessError::Unsupported(reason));
        }
    }
    Ok(())
}

/// Prints letters up to a limit and counts them all.
struct Listing {
    limit: u64,
    count: u64,
}

impl Listing {
    fn new(limit: u64) -> Listing {
        Listing { limit, count: 0 }
    }

    fn add(&mut self, letter: &DeadLetter) {
        if self.count < self.limit {
            println!("{}", line(letter));
        }
        self.count += 1;
    }

    fn finish(self) {
        eprintln!("{}", Counted(self.count, "dead letters"));
    }
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
