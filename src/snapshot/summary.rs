//! Sums over neighbouring items.

use std::ops::{Add, Sub};

/// What a run of items amounts to. Sums over any range are differences of two prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Summary {
    /// Number of items.
    pub len: usize,
    /// Bytes of their JSON, each with its comma.
    pub bytes: u64,
    /// Wrapping sum of their hashes.
    pub hash: u64,
}

impl Summary {
    /// Of nothing.
    pub const ZERO: Summary = Summary { len: 0, bytes: 0, hash: 0 };
}

impl Add for Summary {
    type Output = Summary;

    fn add(self, other: Summary) -> Summary {
        Summary { len: self.len + other.len, bytes: self.bytes + other.bytes, hash: self.hash.wrapping_add(other.hash) }
    }
}

impl Sub for Summary {
    type Output = Summary;

    fn sub(self, other: Summary) -> Summary {
        Summary { len: self.len - other.len, bytes: self.bytes - other.bytes, hash: self.hash.wrapping_sub(other.hash) }
    }
}

impl std::iter::Sum for Summary {
    fn sum<I: Iterator<Item = Summary>>(summaries: I) -> Summary {
        summaries.fold(Summary::default(), Summary::add)
    }
}
