//! How many bytes of long answers leave in one turn of the ring.
//!
//! The kernel copies what it is given in a turn before it looks at anything else, so without a bound a short answer would
//! wait for a piece of every long one. Large pieces, on the other hand, are what makes a long list cheap: each wakes its
//! reader. So pieces are large, and as many of them as the bound allows leave in a turn; the rest wait in order of arrival.
//!
//! With epoll a write happens at once, between two tasks: there a piece is smaller, and its task goes to the end of the
//! queue before it.

use std::rc::Rc;

use reactor::{Driver, Reactor};

use super::turns::Turns;
use crate::limits::{LONG_WRITES_TURN_MAX_BYTES, WRITE_BYTES_MAX, WRITE_BYTES_MAX_EPOLL};

/// The long writes of a shard.
pub struct LongWrites {
    driver: Driver,
    turns: Rc<Turns>,
}

impl LongWrites {
    /// No writes.
    pub fn new(driver: Driver, reactor: &Rc<Reactor>) -> LongWrites {
        let turns = Rc::new(Turns::new(LONG_WRITES_TURN_MAX_BYTES));
        if driver == Driver::IoUring {
            reactor.spawn(Rc::clone(&turns).turn_for_ever(Rc::clone(reactor)));
        }
        LongWrites { driver, turns }
    }

    /// Bytes of one write after which no further piece is added.
    #[inline]
    pub fn write_bytes_max(&self) -> usize {
        match self.driver {
            Driver::IoUring => WRITE_BYTES_MAX,
            Driver::Epoll => WRITE_BYTES_MAX_EPOLL,
        }
    }

    /// Waits until a write of so many bytes may be given to the kernel.
    pub async fn admit(&self, bytes: usize, reactor: &Reactor) {
        match self.driver {
            Driver::IoUring => self.turns.take(bytes, reactor).await,
            Driver::Epoll => reactor.next_turn().await,
        }
    }
}
