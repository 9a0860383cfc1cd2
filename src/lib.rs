//! million-rps: a Todo API that answers reads from thread-per-core shards and takes every write durably through a
//! command log.
//!
//! # Threads
//! ```text
//!                        clients: a connection belongs to one shard for its whole life
//!                             |                                  |
//!   threads                   v                                  v
//!   shard-0 … shard-N    +---------+                        +---------+    one per CPU, each with its own listener
//!                        | shard-0 |          …             | shard-N |    (SO_REUSEPORT), ring, connections, inbox
//!                        +---------+                        +---------+
//!                  commands |   ^ inbox: acknowledgements     |   ^ inbox
//!   producer                v   | (then 202), snapshots       v   |
//!                        bounded queue -> producer -> CommandLog  |
//!                                                         |       |
//!   worker                        Store <- worker <-------+       |
//!                                   |         | changes           |
//!                                   |         v                   |
//!                                   |       Feed                  |
//!                                   |         |                   |
//!   refresher                       +---> refresher --------------+  a new snapshot, to every shard's inbox
//!                              when cold, and each CACHE_TTL_SEC
//!
//!   encoder               shards' wishes -> lists in content codings, to every shard's inbox
//!
//!   main                 waits for a signal or for a thread that ended, then stops the others in this order:
//!                        shards, producer, refresher, encoder, worker
//!   signals              turns the signals that stop a process into events for main
//! ```
//! `run` has all of them in one process.
//!
//! # The way of one request
//! A read: `shard::connection` receives -> `shard::reads::recognise` says what is asked: a head that was seen, or one that
//! [`http`] parses -> `shard::reads::serve` finds the page that is ready, or makes it from the [`snapshot`] -> [`reactor`] sends.
//!
//! A write: `shard::connection` receives -> `shard::dispatch` frames it with [`http`] -> `shard::answer` routes it; it passes
//! [`auth`] and the checks of [`mod@todo`] and becomes a command -> [`producer`] -> [`command_log`] -> acknowledged: 202. Later,
//! and in order: [`worker`] -> [`store`] -> [`feed`] -> [`refresher`] -> the next snapshot.
//!
//! All other requests go by `shard::dispatch` and `shard::answer`, too.
//!
//! What each room holds and what it may know: `docs/architecture.md`. Why things are as they are: `docs/decisions/`.

pub mod auth;
pub mod change_feed;
pub mod cli;
pub mod command_log;
pub mod config;
pub mod contract;
pub mod counted;
pub mod data_dir;
pub mod encoder;
pub mod feed;
pub mod http;
pub mod keys;
pub mod limits;
pub mod memory;
pub mod observe;
pub mod page;
pub mod process;
pub mod producer;
pub mod refresher;
pub mod shard;
pub mod snapshot;
pub mod static_document;
pub mod store;
pub mod todo;
pub mod wires;
pub mod worker;
