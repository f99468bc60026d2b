//! The real command as its users meet it: mistakes, odd surroundings, signals, endings.
//!
//! No Linux is booted: where a guest is needed it is a few bytes of machine code, so that any
//! `/dev/kvm` will do, even one that cannot run Linux. Without one, or without the rights that a
//! test needs, the test says that it was skipped; with `HYPE_REQUIRE_KVM=1` a missing KVM fails.

// The helpers of a test may panic like the test itself: that is how it fails.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod command;
mod disks;
mod endings;
mod files;
mod guest;
mod host;
mod net;
mod on_terminal;
mod options;
mod streams;
#[path = "../common/terminal.rs"]
#[allow(dead_code, reason = "another test program uses the rest of it")]
mod terminal;
mod url;
