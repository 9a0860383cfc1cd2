//! A service that does not answer: since when, and what to do. It ends with an answer, and with nothing else, so what is said
//! of it does not come and go while the service is away.

use std::time::Duration;

use super::troubles::{Component, Troubles};
use crate::limits::SERVICE_WATCH_INTERVAL_MS;
use crate::todo::Timestamp;

/// What is known of one service.
#[derive(Debug)]
pub struct Silence {
    /// The service, by name and address.
    service: String,
    /// What whoever runs it has to look at, and what becomes of the work meanwhile.
    remedy: &'static str,
    answered_at: Timestamp,
}

impl Silence {
    /// Of a service that may be answering.
    pub fn new(service: String, remedy: &'static str) -> Silence {
        Silence { service, remedy, answered_at: Timestamp::now() }
    }

    /// Asks every few seconds until it is over, and notes what to say of the service as this trouble. `ask` fails when there is no
    /// answer.
    pub fn watch(
        mut self,
        component: Component,
        troubles: &Troubles,
        is_over: impl Fn() -> bool,
        mut ask: impl FnMut() -> Result<(), String>,
    ) {
        while !is_over() {
            let told = self.take(ask().err().as_deref());
            // What comes after the end is about a service that nobody uses.
            if !is_over() {
                troubles.set(component, told.as_deref());
            }
            std::thread::sleep(Duration::from_millis(SERVICE_WATCH_INTERVAL_MS));
        }
    }

    /// Takes the outcome of a question; `unanswered` says why there was no answer. Returns what to say of the service.
    pub fn take(&mut self, unanswered: Option<&str>) -> Option<String> {
        let Some(reason) = unanswered else {
            self.answered_at = Timestamp::now();
            return None;
        };
        // To the second: the text stays the same while the service is away for the same reason.
        let since = self.answered_at.to_string();
        let since = since.split('.').next().unwrap_or(&since);
        let Silence { service, remedy, .. } = self;
        Some(format!("{service} does not answer since {since}Z ({reason}). {remedy}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_with_its_beginning_until_there_is_an_answer() {
        let mut silence = Silence::new("PostgreSQL".into(), "See whether it runs.");
        assert_eq!(silence.take(None), None);
        let told = silence.take(Some("timed out")).expect("there was no answer");
        assert!(
            told.starts_with("PostgreSQL does not answer since 2")
                && told.ends_with("Z (timed out). See whether it runs.")
        );
        assert_eq!(silence.take(Some("timed out")).as_ref(), Some(&told), "the beginning stays");
        let refused = silence.take(Some("refused")).expect("still none");
        assert_eq!(refused.replace("refused", "timed out"), told);
        assert_eq!(silence.take(None), None);
    }
}
