//! What the process tells about itself: code counts and reports, these modules decide what becomes of it.

pub mod counter;
pub mod dead_letter_burst;
pub mod expiry;
pub mod exposition;
pub mod keys;
pub mod logging;
pub mod metrics;
pub mod readiness;
mod reasons;
pub mod silence;
pub mod status;
pub mod topic;
pub mod troubles;
pub mod worker_text;
