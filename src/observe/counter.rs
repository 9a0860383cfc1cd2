//! Counters and histograms with one writer: an increment is a plain load and store, whoever reads adds up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`. Only the owning thread calls this: two writers would lose counts.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Takes `amount` off, for what goes up and down. Only the owning thread calls this.
    #[inline]
    pub fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(amount), Ordering::Relaxed);
    }

    /// Makes it `value`, for what is measured and not counted. Only the owning thread calls this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value; any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of times, in microseconds: from a swap of a short list to a load of a long one.
pub const TIME_BOUNDS_US: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];
/// Upper bounds of batch sizes.
pub const SIZE_BOUNDS: [u64; 9] = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 5_000];

/// Buckets with the one above all bounds.
const BUCKETS_MAX: usize = TIME_BOUNDS_US.len() + 1;

/// A histogram with one writer. Its buckets stand inside it, so that those of different threads share no cache line that
/// the threads' own counters do not.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    buckets: [Counter; BUCKETS_MAX],
    sum: Counter,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Histogram {
        assert!(bounds.len() < BUCKETS_MAX);
        Histogram { bounds, buckets: Default::default(), sum: Counter::default() }
    }

    /// Of times, in microseconds.
    pub fn of_times() -> Histogram {
        Histogram::new(&TIME_BOUNDS_US)
    }

    /// Of batch sizes.
    pub fn of_sizes() -> Histogram {
        Histogram::new(&SIZE_BOUNDS)
    }

    /// Counts one observation. Only the owning thread calls this.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].add(1);
        self.sum.add(value);
    }

    /// Counts one time. Only the owning thread calls this.
    pub fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The upper bound of each bucket but the last.
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }

    /// How many observations fell into each bucket, the last one being above all bounds.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        self.buckets[..=self.bounds.len()].iter().map(Counter::get)
    }

    /// The sum of all observations.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }
}

impl Default for Histogram {
    /// Of times.
    fn default() -> Histogram {
        Histogram::of_times()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_in_the_bucket_whose_bound_they_do_not_exceed() {
        let histogram = Histogram::of_sizes();
        for size in [0, 1, 2, 10, 11, 5_000, 5_001] {
            histogram.observe(size);
        }
        assert_eq!(histogram.counts().collect::<Vec<_>>(), [2, 1, 1, 1, 0, 0, 0, 0, 1, 1]);
        assert_eq!(histogram.sum(), 10_025);
        assert_eq!(Histogram::of_times().counts().count(), TIME_BOUNDS_US.len() + 1);
    }
}
