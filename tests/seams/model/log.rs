//! The command log of the histories: partitions, a group that moves them between its members, dead letters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use million_rps::command_log::{CommandReader, LogError, LogEvent, Offset, PartitionId, Record, RecordBatch};
use million_rps::todo::{Command, Timestamp, TodoId};

use super::stage::{Link, Process, Random, Seat};
use crate::samples::json;

/// A partition. Its offsets have gaps.
#[derive(Default)]
pub struct Partition {
    /// With the command that each is to be taken for; `None`: it can never be applied.
    pub records: Vec<(Record, Option<Command<'static>>)>,
    /// What is before has been deleted.
    start: Offset,
    pub end: Offset,
    /// How far the store has got, as the readers told.
    told: Offset,
}

/// A reader, as the group sees it.
#[derive(Default)]
struct Member {
    /// What it has not heard yet. It is late in hearing that it was thrown out.
    events: VecDeque<(LogEvent, bool)>,
    assigned: BTreeSet<PartitionId>,
    positions: BTreeMap<PartitionId, Offset>,
}

#[derive(Default)]
pub struct Log {
    pub partitions: Vec<Partition>,
    members: BTreeMap<Process, Member>,
    owners: BTreeMap<PartitionId, Process>,
    /// Partitions that their owner has been asked to give up, and for whom.
    moving: BTreeMap<PartitionId, Process>,
    pub dead_letters: BTreeSet<(PartitionId, Offset)>,
}

impl Log {
    pub fn new(partitions: u64) -> Log {
        Log { partitions: (0..partitions).map(|_| Partition::default()).collect(), ..Log::default() }
    }

    /// The partition that has the commands of a todo.
    pub fn partition_of(&self, id: TodoId) -> PartitionId {
        (id.as_u128() % self.partitions.len() as u128) as PartitionId
    }

    /// Appends a command; one that `can_be_applied` never, if so.
    pub fn append(&mut self, random: &mut Random, command: Command<'static>, can_be_applied: bool) {
        let partition = self.partition_of(command.id) as usize;
        let garbage = !can_be_applied && random.percent(50);
        let payload = if garbage { b"no command".to_vec() } else { json(&command) };
        let partition = &mut self.partitions[partition];
        let offset = partition.end + if random.percent(20) { random.below(4) as Offset } else { 0 };
        partition.end = offset + 1;
        let key = command.id.to_string().into_bytes();
        let record = Record { offset, logged_at: Timestamp::from_micros(offset), key, payload };
        partition.records.push((record, can_be_applied.then_some(command)));
    }

    /// Deletes what readers have said is applied.
    pub fn delete_applied(&mut self) {
        for partition in &mut self.partitions {
            partition.start = partition.told;
        }
    }

    pub fn join(&mut self, process: Process) {
        self.members.insert(process, Member::default());
    }

    pub fn leave(&mut self, process: Process) {
        self.members.remove(&process);
    }

    pub fn members(&self) -> Vec<Process> {
        self.members.keys().copied().collect()
    }

    /// Moves a partition. Its owner gives it up first, or is thrown out because it was silent for too long: then it goes
    /// on as if nothing had happened, until it hears of it.
    pub fn move_partition(&mut self, partition: PartitionId, to: Process, throw_out: bool) {
        let owner = self.owners.get(&partition).copied();
        if owner == Some(to) {
            return;
        }
        match owner.and_then(|owner| self.members.get_mut(&owner)) {
            Some(owner) if throw_out => owner.events.push_back((LogEvent::Revoked(vec![partition]), true)),
            Some(owner) => {
                if self.moving.insert(partition, to).is_none() {
                    owner.events.push_back((LogEvent::Revoked(vec![partition]), false));
                }
                return;
            }
            None => {}
        }
        self.moving.remove(&partition);
        self.give(partition, to);
    }

    /// Gives partitions without a living owner to somebody.
    pub fn settle(&mut self, random: &mut Random) {
        let members = self.members();
        for partition in 0..self.partitions.len() as PartitionId {
            if !self.owners.get(&partition).is_some_and(|owner| self.members.contains_key(owner)) {
                self.move_partition(partition, members[random.below(members.len() as u64) as usize], false);
            }
        }
    }

    fn give(&mut self, partition: PartitionId, to: Process) {
        if let Some(member) = self.members.get_mut(&to) {
            self.owners.insert(partition, to);
            member.events.push_back((LogEvent::Assigned(vec![partition]), false));
        } else {
            self.owners.remove(&partition);
        }
    }

