//! Register writes that the kernel gathers, so that the guest need not leave for each.
//!
//! # The problem
//!
//! Most of what a driver writes to set a device up means nothing by itself: which queue, what size,
//! where. Each such write is an exit all the same. So is the acknowledgement of each interrupt on MMIO.
//!
//! # The design
//!
//! Devices name the registers that are *patient*: to which a write has no effect until some other
//! register is accessed. KVM puts writes to these into a ring in memory. A vCPU that leaves the guest
//! first passes on what is in the ring, in order, and then does what it left for; so devices see
//! the accesses of each vCPU as it made them. Who finds the ring empty finds all of it done: an entry
//! leaves it last. What must be seen at once (a doorbell, the status, the mask of a vector) is never
//! gathered.
//!
//! Places don't move with a BAR that the guest moves: its writes are exits then, and what arrives at
//! the old place goes to whoever is there, as any write does.
//!
//! # What it does not do
//!
//! Anything in a machine with a serial port, which takes the ring for itself: see
//! [`gather`](crate::legacy::serial).

use crate::arch::layout;
use crate::vcpu::Board;
use kvm::{CoalescedRing, IoAddress};
use std::ops::Range;

/// Ports and addresses whose writes may be gathered.
#[derive(Default)]
pub(crate) struct Patient(Vec<(IoAddress, u32)>);

impl Patient {
    /// Some guest-physical addresses, from `base` on.
    pub(crate) fn add(&mut self, base: u64, range: Range<u64>) {
        if let Ok(len) = u32::try_from(range.end.saturating_sub(range.start)) {
            let start = base.saturating_add(range.start);
            self.0.push((IoAddress::Mmio(start), len));
        }
    }

    /// A register that says what another port is about.
    pub(crate) fn add_index(&mut self, ports: &Range<u64>, len: u32) {
        if let Ok(port) = u16::try_from(ports.start) {
            self.0.push((IoAddress::Pio(port), len));
        }
    }

    /// Has the kernel gather. What it refuses stays an exit.
    pub(crate) fn register(&self, vm: &kvm::Vm) {
        for (at, len) in &self.0 {
            if let Err(error) = vm.coalesce(*at, *len) {
                log::debug!("each write there is an exit: {error}");
            }
        }
    }
}

/// Where gathered writes come from.
pub(crate) trait Gathered: Send + Sync {
    /// Takes out what there is, in order, until none is left.
    fn take(&self, each: &mut dyn FnMut(IoAddress, &[u8]));
}

impl Gathered for CoalescedRing {
    fn take(&self, each: &mut dyn FnMut(IoAddress, &[u8])) {
        if self.is_empty() {
            return;
        }
        if let Err(error) = self.drain(|write| each(write.at, write.data())) {
            log::error!("gathered register writes are lost: {error}");
        }
    }
}

impl Board {
    /// Does what the guest wanted before it left.
    pub(crate) fn take_gathered(&self) {
        let Some(gathered) = &self.gathered else {
            return;
        };
        gathered.take(&mut |at, data| {
            log::trace!(target: "vmm::exits", "gathered: write {at} {data:x?}");
            // A patient register asks nothing of the machine.
            let _ = match at {
                IoAddress::Pio(port) => self.pio.write(port.into(), data),
                IoAddress::Mmio(address) => self.mmio.write(address, data),
            };
        });
    }
}

/// Those of the board itself.
pub(crate) fn of_board() -> Patient {
    let mut patient = Patient::default();
    patient.add_index(&layout::RTC_PORTS, 1);
    patient
}

#[cfg(test)]
mod tests;
