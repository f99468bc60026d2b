//! The CPU state that the two boot protocols ask for: 64-bit mode with paging, or flat 32-bit
//! protected mode without.
//!
//! Both use one GDT with the selectors of Linux' boot protocol. Page tables map addresses to
//! themselves in 2 MiB pages: not every CPU has 1 GiB pages (CPUID PDPE1GB), and without them such
//! an entry is a triple fault at the first instruction. Mapped are the first 4 GiB, and the GiBs
//! above that hold the initrd.

use std::collections::BTreeSet;
use std::ops::Range;

use vm_memory::GuestMemoryBackend;

use crate::error::Error;
use crate::guest::write;
use crate::layout::{FOUR_GIB, GDT, GIB, PAGE, PAGE_TABLES, STACK_TOP, START_INFO, ZERO_PAGE};
use crate::registers::{Registers, Segment, Table};

const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
const BOOT_TSS: u16 = 0x20;
const TYPE_CODE: u8 = 0xb;
const TYPE_DATA: u8 = 0x3;
const TYPE_BUSY_TSS: u8 = 0xb;
const TYPE_LDT: u8 = 0x2;

/// Bit 1 of RFLAGS is always set.
const RFLAGS: u64 = 1 << 1;
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const PAGE_SIZE: u64 = 1 << 7;
const ENTRIES: u64 = 512;
const TWO_MIB: u64 = 2 << 20;

/// State for Linux' 64-bit entry. Also maps what is in `above`, beyond the first 4 GiB.
pub(crate) fn long_mode<M: GuestMemoryBackend>(
    memory: &M,
    entry: u64,
    above: Option<&Range<u64>>,
) -> Result<Registers, Error> {
    write_page_tables(memory, above)?;
    let flags = Segment {
        l: 1,
        ..Segment::default()
    };
    Ok(Registers {
        rsi: ZERO_PAGE,
        cr0: CR0_PE | CR0_ET | CR0_PG,
        cr3: PAGE_TABLES.start,
        cr4: CR4_PAE,
        efer: EFER_LME | EFER_LMA,
        ..with_segments(memory, entry, flags)?
    })
}

/// State for the PVH entry.
pub(crate) fn protected_mode<M: GuestMemoryBackend>(
    memory: &M,
    entry: u64,
) -> Result<Registers, Error> {
    let flags = Segment {
        db: 1,
        ..Segment::default()
    };
    Ok(Registers {
        rbx: START_INFO,
        cr0: CR0_PE | CR0_ET,
        ..with_segments(memory, entry, flags)?
    })
}

fn with_segments<M: GuestMemoryBackend>(
    memory: &M,
    entry: u64,
    code_flags: Segment,
) -> Result<Registers, Error> {
    let flat = Segment {
        limit: u32::MAX,
        present: 1,
        s: 1,
        g: 1,
        ..Segment::default()
    };
    let (l, db) = (code_flags.l, code_flags.db);
    let code = Segment {
        selector: BOOT_CS,
        type_: TYPE_CODE,
        l,
        db,
        ..flat
    };
    let data = Segment {
        selector: BOOT_DS,
        type_: TYPE_DATA,
        db: 1,
        ..flat
    };
    let tss = Segment {
        selector: BOOT_TSS,
        type_: TYPE_BUSY_TSS,
        limit: 0x67,
        present: 1,
        ..Segment::default()
    };
    // Two empty ones come first: selector 0 is the null selector, 8 is unused in Linux' protocol.
    // The TSS takes two.
    let table = [
        0,
        0,
        descriptor(&code),
        descriptor(&data),
        descriptor(&tss),
        0,
    ];
    let bytes: Vec<u8> = table
        .iter()
        .flat_map(|entry: &u64| entry.to_le_bytes())
        .collect();
    write(memory, "the GDT", GDT, &bytes)?;
    Ok(Registers {
        rip: entry,
        rsp: STACK_TOP,
        rflags: RFLAGS,
        gdt: Table {
            base: GDT,
            limit: bytes.len() as u16 - 1,
        },
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: tss,
        ldt: Segment {
            type_: TYPE_LDT,
            ..Segment::default()
        },
        ..Registers::default()
    })
}

/// A segment as the GDT stores it (SDM volume 3, figure 3-8).
fn descriptor(segment: &Segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let access = segment.type_ | segment.s << 4 | segment.dpl << 5 | segment.present << 7;
    let flags = segment.l << 1 | segment.db << 2 | segment.g << 3;
    limit & 0xffff
        | (segment.base & 0xff_ffff) << 16
        | u64::from(access) << 40
        | (limit >> 16 & 0xf) << 48
        | u64::from(flags) << 52
        | (segment.base >> 24 & 0xff) << 56
}

/// A table is written whole, from low to high: PML4, then page-directory-pointer tables, then page
/// directories.
fn write_page_tables<M: GuestMemoryBackend>(
    memory: &M,
    above: Option<&Range<u64>>,
) -> Result<(), Error> {
    let mut gigabytes: BTreeSet<u64> = (0..FOUR_GIB / GIB).collect();
    if let Some(range) = above.filter(|range| !range.is_empty()) {
        gigabytes.extend(range.start / GIB..=(range.end - 1) / GIB);
    }
    let pointer_tables: BTreeSet<u64> = gigabytes
        .iter()
        .map(|gigabyte| gigabyte / ENTRIES)
        .collect();
    let count = 1 + pointer_tables.len() as u64 + gigabytes.len() as u64;
    let highest = gigabytes.last().copied().unwrap_or_default();
    if PAGE_TABLES.start + count * PAGE > PAGE_TABLES.end || highest >= ENTRIES * ENTRIES {
        return Err(Error::PageTables {
            address: highest.saturating_mul(GIB),
        });
    }

    let first_pointer_table = PAGE_TABLES.start + PAGE;
    let first_directory = first_pointer_table + pointer_tables.len() as u64 * PAGE;
    let tables = |first: u64, numbers: &BTreeSet<u64>| -> Vec<(u64, u64)> {
        numbers
            .iter()
            .zip(0..)
            .map(|(number, position)| (*number, first + position * PAGE))
            .collect()
    };
    let pointer_tables = tables(first_pointer_table, &pointer_tables);
    let directories = tables(first_directory, &gigabytes);

    write_table(memory, PAGE_TABLES.start, |index| {
        link(&pointer_tables, index)
    })?;
    for (number, address) in &pointer_tables {
        write_table(memory, *address, |index| {
            link(&directories, number * ENTRIES + index)
        })?;
    }
    for (gigabyte, address) in &directories {
        write_table(memory, *address, |index| {
            (gigabyte * GIB + index * TWO_MIB) | PRESENT | WRITABLE | PAGE_SIZE
        })?;
    }
    Ok(())
}

/// The entry that points to the table of this number, if there is one.
fn link(tables: &[(u64, u64)], number: u64) -> u64 {
    tables
        .iter()
        .find(|(candidate, _)| *candidate == number)
        .map_or(0, |(_, address)| address | PRESENT | WRITABLE)
}

fn write_table<M: GuestMemoryBackend>(
    memory: &M,
    address: u64,
    entry: impl Fn(u64) -> u64,
) -> Result<(), Error> {
    let bytes: Vec<u8> = (0..ENTRIES)
        .flat_map(|index| entry(index).to_le_bytes())
        .collect();
    write(memory, "a page table", address, &bytes)
}

#[cfg(test)]
mod tests;
