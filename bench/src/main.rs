//! Placeholder of the bench runner.
fn main() {}
