//! What Kafka knows of the workers, for processes that have none: whether the group has members, what they have not applied,
//! and how much they have put aside. By the places that the workers commit to Kafka, within [`crate::limits::KAFKA_COMMIT_INTERVAL_MS`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset as KafkaOffset;

use crate::command_log::kafka::creation::partition_count;
use crate::command_log::kafka::extents::{all_extents, partition_list};
use crate::command_log::kafka::lost_brokers::LostBrokers;
use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::trouble::log_error;
use crate::command_log::{LogError, Offset, PartitionId};
use crate::counted::Counted;
use crate::limits::{KAFKA_REQUEST_TIMEOUT_MS, WORKER_BACKLOG_AGE_MS};

const TIMEOUT: Duration = Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);

/// Asks for the workers of a group.
pub struct WorkerWatch {
    client: BaseConsumer,
    options: KafkaOptions,
    lateness: Lateness,
    brokers: LostBrokers,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkersSeen {
    /// Members of the group: lanes of workers, and those of other programs.
    pub members: usize,
    /// Commands that are written and, as far as Kafka knows, not applied.
    pub waiting: u64,
    /// How long some of them have been seen to wait at least.
    pub late: Option<Duration>,
}

impl WorkerWatch {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when librdkafka does not take the options.
    pub fn new(options: &KafkaOptions) -> Result<WorkerWatch, LogError> {
        let mut config = options.client_config();
        // Only asked for its members and places: nothing joins.
        config.set("group.id", &options.group).set("enable.auto.commit", "false");
        let client = config.create().map_err(log_error)?;
        let (options, brokers) = (options.clone(), LostBrokers::new(options));
        Ok(WorkerWatch { client, options, lateness: Lateness::default(), brokers })
    }

    /// Asks the brokers; `None` while there is no topic.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub fn look(&mut self) -> Result<Option<WorkersSeen>, LogError> {
        let asked = self.ask();
        match asked {
            Ok(_) => self.brokers.note_answer(),
            Err(_) => self.brokers.note_silence(),
        }
        self.brokers.look(self.client.client());
        asked
    }

    fn ask(&mut self) -> Result<Option<WorkersSeen>, LogError> {
        let KafkaOptions { topic, group, .. } = &self.options;
        let Some(count @ 1..) = partition_count(self.client.client(), topic)? else { return Ok(None) };
        let partitions: Vec<PartitionId> = (0..).take(count).collect();
        let groups = self.client.client().fetch_group_list(Some(group), TIMEOUT).map_err(log_error)?;
        let members = groups.groups().iter().filter(|found| found.name() == group);
        let members = members.map(|found| found.members().len()).sum();
        let asked = partition_list(topic, partitions.iter().map(|partition| (*partition, KafkaOffset::Invalid)))?;
        let places = self.client.committed_offsets(asked, TIMEOUT).map_err(log_error)?;
        let extents = all_extents(&self.client, topic, &partitions, TIMEOUT)?;
        let place = |partition: PartitionId| match places.find_partition(topic, partition)?.offset() {
            KafkaOffset::Offset(next) => Some(next),
            _ => None,
        };
        // Commands that the topic has deleted wait no longer.
        let applied = |partition, earliest: Offset| place(partition).unwrap_or(earliest).max(earliest);
        let ends: BTreeMap<_, _> =
            extents.into_iter().map(|(id, extent)| (id, (applied(id, extent.earliest), extent.latest))).collect();
        let waiting = ends.values().map(|(applied, end)| u64::try_from(end - applied).unwrap_or(0)).sum();
        Ok(Some(WorkersSeen { members, waiting, late: self.lateness.look(Instant::now(), &ends) }))
    }

    /// All dead letters that were ever written, those that have been sent again included; 0 without a topic of them.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub fn dead_letters_ever(&self) -> Result<u64, LogError> {
        let topic = self.options.dead_letter_topic();
        let count = partition_count(self.client.client(), &topic)?.unwrap_or(0);
        let partitions: Vec<PartitionId> = (0..).take(count).collect();
        let extents = all_extents(&self.client, &topic, &partitions, TIMEOUT)?;
        Ok(extents.values().map(|extent| u64::try_from(extent.latest).unwrap_or_default()).sum())
    }
}

