//! Faults on purpose, each where somebody could make it: histories have to find them. Only tests are built with them.

use std::cell::Cell;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A connection whose write is decided is not woken.
    LostWaker,
    /// The buffer of received bytes goes back twice.
    BufferReturnedTwice,
    /// The answer to a write stands before those of the requests before it.
    OutOfOrder,
    /// The wait for a body has no deadline.
    EndlessDeadline,
    /// What the socket did not take is not sent.
    ShortSend,
}

/// Each fault, and the first seed that finds it.
pub const FOUND_BY: [(Fault, u64); 5] = [
    (Fault::LostWaker, 1),
    (Fault::BufferReturnedTwice, 0),
    (Fault::OutOfOrder, 0),
    (Fault::EndlessDeadline, 138),
    (Fault::ShortSend, 0),
];

thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

impl Fault {
    /// Whether it is planted on this thread.
    pub fn is_planted(self) -> bool {
        PLANTED.get() == Some(self)
    }
}

/// Takes the fault out again.
pub struct Planted;

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(None);
    }
}

/// Plants a fault on this thread.
pub fn plant(fault: Fault) -> Planted {
    PLANTED.set(Some(fault));
    Planted
}
