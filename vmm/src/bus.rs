//! Which device answers at which address.
//!
//! A vCPU leaves the guest with an address and some bytes; the bus finds the device by binary
//! search. There is one bus for port I/O and one for MMIO, filled before the first vCPU runs and
//! only read afterwards, so it needs no lock of its own.
//!
//! What a write asks of the whole machine (power-off, reset) is *returned* as an [`Action`]: a
//! device knows neither the VM nor its threads.
//!
//! An address without a device reads as all ones and drops writes, as on a PC. An access that
//! starts inside of a device's range belongs to it as a whole; a device must not trust the
//! length.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What a write asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an action that is dropped leaves the guest waiting for its power-off or reset"]
pub enum Action {
    /// Nothing: the vCPU goes on.
    None,
    /// The guest has powered itself off.
    Shutdown,
    /// The guest wants to be reset.
    Reset,
    /// The guest says that its kernel has panicked.
    Panicked,
}

/// A device that locks for itself, if it has to.
pub trait BusDevice: Send + Sync {
    /// Reads at `offset` in the device's range. `data` is one access: 1, 2, 4 or 8 bytes from
    /// KVM, but any length is safe.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Writes at `offset` in the device's range.
    fn write(&self, offset: u64, data: &[u8]) -> Action;
    /// A vCPU is about to hold or to end: do now what was put off.
    fn settle(&self) {}
}

/// A device that is put on the bus inside of a [`Mutex`].
pub trait BusDeviceMut: Send {
    /// As [`BusDevice::read`].
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// As [`BusDevice::write`].
    fn write(&mut self, offset: u64, data: &[u8]) -> Action;
}

// A register file that a panic left behind is still a register file: go on with it.
impl<T: BusDeviceMut> BusDevice for Mutex<T> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        self.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(offset, data)
    }
}

/// Why a device can't be put at an address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Another device is there already.
    #[error("{bus} range {:#x}..{:#x} overlaps {:#x}..{:#x}", new.start, new.end, old.start, old.end)]
    Overlap {
        /// The name of the bus.
        bus: &'static str,
        /// What was to be inserted.
        new: Range<u64>,
        /// What is there.
        old: Range<u64>,
    },
    /// The range has no address in it.
    #[error("{bus} range {:#x}..{:#x} is empty", range.start, range.end)]
    Empty {
        /// The name of the bus.
        bus: &'static str,
        /// What was to be inserted.
        range: Range<u64>,
    },
}

struct Entry {
    range: Range<u64>,
    device: Arc<dyn BusDevice>,
}

/// The devices of one address space.
pub struct Bus {
    name: &'static str,
    /// Sorted by address; the ranges are disjoint.
    entries: Vec<Entry>,
    unmapped: LogLimit,
}

impl Bus {
    /// An empty bus; `name` is for messages.
    pub fn new(name: &'static str) -> Self {
        Bus {
            name,
            entries: Vec::new(),
            unmapped: LogLimit::new(),
        }
    }

    /// Puts a device at `range`.
    pub fn insert(&mut self, range: Range<u64>, device: Arc<dyn BusDevice>) -> Result<(), Error> {
        if range.is_empty() {
            return Err(Error::Empty {
                bus: self.name,
                range,
            });
        }
        // Disjoint and sorted: only the first entry that ends above the new start can overlap.
        let position = self
            .entries
            .partition_point(|entry| entry.range.end <= range.start);
        match self.entries.get(position) {
            Some(old) if old.range.start < range.end => Err(Error::Overlap {
                bus: self.name,
                new: range,
                old: old.range.clone(),
            }),
            _ => {
                self.entries.insert(position, Entry { range, device });
                Ok(())
            }
        }
    }

    /// [Settles](BusDevice::settle) every device.
    pub fn settle(&self) {
        self.entries.iter().for_each(|entry| entry.device.settle());
    }

