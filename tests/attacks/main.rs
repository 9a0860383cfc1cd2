//! Crowds and attackers against the real program, with both I/O drivers: it goes on answering others while they last, and
//! gives everything back when they have gone.
//!
//! Nothing here measures speed. Bounds are generous: an answer within [`bystander::ANSWER_MAX`], memory near what it was,
//! as many descriptors as before, no thread that spins.

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "each suite uses its part of the harness")]
mod harness;

mod backlog;
mod bystander;
mod crowd;
mod descriptors;
mod followers;
mod half_closed;
mod memory;
mod never_reading;
mod old_lists;
mod pipelines;
mod proxy;
mod resets;
mod slow;
mod uploads;
mod vitals;
