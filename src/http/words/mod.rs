//! What requests and answers share: the words of the protocol, as values.

pub mod coding;
pub mod connection;
pub mod cursor;
pub mod entity_tag;
pub mod event_position;
pub mod field_lines;
pub mod filter;
pub mod method;
pub mod problem_kind;
pub mod rejection;
pub mod status;
pub(super) mod syntax;
pub mod version;
