//! How much RAM a guest gets, and where.
//!
//! ```text
//!  0                3 GiB             4 GiB
//!  |---- RAM, up to ---|--- devices ---|---- the rest of RAM ----->
//! ```
//!
//! The last GiB below 4 GiB belongs to devices and interrupt controllers; RAM that does not fit
//! below goes on at 4 GiB. Both parts start on a 2 MiB boundary of the guest, and
//! [`Region`] sees to it that they do on the host, so that huge pages map one to one.
//!
//! Nothing is reserved here for tables or kernels: whoever puts something into RAM says so.

use crate::arch::layout::{HIGH_RAM_START, MMIO_HOLE_START};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use virtio::memory::{GuestMemory, Region};
use vm_memory::GuestAddress;

/// RAM comes in units of a page.
pub const GRANULE: u64 = 4096;

/// The least that a machine can have: the tables that describe it lie right below 1 MiB. What a
/// kernel needs on top of that is known to its loader, which says so with numbers.
pub const MINIMUM: u64 = 1 << 20;

/// Why a guest can't have the memory that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Less than the machine itself needs.
    #[error(
        "{bytes} bytes of memory are too few: the minimum is {MINIMUM}, in multiples of {GRANULE}"
    )]
    TooSmall {
        /// What was asked for.
        bytes: u64,
    },
    /// Not a whole number of pages.
    #[error("{bytes} bytes of memory are not a multiple of {GRANULE} (the minimum is {MINIMUM})")]
    Granule {
        /// What was asked for.
        bytes: u64,
    },
    /// More than the processor can address.
    #[error(
        "{bytes} bytes of memory are too many: with {bits} physical address bits the guest can have {maximum}"
    )]
    TooLarge {
        /// What was asked for.
        bytes: u64,
        /// The width of a guest-physical address.
        bits: u32,
        /// The most that fits.
        maximum: u64,
    },
    /// The host does not give the memory.
    #[error("cannot reserve {bytes} bytes of memory for the guest")]
    Reserve {
        /// The size of the part that failed.
        bytes: u64,
        /// What the host said.
        source: io::Error,
    },
    /// The parts do not form an address space.
    #[error("cannot arrange {bytes} bytes of guest memory")]
    Arrange {
        /// What was asked for.
        bytes: u64,
        /// What vm-memory said.
        source: vm_memory::GuestRegionCollectionError,
    },
}

/// The address ranges that `bytes` of RAM take.
pub fn layout(bytes: u64) -> Vec<Range<u64>> {
    let low = bytes.min(MMIO_HOLE_START);
    let high = bytes - low;
    let mut ranges = Vec::with_capacity(2);
    if low > 0 {
        ranges.push(0..low);
    }
    if high > 0 {
        ranges.push(HIGH_RAM_START..HIGH_RAM_START.saturating_add(high));
    }
    ranges
}

/// Whether this is a size of memory at all; says nothing about what the host has.
pub fn check(bytes: u64) -> Result<(), Error> {
    if bytes < MINIMUM {
        return Err(Error::TooSmall { bytes });
    }
    if !bytes.is_multiple_of(GRANULE) {
        return Err(Error::Granule { bytes });
    }
    Ok(())
}

/// The most RAM that a guest with physical addresses of `bits` bits can have.
pub fn maximum(bits: u32) -> u64 {
    let end = 1u64.checked_shl(bits).unwrap_or(u64::MAX) & !(GRANULE - 1);
    if end > HIGH_RAM_START {
        end - (HIGH_RAM_START - MMIO_HOLE_START)
    } else {
        end.min(MMIO_HOLE_START)
    }
}

/// Whether guest-physical addresses of `bits` bits reach all of the memory.
pub fn check_width(bytes: u64, bits: u32) -> Result<(), Error> {
    let maximum = maximum(bits);
    if bytes > maximum {
        return Err(Error::TooLarge {
            bytes,
            bits,
            maximum,
        });
    }
    Ok(())
}

/// Maps `bytes` of guest memory.
pub fn build(bytes: u64) -> Result<Arc<GuestMemory>, Error> {
    check(bytes)?;
    let regions = layout(bytes)
        .into_iter()
        .map(reserve)
        .collect::<Result<Vec<_>, _>>()?;
    let memory =
        GuestMemory::from_regions(regions).map_err(|source| Error::Arrange { bytes, source })?;
    Ok(Arc::new(memory))
}

