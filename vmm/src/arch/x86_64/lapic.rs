//! The two local interrupt pins, as the multiprocessor specification wires them.
//!
//! LINT0 carries the 8259's interrupts ("virtual wire", for guests without I/O APIC), LINT1 the
//! NMI. Linux programs both again when it brings a processor up, and KVM starts the first vCPU
//! with LINT0 wired; this is for guests that rely on firmware for it.

use kvm_bindings::kvm_lapic_state;

/// Offset of each pin's entry in the local vector table, and its delivery mode (bits 8 to 10).
const PINS: [(usize, u32); 2] = [(0x350, DELIVERY_EXT_INT), (0x360, DELIVERY_NMI)];
const DELIVERY_NMI: u32 = 0b100 << 8;
const DELIVERY_EXT_INT: u32 = 0b111 << 8;

/// Wires the pins in a state that was read from KVM.
pub fn wire(state: &mut kvm_lapic_state) {
    for (offset, mode) in PINS {
        let entry = state.regs.iter_mut().skip(offset);
        for (register, byte) in entry.zip(mode.to_le_bytes()) {
            *register = byte.cast_signed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_pins_are_unmasked_with_their_mode_and_nothing_else_changes() {
        let mut state = kvm_lapic_state::default();
        wire(&mut state);
        let changed: Vec<_> = state
            .regs
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte != 0)
            .collect();
        assert_eq!(changed, [(0x351, &7), (0x361, &4)]);
    }
}
