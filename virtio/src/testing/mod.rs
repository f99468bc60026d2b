//! The other side of everything here: a driver that plays the guest, for tests, fuzzers and
//! benches. It knows the registers and the rings, and runs without a hypervisor.
//!
//! It panics where a test would, so nothing but tests may use it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

pub mod driver;
pub mod echo;
pub mod faulty;
pub mod http;
#[cfg(feature = "http")]
pub mod http_disk;
pub mod irq;
pub mod msi;
pub mod qcow2;
pub mod ring;

pub use driver::{DEADLINE, Driver, Kick, Machine, Registers, Transport};
pub use echo::Echo;
pub use faulty::{Fault, Faults, Faulty};
pub use irq::{Counts, Interrupts};
pub use ring::Ring;
