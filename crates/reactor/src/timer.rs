//! When tasks that sleep are woken.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::task::{self, TaskId};

/// The times at which tasks are woken.
#[derive(Default)]
pub struct Timers {
    times: RefCell<BinaryHeap<Reverse<(Instant, TaskId)>>>,
}

impl Timers {
    /// Wakes a task at this time, once.
    pub fn add(&self, at: Instant, task: TaskId) {
        self.times.borrow_mut().push(Reverse((at, task)));
    }

    /// The first of the times.
    pub fn next(&self) -> Option<Instant> {
        self.times.borrow().peek().map(|Reverse((at, _))| *at)
    }

    /// Wakes those whose time has come.
    pub fn expire(&self, now: Instant) {
        let mut times = self.times.borrow_mut();
        while let Some(Reverse((at, task))) = times.peek()
            && *at <= now
        {
            task::make_ready(*task);
            times.pop();
        }
    }
}
