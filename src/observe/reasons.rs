//! Counters by reason.

use super::expiry::Expiry;
use super::exposition::Text;
use super::metrics::Metrics;
use crate::change_feed::ResetReason;

impl Metrics {
    pub(super) fn render_event_resets(&self, text: &mut Text) {
        const NAME: &str = "million_rps_event_resets_total";
        text.family(NAME, "counter", "Followers that were told to read the list again, and why.");
        for (shard, metrics) in self.shards.iter().enumerate() {
            for reason in ResetReason::ALL {
                let labels = format!("shard=\"{shard}\",reason=\"{}\"", reason.name());
                text.sample(NAME, &labels, metrics.event_resets[reason as usize].get() as f64);
            }
        }
    }

    pub(super) fn render_expiries(&self, text: &mut Text) {
        const NAME: &str = "million_rps_deadlines_expired_total";
        text.family(NAME, "counter", "Connections that ran into a deadline, by what lasted too long.");
        for (shard, metrics) in self.shards.iter().enumerate() {
            for reason in Expiry::ALL {
                let labels = format!("shard=\"{shard}\",reason=\"{}\"", reason.name());
                text.sample(NAME, &labels, metrics.deadlines_expired[reason as usize].get() as f64);
            }
        }
    }
}
