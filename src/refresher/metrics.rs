//! What the refresher counts. It writes, the scrape reads.

use crate::observe::counter::{Counter, Histogram};

/// What the refresher counts.
#[derive(Debug)]
pub struct RefresherMetrics {
    /// From receiving changes until the shards were handed the snapshot with them.
    pub refresh_time: Histogram,
    /// Changed todos in each such snapshot.
    pub refresh_todos: Histogram,
    /// Time for reading the whole list.
    pub load_time: Histogram,
    /// Times that changes were missed.
    pub losses: Counter,
}

impl Default for RefresherMetrics {
    fn default() -> RefresherMetrics {
        RefresherMetrics {
            refresh_time: Histogram::of_times(),
            refresh_todos: Histogram::of_sizes(),
            load_time: Histogram::of_times(),
            losses: Counter::default(),
        }
    }
}
