//! Why a record of the command log is a dead letter.

use super::validation::BodyError;
use crate::limits::COMMAND_MAX_BYTES;

/// Why a record of the command log can never be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not the JSON of a command.
    #[error("{0}")]
    Malformed(BodyError),
    /// A member cannot be stored.
    #[error("{0}")]
    Invalid(BodyError),
    /// Longer than [`COMMAND_MAX_BYTES`].
    #[error("the command has {0} bytes; at most {COMMAND_MAX_BYTES} are applied")]
    TooLarge(usize),
    /// `action` is none of create, update, delete.
    #[error("unknown action {0:?}: expected create, update or delete")]
    UnknownAction(String),
}
