//! The schema of the store.

/// The schema, as `psql -f` takes it.
pub const SCHEMA: &str = include_str!("schema.sql");
