//! Where was the guest, and what was it about to execute?
//!
//! For messages only: everything here is taken from a guest that has lost its way, so a page
//! table that leads nowhere just means that the code can't be shown.

use crate::outcome::CrashReport;
use kvm_bindings::{kvm_regs, kvm_sregs};
use virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

/// The longest instruction of the architecture.
const MAX_INSTRUCTION: usize = 15;

const CR0_PG: u64 = 1 << 31;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;

/// A page table entry: valid, and whether it maps a large page.
const PRESENT: u64 = 1 << 0;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Makes a report of a vCPU's registers; the caller fills in which vCPU.
pub(crate) fn locate(regs: &kvm_regs, sregs: &kvm_sregs, memory: &GuestMemory) -> CrashReport {
    CrashReport {
        cpu: 0,
        rip: regs.rip,
        rsp: regs.rsp,
        rflags: regs.rflags,
        cr0: sregs.cr0,
        cr2: sregs.cr2,
        cr3: sregs.cr3,
        cr4: sregs.cr4,
        code: code(regs, sregs, memory),
    }
}

fn code(regs: &kvm_regs, sregs: &kvm_sregs, memory: &GuestMemory) -> Vec<u8> {
    // Byte by byte, so that code up to the end of the last mapped page is shown.
    (0..MAX_INSTRUCTION as u64)
        .map_while(|offset| {
            let linear = sregs.cs.base.wrapping_add(regs.rip).wrapping_add(offset);
            let physical = translate(linear, sregs, memory)?;
            memory.read_obj::<u8>(GuestAddress(physical)).ok()
        })
        .collect()
}

/// A linear address as a physical one: without paging, or through the tables of long mode.
fn translate(linear: u64, sregs: &kvm_sregs, memory: &GuestMemory) -> Option<u64> {
    if sregs.cr0 & CR0_PG == 0 {
        return Some(linear);
    }
    if sregs.efer & EFER_LMA == 0 {
        // 32-bit paging: a kernel of today is in it for a few instructions.
        return None;
    }
    let levels = if sregs.cr4 & CR4_LA57 == 0 { 4 } else { 5 };
    let mut table = sregs.cr3 & ADDRESS;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let index = (linear >> shift) & 0x1ff;
        let entry: u64 = memory.read_obj(GuestAddress(table + index * 8)).ok()?;
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 0 || (level <= 2 && entry & LARGE != 0) {
            let within = (1 << shift) - 1;
            return Some((entry & ADDRESS & !within) | (linear & within));
        }
        table = entry & ADDRESS;
    }
    None
}

#[cfg(test)]
mod tests;
