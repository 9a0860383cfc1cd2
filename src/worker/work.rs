//! The work that a worker has taken from the log and not finished: what remains of it survives a failed attempt.

use std::collections::{BTreeSet, VecDeque};

use super::metrics::{WorkerMetrics, add};
use crate::command_log::{LeaderEpoch, Offset, PartitionId, Record, RecordBatch};
use crate::feed::ChangeSet;
use crate::todo::{Command, JsonParser, Timestamp};

/// Names of unknown members that the log tells of, at most: whoever writes to the topic chooses them.
const UNKNOWN_MEMBERS_NAMED_MAX: usize = 32;
/// Characters of such a name that are shown.
const UNKNOWN_MEMBER_NAME_MAX_CHARS: usize = 64;

/// One step of a worker, in the order of the log.
#[derive(Debug)]
pub(super) enum Work {
    /// Put aside what cannot be parsed, then apply the rest in one transaction.
    Apply(Vec<PartitionWork>),
    /// Publish what was committed.
    Publish(ChangeSet),
}

impl Work {
    /// Records that it stands for and that are not applied.
    pub(super) fn records(&self) -> usize {
        match self {
            Work::Apply(parts) => parts.iter().map(|part| part.commands.len() + part.dead.len()).sum(),
            Work::Publish(_) => 0,
        }
    }

    /// When the oldest of them was written.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let Work::Apply(parts) = self else { return None };
        let first_of = |part: &PartitionWork| {
            let command = part.commands.first().map(|(record, _)| record.logged_at);
            let dead = part.dead.front().map(|(record, _)| record.logged_at);
            command.into_iter().chain(dead).min()
        };
        parts.iter().filter_map(first_of).min()
    }
}

