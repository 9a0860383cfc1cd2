//! Empty until its first commit.

pub mod logging;
