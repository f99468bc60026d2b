//! Doorbells in a BAR, bound to KVM: a notify is an event, and the vCPU stays in the guest.

use super::places::{Binder, Bound};
use kvm::IoAddress;
use std::sync::Arc;
use virtio::transport::Doorbell;

impl Binder for kvm::Vm {
    /// A doorbell that KVM refuses is none: the notify is an exit then, and arrives as well. The
    /// guest moves BARs as it likes, so that must not end the machine.
    fn bind(&self, name: &str, base: u64, doorbells: &[Doorbell]) -> Bound {
        let bind = |doorbell: &Doorbell| {
            let address = IoAddress::Mmio(base + doorbell.offset);
            // The address says which queue, so any value rings.
            self.ioeventfd(address, None, Arc::clone(&doorbell.event))
                .inspect_err(|error| log::debug!("each notify of {name} is an exit: {error}"))
                .ok()
        };
        Box::new(doorbells.iter().filter_map(bind).collect::<Vec<_>>())
    }
}
