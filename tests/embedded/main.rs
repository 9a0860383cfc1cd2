//! The whole program, as it is shipped: each test starts the real binary, embedded, in a folder of its own, and speaks
//! to it over a socket.
//!
//! What the shards answer is asked with both I/O drivers (`on_both_drivers!`), of servers that many tests share. No test
//! measures time; see `harness::PATIENCE`.

#[path = "../harness/mod.rs"]
mod harness;

mod another_log;
mod arrays;
mod auth;
mod bodies;
mod codings;
mod contract;
mod cors;
mod deadlines;
mod drain;
mod drivers;
mod durability;
mod events;
mod filters;
mod folder;
mod followers;
mod foreign;
mod framing;
mod head;
mod idempotency;
mod issuers;
mod key_source;
mod keys;
mod limits;
mod long_polling;
mod metrics;
mod openapi;
mod page;
#[cfg(feature = "fault-injection")]
mod panics;
mod pipelining;
mod port;
mod prepared;
mod private;
mod rates;
mod read_your_writes;
mod readers;
mod reads;
#[cfg(feature = "services")]
mod ready;
mod refusals;
mod room;
mod signals;
mod startup;
mod wire;
mod writes;

use std::sync::Arc;

use harness::server::{Driver, Server, Setup};
use harness::shared::Shared;

static PLAIN: Shared = Shared::new(Setup::new);

/// A server with default limits, for tests that do not mind the todos of others.
fn plain(driver: Driver) -> Arc<Server> {
    PLAIN.with(driver)
}
