//! The topic of a producer, and how a batch of commands gets into it.
//!
//! `BaseProducer::send` of the crate looks the topic up by its name, and reads two clocks, for each message. Here the topic is
//! looked up once, and librdkafka takes a whole batch in one call.

use std::ffi::CString;
use std::ptr;
use std::sync::Arc;

use rdkafka::ClientContext;
use rdkafka::bindings as librdkafka;
use rdkafka::error::{IsError as _, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::types::{RDKafkaMessage, RDKafkaTopic};

use crate::command_log::kafka::waiting::{Period, Tag};
use crate::command_log::new_ids::partition_of_key;
use crate::command_log::{Submission, Ticket};
use crate::todo::TODO_ID_TEXT_BYTES;

/// No partition for the call as a whole (`RD_KAFKA_PARTITION_UA` of librdkafka's header): each message names its own.
const BY_MESSAGE: i32 = -1;

/// A topic that messages are sent to.
pub(super) struct Topic<C: ProducerContext> {
    native: *mut RDKafkaTopic,
    /// The handle must not outlive its client.
    _producer: Arc<BaseProducer<C>>,
}

// SAFETY: librdkafka's handles may be used from every thread; the client is `Send` of its own accord.
unsafe impl<C: ProducerContext> Send for Topic<C> {}

impl<C: ProducerContext + ClientContext> Topic<C> {
    /// The topic of this name, with the client's own settings; it need not be there yet.
    pub(super) fn open(producer: &Arc<BaseProducer<C>>, name: &str) -> Option<Topic<C>> {
        let name = CString::new(name).ok()?;
        // SAFETY: the client is alive, the name is a C string that is copied, and without a third argument the client's
        // settings count.
        let native =
            unsafe { librdkafka::rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), ptr::null_mut()) };
        (!native.is_null()).then(|| Topic { native, _producer: Arc::clone(producer) })
    }

    /// Hands the batch over in its order, in this period, each command to the partition of its todo among `spread`. `refuse`
    /// is called for each command that the client does not take; each of the others gets a delivery report, whose opaque
    /// number is a [`Tag`].
    pub(super) fn send<'s>(
        &self,
        period: Period,
        spread: u32,
        batch: impl Iterator<Item = &'s Submission> + Clone,
        mut refuse: impl FnMut(Ticket, RDKafkaErrorCode),
    ) {
        let mut keys = vec![[0; TODO_ID_TEXT_BYTES]; batch.clone().count()];
        let message = |(Submission { ticket, id, payload }, key): (&Submission, &mut [u8; TODO_ID_TEXT_BYTES])| {
            id.write_text(key);
            RDKafkaMessage {
                err: librdkafka::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
                rkt: ptr::null_mut(),
                partition: partition_of_key(key, spread) as i32,
                payload: payload.as_ptr().cast_mut().cast(),
                len: payload.len(),
                key: key.as_mut_ptr().cast(),
                key_len: key.len(),
                offset: 0,
                _private: Tag::new(period, *ticket).to_opaque() as *mut _,
            }
        };
        let mut messages: Vec<RDKafkaMessage> = batch.clone().zip(&mut keys).map(message).collect();
        let count = i32::try_from(messages.len()).expect("a batch has a bound far below this");
        // SAFETY: the handle is alive, and so are the messages with their keys and payloads, which this call copies
        // (`F_COPY`); it writes nothing but each message's `err`.
        let taken = unsafe {
            librdkafka::rd_kafka_produce_batch(
                self.native,
                BY_MESSAGE,
                librdkafka::RD_KAFKA_MSG_F_COPY | librdkafka::RD_KAFKA_MSG_F_PARTITION,
                messages.as_mut_ptr(),
                count,
            )
        };
        if taken != count {
            let results = batch.zip(&messages);
            results.filter(|(_, message)| message.err.is_error()).for_each(|(submission, message)| {
                refuse(submission.ticket, message.err.into());
            });
        }
    }
}

impl<C: ProducerContext> Drop for Topic<C> {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_topic_new`, destroyed once, while its client is alive.
        unsafe { librdkafka::rd_kafka_topic_destroy(self.native) }
    }
}
