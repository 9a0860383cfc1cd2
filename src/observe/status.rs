//! What the process knows about itself: is there a snapshot, how old is it, which dependency is in trouble. `/ready` and
//! the metrics read it; the refresher, the producer's log and the worker write it, never per request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::keys::KeyFigures;
use super::readiness::{Audience, Reasons};
use super::topic::TopicFigures;
pub use super::troubles::Component;
use super::troubles::Troubles;

/// The shared status of a process.
pub struct Status {
    started_at: Instant,
    /// Milliseconds after `started_at` at which the snapshot was last known to be current, plus one; 0 is never.
    confirmed_at_ms: AtomicU64,
    snapshot_version: AtomicU64,
    snapshot_todos: AtomicU64,
    snapshot_bytes: AtomicU64,
    draining: AtomicBool,
    /// The command log is somewhere else, and has not answered yet.
    awaits_log: AtomicBool,
    troubles: Arc<Troubles>,
    topic: Arc<TopicFigures>,
    keys: KeyFigures,
}

impl Default for Status {
    fn default() -> Self {
        Status {
            started_at: Instant::now(),
            confirmed_at_ms: AtomicU64::new(0),
            snapshot_version: AtomicU64::new(0),
            snapshot_todos: AtomicU64::new(0),
            snapshot_bytes: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            awaits_log: AtomicBool::new(false),
            troubles: Arc::default(),
            topic: Arc::default(),
            keys: KeyFigures::default(),
        }
    }
}

impl Status {
    /// A snapshot of this version, this many todos and bytes has been handed to the shards.
    pub fn snapshot_swapped(&self, version: u64, todos: usize, bytes: u64) {
        self.snapshot_version.store(version, Ordering::Relaxed);
        self.snapshot_todos.store(todos as u64, Ordering::Relaxed);
        self.snapshot_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Milliseconds since this was made.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// The snapshot is known to be current as of now.
    pub fn snapshot_confirmed(&self) {
        self.snapshot_was_current(Duration::ZERO);
    }

    /// The snapshot is known to hold all that the store held so long ago.
    pub fn snapshot_was_current(&self, ago: Duration) {
        let ago_ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        self.confirmed_at_ms.fetch_max(self.now_ms().saturating_sub(ago_ms) + 1, Ordering::Relaxed);
    }

    /// How long ago the snapshot was last known to be current; `None` before the first one.
    pub fn snapshot_age(&self) -> Option<Duration> {
        let confirmed_at_ms = self.confirmed_at_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.started_at.elapsed().saturating_sub(Duration::from_millis(confirmed_at_ms)))
    }

    /// Version, todos and serialized bytes of the newest snapshot.
    pub fn snapshot_figures(&self) -> (u64, u64, u64) {
        (
            self.snapshot_version.load(Ordering::Relaxed),
            self.snapshot_todos.load(Ordering::Relaxed),
            self.snapshot_bytes.load(Ordering::Relaxed),
        )
    }

    /// The process has been told to stop.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process has been told to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The command log has to be reached first: nobody knows yet whether a write can be kept.
    pub fn await_log(&self) {
        self.awaits_log.store(true, Ordering::Relaxed);
    }

    /// The command log has answered.
    pub fn log_reached(&self) {
        self.awaits_log.store(false, Ordering::Relaxed);
    }

    /// Notes that a component is in trouble, as [`Troubles::note`].
    pub fn trouble(&self, component: Component, reason: &str) {
        self.troubles.note(component, reason);
    }

    /// Notes that a component is well, as [`Troubles::clear`].
    pub fn well(&self, component: Component) {
        self.troubles.clear(component);
    }

    /// The components in trouble, with the reason of each.
    pub fn troubles(&self) -> Vec<(Component, String)> {
        self.troubles.all()
    }

    /// The troubles themselves, for a part of this process that notes its own.
    pub fn shared_troubles(&self) -> Arc<Troubles> {
        Arc::clone(&self.troubles)
    }

    /// What is known of Kafka's topic, for whoever watches it and the metrics.
    pub fn shared_topic(&self) -> Arc<TopicFigures> {
        Arc::clone(&self.topic)
    }

    /// What is known of the keys of tokens, for whoever keeps them and the metrics.
    pub fn keys(&self) -> &KeyFigures {
        &self.keys
    }

    /// Whether reads can be answered and the command log has been reached since the start, and the JSON that `/ready` shows this
    /// audience. `on_every_shard` says whether the
    /// snapshot has arrived there; `worker_trouble` is the trouble of the worker of this process.
    pub fn readiness(&self, audience: Audience, on_every_shard: bool, worker_trouble: Option<&str>) -> (bool, String) {
        let age = self.snapshot_age();
        let mut reasons = Reasons::new(audience);
        reasons.add_troubles(&self.troubles);
        if let Some(trouble) = worker_trouble {
            reasons.add_worker(trouble);
        }
        let loaded = age.is_some() && on_every_shard;
        let awaits_log = self.awaits_log.load(Ordering::Relaxed);
        let awaits_keys = self.keys.are_awaited();
        let ready = loaded && !awaits_log && !awaits_keys && !self.is_draining();
        let status = match (ready, reasons.is_empty()) {
            (true, true) => "ready",
            (true, false) => "degraded",
            (false, _) => "not ready",
        };
        if self.is_draining() {
            reasons.add_public("draining: the process is stopping");
        } else if !loaded {
            reasons.add_public("snapshot: the list has not been loaded yet");
        }
        if awaits_log {
            reasons.add_public("start: the command log has not been reached yet");
        }
        if awaits_keys {
            reasons.add_public("start: the keys of JWT_JWKS have not been fetched yet");
        }
        let (version, todos, bytes) = self.snapshot_figures();
        let mut document = serde_json::json!({
            "status": status,
            "snapshot": {
                "age_ms": age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
                "version": version,
                "todos": todos,
                "bytes": bytes,
            },
        });
        if let Some(keys) = self.keys.document(self.now_ms()) {
            document["keys"] = keys;
        }
        reasons.write_into(&mut document);
        (ready, document.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_tells_the_truth() {
        let status = Status::default();
        let (ready, text) = status.readiness(Audience::Operator, true, None);
        assert!(!ready && text.contains("has not been loaded"), "{text}");
        status.snapshot_confirmed();
        assert!(status.readiness(Audience::Operator, true, None).0);
        let (ready, text) = status.readiness(Audience::Operator, false, None);
        assert!(!ready && text.contains("has not been loaded"), "one shard could still not answer: {text}");
        status.await_log();
        let (ready, text) = status.readiness(Audience::Operator, true, None);
        assert!(!ready && text.contains("not ready") && text.contains("log has not been reached"), "{text}");
        status.log_reached();
        status.trouble(Component::CommandLog, "disk full");
        let (ready, text) = status.readiness(Audience::Operator, true, None);
        assert!(ready && text.contains("degraded") && text.contains("command_log: disk full"), "{text}");
        status.well(Component::CommandLog);
        let (ready, text) = status.readiness(Audience::Operator, true, Some("locked"));
        assert!(ready && text.contains("worker: locked"), "{text}");
        status.trouble(Component::Store, "10.1.2.3 refuses");
        let (ready, text) = status.readiness(Audience::Anyone, true, Some("locked"));
        assert!(ready && text.contains("degraded") && text.contains("worker: ") && text.contains("store: "), "{text}");
        assert!(!text.contains("locked") && !text.contains("10.1.2.3"), "{text}");
        status.start_draining();
        let (ready, text) = status.readiness(Audience::Operator, true, None);
        assert!(!ready && text.contains("draining"), "{text}");
    }
}
