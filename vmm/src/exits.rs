//! How often the vCPUs left the guest for user space, and why.
//!
//! User exits are the portable measure of a virtual machine's overhead: their number does not
//! depend on how busy the host is. Counting must not cost anything, so each vCPU has counters
//! of its own, on cache lines of its own, which only its thread writes: a relaxed load and a
//! relaxed store, which compile to plain moves. Readers see values that are at most a few
//! moments old, and exact once the machine has stopped.

use std::fmt;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers of user exits by reason, of one vCPU or of all of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exits {
    /// Reads of I/O ports.
    pub io_in: u64,
    /// Writes to I/O ports.
    pub io_out: u64,
    /// Reads of memory that is not RAM.
    pub mmio_read: u64,
    /// Writes to memory that is not RAM.
    pub mmio_write: u64,
    /// Halts that reached user space.
    pub hlt: u64,
    /// Returns that a signal caused: pause and stop kick vCPUs with one.
    pub interrupted: u64,
    /// Everything else: shutdown, system events, failures.
    pub other: u64,
}

impl Exits {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.guest() + self.interrupted
    }

    /// All that the guest caused: without those that hype itself asked for by a signal.
    pub fn guest(&self) -> u64 {
        self.io_in + self.io_out + self.mmio_read + self.mmio_write + self.hlt + self.other
    }
}

impl Add for Exits {
    type Output = Exits;

    fn add(self, other: Exits) -> Exits {
        Exits {
            io_in: self.io_in + other.io_in,
            io_out: self.io_out + other.io_out,
            mmio_read: self.mmio_read + other.mmio_read,
            mmio_write: self.mmio_write + other.mmio_write,
            hlt: self.hlt + other.hlt,
            interrupted: self.interrupted + other.interrupted,
            other: self.other + other.other,
        }
    }
}

impl fmt::Display for Exits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} user exits: io in {}, io out {}, mmio read {}, mmio write {}, hlt {}, interrupted {}, other {}",
            self.total(),
            self.io_in,
            self.io_out,
            self.mmio_read,
            self.mmio_write,
            self.hlt,
            self.interrupted,
            self.other
        )
    }
}

/// A counter with a single writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.0.store(self.get().wrapping_add(1), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one vCPU; the fields are those of [`Exits`].
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    pub(crate) io_in: Counter,
    pub(crate) io_out: Counter,
    pub(crate) mmio_read: Counter,
    pub(crate) mmio_write: Counter,
    pub(crate) hlt: Counter,
    pub(crate) interrupted: Counter,
    pub(crate) other: Counter,
}

impl Counters {
    pub(crate) fn read(&self) -> Exits {
        Exits {
            io_in: self.io_in.get(),
            io_out: self.io_out.get(),
            mmio_read: self.mmio_read.get(),
            mmio_write: self.mmio_write.get(),
            hlt: self.hlt.get(),
            interrupted: self.interrupted.get(),
            other: self.other.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_read_and_summed() {
        let (first, second) = (Counters::default(), Counters::default());
        first.io_in.count();
        first.io_in.count();
        second.mmio_write.count();
        second.interrupted.count();

        let sum = first.read() + second.read();

        assert_eq!(
            sum,
            Exits {
                io_in: 2,
                mmio_write: 1,
                interrupted: 1,
                ..Exits::default()
            }
        );
        assert_eq!((sum.total(), sum.guest()), (4, 3));
    }
}
