//! What the properties of the topic mean for what a 202 promises. Pure.

use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::shape::{TopicSettings, TopicShape};
use crate::command_log::{KnownLogs, LogId};
use crate::counted::Counted;
use crate::limits::{TOPIC_RETENTION_MIN_BYTES, TOPIC_RETENTION_MIN_MS};

/// What is to be said, and whether writes can be kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    /// Each with its remedy; none when all promises hold.
    pub reasons: Vec<String>,
    /// Whether the topic loses what it is given, or it is not known whether it will ever be applied.
    pub loses_commands: bool,
}

/// Judges a topic. `settings` is `None` when they cannot be read.
pub(super) fn judge(options: &KafkaOptions, shape: &TopicShape, settings: Option<&TopicSettings>) -> Judgement {
    let mut judgement = Judgement::default();
    let topic = &options.topic;
    let Some(settings) = settings else {
        judgement.reasons.push(format!(
            "the settings of the topic {topic} cannot be read, so nobody knows whether it keeps what it is given: grant this \
             user DescribeConfigs on the topic (kafka-acls.sh --add --operation DescribeConfigs --topic {topic} ...)"
        ));
        judge_replicas(options, shape, None, &mut judgement.reasons);
        return judgement;
    };
    let alter = |change: &str| alteration(options, topic, change);
    if is_compacted(settings) {
        judgement.loses_commands = true;
        judgement.reasons.push(format!(
            "the topic {topic} is compacted (cleanup.policy={}): of each todo only the last command would be left, so writes \
             are refused. Remedy: {}",
            settings.cleanup_policy,
            alter("cleanup.policy=delete")
        ));
    }
    if (0..TOPIC_RETENTION_MIN_MS).contains(&settings.retention_ms) {
        judgement.reasons.push(format!(
            "the topic {topic} deletes commands after {} s (retention.ms), applied or not: a worker that is away for longer \
             loses them. Remedy: {}",
            settings.retention_ms as f64 / 1e3,
            alter("retention.ms=604800000")
        ));
    }
    if (0..TOPIC_RETENTION_MIN_BYTES).contains(&settings.retention_bytes) {
        judgement.reasons.push(format!(
            "the topic {topic} deletes commands beyond {} of a partition (retention.bytes), applied or not. Remedy: {}",
            Counted(settings.retention_bytes, "bytes"),
            alter("retention.bytes=-1")
        ));
    }
    if (1..options.command_max_bytes).contains(&settings.message_max_bytes) {
        judgement.reasons.push(format!(
            "the topic {topic} takes no command above {} (max.message.bytes): larger todos that are valid are refused \
             with 413. Remedy: {}",
            Counted(settings.message_max_bytes, "bytes"),
            alter("max.message.bytes=1048588")
        ));
    }
    judge_replicas(options, shape, Some((settings, &alter)), &mut judgement.reasons);
    judgement
}

/// Judges the topic of dead letters, which keeps them until somebody has looked at them.
pub(super) fn judge_dead_letters(options: &KafkaOptions, settings: &TopicSettings) -> Option<String> {
    is_compacted(settings).then(|| {
        let topic = options.dead_letter_topic();
        format!(
            "the topic {topic} is compacted (cleanup.policy={}): of each todo only the last dead letter would be left. Remedy: {}",
            settings.cleanup_policy,
            alteration(options, &topic, "cleanup.policy=delete")
        )
    })
}

/// Judges the topic of the note, by which todos stay in their partitions for as long as the topic of commands is there.
pub(super) fn judge_note(options: &KafkaOptions, topic: &str, settings: &TopicSettings) -> Option<String> {
    let deletes = settings.cleanup_policy.split(',').any(|policy| policy.trim() == "delete");
    (deletes && (settings.retention_ms >= 0 || settings.retention_bytes >= 0)).then(|| {
        format!(
            "the topic {topic}, in which the number of partitions is noted, deletes what it has (retention.ms={}, \
             retention.bytes={}): without the note, partitions that are added break the order of a todo's commands. Remedy: {}",
            settings.retention_ms,
            settings.retention_bytes,
            alteration(options, topic, "retention.ms=-1,retention.bytes=-1")
        )
    })
}

