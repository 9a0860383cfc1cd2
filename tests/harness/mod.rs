//! What the suites need to treat the program as a stranger would: start the real binary, speak to it over a socket, read
//! what it says.

pub mod client;
pub mod disk;
#[allow(dead_code, reason = "for suites that follow the list")]
pub mod events;
#[allow(dead_code, reason = "for suites with faults")]
pub mod healing;
#[allow(dead_code, reason = "for suites with keys of others")]
pub mod issuer;
pub mod metrics;
pub mod process;
pub mod random;
pub mod request;
pub mod server;
pub mod shared;
pub mod token;

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. No test measures time: this only turns a hang into a failure, on
/// a machine of any speed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often something is looked at that has to become true.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Looks again and again until `look` finds something.
///
/// # Panics
/// When it has not after [`PATIENCE`]; `what` says what was waited for.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up_at = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up_at, "waited {} s in vain for {what}", PATIENCE.as_secs());
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Whether the document of `/ready` tells of no trouble, but that the tests' only broker is the only one.
#[allow(dead_code, reason = "only the suites with a broker ask")]
pub fn is_well(document: &serde_json::Value) -> bool {
    const ONE_BROKER: &str = "topic: a 202 stands on one broker: ";
    let reasons = document["reasons"].as_array().expect("a list of reasons");
    let is_expected = |text: &str| text.starts_with(ONE_BROKER) && !text.contains("; ");
    document["status"] != "not ready" && reasons.iter().all(|reason| reason.as_str().is_some_and(is_expected))
}
