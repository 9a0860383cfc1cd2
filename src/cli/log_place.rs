//! Where the store goes on in Kafka's topic: taken over from the consumer group of a program that applied the topic before,
//! or handed back to one.

use std::collections::BTreeMap;

use super::MigrateArguments;
use crate::command_log::kafka::{self, KafkaOptions, Members};
use crate::command_log::{LogId, Offset, PartitionId};
use crate::process::ProcessError;
use crate::store::postgres::PostgresStore;
use crate::store::{AppliedOffsets, Store};

/// First offset of each partition, and the next one.
type Bounds = BTreeMap<PartitionId, (Offset, Offset)>;

/// Does what the arguments ask for; nothing, when they ask for nothing.
///
/// # Errors
/// [`ProcessError`].
pub fn set(
    store: &mut PostgresStore,
    options: &KafkaOptions,
    arguments: &MigrateArguments,
) -> Result<(), ProcessError> {
    if let Some(group) = &arguments.to_group {
        return hand_over(store, options, group);
    }
    if *arguments == MigrateArguments::default() {
        return Ok(());
    }
    // Asked first: were the topic made anew meanwhile, the workers would find another one than this.
    let log = kafka::log_id(options)?;
    let offsets = match &arguments.from_group {
        Some(group) => of_group(&applied_of(store, log)?, options, group)?,
        // Offsets also where it begins with the first: by them the feed notices that the store stands elsewhere.
        None => kafka::log_bounds(options)?
            .into_iter()
            .map(|(partition, (earliest, latest))| (partition, if arguments.from_end { latest } else { earliest }))
            .collect(),
    };
    let is_same_log = log.is_some() && store.followed_log()? == log;
    store.set_log_place(log, &offsets)?;
    println!("{}", told(&options.topic, &offsets, is_same_log));
    Ok(())
}

/// What the operator is told of the new place. Workers look for another log all the time, and at the offsets of one that they
/// follow only when they apply something.
fn told(topic: &str, offsets: &AppliedOffsets, is_same_log: bool) -> String {
    if offsets.is_empty() {
        return format!("the topic {topic} is applied from its beginning, when it is there");
    }
    let hint = match is_same_log {
        true => {
            ". The store followed this topic before: a worker that runs goes there in each partition with its next command. \
                 Start the workers again to have it done now"
        }
        false => "",
    };
    format!("the topic {topic} is applied from here on: {}{hint}", listed(offsets))
}

/// How far the store has applied this log: not at all, when its offsets are of another.
fn applied_of(store: &mut PostgresStore, log: Option<LogId>) -> Result<AppliedOffsets, ProcessError> {
    match (store.followed_log()?, log) {
        (Some(followed), Some(found)) if followed != found => Ok(AppliedOffsets::new()),
        _ => Ok(store.applied_offsets()?),
    }
}

/// Where the store is to go on after this group.
fn of_group(applied: &AppliedOffsets, options: &KafkaOptions, group: &str) -> Result<AppliedOffsets, ProcessError> {
    let bounds = kafka::log_bounds(options)?;
    let committed = kafka::group_offsets(options, group)?;
    if committed.is_empty() {
        let others = kafka::groups_of_topic(options)?;
        let others = match others.as_slice() {
            [] => "no group has".to_owned(),
            some => format!("these have: {}", some.join(", ")),
        };
        return Err(refused(format!(
            "the consumer group {group} has no place in the topic {}; {others}. --from-end and --from-beginning need none",
            options.topic
        )));
    }
    if kafka::group_members(options, group)? == Members::Others {
        return Err(refused(format!(
            "a program is at work for the consumer group {group}, so its place moves on while it is taken over: stop that \
             program and run this again"
        )));
    }
    Ok(joined(applied, &committed, &bounds))
}

/// The farther of both places: what one of them has applied is never applied again. A place of the store that the
/// topic does not have belongs to a topic that was there before, and does not count.
fn joined(applied: &AppliedOffsets, committed: &AppliedOffsets, bounds: &Bounds) -> AppliedOffsets {
    let exists =
        |partition: &PartitionId, next: Offset| bounds.get(partition).is_some_and(|(_, latest)| next <= *latest);
    let mut offsets = committed.clone();
    for (partition, next) in applied.iter().filter(|(partition, next)| exists(partition, **next)) {
        let place = offsets.entry(*partition).or_insert(*next);
        *place = (*place).max(*next);
    }
    offsets
}

/// Has a group go on where the store stands.
fn hand_over(store: &mut PostgresStore, options: &KafkaOptions, group: &str) -> Result<(), ProcessError> {
    if kafka::group_members(options, &options.group)? != Members::None {
        return Err(refused(format!(
            "workers are at work (consumer group {}), so the store moves on: stop them and run this again",
            options.group
        )));
    }
    let offsets = applied_of(store, kafka::log_id(options)?)?;
    if offsets.is_empty() {
        return Err(refused(format!("nothing of the topic {} has been applied", options.topic)));
    }
    kafka::set_group_offsets(options, group, &offsets)?;
    println!("the consumer group {group} goes on from here in the topic {}: {}", options.topic, listed(&offsets));
    Ok(())
}

fn listed(offsets: &AppliedOffsets) -> String {
    let places: Vec<String> = offsets.iter().map(|(partition, next)| format!("{partition}:{next}")).collect();
    places.join(" ")
}

fn refused(reason: String) -> ProcessError {
    ProcessError::Unsupported(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moves_the_place_in_the_same_log_is_told_to_start_the_workers_again() {
        let offsets = AppliedOffsets::from([(0, 5), (1, 9)]);
        assert_eq!(told("t", &offsets, false), "the topic t is applied from here on: 0:5 1:9");
        assert!(told("t", &offsets, true).ends_with("Start the workers again to have it done now"));
    }

    #[test]
    fn of_two_places_the_farther_counts_unless_the_topic_does_not_have_it() {
        let applied = AppliedOffsets::from([(0, 5), (1, 9), (2, 70), (4, 3)]);
        let committed = AppliedOffsets::from([(0, 7), (1, 4), (2, 6), (3, 1)]);
        let bounds = Bounds::from([(0, (0, 10)), (1, (0, 10)), (2, (0, 10)), (3, (0, 10)), (4, (0, 10))]);
        let expected = AppliedOffsets::from([(0, 7), (1, 9), (2, 6), (3, 1), (4, 3)]);
        assert_eq!(joined(&applied, &committed, &bounds), expected);
    }
}
