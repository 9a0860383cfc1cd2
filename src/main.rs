//! The `million-rps` command.
fn main() {}
