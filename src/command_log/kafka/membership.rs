//! A worker's membership in Kafka's group: how it joins, what the group decides for it, how it leaves.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::bindings as librdkafka;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use crate::command_log::kafka::options::KafkaOptions;
use crate::command_log::kafka::trouble::log_client_error;
use crate::command_log::kafka::trouble::log_error;
use crate::command_log::{LogError, PartitionId};
use crate::limits::{KAFKA_FETCH_AHEAD_MAX_KB, KAFKA_LEAVE_TIMEOUT_MS, KAFKA_SOCKET_TIMEOUT_MS, KAFKA_TOPIC_WATCH_MS};

/// Heartbeats within the time that the group waits for a silent member: with the usual session three a second, which is
/// nothing beside a worker's fetches.
const HEARTBEATS_OF_A_SESSION: u64 = 20;

/// A consumer that can join the group; it does when it subscribes.
///
/// # Errors
/// [`LogError::Fatal`] when librdkafka does not take the options.
pub(super) fn member(options: &KafkaOptions) -> Result<BaseConsumer<Membership>, LogError> {
    let mut config = options.client_config();
    config
        .set("group.id", &options.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", options.session_timeout_ms.to_string())
        // A member learns from its heartbeat that the group is being divided anew.
        // Lanes that join one after the other, and a worker that takes over, wait for it once or twice.
        .set("heartbeat.interval.ms", (options.session_timeout_ms / HEARTBEATS_OF_A_SESSION).max(1).to_string())
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Never skip what the store has not applied.
        .set("auto.offset.reset", "error")
        .set("socket.timeout.ms", KAFKA_SOCKET_TIMEOUT_MS.to_string())
        // New partitions of the topic are noticed, and divided among the group, within it; librdkafka's own is 5 minutes.
        .set("topic.metadata.refresh.interval.ms", KAFKA_TOPIC_WATCH_MS.to_string())
        .set("queued.max.messages.kbytes", KAFKA_FETCH_AHEAD_MAX_KB.to_string());
    if let Some(name) = &options.group_instance {
        config.set("group.instance.id", name);
    }
    config.create_with_context(Membership::default()).map_err(log_error)
}

/// Says goodbye to the group, so that its other members get the partitions at once; a broker that does not answer is not
/// waited for. The client library would wait for it without end, so a thread of its own does that, and ends with the
/// process where nobody answers at all.
///
/// A member that has a name of its own keeps its partitions when it only goes away, until its session has run out: `by_name` has
/// it leave all the same.
pub(super) fn leave(consumer: BaseConsumer<Membership>, by_name: bool) {
    let (left, has_left) = std::sync::mpsc::channel();
    let leaving = std::thread::Builder::new().name("kafka-leave".into()).spawn(move || {
        if by_name {
            leave_by_name(&consumer);
        }
        drop(consumer);
        // Nobody waits any longer when it took too long.
        let _ = left.send(());
    });
    match leaving {
        Ok(_) if has_left.recv_timeout(Duration::from_millis(KAFKA_LEAVE_TIMEOUT_MS)).is_err() => {
            tracing::warn!("the broker did not answer the goodbye; the partitions move when this session has run out");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "no thread to leave Kafka's group in order"),
    }
}

/// Why the group does not let a worker in: another program is in it.
pub(super) fn kept_out(group: &str) -> LogError {
    LogError::Unavailable(format!(
        "another program is at work for the consumer group {group} and divides its partitions in another way, so this worker is \
         not let in and applies nothing. Both would apply the same commands: stop that program's workers, then run \
         `million-rps migrate --from-group {group}` and set KAFKA_GROUP_ID to a name of its own"
    ))
}

/// Leaves the group as long as the client goes on: when it ends, librdkafka has members with a name stay.
fn leave_by_name(consumer: &BaseConsumer<Membership>) {
    consumer.unsubscribe();
    let give_up_at = Instant::now() + Duration::from_millis(KAFKA_LEAVE_TIMEOUT_MS) / 2;
    // It forgets its member's id when it sends the goodbye.
    while is_member(consumer) && Instant::now() < give_up_at {
        // Serves the revocation; what it hands out has not been applied, and is its successor's.
        let _ = consumer.poll(Duration::from_millis(10));
    }
}

fn is_member(consumer: &BaseConsumer<Membership>) -> bool {
    let client = consumer.client().native_ptr();
    // SAFETY: the client is alive; the text is a C string or null, belongs to this function, is read within its length and
    // freed once by the allocator that it comes from.
    unsafe {
        let id = librdkafka::rd_kafka_memberid(client);
        let is_member = !id.is_null() && *id != 0;
        if !id.is_null() {
            librdkafka::rd_kafka_mem_free(client, id.cast());
        }
        is_member
    }
}

/// What the group decided.
pub(super) enum Rebalance {
    Assigned(Vec<PartitionId>),
    Revoked(Vec<PartitionId>),
}

/// Lives inside librdkafka's client, which calls it from within `poll`.
#[derive(Default)]
pub(super) struct Membership {
    rebalances: Mutex<Vec<Rebalance>>,
    /// Partitions that librdkafka fetches from.
    started: Mutex<BTreeSet<PartitionId>>,
}

impl Membership {
    /// What the group has decided since the last time.
    pub fn take_rebalances(&self) -> Vec<Rebalance> {
        std::mem::take(&mut *self.rebalances.lock().expect("no panic while it is held"))
    }

    /// librdkafka fetches from these partitions from now on.
    pub fn remember_started(&self, partitions: &BTreeSet<PartitionId>) {
        self.started.lock().expect("no panic while it is held").extend(partitions);
    }

    /// It does no longer; returns those that it did fetch from.
    pub fn forget_started(&self, partitions: &BTreeSet<PartitionId>) -> Vec<PartitionId> {
        let mut started = self.started.lock().expect("no panic while it is held");
        partitions.iter().copied().filter(|partition| started.remove(partition)).collect()
    }

    /// Answers librdkafka, which waits for it. To an assignment: yes, and fetch nothing yet. To a revocation: stop
    /// fetching those that had been started.
    fn answer(
        &self,
        consumer: &BaseConsumer<Membership>,
        error: RDKafkaRespErr,
        list: &TopicPartitionList,
    ) -> KafkaResult<()> {
        let partitions: Vec<PartitionId> = list.elements().iter().map(|element| element.partition()).collect();
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.rebalances.lock().expect("no panic while it is held").push(Rebalance::Assigned(partitions));
            return consumer.incremental_assign(&TopicPartitionList::new());
        }
        let mut stopped = TopicPartitionList::new();
        self.started.lock().expect("no panic while it is held").retain(|partition| {
            let revoked = partitions.contains(partition);
            if revoked && let Some(element) = list.elements().first() {
                stopped.add_partition(element.topic(), *partition);
            }
            !revoked
        });
        self.rebalances.lock().expect("no panic while it is held").push(Rebalance::Revoked(partitions));
        consumer.incremental_unassign(&stopped)
    }
}

impl ClientContext for Membership {
    fn error(&self, error: KafkaError, reason: &str) {
        log_client_error(&error, reason);
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if let Err(error) = self.answer(consumer, error, list) {
            tracing::warn!(%error, "the group's decision could not be carried out");
        }
    }
}
