//! The events that librdkafka has for a producer: delivery reports, errors and lines of its log.
//!
//! The crate's own `poll` does not return before its whole timeout is over, however many reports it got: acknowledgements
//! would be late, or the thread would spin. So the events are taken here.

use std::ffi::CStr;
use std::ptr::NonNull;

use rdkafka::ClientContext;
use rdkafka::bindings as librdkafka;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::{RDKafkaEvent, RDKafkaQueue};

use crate::command_log::kafka::returned::Returned;
use crate::command_log::kafka::waiting::{Reported, Tag};
use crate::command_log::{Acknowledgement, LogPosition, Refusal, Submission};
use crate::todo::TodoId;

/// The main queue of a client.
pub(super) struct Events<'c, C: ClientContext> {
    client: &'c Client<C>,
    queue: NonNull<RDKafkaQueue>,
}

/// One event; gone when dropped.
pub(super) struct Event<'c, C> {
    context: &'c C,
    native: NonNull<RDKafkaEvent>,
}

/// What delivery reports have said.
pub(super) struct Reports {
    pub acknowledgements: Vec<Acknowledgement>,
    /// Messages that need not be waited for any longer.
    pub reported: Reported,
    /// Commands that may be sent again.
    pub returned: Returned,
    /// Whether no broker could be reached.
    pub is_cut_off: bool,
    /// Whether each command was a batch by itself.
    singly: bool,
}

impl Reports {
    /// Of a producer that sends each command by itself, or not.
    pub(super) fn new(singly: bool) -> Reports {
        Reports {
            acknowledgements: Vec::new(),
            reported: Reported::default(),
            returned: Returned::default(),
            is_cut_off: false,
            singly,
        }
    }
}

impl<'c, C: ClientContext> Events<'c, C> {
    /// The events of this client; `None` when it has no queue for them.
    pub(super) fn of(client: &'c Client<C>) -> Option<Events<'c, C>> {
        // SAFETY: the client is borrowed for as long as the queue is used.
        let queue = unsafe { librdkafka::rd_kafka_queue_get_main(client.native_ptr()) };
        NonNull::new(queue).map(|queue| Events { client, queue })
    }

    /// The next event; `None` when none comes within `wait_ms`.
    pub(super) fn next(&self, wait_ms: i32) -> Option<Event<'c, C>> {
        // SAFETY: the queue is valid until it is dropped; polling is allowed from any thread.
        let event = unsafe { librdkafka::rd_kafka_queue_poll(self.queue.as_ptr(), wait_ms) };
        NonNull::new(event).map(|native| Event { context: &**self.client.context(), native })
    }
}

