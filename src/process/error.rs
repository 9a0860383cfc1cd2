//! Why a process does not start, or ends.

use crate::command_log::LogError;
use crate::data_dir::DataDirError;
use crate::store::StoreError;

/// Why a process could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The listeners could not be bound.
    #[error("cannot listen on {address}: {reason}; choose another address with HTTP_HOST and HTTP_PORT")]
    Bind {
        /// Where.
        address: std::net::SocketAddr,
        /// Why, as the system says it.
        reason: std::io::Error,
    },
    /// A process that does not share this one's data holds the port.
    #[error(
        "cannot listen on {address}: port {port} is in use by {holder}. Processes share a port only when they share their \
         data. Stop the other one, or choose another port with HTTP_PORT", port = address.port()
    )]
    PortInUse {
        /// Where.
        address: std::net::SocketAddr,
        /// Who has it, as text.
        holder: String,
    },
    /// `IO_DRIVER=io_uring`, and there is none.
    #[error(transparent)]
    Ring(#[from] crate::shard::driver::DriverUnavailable),
    /// The worker's own listener could not be bound.
    #[error("the worker cannot listen on {address}: {reason}; choose another WORKER_HTTP_PORT")]
    BindWorker {
        /// Where.
        address: std::net::SocketAddr,
        /// Why, as the system says it.
        reason: std::io::Error,
    },
    /// The data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The command log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The feed.
    #[error(transparent)]
    Feed(#[from] crate::feed::FeedError),
    /// The keys of tokens.
    #[error(transparent)]
    Keys(#[from] crate::keys::KeysError),
    /// A seam that only another build has, or a setting that is missing for it.
    #[error("{0}")]
    Unsupported(String),
    /// A thread could not be started, or signals not be received.
    #[error("the system refuses a resource: {0}")]
    System(#[from] std::io::Error),
    /// A thread ended although nobody asked it to.
    #[error("the {0} thread ended unexpectedly; its log lines say why")]
    ThreadEnded(&'static str),
}

/// The error of a build without the feature `services` when `DATABASE_URL` asks for it. The settings refuse that already;
/// this is for callers that made their settings themselves.
#[cfg(not(feature = "services"))]
pub fn services_missing() -> ProcessError {
    let reason = "DATABASE_URL is set, but this program was built without PostgreSQL, Kafka and Redis: build it with \
                  `cargo build --release`, or unset DATABASE_URL to work embedded";
    ProcessError::Unsupported(reason.into())
}
