//! What a guest finds where a PC's firmware begins: a few instructions that reset the machine.
//!
//! Linux reboots by them unless its command line says otherwise. Where ACPI is hardware-reduced it
//! would rather have EFI do it, and without EFI it does not go back to ACPI's reset register: it
//! enters real mode and jumps to the firmware. In RAM that is all zeros it would stay for ever.

use crate::arch::layout::RESET_VECTOR;
use virtio::memory::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

/// The processor's 16-bit code: the keyboard controller pulses the reset line. The chipset's reset
/// port would not do, for with PCI writes to it may be gathered, and a halt is no exit.
#[rustfmt::skip]
const CODE: [u8; 7] = [
    0xb0, 0xfe, // mov al, 0xfe
    0xe6, 0x64, // out 0x64, al
    0xf4,       // hlt, until the machine has ended
    0xeb, 0xfd, // jmp to the hlt
];

/// Puts it there. Whatever a loader writes to the same place later stays.
pub fn write(memory: &GuestMemory) {
    // A machine with so little RAM, or RAM elsewhere, has no firmware to jump to.
    drop(memory.write_slice(&CODE, GuestAddress(RESET_VECTOR)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::layout::FIRMWARE_END;
    use crate::legacy::i8042::{COMMAND_PORT, RESET};

    #[test]
    fn the_code_ends_with_the_firmware_at_the_latest_and_writes_to_the_controller() {
        assert!(RESET_VECTOR + CODE.len() as u64 <= FIRMWARE_END);
        assert_eq!((u64::from(CODE[3]), CODE[1]), (COMMAND_PORT, RESET));
    }
}
