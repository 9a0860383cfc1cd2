//! Where groups stand in the topic of commands, read and written from outside of them: for a move from another program to
//! this one, and back.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::Offset as KafkaOffset;

use crate::command_log::kafka::creation::partition_count;
use crate::command_log::kafka::extents::{all_extents, partition_list};
use crate::command_log::kafka::groups::{TopicGroups, groups_with_offsets};
use crate::command_log::kafka::options::{CLIENT_ID, KafkaOptions};
use crate::command_log::kafka::shape::shape;
use crate::command_log::kafka::trouble::log_error;
use crate::command_log::{LogError, LogHistory, LogId, Offset, PartitionId};
use crate::limits::KAFKA_REQUEST_TIMEOUT_MS;

const TIMEOUT: Duration = Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);

/// First offset that each partition of the topic holds, and the one that its next record gets.
///
/// # Errors
/// [`LogError`]; a topic that is not there has no partitions.
pub fn log_bounds(options: &KafkaOptions) -> Result<BTreeMap<PartitionId, (Offset, Offset)>, LogError> {
    bounds(&client(options, &options.group)?, &options.topic)
}

/// How far a group has committed each partition of the topic; none where it never did.
///
/// # Errors
/// [`LogError`].
pub fn group_offsets(options: &KafkaOptions, group: &str) -> Result<BTreeMap<PartitionId, Offset>, LogError> {
    committed(&client(options, group)?, &options.topic)
}

/// The groups that have committed something of the topic.
///
/// # Errors
/// [`LogError`].
pub fn groups_of_topic(options: &KafkaOptions) -> Result<TopicGroups, LogError> {
    let client = client(options, &options.group)?;
    let list = client.client().fetch_group_list(None, TIMEOUT).map_err(log_error)?;
    let names: Vec<String> = list.groups().iter().map(|group| group.name().to_owned()).collect();
    groups_with_offsets(client.client(), &options.topic, &names).map_err(log_error)
}

/// Whether a group has members, and whether one of them is another program than this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Members {
    /// Nobody reads for the group.
    None,
    /// Workers of this program alone.
    Ours,
    /// Another program, perhaps beside workers of this one.
    Others,
}

/// Who is in a group.
///
/// # Errors
/// [`LogError`].
pub fn group_members(options: &KafkaOptions, group: &str) -> Result<Members, LogError> {
    let list = client(options, group)?.client().fetch_group_list(Some(group), TIMEOUT).map_err(log_error)?;
    let mut members = list.groups().iter().filter(|found| found.name() == group).flat_map(|found| found.members());
    Ok(match members.try_fold(Members::None, |_, member| (member.client_id() == CLIENT_ID).then_some(Members::Ours)) {
        Some(members) => members,
        None => Members::Others,
    })
}

/// Commits these offsets for a group that has no members.
///
/// # Errors
/// [`LogError::Fatal`] when it has some; [`LogError::Unavailable`].
pub fn set_group_offsets(
    options: &KafkaOptions,
    group: &str,
    offsets: &BTreeMap<PartitionId, Offset>,
) -> Result<(), LogError> {
    let offsets = offsets.iter().map(|(partition, next)| (*partition, KafkaOffset::Offset(*next)));
    let list = partition_list(&options.topic, offsets)?;
    client(options, group)?.commit(&list, CommitMode::Sync).map_err(|error| match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration) => LogError::Fatal(format!(
            "the group {group} has members, so nobody else may say where it stands: stop its programs and run this again"
        )),
        _ => log_error(error),
    })
}

/// The id of the topic; `None` where the brokers give none.
///
/// # Errors
/// [`LogError`]; a topic that is not there has none.
pub fn log_id(options: &KafkaOptions) -> Result<Option<LogId>, LogError> {
    let client = client(options, &options.group)?;
    Ok(shape(client.client(), &options.topic)?.and_then(|shape| shape.log_id()))
}

/// Whether each of these partitions of the topic goes as far as this offset.
pub(super) fn reaches(options: &KafkaOptions, offsets: &BTreeMap<PartitionId, Offset>) -> Result<bool, LogError> {
    if offsets.is_empty() {
        return Ok(true);
    }
    let bounds = log_bounds(options)?;
    Ok(offsets.iter().all(|(partition, next)| bounds.get(partition).is_some_and(|(_, latest)| next <= latest)))
}

/// What the topic holds, and whether the workers' group has read any of it.
pub(super) fn history(options: &KafkaOptions) -> Result<LogHistory, LogError> {
    let client = client(options, &options.group)?;
    let records = bounds(&client, &options.topic)?.values().map(|(earliest, latest)| latest - earliest).sum::<Offset>();
    let committed = committed(&client, &options.topic)?;
    Ok(LogHistory {
        log: format!("the topic {}", options.topic),
        records: u64::try_from(records).unwrap_or_default(),
        read_by: (!committed.is_empty()).then(|| options.group.clone()),
    })
}

/// A client that may speak of a group and does not join it.
fn client(options: &KafkaOptions, group: &str) -> Result<BaseConsumer, LogError> {
    options.client_config().set("group.id", group).set("enable.auto.commit", "false").create().map_err(log_error)
}

fn partitions(client: &BaseConsumer, topic: &str) -> Result<impl Iterator<Item = PartitionId> + use<>, LogError> {
    let count = partition_count(client.client(), topic)?.unwrap_or(0);
    Ok((0..).take(count))
}

fn bounds(client: &BaseConsumer, topic: &str) -> Result<BTreeMap<PartitionId, (Offset, Offset)>, LogError> {
    let partitions: Vec<PartitionId> = partitions(client, topic)?.collect();
    let extents = all_extents(client, topic, &partitions, TIMEOUT)?;
    Ok(extents.into_iter().map(|(partition, extent)| (partition, (extent.earliest, extent.latest))).collect())
}

fn committed(client: &BaseConsumer, topic: &str) -> Result<BTreeMap<PartitionId, Offset>, LogError> {
    let asked = partition_list(topic, partitions(client, topic)?.map(|partition| (partition, KafkaOffset::Invalid)))?;
    if asked.count() == 0 {
        return Ok(BTreeMap::new());
    }
    let list = client.committed_offsets(asked, TIMEOUT).map_err(log_error)?;
    let known = list.elements().into_iter().filter_map(|element| match element.offset() {
        KafkaOffset::Offset(next) => Some((element.partition(), next)),
        _ => None,
    });
    Ok(known.collect())
}
