//! Memory that the guest reads without an exit and can't write: a write to it is an exit.
//!
//! What is shown there belongs to whoever filled it, who goes on to change it while the guest runs.
//! [`Vm::with_rom`](crate::Vm::with_rom) makes it, for slots come before interrupt controllers; here
//! is only how it ends, once the guest does something that memory can't stand for.

use crate::error::Error;
use crate::vm::Inner;
use kvm_bindings::kvm_userspace_memory_region;
use std::sync::Arc;

/// The read-only memory of a VM. To drop this changes nothing: the memory stays as long as the VM.
#[derive(Debug)]
pub struct Rom {
    vm: Arc<Inner>,
    slots: Vec<kvm_userspace_memory_region>,
}

impl Rom {
    pub(crate) fn new(vm: Arc<Inner>, slots: Vec<kvm_userspace_memory_region>) -> Self {
        Self { vm, slots }
    }

    /// Takes it out of the guest's address space: when this returns, every access is an exit. vCPUs
    /// may run meanwhile. Takes milliseconds, and works once.
    pub fn remove(&self) -> Result<(), Error> {
        for slot in &self.slots {
            let gone = kvm_userspace_memory_region {
                memory_size: 0,
                ..*slot
            };
            // SAFETY: a slot of no size gives the guest no memory. It names one of `with_rom`'s own,
            // none of which is RAM that somebody else relies on.
            unsafe { self.vm.fd.set_user_memory_region(gone) }.map_err(|errno| Error::Slot {
                start: slot.guest_phys_addr,
                len: 0,
                source: errno.into(),
            })?;
        }
        Ok(())
    }
}
