//! Why Kafka's brokers cannot be reached. A failed call of librdkafka says no more than "broker transport failure"; that
//! the password is wrong, or the certificate not to be trusted, it tells separately, to whoever listens.

use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::bindings as librdkafka;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::command_log::LogError;

/// The last thing that a client has told about its connections.
#[derive(Default)]
pub(super) struct BrokerTrouble(Mutex<Option<String>>);

/// Logs what librdkafka reports besides the errors of calls: it goes on trying by itself, so it is a warning.
pub(super) fn log_client_error(error: &KafkaError, reason: &str) {
    if says_why(error) {
        tracing::warn!(target: "librdkafka", %error, reason);
    } else {
        // Said once a second while it lasts.
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

fn says_why(error: &KafkaError) -> bool {
    error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown)
}

impl BrokerTrouble {
    /// Takes what librdkafka reports besides the errors of calls.
    pub fn note(&self, error: &KafkaError, reason: &str) {
        if says_why(error) {
            *self.last() = Some(reason.to_owned());
        }
    }

    /// Adds what is known to the error of a call.
    pub fn explain(&self, error: LogError) -> LogError {
        match (error, self.last().as_deref()) {
            (LogError::Unavailable(text), Some(reason)) => LogError::Unavailable(format!("{text}: {reason}")),
            (error, _) => error,
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds to the error of a call what a client has told meanwhile, where nobody else listens to it: an administrator's.
pub(super) fn explained<C: ClientContext>(client: &Client<C>, error: LogError) -> LogError {
    heard(client).explain(error)
}

/// Takes what a client has told meanwhile, where nobody else listens to it; what nobody takes stays in memory.
pub(super) fn heard<C: ClientContext>(client: &Client<C>) -> BrokerTrouble {
    let trouble = BrokerTrouble::default();
    // SAFETY: the client lives as long as `client` is borrowed. The queue is destroyed once, below; each event that it
    // gives belongs to this function and is destroyed behind its last use, and so is the text that belongs to it.
    unsafe {
        let queue = librdkafka::rd_kafka_queue_get_main(client.native_ptr());
        loop {
            let event = librdkafka::rd_kafka_queue_poll(queue, 0);
            if event.is_null() {
                break;
            }
            if librdkafka::rd_kafka_event_type(event) == librdkafka::RD_KAFKA_EVENT_ERROR {
                let told = KafkaError::Global(librdkafka::rd_kafka_event_error(event).into());
                let reason = CStr::from_ptr(librdkafka::rd_kafka_event_error_string(event)).to_string_lossy();
                trouble.note(&told, reason.trim());
            }
            librdkafka::rd_kafka_event_destroy(event);
        }
        librdkafka::rd_kafka_queue_destroy(queue);
    }
    trouble
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_told_beside_the_error() {
        let trouble = BrokerTrouble::default();
        let explained = || trouble.explain(LogError::Unavailable("no metadata".into())).to_string();
        trouble.note(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert!(explained().ends_with("no metadata"));
        trouble.note(&KafkaError::Global(RDKafkaErrorCode::Authentication), "who are you");
        trouble.note(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert!(explained().ends_with("no metadata: who are you"), "{}", explained());
        assert!(matches!(trouble.explain(LogError::Fatal("f".into())), LogError::Fatal(text) if text == "f"));
    }
}
