use super::*;
use crate::memory;

const TABLES: u64 = 0x1000;

fn entry(memory: &GuestMemory, at: u64, value: u64) {
    memory.write_obj(value, GuestAddress(at)).unwrap();
}

fn long_mode(cr3: u64) -> kvm_sregs {
    kvm_sregs {
        cr0: CR0_PG,
        cr3,
        efer: EFER_LMA,
        ..kvm_sregs::default()
    }
}

fn at(rip: u64) -> kvm_regs {
    kvm_regs {
        rip,
        ..kvm_regs::default()
    }
}

#[test]
fn code_is_read_at_the_linear_address_without_paging() {
    let memory = memory::build(1 << 20).unwrap();
    memory
        .write_slice(&[0x0f, 0x0b], GuestAddress(0x12345))
        .unwrap();
    let mut sregs = kvm_sregs::default();
    sregs.cs.base = 0x10000;

    let report = locate(&at(0x2345), &sregs, &memory);

    assert_eq!(report.code.len(), 15);
    assert_eq!(report.code[..2], [0x0f, 0x0b]);
    assert_eq!(report.rip, 0x2345);
}

#[test]
fn code_is_read_through_four_levels_of_tables() {
    let memory = memory::build(1 << 20).unwrap();
    entry(&memory, TABLES + 511 * 8, 0x2000 | PRESENT);
    entry(&memory, 0x2000 + 510 * 8, 0x3000 | PRESENT);
    entry(&memory, 0x3000, 0x4000 | PRESENT);
    entry(&memory, 0x4000 + 8, 0x5000 | PRESENT);
    memory.write_slice(&[0xf4], GuestAddress(0x5ff8)).unwrap();

    let report = locate(&at(0xffff_ffff_8000_1ff8), &long_mode(TABLES), &memory);

    assert_eq!(
        report.code,
        [0xf4, 0, 0, 0, 0, 0, 0, 0],
        "up to the end of the mapped page"
    );
}

#[test]
fn a_large_page_ends_the_walk() {
    let memory = memory::build(4 << 20).unwrap();
    entry(&memory, TABLES, 0x2000 | PRESENT);
    entry(&memory, 0x2000, 0x3000 | PRESENT);
    entry(&memory, 0x3000 + 8, 0x20_0000 | PRESENT | LARGE);
    memory
        .write_slice(&[0xcc], GuestAddress(0x20_0123))
        .unwrap();

    let report = locate(&at(0x20_0123), &long_mode(TABLES), &memory);

    assert_eq!(report.code[0], 0xcc);
}

#[test]
fn tables_that_lead_nowhere_just_show_no_code() {
    let memory = memory::build(1 << 20).unwrap();
    entry(&memory, 0x2000, ADDRESS | PRESENT);
    let absent = locate(&at(0x1000), &long_mode(TABLES), &memory);
    let outside = locate(&at(0x1000), &long_mode(0x2000), &memory);
    let unmapped = locate(&at(u64::MAX), &kvm_sregs::default(), &memory);
    let old = kvm_sregs {
        cr0: CR0_PG,
        ..kvm_sregs::default()
    };
    let legacy = locate(&at(0x1000), &old, &memory);

    for report in [absent, outside, unmapped, legacy] {
        assert_eq!(report.code, [], "{report}");
    }
}
