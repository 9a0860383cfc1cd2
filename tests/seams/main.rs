//! The seams between the parts. Each of the three suites is written once, against the traits alone, and run for every
//! implementation; what only one implementation promises stands in a file of its own.

mod samples;

// The order matters: each file makes the macro that those below it use.
#[macro_use]
mod suite;
#[macro_use]
mod feed_suite;
#[macro_use]
mod log_suite;
#[macro_use]
mod store_suite;

mod embedded;
mod embedded_log;
// The same file as in the services' own tests: where the servers are.
mod model;
#[cfg(feature = "services")]
#[path = "../services/servers.rs"]
mod servers;
#[cfg(feature = "services")]
mod services;
mod worker;
mod worker_faults;
mod worker_feed;
mod worker_log;
