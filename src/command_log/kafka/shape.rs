//! What the brokers say of a topic: its identity, its partitions, their replicas, its settings.

use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::bindings as librdkafka;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{IsError as _, KafkaError, RDKafkaErrorCode};

use crate::command_log::kafka::creation::{block_on, partition_count};
use crate::command_log::kafka::trouble::log_error;
use crate::command_log::{LogError, LogId};
use crate::limits::KAFKA_REQUEST_TIMEOUT_MS;

/// A topic, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicShape {
    /// Kafka's own name of it, which a topic that is made anew does not have, as librdkafka writes it; empty where the brokers
    /// have none.
    pub id: String,
    /// Its partitions.
    pub partitions: usize,
    /// Copies of the partition that has the fewest.
    pub replicas: usize,
}

impl TopicShape {
    /// The id; `None` where the brokers have none.
    pub fn log_id(&self) -> Option<LogId> {
        let bytes = STANDARD_NO_PAD.decode(&self.id).ok()?;
        LogId::from_bits(u128::from_be_bytes(bytes.try_into().ok()?))
    }
}

/// Settings of a topic, those included that it has from its brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicSettings {
    pub cleanup_policy: String,
    /// Negative: for ever.
    pub retention_ms: i64,
    /// Of each partition; negative: without a bound.
    pub retention_bytes: i64,
    pub message_max_bytes: u32,
    pub min_insync_replicas: u32,
    pub unclean_leader_election: bool,
}

/// The topic; `None` when there is none of this name.
///
/// # Errors
/// [`LogError`].
pub(super) fn shape<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<Option<TopicShape>, LogError> {
    // The request has a deadline of its own; a second more is for a client that is busy.
    let wait_ms = KAFKA_REQUEST_TIMEOUT_MS as i32 + 1_000;
    let timed_out = Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
    let described = Question::ask(client, topic).and_then(|question| question.answer(wait_ms).unwrap_or(timed_out));
    match described {
        Ok(shape) => Ok(Some(shape)),
        Err(error) => match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
            // Brokers of long ago.
            Some(RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion) => {
                let partitions = partition_count(client, topic)?;
                Ok(partitions.map(|partitions| TopicShape { id: String::new(), partitions, replicas: 0 }))
            }
            _ => Err(log_error(error)),
        },
    }
}

/// A question about a topic that is on its way: `DescribeTopics`, which the crate does not have.
pub(super) struct Question {
    /// Where the answer arrives.
    queue: Owned<librdkafka::rd_kafka_queue_t>,
}

// SAFETY: librdkafka's queues may be used from every thread, and this value is the only one that has it.
unsafe impl Send for Question {}

impl Question {
    /// Asks, and waits for nothing. The question has to be dropped before its client.
    ///
    /// # Errors
    /// The client does not take it.
    pub fn ask<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<Question, KafkaError> {
        let name = CString::new(topic)?;
        // SAFETY: the client lives as long as `client` is borrowed. Queue, options and collection are made here and owned by
        // their guards; the call copies what it needs of the last two.
        unsafe {
            let native = client.native_ptr();
            let queue = Owned::new(librdkafka::rd_kafka_queue_new(native), librdkafka::rd_kafka_queue_destroy)?;
            let operation = librdkafka::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
            let options = librdkafka::rd_kafka_AdminOptions_new(native, operation);
            let options = Owned::new(options, librdkafka::rd_kafka_AdminOptions_destroy)?;
            let mut problem = [0; 256];
            librdkafka::rd_kafka_AdminOptions_set_request_timeout(
                options.get(),
                KAFKA_REQUEST_TIMEOUT_MS as i32,
                problem.as_mut_ptr(),
                problem.len(),
            );
            let mut names = [name.as_ptr()];
            let collection = librdkafka::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            let collection = Owned::new(collection, librdkafka::rd_kafka_TopicCollection_destroy)?;
            librdkafka::rd_kafka_DescribeTopics(native, collection.get(), options.get(), queue.get());
            Ok(Question { queue })
        }
    }

