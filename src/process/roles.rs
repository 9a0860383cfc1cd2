//! What a process is there for, and how soon it notices that it shall end.

use std::time::Duration;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Answers HTTP.
    pub api: bool,
    /// Applies commands.
    pub worker: bool,
}

/// How long the worker may need to stop after it was told to: it looks at least this often.
pub const STOP_POLL: Duration = Duration::from_millis(100);
