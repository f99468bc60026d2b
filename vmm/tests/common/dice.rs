//! Moments and amounts that differ from run to run, and can be had again.

#![allow(
    clippy::print_stderr,
    reason = "the harness shows it when a test fails"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Which seed to take instead of the clock.
const SEED: &str = "HYPE_TEST_SEED";

/// Pseudo-random numbers (splitmix64).
pub struct Dice(u64);

impl Dice {
    /// Prints its seed, which a test that fails shows.
    pub fn new(test: &str) -> Self {
        let seed = number(SEED).unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            u64::try_from(now.as_nanos() & 0xffff_ffff).unwrap()
        });
        eprintln!("{test}: {SEED}={seed}");
        Dice(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }

    /// Lets a moment pass: there is nothing to wait for but chance.
    pub fn nap(&mut self, at_most: Duration) {
        let micros = u64::try_from(at_most.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(self.below(micros)));
    }
}

/// How often to do something: what `HYPE_TEST_ROUNDS` says, or `usual`.
pub fn rounds(usual: u64) -> u64 {
    number("HYPE_TEST_ROUNDS").unwrap_or(usual)
}

/// What a variable says, if it is set.
pub fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|error| panic!("{variable}={value}: {error}")))
}
