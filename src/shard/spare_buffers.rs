//! Buffers between two connections that use them.

use std::time::Duration;

use super::Shard;
use super::connection::Buffers;

/// Sets of buffers that a shard keeps at most; a set has about 8 KiB.
const SPARE_BUFFERS_MAX: usize = 1024;
/// A set that nobody has wanted for so long is freed: after a crowd, the memory goes back.
pub const SPARE_LIFETIME: Duration = Duration::from_secs(1);

/// The buffers that no connection of the shard uses.
// Boxed, because they move between this and connections: a pointer is cheaper to move than what it points to.
#[allow(clippy::vec_box)]
#[derive(Default)]
pub struct SpareBuffers {
    spare: Vec<Box<Buffers>>,
    /// The fewest that were here at any moment since the last [`SpareBuffers::trim`]: so many were not needed.
    unused: usize,
}

impl SpareBuffers {
    /// Empty buffers.
    pub fn take(&mut self) -> Box<Buffers> {
        let buffers = self.spare.pop().unwrap_or_default();
        self.unused = self.unused.min(self.spare.len());
        buffers
    }

    /// Keeps buffers for the next one, where there is room.
    pub fn give_back(&mut self, mut buffers: Box<Buffers>) {
        buffers.input.clear();
        buffers.output.clear();
        if self.spare.len() < SPARE_BUFFERS_MAX && !buffers.input.is_oversized() && !buffers.output.is_oversized() {
            self.spare.push(buffers);
        }
    }

    /// Frees what has not been used since the last call; to be called each [`SPARE_LIFETIME`]. Returns how many sets.
    pub fn trim(&mut self) -> usize {
        let freed = self.unused;
        self.spare.truncate(self.spare.len() - freed);
        self.unused = self.spare.len();
        freed
    }
}

impl Shard {
    pub(super) fn buffers(&self) -> Box<Buffers> {
        self.spare_buffers.borrow_mut().take()
    }

    pub(super) fn give_back(&self, buffers: Box<Buffers>) {
        self.spare_buffers.borrow_mut().give_back(buffers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut spare = SpareBuffers::default();
        let crowd: Vec<_> = (0..SPARE_BUFFERS_MAX + 10).map(|_| spare.take()).collect();
        crowd.into_iter().for_each(|buffers| spare.give_back(buffers));
        assert_eq!(spare.spare.len(), SPARE_BUFFERS_MAX, "no more than the most are kept");
        spare.trim();
        assert_eq!(spare.spare.len(), SPARE_BUFFERS_MAX, "they have just come");
        let busy = [spare.take(), spare.take(), spare.take()];
        busy.into_iter().for_each(|buffers| spare.give_back(buffers));
        spare.trim();
        assert_eq!(spare.spare.len(), 3, "three were in use at the same time");
        spare.trim();
        assert_eq!(spare.spare.len(), 0);
    }
}
