//! million-rps: a Todo API that answers reads from thread-per-core shards and takes every write durably through a
//! command log.

pub mod auth;
pub mod cli;
pub mod command_log;
pub mod config;
pub mod data_dir;
pub mod feed;
pub mod http;
pub mod limits;
pub mod observe;
pub mod process;
pub mod producer;
pub mod refresher;
pub mod shard;
pub mod snapshot;
pub mod store;
pub mod todo;
pub mod worker;
