//! The bench of million-rps: what a request costs, beside what it would cost at least and what it costs others.
//!
//! ```text
//! main.rs      the command line; builds what is measured, starts one part
//! parts/       what is measured: one file a part, each ends in a Report
//! candidate    ours, the floors and the others, ready to be started
//! services     real Kafka, for those that need it
//! deployment   PostgreSQL, Kafka and Redis, and the product on them      commands   what stands in the log
//! server       a program under test, alone on its CPU      client, writes, wrk, oha   the loads, on another CPU
//! unlike       requests that differ, as real clients' do
//! cpu, memory  what a process has used                     measurement, report   runs -> median -> JSON
//! page, chart  JSON -> docs/benchmarks.md, its drawings, the README's figures
//! tools        programs that are built once and kept
//! constant     what the servers that write a constant response share (bench/src/bin/)
//! hubs         who sends changes to followers: ours, the floor and the others   followers   a crowd of them
//! ```
//!
//! The product is measured as its users run it: the released program, over the loopback, with its own files. Nothing in
//! here links with it, except the micro benches (benches/).

pub mod attackers;
pub mod candidate;
pub mod chart;
pub mod client;
#[cfg(feature = "services")]
pub mod commands;
pub mod constant;
pub mod cpu;
#[cfg(feature = "services")]
pub mod deployment;
pub mod epoll;
pub mod followers;
pub mod hubs;
pub mod machine;
pub mod measurement;
pub mod memory;
pub mod oha;
pub mod page;
pub mod parts;
pub mod pipeline;
pub mod publisher;
pub mod report;
pub mod server;
pub mod services;
pub mod tools;
pub mod unlike;
pub mod writes;
pub mod wrk;
