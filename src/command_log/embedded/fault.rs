//! What the system refused, as an error of the log.

use std::io;
use std::path::Path;

use crate::command_log::LogError;

/// What was tried, as a verb, and with which file or folder. Tried again, it would fail again.
pub(super) fn fatal(action: &str, path: &Path, error: &io::Error) -> LogError {
    LogError::Fatal(format!("cannot {action} {}: {error}", path.display()))
}
