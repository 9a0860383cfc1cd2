//! What threads send each other, where neither end owns the other: the inbox of a shard, and pages on their way to and from the
//! encoder. Nothing here works on what it carries.

pub mod inbox;
pub mod pages;
