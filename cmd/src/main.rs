//! The `hype` command.
fn main() {}
