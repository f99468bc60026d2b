//! The state that the boot protocols ask for, and the page tables as a CPU would walk them.

use super::*;
use crate::testing::{MIB, ram, word};
use vm_memory::GuestMemoryMmap;

/// What a linear address means, and whether a 1 GiB page was met. None: a page fault.
fn walk(memory: &GuestMemoryMmap, cr3: u64, linear: u64) -> Option<u64> {
    let mut table = cr3;
    for shift in [39, 30] {
        let entry = word(memory, table + (linear >> shift & 0x1ff) * 8);
        assert_eq!(
            entry & PAGE_SIZE,
            0,
            "a page larger than 2 MiB at {linear:#x}"
        );
        if entry & PRESENT == 0 {
            return None;
        }
        assert_ne!(entry & WRITABLE, 0);
        table = entry & !0xfff;
    }
    let entry = word(memory, table + (linear >> 21 & 0x1ff) * 8);
    assert_eq!(
        entry & (PRESENT | WRITABLE | PAGE_SIZE),
        PRESENT | WRITABLE | PAGE_SIZE
    );
    Some((entry & !(TWO_MIB - 1)) + (linear & (TWO_MIB - 1)))
}

#[test]
fn long_mode_is_as_linux_asks() {
    let memory = ram(&[0..2 * MIB]);

    let registers = long_mode(&memory, 0x100_0200, None).unwrap();

    assert_eq!(
        (registers.rip, registers.rsi, registers.rbx),
        (0x100_0200, ZERO_PAGE, 0)
    );
    assert_eq!(registers.rflags, 2);
    assert_eq!(registers.cr0, 0x8000_0011);
    assert_eq!((registers.cr4, registers.efer), (0x20, 0x500));
    assert_eq!(
        (registers.cs.selector, registers.cs.l, registers.cs.db),
        (0x10, 1, 0)
    );
    assert_eq!((registers.ds.selector, registers.ds.type_), (0x18, 3));
    assert_eq!([registers.es, registers.ss], [registers.ds; 2]);
}

#[test]
fn protected_mode_is_as_pvh_asks() {
    let memory = ram(&[0..2 * MIB]);

    let registers = protected_mode(&memory, 0x100_0010).unwrap();

    assert_eq!(
        (registers.rip, registers.rbx, registers.rsi),
        (0x100_0010, START_INFO, 0)
    );
    assert_eq!(
        (registers.cr0, registers.cr3, registers.cr4, registers.efer),
        (0x11, 0, 0, 0)
    );
    let cs = registers.cs;
    assert_eq!(
        (cs.base, cs.limit, cs.type_, cs.db, cs.l),
        (0, u32::MAX, 0xb, 1, 0)
    );
    assert_eq!(
        (registers.ds.base, registers.ds.limit, registers.ds.type_),
        (0, u32::MAX, 3)
    );
    assert_eq!(
        (registers.tr.base, registers.tr.limit, registers.tr.type_),
        (0, 0x67, 0xb)
    );
}

#[test]
fn the_gdt_agrees_with_the_segment_registers() {
    let memory = ram(&[0..2 * MIB]);

    let registers = long_mode(&memory, 0, None).unwrap();

    assert_eq!(
        registers.gdt,
        Table {
            base: GDT,
            limit: 47
        }
    );
    assert_eq!(registers.idt, Table::default());
    assert_eq!(word(&memory, GDT), 0);
    assert_eq!(
        word(&memory, GDT + u64::from(registers.cs.selector)),
        0x00af_9b00_0000_ffff
    );
    assert_eq!(
        word(&memory, GDT + u64::from(registers.ds.selector)),
        0x00cf_9300_0000_ffff
    );
    assert_eq!(
        word(&memory, GDT + u64::from(registers.tr.selector)),
        0x0000_8b00_0000_0067
    );
}

#[test]
fn four_gib_are_mapped_to_themselves_and_no_more() {
    let memory = ram(&[0..2 * MIB]);

    let registers = long_mode(&memory, 0, None).unwrap();

    for gigabyte in 0..4 {
        for offset in [0, 0x1f_ffff, 0x20_0000, GIB - 1] {
            let address = gigabyte * GIB + offset;
            assert_eq!(walk(&memory, registers.cr3, address), Some(address));
        }
    }
    assert_eq!(walk(&memory, registers.cr3, FOUR_GIB), None);
    assert_eq!(walk(&memory, registers.cr3, 512 * GIB), None);
}

#[test]
fn an_initrd_across_512_gib_is_mapped() {
    let memory = ram(&[0..2 * MIB]);

    let registers = long_mode(&memory, 0, Some(&(510 * GIB + 5..513 * GIB))).unwrap();

    for address in [
        0,
        FOUR_GIB - 1,
        510 * GIB + 5,
        512 * GIB - 1,
        512 * GIB,
        513 * GIB - 1,
    ] {
        assert_eq!(walk(&memory, registers.cr3, address), Some(address));
    }
    assert_eq!(walk(&memory, registers.cr3, 509 * GIB), None);
    assert_eq!(walk(&memory, registers.cr3, 513 * GIB), None);
}

#[test]
fn what_four_levels_cannot_reach_is_refused() {
    let memory = ram(&[0..2 * MIB]);

    let error = long_mode(&memory, 0, Some(&(1 << 48..(1 << 48) + 1))).unwrap_err();

    assert!(matches!(
        error,
        Error::PageTables {
            address: 0x1_0000_0000_0000
        }
    ));
}

#[test]
fn page_tables_stay_within_their_area() {
    let memory = ram(&[0..2 * MIB]);

    long_mode(&memory, 0, Some(&(510 * GIB..514 * GIB))).unwrap();

    assert_eq!(word(&memory, PAGE_TABLES.end), 0);
    assert!(long_mode(&memory, 0, Some(&(510 * GIB..600 * GIB))).is_err());
}
