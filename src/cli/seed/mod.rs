//! `million-rps seed`: fills the list with todos that look like real ones.
//!
//! [`SeedTodo`] makes them, [`seed_through_api`] sends them through a running server, [`SeedProgress`] shows how far it
//! is.

mod api;
mod connection;
mod progress;
#[cfg(test)]
mod tests;
mod texts;

pub use api::{SeedError, SeedPlan, SeedReport, seed_through_api};
pub use progress::SeedProgress;
pub use texts::SeedTodo;
