//! Whether Kafka's brokers answer: a thread asks every few seconds for the topic's metadata, which any broker answers.
//!
//! It shares the client of the topic's watch, whose own questions wait for longer, and are asked of the one broker that stands for
//! the cluster; the answers here name that one anew when another has taken its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;

use crate::command_log::LogError;
use crate::command_log::kafka::host::KafkaHost;
use crate::command_log::kafka::options::KafkaOptions;
use crate::limits::SERVICE_WATCH_PATIENCE_MS;
use crate::observe::silence::Silence;
use crate::observe::troubles::Component;

/// What to do about brokers that do not answer.
const REMEDY: &str = "See whether they run and whether this machine reaches them; writes that they have not acknowledged are \
                      refused, and nothing new is applied";

/// Starts the thread; it ends soon after `ending` is set.
///
/// # Errors
/// [`LogError::Unavailable`]: the system refuses another thread.
pub(super) fn start(
    admin: Arc<AdminClient<DefaultClientContext>>,
    options: &KafkaOptions,
    host: KafkaHost,
    ending: Arc<AtomicBool>,
) -> Result<(), LogError> {
    let guard = host.guard("log-watch");
    let silence = Silence::new(format!("Kafka at {}", options.brokers), REMEDY);
    let topic = options.topic.clone();
    let watching = move || {
        let patience = Duration::from_millis(SERVICE_WATCH_PATIENCE_MS);
        let is_over = || ending.load(Ordering::SeqCst);
        silence.watch(Component::LogLink, host.troubles(), is_over, || {
            let asked = admin.inner().fetch_metadata(Some(&topic), patience);
            // What the client has told of its connections says more.
            asked.map(drop).map_err(|error| host.brokers().reason().unwrap_or_else(|| error.to_string()))
        });
        guard.end_in_order();
    };
    match std::thread::Builder::new().name("log-watch".into()).spawn(watching) {
        Ok(_) => Ok(()),
        Err(error) => Err(LogError::Unavailable(format!("no thread to ask whether Kafka answers: {error}"))),
    }
}
