//! Why a worker's step does not succeed, and whether it is tried again.

use crate::command_log::LogError;
use crate::feed::FeedError;
use crate::observe::troubles::Component;
use crate::store::StoreError;

/// Why a worker gave up. Everything that may pass is tried again and never ends it.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The command log failed for good.
    #[error(transparent)]
    Log(LogError),
    /// The store failed for good.
    #[error(transparent)]
    Store(StoreError),
    /// The feed failed for good.
    #[error(transparent)]
    Feed(FeedError),
}

/// Why a step did not succeed.
pub(super) enum Trouble {
    /// Try again later.
    Passing(String),
    /// Try again later; it passes when somebody has done what the text says.
    Waiting(Component, String),
    Lasting(WorkerError),
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Trouble {
        match error {
            LogError::Unavailable(_) | LogError::Replaced => Trouble::Passing(error.to_string()),
            LogError::OffsetOutOfRange { .. } | LogError::Fatal(_) => Trouble::Lasting(WorkerError::Log(error)),
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        match error {
            StoreError::Unavailable(_) | StoreError::Fenced { .. } => Trouble::Passing(error.to_string()),
            // Nothing that could be put aside: the worker has looked.
            StoreError::Misconfigured(reason) | StoreError::Refused(reason) => {
                Trouble::Waiting(Component::Store, reason)
            }
            StoreError::Fatal(_) => Trouble::Lasting(WorkerError::Store(error)),
        }
    }
}

impl From<FeedError> for Trouble {
    fn from(error: FeedError) -> Trouble {
        match error {
            FeedError::Unavailable(_) | FeedError::Busy(_) => Trouble::Passing(error.to_string()),
            FeedError::Store(error) => error.into(),
            FeedError::Fatal(_) => Trouble::Lasting(WorkerError::Feed(error)),
        }
    }
}
