//! Where the store goes on in Kafka's topic: taken over from the consumer group of a program that applied the topic before,
//! or handed back to one.

use super::MigrateArguments;
use super::log_move::{Bounds, LogMove};
use crate::command_log::kafka::{self, KafkaOptions, Members};
use crate::command_log::{LogId, Offset, PartitionId};
use crate::counted::Counted;
use crate::process::ProcessError;
use crate::store::postgres::PostgresStore;
use crate::store::{AppliedOffsets, Store};

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
    let bounds = kafka::log_bounds(options)?;
    let applied = applied_of(store, log)?;
    let offsets = match &arguments.from_group {
        Some(group) => of_group(&applied, options, group, &bounds)?,
        // Offsets also where it begins with the first: by them the feed notices that the store stands elsewhere.
        None => bounds
            .iter()
            .map(|(partition, (earliest, latest))| (*partition, if arguments.from_end { *latest } else { *earliest }))
            .collect(),
    };
    store.set_log_place(log, &offsets)?;
    println!("{}", told(&options.topic, &offsets, &LogMove::new(&bounds, &applied, &offsets)));
    Ok(())
}

/// What the operator is told of the new place.
fn told(topic: &str, offsets: &AppliedOffsets, moved: &LogMove) -> String {
    if offsets.is_empty() {
        return format!("the topic {topic} is applied from its beginning, when it is there");
    }
    format!(
        "the topic {topic} is applied from here on: {}. {moved}. Workers that run go there within seconds",
        listed(offsets)
    )
}

/// How far the store has applied this log: not at all, when its offsets are of another.
fn applied_of(store: &mut PostgresStore, log: Option<LogId>) -> Result<AppliedOffsets, ProcessError> {
    match log.map(|found| store.known_logs().map(|known| known.admit(found))).transpose()? {
        Some(Err(_)) => Ok(AppliedOffsets::new()),
        _ => Ok(store.applied_offsets()?),
    }
}

/// Where the store is to go on after this group.
fn of_group(
    applied: &AppliedOffsets,
    options: &KafkaOptions,
    group: &str,
    bounds: &Bounds,
) -> Result<AppliedOffsets, ProcessError> {
    let committed = kafka::group_offsets(options, group)?;
    if committed.is_empty() {
        let others = kafka::groups_of_topic(options)?;
        let untold = match others.untold {
            0 => String::new(),
            untold => {
                format!(" ({} did not tell in time, or may not be asked by this user)", Counted(untold, "groups"))
            }
        };
        let others = match others.names.as_slice() {
            [] => format!("no group has{untold}"),
            some => format!("these have: {}{untold}", some.join(", ")),
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
    Ok(joined(applied, &committed, bounds))
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
    fn of_two_places_the_farther_counts_unless_the_topic_does_not_have_it() {
        let applied = AppliedOffsets::from([(0, 5), (1, 9), (2, 70), (4, 3)]);
        let committed = AppliedOffsets::from([(0, 7), (1, 4), (2, 6), (3, 1)]);
        let bounds = Bounds::from([(0, (0, 10)), (1, (0, 10)), (2, (0, 10)), (3, (0, 10)), (4, (0, 10))]);
        let expected = AppliedOffsets::from([(0, 7), (1, 9), (2, 6), (3, 1), (4, 3)]);
        assert_eq!(joined(&applied, &committed, &bounds), expected);
    }
}