fn is_compacted(settings: &TopicSettings) -> bool {
    settings.cleanup_policy.split(',').any(|policy| policy.trim() == "compact")
}

/// The command that changes settings of a topic.
fn alteration(options: &KafkaOptions, topic: &str, change: &str) -> String {
    format!(
        "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {topic} --add-config {change}",
        options.brokers
    )
}

/// Judges whether the topic is the one that the store follows, as far as that is known.
pub(super) fn judge_identity(found: Option<LogId>, known: &KnownLogs, judgement: &mut Judgement) {
    if let Some(Err(another)) = found.map(|found| known.admit(found)) {
        judgement.loses_commands = true;
        judgement.reasons.push(format!("{another}. Until then writes are refused"));
    }
}

/// The settings, and the command that changes one.
type Remedies<'s> = (&'s TopicSettings, &'s dyn Fn(&str) -> String);

fn judge_replicas(
    options: &KafkaOptions,
    shape: &TopicShape,
    remedies: Option<Remedies<'_>>,
    reasons: &mut Vec<String>,
) {
    let topic = &options.topic;
    let add_replicas = "add replicas (kafka-reassign-partitions.sh), or have the topic made by brokers of which there are \
                        three with KAFKA_REPLICATION_FACTOR=3 and KAFKA_MIN_INSYNC_REPLICAS=2";
    let wanted = options.replication_factor.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    match shape.replicas {
        0 => {}
        1 => reasons.push(format!(
            "a 202 stands on one broker: the topic {topic} has one replica, and what its disk loses is lost. Remedy: {add_replicas}"
        )),
        replicas if replicas < wanted => reasons.push(format!(
            "the topic {topic} has {replicas} replicas, and KAFKA_REPLICATION_FACTOR={wanted} is only for topics that are made. \
             Remedy: {add_replicas}"
        )),
        _ => {}
    }
    let Some((settings, alter)) = remedies else { return };
    let in_sync = settings.min_insync_replicas;
    if shape.replicas > 0 && in_sync as usize > shape.replicas {
        reasons.push(format!(
            "no write to the topic {topic} can be acknowledged: min.insync.replicas={in_sync}, and it has {}. Remedy: \
             {}, or more replicas (kafka-reassign-partitions.sh)",
            Counted(shape.replicas, "replicas"),
            alter(&format!("min.insync.replicas={}", shape.replicas))
        ));
    } else if shape.replicas > 1 && in_sync == 1 {
        reasons.push(format!(
            "a 202 stands on one broker while the others are away: min.insync.replicas of the topic {topic} is 1. Remedy: {}",
            alter("min.insync.replicas=2")
        ));
    }
    if settings.unclean_leader_election && shape.replicas > 1 {
        reasons.push(format!(
            "a broker that is behind may come to lead the topic {topic} and drop acknowledged commands \
             (unclean.leader.election.enable=true). Remedy: {}",
            alter("unclean.leader.election.enable=false")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> KafkaOptions {
        KafkaOptions::new("b:9092", "todos")
    }

    fn shape(replicas: usize) -> TopicShape {
        TopicShape { id: "i".into(), partitions: 16, replicas }
    }

    /// What a careful operator has.
    fn safe() -> TopicSettings {
        TopicSettings {
            cleanup_policy: "delete".into(),
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            message_max_bytes: 1_048_588,
            min_insync_replicas: 2,
            unclean_leader_election: false,
        }
    }

    #[track_caller]
    fn assert_named(settings: TopicSettings, replicas: usize, loses: bool, parts: &[&str]) {
        let judged = judge(&options(), &shape(replicas), Some(&settings));
        assert_eq!((judged.reasons.len(), judged.loses_commands), (1, loses), "{judged:?}");
        parts.iter().for_each(|part| assert!(judged.reasons[0].contains(part), "{part} is missing in {judged:?}"));
    }

    #[test]
    fn a_safe_topic_is_not_mentioned() {
        assert_eq!(judge(&options(), &shape(3), Some(&safe())), Judgement::default());
        let for_ever = TopicSettings { retention_ms: -1, ..safe() };
        assert_eq!(judge(&options(), &shape(3), Some(&for_ever)), Judgement::default());
    }

    #[test]
    fn each_property_that_breaks_a_promise_is_named_with_its_remedy() {
        for policy in ["compact", "compact,delete", "delete, compact"] {
            let compacted = TopicSettings { cleanup_policy: policy.into(), ..safe() };
            assert_named(compacted, 3, true, &["compacted", "--entity-name todos --add-config cleanup.policy=delete"]);
        }
        let short = TopicSettings { retention_ms: 60_000, ..safe() };
        assert_named(short, 3, false, &["after 60 s", "--add-config retention.ms="]);
        let small = TopicSettings { retention_bytes: 1_000_000, ..safe() };
        assert_named(small, 3, false, &["1000000 bytes", "--add-config retention.bytes=-1"]);
        let narrow = TopicSettings { message_max_bytes: 20_000, ..safe() };
        assert_named(narrow, 3, false, &["above 20000 bytes", "max.message.bytes"]);
        let alone = TopicSettings { min_insync_replicas: 1, ..safe() };
        assert_named(alone.clone(), 3, false, &["while the others are away", "--add-config min.insync.replicas=2"]);
        assert_named(alone, 1, false, &["a 202 stands on one broker: ", "KAFKA_REPLICATION_FACTOR=3"]);
        let unclean = TopicSettings { unclean_leader_election: true, ..safe() };
        assert_named(unclean, 3, false, &["unclean.leader.election.enable=false"]);
        let too_many = TopicSettings { min_insync_replicas: 3, ..safe() };
        assert_named(too_many, 2, false, &["no write to the topic todos can be acknowledged", "min.insync.replicas=2"]);
    }

    #[test]
    fn a_topic_that_the_store_does_not_follow_takes_no_writes() {
        let ids = [1, 2].map(|bits| LogId::from_bits(bits).expect("not zero"));
        let judged = |found, known: KnownLogs| {
            let mut judgement = Judgement::default();
            judge_identity(found, &known, &mut judgement);
            judgement
        };
        let following = |followed| KnownLogs { followed, ..KnownLogs::default() };
        for (found, followed) in
            [(None, None), (Some(ids[0]), None), (None, Some(ids[0])), (Some(ids[0]), Some(ids[0]))]
        {
            assert_eq!(judged(found, following(followed)), Judgement::default());
        }
        let rejecting = KnownLogs { rejected: vec![ids[0]], ..KnownLogs::default() };
        assert_eq!(judged(Some(ids[1]), rejecting.clone()), Judgement::default());
        for known in [following(Some(ids[1])), rejecting] {
            let another = judged(Some(ids[0]), known);
            assert!(another.loses_commands && another.reasons[0].contains("migrate --from-beginning"), "{another:?}");
        }
    }

    #[test]
    fn settings_that_cannot_be_read_are_no_reason_to_refuse_writes() {
        let judged = judge(&options(), &shape(3), None);
        assert!(!judged.loses_commands && judged.reasons[0].contains("DescribeConfigs"), "{judged:?}");
    }

    #[test]
    fn fewer_replicas_than_the_settings_ask_for_are_named() {
        let asked = KafkaOptions { replication_factor: Some(3), ..options() };
        let judged = judge(&asked, &shape(2), Some(&safe()));
        assert!(judged.reasons[0].contains("has 2 replicas") && judged.reasons.len() == 1, "{judged:?}");
    }
}
