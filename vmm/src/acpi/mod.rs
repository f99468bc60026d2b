//! The tables that describe the machine to the guest (ACPI 6.5).
//!
//! ```text
//!  RSDP -> XSDT -> FADT -> DSDT     devices as bytecode
//!               -> MADT             processors and interrupt controllers
//!               -> MCFG             where PCI configuration space is, if there is PCI
//! ```
//!
//! The machine is *hardware-reduced* (3.11.1): no system control interrupt, no PM timer, no
//! ACPI mode to switch to. That is less to emulate and less for the guest to probe. What it has
//! instead: sleep and reset registers, and an event device whose interrupt carries the power
//! button. The FADT also says what is *not* there (VGA, keyboard controller), each of which saves
//! the guest a search by port I/O, at one exit an access.
//!
//! The tables are bytes first and get their place last: in the BIOS area when they fit, else at
//! the end of low RAM, which thousands of processors need. Only RSDP, XSDT and FADT hold
//! addresses.

mod dsdt;
mod tables;

use crate::arch::layout::{ACPI_TABLES, FIRMWARE_END, Window};
use std::ops::Range;
use virtio::memory::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// What the tables have to describe.
#[derive(Debug, Clone, Copy)]
pub struct AcpiInfo<'a> {
    /// The number of processors; the APIC id of each is its number.
    pub cpus: u32,
    /// The virtio-mmio devices.
    pub virtio_mmio: &'a [Window],
    /// Whether there is a PCI bus.
    pub pci: bool,
    /// Whether COM1 is there.
    pub serial: bool,
    /// Whether the guest is told of the CMOS clock. Linux then registers it as `rtc0` and reads it
    /// at boot, at about a hundred exits; one with KVM's clock knows the time without.
    pub rtc: bool,
}

/// Where the tables are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// The root pointer, for the guest's boot parameters.
    pub rsdp: GuestAddress,
    /// The RAM that they take, in whole pages: to be reserved in the memory map.
    pub reserved: Range<u64>,
}

/// Why there are no tables.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No room in low memory.
    #[error("cannot place {bytes} bytes of ACPI tables: low memory ends at {end:#x}")]
    NoRoom {
        /// The size of all tables.
        bytes: u64,
        /// The end of RAM below 4 GiB.
        end: u64,
    },
    /// A device lies where a 32-bit descriptor can't say.
    #[error("cannot describe a device at {base:#x}+{size:#x}: it has to lie below 4 GiB")]
    Window {
        /// Its address.
        base: u64,
        /// Its size.
        size: u64,
    },
    /// More devices than names.
    #[error("cannot describe {count} virtio-mmio devices: there are names for {limit}")]
    TooManyDevices {
        /// How many there are.
        count: usize,
        /// How many there can be.
        limit: usize,
    },
    /// More processors than names.
    #[error("cannot describe {count} processors: there are names for {limit}")]
    TooManyCpus {
        /// How many there are.
        count: u32,
        /// How many there can be.
        limit: u32,
    },
    /// The tables could not be written to guest memory.
    #[error("cannot write ACPI tables to {address:#x}")]
    Write {
        /// Where.
        address: u64,
        /// What vm-memory said.
        source: vm_memory::GuestMemoryError,
    },
}

/// Writes the tables to guest memory.
pub fn build(memory: &GuestMemory, info: &AcpiInfo<'_>) -> Result<Tables, Error> {
    let low_end = memory
        .iter()
        .map(|region| region.start_addr().0.saturating_add(region.len()))
        .filter(|end| *end <= crate::arch::layout::MMIO_HOLE_START)
        .max()
        .unwrap_or(0);
    let (bytes, tables) = assemble(info, low_end)?;
    let address = tables.rsdp;
    memory
        .write_slice(&bytes, address)
        .map_err(|source| Error::Write {
            address: address.0,
            source,
        })?;
    Ok(tables)
}

/// All tables as they are to lie in memory, in one piece, and where.
fn assemble(info: &AcpiInfo<'_>, low_end: u64) -> Result<(Vec<u8>, Tables), Error> {
    let dsdt = tables::dsdt(&dsdt::body(info)?);
    let others: Vec<_> = [tables::madt(info)]
        .into_iter()
        .chain(info.pci.then(tables::mcfg))
        .collect();

    let mut size = 0;
    let [rsdp_at, xsdt_at, fadt_at, dsdt_at] = [
        tables::RSDP_SIZE,
        tables::xsdt_size(1 + others.len()),
        tables::FADT_SIZE,
        dsdt.len(),
    ]
    .map(|length| place(&mut size, length));
    let others: Vec<_> = others
        .into_iter()
        .map(|table| (place(&mut size, table.len()), table))
        .collect();
    let base = find_place(size, low_end)?;

    let listed: Vec<_> = [fadt_at]
        .into_iter()
        .chain(others.iter().map(|(at, _)| *at))
        .map(|at| base + at)
        .collect();
    let mut bytes = Vec::new();
    for (at, table) in [
        (rsdp_at, tables::rsdp(base + xsdt_at)),
        (xsdt_at, tables::xsdt(&listed)),
        (fadt_at, tables::fadt(base + dsdt_at, info)),
        (dsdt_at, dsdt),
    ]
    .into_iter()
    .chain(others)
    {
        bytes.resize(usize::try_from(at).unwrap_or(usize::MAX), 0);
        bytes.extend_from_slice(&table);
    }
    let reserved = base..(base + size).next_multiple_of(PAGE);
    Ok((
        bytes,
        Tables {
            rsdp: GuestAddress(base),
            reserved,
        },
    ))
}

const PAGE: u64 = 4096;
/// The RSDP has to lie on 16 bytes (5.2.5.1); that is good for the others, too.
const ALIGNMENT: u64 = 16;

/// Takes room for a table at the end of those placed so far.
fn place(size: &mut u64, length: usize) -> u64 {
    let at = size.next_multiple_of(ALIGNMENT);
    *size = at + length as u64;
    at
}

fn find_place(size: u64, low_end: u64) -> Result<u64, Error> {
    let bios_area = ACPI_TABLES.end.min(low_end);
    if ACPI_TABLES.start + size <= bios_area {
        return Ok(ACPI_TABLES.start);
    }
    low_end
        .checked_sub(size.next_multiple_of(PAGE))
        .map(|base| base & !(PAGE - 1))
        .filter(|base| *base >= FIRMWARE_END)
        .ok_or(Error::NoRoom {
            bytes: size,
            end: low_end,
        })
}

#[cfg(test)]
mod tests;