/// Maps memory that is not RAM, but read by the guest all the same.
pub(crate) fn alone(range: Range<u64>) -> Result<Arc<GuestMemory>, Error> {
    let bytes = range.end - range.start;
    let memory = GuestMemory::from_regions(vec![reserve(range)?])
        .map_err(|source| Error::Arrange { bytes, source })?;
    Ok(Arc::new(memory))
}

fn reserve(range: Range<u64>) -> Result<Region, Error> {
    let bytes = range.end - range.start;
    let reserve = |source| Error::Reserve { bytes, source };
    let length =
        usize::try_from(bytes).map_err(|_| reserve(io::Error::from(io::ErrorKind::OutOfMemory)))?;
    Region::anonymous(GuestAddress(range.start), length).map_err(reserve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

    const KIB: u64 = 1 << 10;
    const GIB: u64 = 1 << 30;

    #[test]
    fn sizes_around_the_hole_keep_their_total_and_leave_the_hole_free() {
        let cases: [(u64, &[(u64, u64)]); 6] = [
            (MINIMUM, &[(0, MINIMUM)]),
            (3 * GIB - 4 * KIB, &[(0, 3 * GIB - 4 * KIB)]),
            (3 * GIB, &[(0, 3 * GIB)]),
            (
                3 * GIB + 4 * KIB,
                &[(0, 3 * GIB), (4 * GIB, 4 * GIB + 4 * KIB)],
            ),
            (4 * GIB, &[(0, 3 * GIB), (4 * GIB, 5 * GIB)]),
            (5 * GIB, &[(0, 3 * GIB), (4 * GIB, 6 * GIB)]),
        ];
        for (bytes, expected) in cases {
            let ranges: Vec<_> = layout(bytes).iter().map(|r| (r.start, r.end)).collect();
            assert_eq!(ranges, expected, "{bytes}");
            assert_eq!(
                ranges.iter().map(|(start, end)| end - start).sum::<u64>(),
                bytes
            );
        }
    }

    #[test]
    fn built_memory_has_exactly_the_ranges_of_the_layout() {
        let bytes = 3 * GIB + 4 * KIB;
        let memory = build(bytes).unwrap();
        let ranges: Vec<_> = memory
            .iter()
            .map(|region| region.start_addr().0..region.start_addr().0 + region.len())
            .collect();
        assert_eq!(ranges, layout(bytes));
        assert!(!memory.address_in_range(GuestAddress(3 * GIB)));
        assert!(!memory.address_in_range(GuestAddress(4 * GIB - 1)));
    }

    #[test]
    fn too_small_and_ragged_sizes_are_refused_with_the_rule() {
        for bytes in [0, 1, 4095, 4096, MINIMUM - 1] {
            let message = check(bytes).unwrap_err().to_string();
            assert!(message.contains("minimum is 1048576"), "{message}");
            assert!(message.contains("4096"), "{message}");
        }
        for bytes in [MINIMUM + 1, MINIMUM + 4095, u64::MAX] {
            assert!(
                matches!(check(bytes), Err(Error::Granule { .. })),
                "{bytes}"
            );
        }
        check(MINIMUM).unwrap();
        check(u64::MAX - 4095).unwrap();
    }

    #[test]
    fn the_address_width_bounds_the_memory_to_the_byte() {
        for (bits, most) in [(31, 2 * GIB), (32, 3 * GIB), (33, 7 * GIB), (36, 63 * GIB)] {
            assert_eq!(maximum(bits), most, "{bits}");
            check_width(most, bits).unwrap();
            let message = check_width(most + GRANULE, bits).unwrap_err().to_string();
            assert!(message.contains(&most.to_string()), "{message}");
        }
        assert!(maximum(64) > maximum(52) && maximum(52) > maximum(48));
    }

    #[test]
    fn memory_that_no_host_has_is_an_error_with_the_number() {
        let bytes = 1 << 62;
        let error = build(bytes).unwrap_err();
        let expected = format!("cannot reserve {} bytes", bytes - 3 * GIB);
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}
