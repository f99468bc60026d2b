//! Tests with Linux in the machine: the test binary is also the guest's `/init`, and the two
//! halves of a test stand side by side.
//!
//! The host half builds an initrd that holds nothing but this very binary, boots
//! `HYPE_GUEST_KERNEL` with it and watches. In the guest the same test is started by name and
//! runs its other half. The binary has to be static (`make test` builds it for musl), and the
//! host's KVM has to run unmodified Linux. What is missing is said loudly; with
//! `HYPE_REQUIRE_KVM=1` it is a failure.

// The helpers of a test may panic like the test itself: that is how it fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod block;
mod bridge;
mod console;
#[path = "../common/dice.rs"]
mod dice;
mod everything;
mod file_systems;
mod hostile;
#[cfg(feature = "http")]
mod http;
mod killed;
mod lifecycle;
mod load;
mod machine;
mod many_disks;
mod net;
mod own_device;
mod qcow2;
mod requests;
#[path = "../common/screen.rs"]
mod screen;
mod support;
mod taps;
mod trouble;
mod two_vms;

use support::{Ended, Host, init};
use vmm::Outcome;

/// A test with a half in the guest and a half on the host.
///
/// ```ignore
/// guest_test! {
///     name,
///     config: |config, cmdline| config.cpus = 2,   // may add to the command line
///     guest: || println!("ready"),                 // then the guest powers off
///     host: |host| host.expect("ready"),
///     ends: Outcome::Shutdown,                     // how the machine ends
/// }
/// ```
macro_rules! guest_test {
    ($name:ident, config: $config:expr, guest: $guest:expr, host: $host:expr, ends: $ends:pat $(,)?) => {
        #[test]
        fn $name() {
            if $crate::support::init::is_guest() {
                $crate::support::init::run($guest);
            }
            let Some(ended) = $crate::support::run(test_name!($name), $config, $host) else {
                return;
            };
            assert_ends!(ended, $ends);
        }
    };
}
use guest_test;

/// What a test is called, so that its guest half can be asked for.
macro_rules! test_name {
    ($name:ident) => {
        concat!(module_path!(), "::", stringify!($name))
    };
}
use test_name;

/// How a machine has to end.
macro_rules! assert_ends {
    ($ended:expr, $ends:pat) => {
        assert!(
            matches!($ended.outcome, $ends),
            "ended with {:?} instead of {}; the guest printed:\n{}",
            $ended.outcome,
            stringify!($ends),
            $ended.text
        );
    };
}
use assert_ends;
