//! What a guest finds where a PC's firmware begins: a few instructions that reset the machine.
//!
//! Linux reboots by them unless its command line says otherwise. Where ACPI is hardware-reduced it
//! would rather have EFI do it, and without EFI it does not go back to ACPI's reset register: it
//! enters real mode and jumps to the firmware. In RAM that is all zeros it would stay for ever.

use super::reset::RESET_VALUE;
use crate::arch::layout::{RESET_PORT, RESET_VECTOR};
use virtio::memory::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

/// The processor's 16-bit code.
fn code() -> [u8; 9] {
    let [low, high, ..] = RESET_PORT.start.to_le_bytes();
    [
        0xb0,
        RESET_VALUE, // mov al, RESET_VALUE
        0xba,
        low,
        high, // mov dx, RESET_PORT
        0xee, // out dx, al
        0xf4, // hlt, for when another vCPU was faster to end the machine
        0xeb,
        0xfd, // jmp to the hlt
    ]
}

/// Puts it there. Whatever a loader writes to the same place later stays.
pub fn write(memory: &GuestMemory) {
    // A machine with so little RAM, or RAM elsewhere, has no firmware to jump to.
    drop(memory.write_slice(&code(), GuestAddress(RESET_VECTOR)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_fits_and_jumps_back_to_its_halt() {
        let code = code();
        let jump = i64::from(code[8].cast_signed());

        assert!(RESET_VECTOR + code.len() as u64 <= crate::arch::layout::FIRMWARE_END);
        assert_eq!(code[6], 0xf4);
        assert_eq!(code.len() as i64 + jump, 6);
    }
}
