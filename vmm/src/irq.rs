//! Interrupt lines: what a device pulls, without knowing of KVM.

use kvm::IrqFd;
use virtio::Irq;

/// A line of the interrupt controllers in KVM. Pulling it is one write to an event descriptor.
///
/// A virtio-mmio device has a single line for everything; which queue it was for is in its
/// interrupt status register, which the transport sets first.
pub(crate) struct Line(pub(crate) IrqFd);

impl Irq for Line {
    fn queue(&self, _queue: u16) {
        self.0.trigger();
    }

    fn config(&self) {
        self.0.trigger();
    }
}
