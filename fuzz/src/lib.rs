//! What the fuzz targets have in common.
//!
//! A target is one side of a border that the other side need not respect: a driver, an image, a
//! server. Its input is not what crosses the border, but a recipe for it: start from something
//! valid that code has made, then spoil it, and go on. So the fuzzer starts behind all the checks
//! instead of in front of the first one, no corpus has to be kept, and a run of seconds is worth
//! something.
//!
//! # How a target is made
//!
//! 1. A file in `fuzz_targets/` and a `[[bin]]` in `Cargo.toml`: `etc/fuzz` runs what is there.
//! 2. Take everything from an [`Input`], a byte or two for each choice, most values sensible and
//!    some arbitrary. Actions come in any order, until the input is empty: a device for a driver
//!    that does anything is in [`transport`], a ring that is written to meanwhile in [`ring`].
//! 3. Check more than that nothing crashes: what must hold whatever the input says, and what a
//!    model says where there is one.
//! 4. A run repeats exactly: no thread, no clock, nothing that is left from the run before.
//! 5. A run takes 100 µs at most, or ten million of them take too long. Memory is mapped once and
//!    cleared; there are no files, no sockets and no logger; `perf record` tells the rest.
//! 6. See that it can find something: plant a bug or two in what it is for, and run it for a
//!    minute.

pub mod input;
pub mod memory;
pub mod net;
pub mod ring;
pub mod transport;
pub mod web;

pub use input::Input;
