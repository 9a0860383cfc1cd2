//! What a producer of single messages is told of the one that it has sent.

use std::sync::Mutex;

use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use crate::command_log::kafka::trouble::log_client_error;

/// Keeps what became of the message.
#[derive(Default)]
pub(super) struct SingleMessage {
    delivered: Mutex<Option<Result<(), KafkaError>>>,
}

impl SingleMessage {
    /// What became of the message, once.
    pub fn take(&self) -> Option<Result<(), KafkaError>> {
        self.delivered.lock().expect("no panic while it is held").take()
    }
}

impl ClientContext for SingleMessage {
    fn error(&self, error: KafkaError, reason: &str) {
        log_client_error(&error, reason);
    }
}

impl ProducerContext for SingleMessage {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        let result = delivery.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        *self.delivered.lock().expect("no panic while it is held") = Some(result);
    }
}
