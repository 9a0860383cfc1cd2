//! What the process knows about itself: is there a snapshot, how old is it, which dependency is in trouble. `/ready` and
//! the metrics read it; the refresher, the producer's log and the worker write it, never per request.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A part that can be in trouble by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The list and its way to this process.
    Feed,
    /// The command log, as seen by writes.
    CommandLog,
}

impl Component {
    /// All of them.
    pub const ALL: [Component; 2] = [Component::Feed, Component::CommandLog];

    /// Its name in `/ready`, in metrics and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Component::Feed => "feed",
            Component::CommandLog => "command_log",
        }
    }
}

/// The shared status of a process.
pub struct Status {
    started_at: Instant,
    /// Milliseconds after `started_at` at which the snapshot was last known to be current, plus one; 0 is never.
    confirmed_at_ms: AtomicU64,
    snapshot_version: AtomicU64,
    snapshot_todos: AtomicU64,
    snapshot_bytes: AtomicU64,
    draining: AtomicBool,
    /// Whether `troubles` has any, so that good news costs no lock.
    in_trouble: AtomicBool,
    troubles: Mutex<BTreeMap<Component, String>>,
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
            in_trouble: AtomicBool::new(false),
            troubles: Mutex::new(BTreeMap::new()),
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
        self.confirmed_at_ms.store(self.now_ms() + 1, Ordering::Relaxed);
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

    /// Notes that a component is in trouble; logged when the trouble is new.
    pub fn trouble(&self, component: Component, reason: &str) {
        let mut troubles = self.troubles.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.in_trouble.store(true, Ordering::Relaxed);
        if troubles.insert(component, reason.to_owned()).is_none() {
            tracing::warn!(component = component.name(), reason, "in trouble");
        }
    }

    /// Notes that a component is well; logged when it was not before.
    pub fn well(&self, component: Component) {
        if !self.in_trouble.load(Ordering::Relaxed) {
            return;
        }
        let mut troubles = self.troubles.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if troubles.remove(&component).is_some() {
            tracing::info!(component = component.name(), "well again");
        }
        self.in_trouble.store(!troubles.is_empty(), Ordering::Relaxed);
    }

    /// The components in trouble, with the reason of each.
    pub fn troubles(&self) -> Vec<(Component, String)> {
        let troubles = self.troubles.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        troubles.iter().map(|(component, reason)| (*component, reason.clone())).collect()
    }

    /// Whether reads can be answered, and the JSON that `/ready` shows. `on_every_shard` says whether the snapshot has
    /// arrived there; `worker_trouble` is the trouble of the worker of this process.
    pub fn readiness(&self, on_every_shard: bool, worker_trouble: Option<String>) -> (bool, String) {
        let age = self.snapshot_age();
        let mut reasons: Vec<String> =
            self.troubles().iter().map(|(component, reason)| format!("{}: {reason}", component.name())).collect();
        reasons.extend(worker_trouble.map(|reason| format!("worker: {reason}")));
        let loaded = age.is_some() && on_every_shard;
        let ready = loaded && !self.is_draining();
        let status = match (ready, reasons.is_empty()) {
            (true, true) => "ready",
            (true, false) => "degraded",
            (false, _) => "not ready",
        };
        if self.is_draining() {
            reasons.push("draining: the process is stopping".into());
        } else if !loaded {
            reasons.push("snapshot: the list has not been loaded yet".into());
        }
        let (version, todos, bytes) = self.snapshot_figures();
        let document = serde_json::json!({
            "status": status,
            "reasons": reasons,
            "snapshot": {
                "age_ms": age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
                "version": version,
                "todos": todos,
                "bytes": bytes,
            },
        });
        (ready, document.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_tells_the_truth() {
        let status = Status::default();
        let (ready, text) = status.readiness(true, None);
        assert!(!ready && text.contains("has not been loaded"), "{text}");
        status.snapshot_confirmed();
        assert!(status.readiness(true, None).0);
        let (ready, text) = status.readiness(false, None);
        assert!(!ready && text.contains("has not been loaded"), "one shard could still not answer: {text}");
        status.trouble(Component::CommandLog, "disk full");
        let (ready, text) = status.readiness(true, None);
        assert!(ready && text.contains("degraded") && text.contains("command_log: disk full"), "{text}");
        status.well(Component::CommandLog);
        let (ready, text) = status.readiness(true, Some("locked".into()));
        assert!(ready && text.contains("worker: locked"), "{text}");
        status.start_draining();
        let (ready, text) = status.readiness(true, None);
        assert!(!ready && text.contains("draining"), "{text}");
    }
}
