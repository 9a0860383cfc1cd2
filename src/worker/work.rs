//! The work that a worker has taken from the log and not finished: what remains of it survives a failed attempt.

use std::collections::VecDeque;

use crate::command_log::{Offset, PartitionId, Record, RecordBatch};
use crate::feed::ChangeSet;
use crate::todo::{Command, JsonParser};

/// One step of a worker, in the order of the log.
#[derive(Debug)]
pub(super) enum Work {
    /// Put aside what cannot be parsed, then apply the rest in one transaction.
    Apply(Vec<PartitionWork>),
    /// Publish what was committed.
    Publish(ChangeSet),
}

/// The commands of one partition within a batch.
#[derive(Debug)]
pub(super) struct PartitionWork {
    pub(super) partition: PartitionId,
    /// The offset after this work.
    pub(super) next: Offset,
    /// The records are kept beside their commands: one that the store refuses becomes a dead letter as it was found.
    pub(super) commands: Vec<(Record, Command<'static>)>,
    /// Records that can never be applied, with the reason.
    pub(super) dead: VecDeque<(Record, String)>,
}

impl PartitionWork {
    /// Parses the records from offset `from` on. `scratch` is a reusable buffer: parsing destroys what it reads.
    pub(super) fn parse(
        batch: RecordBatch,
        from: Option<Offset>,
        parser: &mut JsonParser,
        scratch: &mut Vec<u8>,
    ) -> PartitionWork {
        let mut work = PartitionWork {
            partition: batch.partition,
            next: batch.next,
            commands: Vec::with_capacity(batch.records.len()),
            dead: VecDeque::new(),
        };
        for record in batch.records {
            if from.is_some_and(|from| record.offset < from) {
                continue;
            }
            scratch.clear();
            scratch.extend_from_slice(&record.payload);
            match Command::from_json(scratch, record.logged_at, parser) {
                Ok(command) => work.commands.push((record, command)),
                Err(error) => work.dead.push_back((record, error.to_string())),
            }
        }
        work
    }

    /// Takes the second half of the commands off; the offset between the halves is that of its first record.
    fn split_off_half(&mut self) -> PartitionWork {
        let commands = self.commands.split_off(self.commands.len() / 2);
        let next = std::mem::replace(&mut self.next, commands[0].0.offset);
        PartitionWork { partition: self.partition, next, commands, dead: VecDeque::new() }
    }
}

/// Makes smaller work, in the same order, out of work that the store has refused: in the end the one command that it
/// refuses stands alone and becomes a dead letter, and all others are applied. `None` when there is no command that it
/// could have refused.
pub(super) fn divide(mut refused: Vec<PartitionWork>, reason: &str) -> Option<Vec<Work>> {
    if refused.len() > 1 {
        return Some(refused.into_iter().map(|part| Work::Apply(vec![part])).collect());
    }
    let mut part = refused.pop()?;
    match part.commands.len() {
        0 => None,
        1 => {
            part.dead.extend(part.commands.pop().map(|(record, _)| (record, reason.to_owned())));
            Some(vec![Work::Apply(vec![part])])
        }
        _ => {
            let second = part.split_off_half();
            Some(vec![Work::Apply(vec![part]), Work::Apply(vec![second])])
        }
    }
}