    fn poll(&mut self, process: Process, max_records: usize, random: &mut Random) -> LogEvent {
        let Some(member) = self.members.get_mut(&process) else { return LogEvent::Idle };
        let hears = member.events.front().is_some_and(|(_, late)| !late || random.percent(30));
        if hears && let Some((event, _)) = member.events.pop_front() {
            self.heard(process, &event);
            return event;
        }
        let mut batches = Vec::new();
        let mut room = max_records;
        for (&partition, position) in &mut member.positions {
            let most = if random.percent(25) { 1_000 } else { 8 };
            let count = room.min(random.below(most) as usize);
            let unread = self.partitions[partition as usize].records.iter().map(|(record, _)| record);
            let mut unread = unread.filter(|record| record.offset >= *position);
            let records: Vec<Record> = unread.by_ref().take(count).cloned().collect();
            let Some(last) = records.last() else { continue };
            // Where to go on may skip a gap.
            let after = last.offset + 1;
            let next = if random.percent(50) { unread.next().map_or(after, |record| record.offset) } else { after };
            room -= records.len();
            *position = next;
            batches.push(RecordBatch { partition, records, next, leader_epoch: None });
        }
        if batches.is_empty() { LogEvent::Idle } else { LogEvent::Records(batches) }
    }

    fn heard(&mut self, process: Process, event: &LogEvent) {
        let Some(member) = self.members.get_mut(&process) else { return };
        match event {
            LogEvent::Assigned(partitions) => member.assigned.extend(partitions),
            LogEvent::Revoked(partitions) => {
                for partition in partitions {
                    member.assigned.remove(partition);
                    member.positions.remove(partition);
                }
                for partition in partitions {
                    if self.owners.get(partition) == Some(&process)
                        && let Some(to) = self.moving.remove(partition)
                    {
                        self.give(*partition, to);
                    }
                }
            }
            LogEvent::Records(_) | LogEvent::Idle => {}
        }
    }

    fn start(&mut self, process: Process, partition: PartitionId, next: Option<Offset>) -> Result<(), LogError> {
        let Some(member) = self.members.get_mut(&process) else { return Ok(()) };
        if !member.assigned.contains(&partition) {
            return Ok(());
        }
        let Partition { start, end, .. } = self.partitions[partition as usize];
        let next = next.unwrap_or(start);
        if next < start || next > end {
            return Err(LogError::OffsetOutOfRange { partition, requested: next, earliest: start, latest: end });
        }
        member.positions.insert(partition, next);
        Ok(())
    }
}

/// A worker's reading end.
pub struct ModelReader(pub Seat);

fn unavailable() -> LogError {
    LogError::Unavailable("by chance".to_owned())
}

impl CommandReader for ModelReader {
    fn poll(&mut self, max_records: usize, _: usize, _: Duration) -> Result<LogEvent, LogError> {
        let process = self.0.process;
        let polled = self.0.call(Link::Local, |world| world.log.poll(process, max_records, &mut world.random));
        polled.ok_or_else(unavailable)
    }

    fn start(&mut self, partition: PartitionId, next: Option<Offset>) -> Result<(), LogError> {
        let process = self.0.process;
        let started = self.0.call(Link::Wire, |world| world.log.start(process, partition, next));
        started.unwrap_or_else(|| Err(unavailable()))
    }

    fn applied(&mut self, partition: PartitionId, next: Offset) {
        let told = self.0.call(Link::Wire, |world| {
            let stored = world.table.offsets.get(&partition).copied();
            assert!(stored >= Some(next), "the log hears of {next} in {partition}, the store holds {stored:?}");
            let told = &mut world.log.partitions[partition as usize].told;
            *told = next.max(*told);
        });
        // It only shows progress: the next one will do.
        let _: Option<()> = told;
    }

    fn would_delete(&self, _: PartitionId, _: Offset) -> bool {
        false
    }

    fn lag(&mut self) -> Option<u64> {
        None
    }

    fn dead_letter(&mut self, partition: PartitionId, record: &Record, _: &str) -> Result<(), LogError> {
        let kept = self.0.call(Link::Wire, |world| {
            world.log.dead_letters.insert((partition, record.offset));
            world.count("dead letter");
        });
        kept.ok_or_else(unavailable)
    }
}