    /// One read of a vCPU's.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((offset, device)) => device.read(offset, data),
            None => {
                data.fill(0xff);
                self.report("read", address, data.len());
            }
        }
    }

    /// One write of a vCPU's.
    pub fn write(&self, address: u64, data: &[u8]) -> Action {
        match self.find(address) {
            Some((offset, device)) => device.write(offset, data),
            None => {
                self.report("write", address, data.len());
                Action::None
            }
        }
    }

    fn find(&self, address: u64) -> Option<(u64, &dyn BusDevice)> {
        let position = self
            .entries
            .partition_point(|entry| entry.range.end <= address);
        let entry = self.entries.get(position)?;
        let offset = address.checked_sub(entry.range.start)?;
        Some((offset, entry.device.as_ref()))
    }

    fn report(&self, what: &str, address: u64, length: usize) {
        if log::log_enabled!(log::Level::Debug) && self.unmapped.allows() {
            log::debug!(
                "{}: {what} of {length} bytes at {address:#x}: no device",
                self.name
            );
        }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("name", &self.name)
            .field(
                "ranges",
                &self
                    .entries
                    .iter()
                    .map(|entry| &entry.range)
                    .collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

/// A guest can make a million lines a second: let 10 in 5 seconds through.
///
/// Window number and lines in it share one word, so vCPUs do not need a lock to count.
pub(crate) struct LogLimit {
    start: Instant,
    state: AtomicU64,
}

impl LogLimit {
    const LINES: u64 = 10;
    const WINDOW_SECONDS: u64 = 5;

    pub(crate) fn new() -> Self {
        LogLimit {
            start: Instant::now(),
            state: AtomicU64::new(0),
        }
    }

    pub(crate) fn allows(&self) -> bool {
        self.allows_at(self.start.elapsed().as_secs())
    }

    fn allows_at(&self, seconds: u64) -> bool {
        let window = (seconds / Self::WINDOW_SECONDS) << 8;
        self.state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                let lines = if state & !0xff == window {
                    state & 0xff
                } else {
                    0
                };
                (lines < Self::LINES).then_some(window | (lines + 1))
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads give the offset; a write of 1 asks for a reset.
    struct Probe;

    impl BusDeviceMut for Probe {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }

        fn write(&mut self, _offset: u64, data: &[u8]) -> Action {
            if data == [1] {
                Action::Reset
            } else {
                Action::None
            }
        }
    }

    fn probe() -> Arc<dyn BusDevice> {
        Arc::new(Mutex::new(Probe))
    }

    fn bus(ranges: &[(u64, u64)]) -> Bus {
        let mut bus = Bus::new("test");
        for (start, end) in ranges {
            bus.insert(*start..*end, probe()).unwrap();
        }
        bus
    }

    fn byte(bus: &Bus, address: u64) -> u8 {
        let mut data = [0x55];
        bus.read(address, &mut data);
        data[0]
    }

    #[test]
    fn each_address_of_adjacent_ranges_finds_its_own_device() {
        let bus = bus(&[(0x20, 0x24), (0x10, 0x18), (0x18, 0x20)]);
        assert_eq!(
            [0x10, 0x17, 0x18, 0x1f, 0x20, 0x23].map(|a| byte(&bus, a)),
            [0, 7, 0, 7, 0, 3]
        );
    }

    #[test]
    fn addresses_around_and_far_from_ranges_read_ones() {
        let bus = bus(&[(0x10, 0x18), (0x20, 0x24)]);
        for address in [0, 0xf, 0x18, 0x1f, 0x24, 1 << 51, u64::MAX] {
            let mut data = [0; 8];
            bus.read(address, &mut data);
            assert_eq!(data, [0xff; 8], "{address:#x}");
            assert_eq!(bus.write(address, &[1]), Action::None, "{address:#x}");
        }
    }

    #[test]
    fn a_write_returns_what_the_device_asks_for() {
        let bus = bus(&[(0x10, 0x18)]);
        assert_eq!(bus.write(0x12, &[1]), Action::Reset);
        assert_eq!(bus.write(0x12, &[0]), Action::None);
    }

    #[test]
    fn every_kind_of_overlap_is_refused_and_changes_nothing() {
        let mut bus = bus(&[(0x10, 0x20)]);
        for range in [0x10..0x20, 0x0..0x11, 0x1f..0x30, 0x14..0x15, 0x0..u64::MAX] {
            let result = bus.insert(range.clone(), probe());
            assert_eq!(
                result,
                Err(Error::Overlap {
                    bus: "test",
                    new: range,
                    old: 0x10..0x20
                })
            );
        }
        bus.insert(0x0..0x10, probe()).unwrap();
        bus.insert(0x20..u64::MAX, probe()).unwrap();
    }

    #[test]
    fn an_empty_range_is_refused() {
        let mut bus = bus(&[]);
        assert!(matches!(
            bus.insert(5..5, probe()),
            Err(Error::Empty { .. })
        ));
    }

    #[test]
    fn all_65536_ports_answer_all_widths() {
        let bus = bus(&[(0x3f8, 0x400), (0xffff, 0x10000)]);
        for port in 0..=0xffff {
            for length in [0, 1, 2, 3, 4, 8] {
                let mut data = vec![0x55; length];
                bus.read(port, &mut data);
                let mapped = (0x3f8..0x400).contains(&port) || port == 0xffff;
                assert!(mapped || data.iter().all(|byte| *byte == 0xff), "{port:#x}");
                let _ = bus.write(port, &data);
            }
        }
    }

    #[test]
    fn ten_lines_pass_in_five_seconds_then_none_until_the_next_five() {
        let limit = LogLimit::new();
        let passed = |second| (0..1000).filter(|_| limit.allows_at(second)).count();
        assert_eq!(
            [passed(0), passed(4), passed(5), passed(9), passed(100)],
            [10, 0, 10, 0, 10]
        );
    }
}
