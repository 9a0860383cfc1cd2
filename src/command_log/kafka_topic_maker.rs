//! Makes the topic for a process that reads it.

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;

use crate::command_log::LogError;
use crate::command_log::kafka::{KafkaOptions, ensure_commands_by};
use crate::command_log::kafka_trouble::{BrokerTrouble, hear};

/// An administrator who stays until it is done: of a broker that says nothing it tells only after some time.
#[derive(Default)]
pub(super) struct TopicMaker {
    admin: Option<AdminClient<DefaultClientContext>>,
    /// What it has told about its connections.
    trouble: BrokerTrouble,
}

impl TopicMaker {
    /// Makes the topic of commands where it is missing; returns the number of its partitions.
    ///
    /// # Errors
    /// As [`ensure_commands_by`], with what is known of the brokers.
    pub(super) fn ensure(&mut self, options: &KafkaOptions) -> Result<usize, LogError> {
        let admin = self.admin.take().map_or_else(|| options.administrator(), Ok)?;
        let ensured = ensure_commands_by(&admin, options);
        hear(admin.inner(), &self.trouble);
        self.admin = Some(admin);
        ensured.map_err(|error| self.trouble.explain(error))
    }
}
