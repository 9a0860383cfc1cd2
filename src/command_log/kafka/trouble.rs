//! Why Kafka's brokers cannot be reached. A failed call of librdkafka says no more than "broker transport failure"; that
//! the password is wrong, or the certificate not to be trusted, it tells separately, to whoever listens.

use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings as librdkafka;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::command_log::LogError;
use crate::limits::KAFKA_CONNECT_TIMEOUT_MS;

/// How long a reason explains errors: a client that still has the trouble tells it again within this, also when each of its
/// attempts takes as long as it may.
const REASON_LASTS: Duration = Duration::from_millis(3 * KAFKA_CONNECT_TIMEOUT_MS);

/// The last thing that clients have told about their connections, and when.
#[derive(Default)]
pub(super) struct BrokerTrouble(Mutex<Option<(Instant, String)>>);

/// Logs what librdkafka reports besides the errors of calls: it goes on trying by itself, so it is a warning.
pub(super) fn log_client_error(error: &KafkaError, reason: &str) {
    if says_why(error) {
        tracing::warn!(target: "librdkafka", %error, reason);
    } else {
        // Said once a second while it lasts.
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

/// Logs a line of librdkafka's own log.
pub(super) fn log_client_line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", "{facility} {line}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", "{facility} {line}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", "{facility} {line}"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", "{facility} {line}"),
    }
}

fn says_why(error: &KafkaError) -> bool {
    error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown)
}

impl BrokerTrouble {
    /// Takes what librdkafka reports besides the errors of calls.
    pub fn note(&self, error: &KafkaError, reason: &str) {
        if says_why(error) {
            *self.last() = Some((Instant::now(), reason.to_owned()));
        }
    }

    /// Takes a line of librdkafka's log. That a broker takes connections and says nothing stands only there.
    pub fn note_line(&self, facility: &str, line: &str) {
        if matches!(facility, "FAIL" | "REQTMOUT") {
            // A line begins with the name of its thread, in brackets.
            let reason = line.split_once("]: ").map_or(line, |(_, reason)| reason);
            *self.last() = Some((Instant::now(), reason.to_owned()));
        }
    }

    /// What was told, if it was lately, with what to do about it.
    pub fn reason(&self) -> Option<String> {
        let (told_at, reason) = self.last().clone()?;
        (told_at.elapsed() < REASON_LASTS).then(|| with_remedy(reason))
    }

    /// Adds what is known to the error of a call.
    pub fn explain(&self, error: LogError) -> LogError {
        match (error, self.reason()) {
            (LogError::Unavailable(text), Some(reason)) => LogError::Unavailable(format!("{text}: {reason}")),
            (error, _) => error,
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reason begins with the broker's address; behind it stands its number where the address is not from KAFKA_BROKERS, but what
/// another broker has told. Whoever sees it there for the first time looks for it in the settings in vain.
fn with_remedy(reason: String) -> String {
    let Some((broker, _)) = reason.split_once(": ") else { return reason };
    match broker.rsplit_once('/') {
        Some((address, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => format!(
            "{reason}; {address} is where broker {number} says that it is reached: if it runs, its advertised.listeners has to \
             name an address that this machine reaches"
        ),
        _ => reason,
    }
}

/// Adds to the error of a call what a client has told meanwhile, where nobody else listens to it: an administrator's.
pub(super) fn explained<C: ClientContext>(client: &Client<C>, error: LogError) -> LogError {
    let trouble = BrokerTrouble::default();
    hear(client, &trouble);
    trouble.explain(error)
}

/// Takes what a client has told meanwhile, where nobody else listens to it; what nobody takes stays in memory.
pub(super) fn hear<C: ClientContext>(client: &Client<C>, trouble: &BrokerTrouble) {
    // SAFETY: the client lives as long as `client` is borrowed. The queue is destroyed once, below; each event that it
    // gives belongs to this function and is destroyed behind its last use, and so is the text that belongs to it.
    unsafe {
        let queue = librdkafka::rd_kafka_queue_get_main(client.native_ptr());
        loop {
            let event = librdkafka::rd_kafka_queue_poll(queue, 0);
            if event.is_null() {
                break;
            }
            let (mut facility, mut line, mut level) = (std::ptr::null(), std::ptr::null(), 0);
            match librdkafka::rd_kafka_event_type(event) {
                librdkafka::RD_KAFKA_EVENT_ERROR => {
                    let told = KafkaError::Global(librdkafka::rd_kafka_event_error(event).into());
                    let reason = CStr::from_ptr(librdkafka::rd_kafka_event_error_string(event)).to_string_lossy();
                    trouble.note(&told, reason.trim());
                }
                librdkafka::RD_KAFKA_EVENT_LOG
                    if librdkafka::rd_kafka_event_log(event, &mut facility, &mut line, &mut level) == 0 =>
                {
                    let (facility, line) = (CStr::from_ptr(facility), CStr::from_ptr(line));
                    trouble.note_line(facility.to_string_lossy().trim(), line.to_string_lossy().trim());
                }
                _ => {}
            }
            librdkafka::rd_kafka_event_destroy(event);
        }
        librdkafka::rd_kafka_queue_destroy(queue);
    }
}

/// What an error of librdkafka means to a caller.
pub(super) fn log_error(error: KafkaError) -> LogError {
    use RDKafkaErrorCode as Code;
    match (&error, error.rdkafka_error_code()) {
        // A setting that librdkafka does not take; its text names the setting and the value is the operator's own.
        (KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_), _) => LogError::Fatal(format!("Kafka: {error}")),
        (
            _,
            Some(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::UnsupportedFeature
                | Code::UnsupportedVersion
                | Code::InvalidTopic
                | Code::InvalidPartitions
                | Code::InvalidReplicationFactor
                | Code::PolicyViolation
                | Code::InconsistentGroupProtocol
                | Code::FencedInstanceId
                | Code::Fatal,
            ),
        ) => LogError::Fatal(format!("Kafka: {error}")),
        _ => LogError::Unavailable(error.to_string()),
    }
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

    #[test]
    fn lines_about_a_broker_that_says_nothing_are_reasons() {
        let trouble = BrokerTrouble::default();
        trouble.note_line("GETPID", "[thrd:main]: Failed to acquire idempotence PID");
        assert_eq!(trouble.reason(), None);
        trouble.note_line("REQTMOUT", "[thrd:a:1/bootstrap]: a:1/bootstrap: Timed out 1 in-flight");
        assert_eq!(trouble.reason().as_deref(), Some("a:1/bootstrap: Timed out 1 in-flight"));
    }

    #[test]
    fn an_address_that_is_not_from_the_settings_is_explained() {
        let learned = "kafka.internal:9092/3: Failed to resolve 'kafka.internal:9092': Name or service not known";
        let told = with_remedy(learned.to_owned());
        assert!(told.starts_with(learned) && told.contains("kafka.internal:9092 is where broker 3"), "{told}");
        assert!(told.contains("advertised.listeners"), "{told}");
        for own in ["127.0.0.1:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed", "who are you", "a/b: c", "a/: b"]
        {
            assert_eq!(with_remedy(own.to_owned()), own);
        }
    }
}