    /// The answer, if it comes within this time; each question has one.
    pub fn answer(&self, wait_ms: i32) -> Option<Result<TopicShape, KafkaError>> {
        // SAFETY: the queue is alive, and the event that it gives is owned by its guard.
        let event = unsafe { librdkafka::rd_kafka_queue_poll(self.queue.get(), wait_ms) };
        Owned::new(event, librdkafka::rd_kafka_event_destroy).ok().map(|event| shape_in(&event))
    }
}

fn shape_in(event: &Owned<librdkafka::rd_kafka_event_t>) -> Result<TopicShape, KafkaError> {
    // SAFETY: the event is alive. What is read from it belongs to it, and is copied before this returns.
    unsafe {
        let error = librdkafka::rd_kafka_event_error(event.get());
        if error.is_error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        let result = librdkafka::rd_kafka_event_DescribeTopics_result(event.get());
        let mut count = 0;
        let topics = match result.is_null() {
            true => std::ptr::null_mut(),
            false => librdkafka::rd_kafka_DescribeTopics_result_topics(result, &mut count),
        };
        if topics.is_null() || count == 0 {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
        }
        let topic = *topics;
        let error = librdkafka::rd_kafka_error_code(librdkafka::rd_kafka_TopicDescription_error(topic));
        if error.is_error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        let id = librdkafka::rd_kafka_Uuid_base64str(librdkafka::rd_kafka_TopicDescription_topic_id(topic));
        let id = if id.is_null() { String::new() } else { CStr::from_ptr(id).to_string_lossy().into_owned() };
        let mut count = 0;
        let partitions = librdkafka::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let replicas_of = |index: usize| {
            let mut replicas = 0;
            librdkafka::rd_kafka_TopicPartitionInfo_replicas(*partitions.add(index), &mut replicas);
            replicas
        };
        let replicas = (0..count).map(replicas_of).min().unwrap_or(0);
        Ok(TopicShape { id, partitions: count, replicas })
    }
}

/// The settings of the topic; `None` when this user may not read them, the brokers are too old to say, or it is not there.
///
/// # Errors
/// [`LogError`].
pub(super) fn settings<C: ClientContext>(
    admin: &AdminClient<C>,
    topic: &str,
) -> Result<Option<TopicSettings>, LogError> {
    let timeout = Duration::from_millis(KAFKA_REQUEST_TIMEOUT_MS);
    let admin_options = AdminOptions::new().request_timeout(Some(timeout));
    let resource = [ResourceSpecifier::Topic(topic)];
    let described = block_on(admin.describe_configs(&resource, &admin_options))?;
    let described = match described.map(|mut all| all.pop()) {
        Ok(Some(Ok(described))) => described,
        Ok(None) => return Ok(None),
        Ok(Some(Err(code))) => return unreadable(KafkaError::AdminOp(code)),
        Err(error) => return unreadable(error),
    };
    let text = |name: &str| described.get(name)?.value.as_deref();
    let number = |name: &str, otherwise: i64| text(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    Ok(Some(TopicSettings {
        cleanup_policy: text("cleanup.policy").unwrap_or("delete").to_owned(),
        retention_ms: number("retention.ms", -1),
        retention_bytes: number("retention.bytes", -1),
        message_max_bytes: u32::try_from(number("max.message.bytes", 0)).unwrap_or(0),
        min_insync_replicas: u32::try_from(number("min.insync.replicas", 0)).unwrap_or(0),
        unclean_leader_election: text("unclean.leader.election.enable") == Some("true"),
    }))
}

fn unreadable(error: KafkaError) -> Result<Option<TopicSettings>, LogError> {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::UnsupportedFeature
            | RDKafkaErrorCode::UnsupportedVersion
            // A topic that belongs to the topic of commands and is made later.
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic,
        ) => Ok(None),
        _ => Err(log_error(error)),
    }
}

/// Something of librdkafka's that has to be destroyed.
pub(super) struct Owned<T> {
    native: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// Takes it over.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn new(native: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Owned<T>, KafkaError> {
        let none = KafkaError::AdminOpCreation("Kafka's client has no memory left".into());
        NonNull::new(native).map(|native| Owned { native, destroy }).ok_or(none)
    }

    pub(super) fn get(&self) -> *mut T {
        self.native.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made by librdkafka, owned by this value alone, destroyed once by the function that belongs to it.
        unsafe { (self.destroy)(self.native.as_ptr()) }
    }
}