impl<C: ClientContext> Drop for Events<'_, C> {
    fn drop(&mut self) {
        // SAFETY: obtained in `of`, destroyed once, not used afterwards.
        unsafe { librdkafka::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl<C: ClientContext> Event<'_, C> {
    /// Takes delivery reports as acknowledgements, and counts them by their periods; everything else goes to the client's
    /// context.
    pub(super) fn serve(&self, reports: &mut Reports) {
        // SAFETY: the event lives as long as `self`; its type says which of the accessors may be used, and each of the
        // functions below is called for its own.
        unsafe {
            match librdkafka::rd_kafka_event_type(self.native.as_ptr()) {
                librdkafka::RD_KAFKA_EVENT_DR => self.take_reports(reports),
                librdkafka::RD_KAFKA_EVENT_ERROR => {
                    let code = librdkafka::rd_kafka_event_error(self.native.as_ptr());
                    reports.is_cut_off |= code == librdkafka::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
                    let error = KafkaError::Global(code.into());
                    let reason = CStr::from_ptr(librdkafka::rd_kafka_event_error_string(self.native.as_ptr()));
                    self.context.error(error, reason.to_string_lossy().trim());
                }
                librdkafka::RD_KAFKA_EVENT_LOG => self.forward_log(),
                _ => {}
            }
        }
    }

    /// Turns the delivery reports into acknowledgements; keeps the commands of a batch that was too large, which was not
    /// written.
    ///
    /// # Safety
    /// The event is of the type `RD_KAFKA_EVENT_DR`.
    unsafe fn take_reports(&self, reports: &mut Reports) {
        loop {
            // SAFETY: of the right type; the messages belong to the event and are only read here.
            let message = unsafe { librdkafka::rd_kafka_event_message_next(self.native.as_ptr()) };
            if message.is_null() {
                return;
            }
            // SAFETY: not null, and owned by the live event.
            let (opaque, error, partition, offset) =
                unsafe { ((*message)._private as usize, (*message).err, (*message).partition, (*message).offset) };
            let tag = Tag::from_opaque(opaque);
            reports.reported.add(tag.period());
            let is_too_large = error == librdkafka::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
            if (is_too_large && !reports.singly) || !reports.returned.is_empty() {
                // SAFETY: as above; librdkafka keeps key and payload with the message, and both are copied here.
                let (key, payload) = unsafe {
                    (bytes((*message).key.cast(), (*message).key_len), bytes((*message).payload.cast(), (*message).len))
                };
                let id = std::str::from_utf8(key).ok().and_then(|text| text.parse::<TodoId>().ok());
                match id {
                    Some(id) if is_too_large && !reports.singly => {
                        reports.returned.add(Submission { ticket: tag.ticket(), id, payload: payload.to_vec() });
                        continue;
                    }
                    Some(id) => reports.returned.overtake(id),
                    None => {}
                }
            }
            // Negative: librdkafka does not know it, as the broker said that it had the message already.
            let position = (partition >= 0 && offset >= 0).then_some(LogPosition { partition, offset });
            reports.acknowledgements.push(match error {
                librdkafka::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    Acknowledgement::durable(tag.ticket(), position)
                }
                error => Acknowledgement::refused(tag.ticket(), reported_refusal(error.into())),
            });
        }
    }

    /// Takes a line of librdkafka's log to ours.
    ///
    /// # Safety
    /// The event is of the type `RD_KAFKA_EVENT_LOG`.
    unsafe fn forward_log(&self) {
        let (mut facility, mut text, mut level) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: of the right type; on success the two strings belong to the event and end with NUL.
        let (facility, text) = unsafe {
            if librdkafka::rd_kafka_event_log(self.native.as_ptr(), &mut facility, &mut text, &mut level) != 0 {
                return;
            }
            (CStr::from_ptr(facility).to_string_lossy(), CStr::from_ptr(text).to_string_lossy())
        };
        let level = match level {
            0..=3 => RDKafkaLogLevel::Error,
            4 => RDKafkaLogLevel::Warning,
            5..=6 => RDKafkaLogLevel::Info,
            _ => RDKafkaLogLevel::Debug,
        };
        self.context.log(level, facility.trim(), text.trim());
    }
}

impl<C> Drop for Event<'_, C> {
    fn drop(&mut self) {
        // SAFETY: owned by this value alone, and not used afterwards.
        unsafe { librdkafka::rd_kafka_event_destroy(self.native.as_ptr()) }
    }
}

/// Bytes of a message.
///
/// # Safety
/// `start` is null, or so many bytes are there for as long as they are used.
unsafe fn bytes<'m>(start: *const u8, length: usize) -> &'m [u8] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(start, length) }
}

/// What an error in a delivery report means for a command. Whether the command was written cannot be told: a leader that has lost
/// its place while it waited for the replicas says the same as one that has written nothing.
fn reported_refusal(code: RDKafkaErrorCode) -> Refusal {
    match refusal(code) {
        Refusal::Unavailable => Refusal::Unconfirmed,
        refusal => refusal,
    }
}

/// What an error of librdkafka means for a command that it does not take.
pub(super) fn refusal(code: RDKafkaErrorCode) -> Refusal {
    match code {
        RDKafkaErrorCode::QueueFull => Refusal::Full,
        RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize => Refusal::TooLarge,
        _ => Refusal::Unavailable,
    }
}
