//! The sides of the three seams that need real servers: PostgreSQL, Kafka, Redis; and how they ask who is there.
//!
//! `make test` starts the servers and sets DATABASE_URL, REDIS_URL and KAFKA_BROKERS. Every test uses a database, a topic
//! or keys of its own, so that they may run side by side, and against servers that hold other things too.

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "other suites use the rest of it")]
mod harness;
#[path = "../harness/proxy.rs"]
#[allow(dead_code, reason = "the other suite uses the rest of it")]
mod proxy;

mod addresses;
mod kafka;
mod kafka_progress;
mod kafka_topic;
mod pooler;
mod postgres;
mod postgres_deployment;
mod postgres_identity;
mod postgres_pooler;
mod postgres_schema;
mod redis;
mod role;
mod security;
mod servers;
mod setting;