/// The commands of one partition within a batch.
#[derive(Debug)]
pub(super) struct PartitionWork {
    pub(super) partition: PartitionId,
    /// The offset after this work.
    pub(super) next: Offset,
    /// The epoch of the record before that; `None` when the log has none.
    pub(super) leader_epoch: Option<LeaderEpoch>,
    /// The records are kept beside their commands: one that the store refuses becomes a dead letter as it was found.
    pub(super) commands: Vec<(Record, Command<'static>)>,
    /// Records that can never be applied, with the reason.
    pub(super) dead: VecDeque<(Record, String)>,
}

/// What records are read with.
#[derive(Default)]
pub(super) struct CommandParser {
    parser: JsonParser,
    /// A reusable buffer: parsing destroys what it reads.
    scratch: Vec<u8>,
    /// Members of commands that mean nothing to this version, as far as they were named in the log.
    named: BTreeSet<String>,
}

impl CommandParser {
    /// Parses the records from offset `from` on.
    pub(super) fn parse(&mut self, batch: RecordBatch, from: Option<Offset>, metrics: &WorkerMetrics) -> PartitionWork {
        let mut work = PartitionWork {
            partition: batch.partition,
            next: batch.next,
            leader_epoch: batch.leader_epoch,
            commands: Vec::with_capacity(batch.records.len()),
            dead: VecDeque::new(),
        };
        for record in batch.records {
            if from.is_some_and(|from| record.offset < from) {
                continue;
            }
            self.scratch.clear();
            self.scratch.extend_from_slice(&record.payload);
            let named = &mut self.named;
            let command = Command::from_json(&mut self.scratch, record.logged_at, &mut self.parser, |name| {
                add(&metrics.unknown_members, 1);
                name_unknown(named, name, batch.partition, record.offset);
            });
            match command {
                Ok(command) => work.commands.push((record, command)),
                Err(error) => work.dead.push_back((record, error.to_string())),
            }
        }
        work
    }
}

/// Names a member in the log, once.
#[cold]
fn name_unknown(named: &mut BTreeSet<String>, name: &str, partition: PartitionId, offset: Offset) {
    let name: String = name.chars().take(UNKNOWN_MEMBER_NAME_MAX_CHARS).collect();
    if named.len() < UNKNOWN_MEMBERS_NAMED_MAX && !named.contains(&name) {
        tracing::warn!(
            partition,
            offset,
            "commands have the member {name:?}, which this version does not know: it is not applied, the other members are. \
             Where a later version writes it, update the workers before the processes that take requests"
        );
        named.insert(name);
    }
}

impl PartitionWork {
    /// Takes the second half of the commands off; the offset between the halves is that of its first record.
    fn split_off_half(&mut self) -> PartitionWork {
        let commands = self.commands.split_off(self.commands.len() / 2);
        let next = std::mem::replace(&mut self.next, commands[0].0.offset);
        // That of the record between the halves is not known any more.
        let leader_epoch = self.leader_epoch.take();
        PartitionWork { partition: self.partition, next, leader_epoch, commands, dead: VecDeque::new() }
    }
}

/// Makes smaller work, in the same order, out of work that the store has refused: in the end the one command that it
/// refuses stands alone and becomes a dead letter, and all others are applied.
///
/// # Errors
/// The work itself, when there is no command in it that the store could have refused.
pub(super) fn divide(mut refused: Vec<PartitionWork>, reason: &str) -> Result<Vec<Work>, Vec<PartitionWork>> {
    if refused.len() > 1 {
        return Ok(refused.into_iter().map(|part| Work::Apply(vec![part])).collect());
    }
    let Some(part) = refused.first_mut() else { return Err(refused) };
    match part.commands.len() {
        0 => Err(refused),
        1 => {
            part.dead.extend(part.commands.pop().map(|(record, _)| (record, reason.to_owned())));
            Ok(vec![Work::Apply(refused)])
        }
        _ => {
            let second = part.split_off_half();
            Ok(vec![Work::Apply(refused), Work::Apply(vec![second])])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::todo::{Action, Timestamp, TodoId};

    fn work(partition: PartitionId, offsets: &[Offset]) -> PartitionWork {
        let record = |offset| Record { offset, logged_at: Timestamp::default(), key: Vec::new(), payload: Vec::new() };
        let command = Command {
            id: TodoId::from_u128(1),
            user_id: "u".into(),
            requested_at: Timestamp::default(),
            action: Action::Delete,
        };
        PartitionWork {
            partition,
            next: offsets.last().map_or(0, |last| last + 5),
            leader_epoch: None,
            commands: offsets.iter().map(|offset| (record(*offset), command.clone())).collect(),
            dead: VecDeque::new(),
        }
    }

    #[test]
    fn unknown_members_are_counted_and_named_once() {
        let (mut parser, metrics) = (CommandParser::default(), WorkerMetrics::default());
        let payload = |member: &str| {
            format!(r#"{{"action":"delete","id":"0190163d-8694-739b-aea5-966c26f8ad91","user_id":"u","{member}":1}}"#)
        };
        let long = "n".repeat(1_000);
        let members = ["priority", "priority", &long];
        let records = members.iter().zip(0..).map(|(member, offset)| Record {
            offset,
            logged_at: Timestamp::default(),
            key: Vec::new(),
            payload: payload(member).into_bytes(),
        });
        let batch = RecordBatch { partition: 0, records: records.collect(), next: 3, leader_epoch: None };
        let work = parser.parse(batch, None, &metrics);
        assert_eq!((work.commands.len(), work.dead.len()), (3, 0), "what is known of them is applied");
        assert_eq!(metrics.unknown_members.load(std::sync::atomic::Ordering::Relaxed), 3);
        assert_eq!(parser.named.iter().map(String::len).collect::<Vec<_>>(), [UNKNOWN_MEMBER_NAME_MAX_CHARS, 8]);
        for number in 0..100 {
            name_unknown(&mut parser.named, &format!("m{number}"), 0, 0);
        }
        assert_eq!(parser.named.len(), UNKNOWN_MEMBERS_NAMED_MAX);
    }

    /// Partition, offsets, next, offsets of dead letters.
    type Shape = (PartitionId, Vec<Offset>, Offset, Vec<Offset>);

    fn shapes(divided: Result<Vec<Work>, Vec<PartitionWork>>) -> Vec<Shape> {
        let parts = divided.expect("divisible").into_iter().flat_map(|work| match work {
            Work::Apply(parts) => parts,
            Work::Publish(set) => panic!("{set:?}"),
        });
        parts
            .map(|part| {
                let offsets = part.commands.iter().map(|(record, _)| record.offset).collect();
                let dead = part.dead.iter().map(|(record, _)| record.offset).collect();
                (part.partition, offsets, part.next, dead)
            })
            .collect()
    }

    #[test]
    fn refused_work_is_divided_without_a_gap_between_its_halves() {
        let by_partition = divide(vec![work(3, &[1, 2]), work(5, &[7])], "no");
        assert_eq!(shapes(by_partition), [(3, vec![1, 2], 7, vec![]), (5, vec![7], 12, vec![])]);
        // A crash after the first half starts at the first record of the second, though offsets skip.
        let halves = divide(vec![work(3, &[10, 14, 18])], "no");
        assert_eq!(shapes(halves), [(3, vec![10], 14, vec![]), (3, vec![14, 18], 23, vec![])]);
        assert_eq!(shapes(divide(vec![work(3, &[10])], "no")), [(3, vec![], 15, vec![10])]);
        assert!(divide(vec![work(3, &[])], "no").is_err());
    }
}
