//! Machines on the real KVM, through the public API, with guests of a few bytes.
//!
//! Without a usable `/dev/kvm` each test says that it was skipped; with `HYPE_REQUIRE_KVM=1` it
//! fails instead.

// The helpers of a test may panic like the test itself: that is how it fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod busy;
mod control;
mod devices;
#[path = "../common/dice.rs"]
mod dice;
mod driven;
mod failures;
mod guest;
mod load;
mod outcomes;
mod pci;
mod processors;
mod storm;

/// A test that needs KVM.
macro_rules! kvm_test {
    ($name:ident, $body:block) => {
        #[test]
        fn $name() {
            if $crate::guest::kvm(stringify!($name)) {
                $body
            }
        }
    };
}
pub(crate) use kvm_test;
