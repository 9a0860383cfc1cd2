//! Which consumer groups have committed offsets of a topic: asked of all groups at once by one client
//! (`ListConsumerGroupOffsets`, which the crate does not have), because a cluster may have hundreds.

use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use rdkafka::bindings as librdkafka;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{IsError as _, KafkaError};

use crate::command_log::kafka::shape::Owned;

/// How long all answers together are waited for: they only help somebody who has mistyped a name.
const PATIENCE: Duration = Duration::from_secs(5);

/// Groups of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicGroups {
    /// Those that have committed something of it, by name.
    pub names: Vec<String>,
    /// How many groups did not tell in time, or may not be asked by this user.
    pub untold: usize,
}

/// Asks for all of these groups.
///
/// # Errors
/// The client does not take the question.
pub(super) fn groups_with_offsets<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    groups: &[String],
) -> Result<TopicGroups, KafkaError> {
    let native = client.native_ptr();
    let patience_ms = PATIENCE.as_millis() as i32;
    // SAFETY: the client lives as long as `client` is borrowed, and the queue, which its guard owns, ends before that.
    let queue = unsafe { Owned::new(librdkafka::rd_kafka_queue_new(native), librdkafka::rd_kafka_queue_destroy)? };
    for group in groups {
        let name = CString::new(group.as_str())?;
        // SAFETY: as above; options and question are owned by their guards, and the call copies what it needs of them.
        unsafe {
            let operation = librdkafka::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
            let options = librdkafka::rd_kafka_AdminOptions_new(native, operation);
            let options = Owned::new(options, librdkafka::rd_kafka_AdminOptions_destroy)?;
            let mut problem = [0; 256];
            librdkafka::rd_kafka_AdminOptions_set_request_timeout(
                options.get(),
                patience_ms,
                problem.as_mut_ptr(),
                problem.len(),
            );
            let question = librdkafka::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), std::ptr::null());
            let question = Owned::new(question, librdkafka::rd_kafka_ListConsumerGroupOffsets_destroy)?;
            librdkafka::rd_kafka_ListConsumerGroupOffsets(native, &mut question.get(), 1, options.get(), queue.get());
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let mut found = TopicGroups { names: Vec::new(), untold: groups.len() };
    for _ in groups {
        let left_ms = deadline.saturating_duration_since(Instant::now()).as_millis() as i32;
        // SAFETY: the queue is alive, and the event that it gives is owned by its guard.
        let event = unsafe { librdkafka::rd_kafka_queue_poll(queue.get(), left_ms) };
        let Ok(event) = Owned::new(event, librdkafka::rd_kafka_event_destroy) else { break };
        let Some((name, has_offsets)) = answer_in(&event, topic) else { continue };
        found.untold -= 1;
        found.names.extend(Some(name).filter(|_| has_offsets));
    }
    found.names.sort_unstable();
    Ok(found)
}

/// The group that an answer is about, and whether it has offsets of the topic; `None` when it does not tell.
fn answer_in(event: &Owned<librdkafka::rd_kafka_event_t>, topic: &str) -> Option<(String, bool)> {
    // SAFETY: the event is alive. What is read from it belongs to it, and is copied before this returns. A list of partitions
    // has as many elements as it says.
    unsafe {
        if librdkafka::rd_kafka_event_error(event.get()).is_error() {
            return None;
        }
        let result = librdkafka::rd_kafka_event_ListConsumerGroupOffsets_result(event.get());
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let groups = librdkafka::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count);
        if groups.is_null() || count == 0 {
            return None;
        }
        let group = *groups;
        if !librdkafka::rd_kafka_group_result_error(group).is_null() {
            return None;
        }
        let name = CStr::from_ptr(librdkafka::rd_kafka_group_result_name(group)).to_string_lossy().into_owned();
        let list = librdkafka::rd_kafka_group_result_partitions(group);
        if list.is_null() {
            return Some((name, false));
        }
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        let has_offsets = (0..count)
            .map(|index| &*(*list).elems.add(index))
            .any(|element| element.offset >= 0 && CStr::from_ptr(element.topic).to_bytes() == topic.as_bytes());
        Some((name, has_offsets))
    }
}