impl WorkersSeen {
    /// What is wrong with it, and what to do.
    pub fn trouble(&self, group: &str) -> Option<String> {
        let waiting = self.waiting;
        if self.members == 0 {
            return Some(format!(
                "no worker is there: Kafka's group {group} has no members. Writes are kept and do not show, {waiting} so far. \
                 Start `million-rps worker` with the same settings"
            ));
        }
        let late = self.late.filter(|late| *late >= Duration::from_millis(WORKER_BACKLOG_AGE_MS))?;
        let age_s = late.as_secs();
        Some(format!(
            "the workers are behind by {}: the oldest has waited for more than {age_s} s. The workers' logs say why; more of them, \
             or more WORKER_LANES, share the work",
            Counted(waiting, "writes")
        ))
    }
}

/// How long commands wait: a look remembers where the partitions end, and the next ones see when that is applied.
#[derive(Debug, Default)]
struct Lateness {
    mark: Option<(Instant, BTreeMap<PartitionId, Offset>)>,
}

impl Lateness {
    /// `ends` has how far each partition is applied, and where it ends.
    fn look(&mut self, now: Instant, ends: &BTreeMap<PartitionId, (Offset, Offset)>) -> Option<Duration> {
        if let Some((marked_at, mark)) = &self.mark {
            let waits = |(id, end): (&PartitionId, &Offset)| ends.get(id).is_some_and(|(applied, _)| applied < end);
            // In a topic that was made anew, these are the ends of the one before: nothing that is there waits for them.
            let is_anew = |(id, end): (&PartitionId, &Offset)| ends.get(id).is_some_and(|(_, latest)| latest < end);
            if mark.iter().any(waits) && !mark.iter().any(is_anew) {
                return Some(now.saturating_duration_since(*marked_at));
            }
        }
        self.mark = Some((now, ends.iter().map(|(id, (_, end))| (*id, *end)).collect()));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_late_when_it_was_there_before_and_not_for_what_comes_after_it() {
        let (mut lateness, start) = (Lateness::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(lateness.look(at(0), &[(0, (5, 9)), (1, (3, 3))].into()), None, "seen for the first time");
        assert_eq!(lateness.look(at(7), &[(0, (8, 20)), (1, (3, 3))].into()), Some(Duration::from_secs(7)));
        // Applied; what has come since is looked at from now on.
        assert_eq!(lateness.look(at(9), &[(0, (9, 30)), (1, (3, 4))].into()), None);
        assert_eq!(lateness.look(at(12), &[(0, (30, 40)), (1, (3, 4))].into()), Some(Duration::from_secs(3)));
        assert_eq!(lateness.look(at(13), &[(0, (31, 40)), (1, (4, 4))].into()), None);
    }

    #[test]
    fn the_ends_of_a_topic_that_was_made_anew_are_those_of_another() {
        let (mut lateness, start) = (Lateness::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(lateness.look(at(0), &[(0, (90, 90)), (1, (70, 75))].into()), None);
        assert_eq!(lateness.look(at(5), &[(0, (3, 3)), (1, (70, 75))].into()), None, "shorter than it was");
        assert_eq!(lateness.look(at(9), &[(0, (3, 4)), (1, (74, 80))].into()), Some(Duration::from_secs(4)));
        assert_eq!(lateness.look(at(11), &[(0, (4, 4)), (1, (75, 80))].into()), None);
    }

    #[test]
    fn a_trouble_says_what_is_missing_and_what_to_do() {
        let seen = |members, late_s| WorkersSeen { members, waiting: 7, late: Some(Duration::from_secs(late_s)) };
        let nobody = seen(0, 0).trouble("g").expect("nobody is there");
        assert!(nobody.contains("group g has no members") && nobody.contains("7 so far"), "{nobody}");
        let late = seen(2, 12).trouble("g").expect("they are behind");
        assert!(late.contains("behind by 7 writes: the oldest has waited for more than 12 s"), "{late}");
        assert_eq!(seen(2, 9).trouble("g"), None);
    }
}
