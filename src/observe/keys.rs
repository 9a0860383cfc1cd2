//! What is known of the keys that tokens are checked with: `/ready` and the metrics show it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::exposition::Text;

/// Figures of the keys; all zero in a process that checks no tokens.
#[derive(Debug, Default)]
pub struct KeyFigures {
    /// Keys that tokens are checked with.
    pub count: AtomicU64,
    /// Whether a part of them comes from an address.
    pub has_address: AtomicBool,
    /// When that part was last known to be current, in milliseconds of [`Status::now_ms`](super::status::Status::now_ms), plus one; 0
    /// is never.
    confirmed_at_ms: AtomicU64,
    /// Fetches that brought a key set.
    pub fetched: AtomicU64,
    /// Fetches that did not.
    pub failed: AtomicU64,
}

impl KeyFigures {
    /// The keys of the address are known to be current.
    pub fn confirm(&self, now_ms: u64) {
        self.confirmed_at_ms.store(now_ms + 1, Ordering::Relaxed);
        self.fetched.fetch_add(1, Ordering::Relaxed);
    }

    /// How old what came from the address is, in milliseconds; `None` when nothing has come.
    pub fn age_ms(&self, now_ms: u64) -> Option<u64> {
        Some(now_ms.saturating_sub(self.confirmed_at_ms.load(Ordering::Relaxed).checked_sub(1)?))
    }

    /// Whether keys of an address are still awaited.
    pub fn are_awaited(&self) -> bool {
        self.has_address.load(Ordering::Relaxed) && self.confirmed_at_ms.load(Ordering::Relaxed) == 0
    }

    /// What `/ready` shows of an address; `None` without one.
    pub(super) fn document(&self, now_ms: u64) -> Option<serde_json::Value> {
        let document =
            || serde_json::json!({ "count": self.count.load(Ordering::Relaxed), "age_ms": self.age_ms(now_ms) });
        self.has_address.load(Ordering::Relaxed).then(document)
    }

    pub(super) fn render(&self, now_ms: u64, text: &mut Text) {
        let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed) as f64;
        text.single("million_rps_keys", "gauge", "Keys that tokens are checked with.", get(&self.count));
        let age = self.age_ms(now_ms).map_or(f64::NAN, |age_ms| age_ms as f64 / 1e3);
        text.single("million_rps_keys_age_seconds", "gauge", "Since the keys of JWT_JWKS were last fetched.", age);
        text.family("million_rps_key_fetches_total", "counter", "Fetches of the keys of JWT_JWKS.");
        text.sample("million_rps_key_fetches_total", "outcome=\"fetched\"", get(&self.fetched));
        text.sample("million_rps_key_fetches_total", "outcome=\"failed\"", get(&self.failed));
    }
}
