//! The loader's register state in KVM's form.
//!
//! The loader knows nothing of KVM, and the values are already what the processor takes; this
//! only renames. What the loader leaves out (interrupt bitmap, APIC base, ...) stays as KVM has it.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use loader::{Registers, Segment, Table};

/// The general registers. Those that the loader does not name are 0.
pub fn regs(from: &Registers) -> kvm_regs {
    kvm_regs {
        rip: from.rip,
        rsp: from.rsp,
        rbp: from.rbp,
        rsi: from.rsi,
        rbx: from.rbx,
        rflags: from.rflags,
        ..kvm_regs::default()
    }
}

/// The system registers, on top of what KVM has for this vCPU.
pub fn sregs(from: &Registers, current: kvm_sregs) -> kvm_sregs {
    kvm_sregs {
        cr0: from.cr0,
        cr3: from.cr3,
        cr4: from.cr4,
        efer: from.efer,
        gdt: table(&from.gdt),
        idt: table(&from.idt),
        cs: segment(&from.cs),
        ds: segment(&from.ds),
        es: segment(&from.es),
        fs: segment(&from.fs),
        gs: segment(&from.gs),
        ss: segment(&from.ss),
        tr: segment(&from.tr),
        ldt: segment(&from.ldt),
        ..current
    }
}

fn table(from: &Table) -> kvm_dtable {
    kvm_dtable {
        base: from.base,
        limit: from.limit,
        ..kvm_dtable::default()
    }
}

fn segment(from: &Segment) -> kvm_segment {
    kvm_segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        type_: from.type_,
        present: from.present,
        dpl: from.dpl,
        db: from.db,
        s: from.s,
        l: from.l,
        g: from.g,
        // A segment that is not present must also be unusable, or the entry checks fail.
        unusable: u8::from(from.present == 0),
        ..kvm_segment::default()
    }
}
