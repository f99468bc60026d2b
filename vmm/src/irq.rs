//! Interrupts: what a device raises, without knowing of KVM.

use crate::bus::LogLimit;
use kvm::{IrqFd, MsiMessage, MsiVector};
use virtio::Irq;
use virtio::transport::pci::{Message, Msi};

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

/// The line of a device that interrupts by messages: none.
pub(crate) struct NoLine;

impl Irq for NoLine {
    fn queue(&self, _queue: u16) {}

    fn config(&self) {}
}

/// The messages of a PCI function. Sending one is one write to an event descriptor.
pub(crate) struct Messages {
    vectors: Vec<MsiVector>,
    refused: LogLimit,
}

impl Messages {
    /// As many vectors as there are, none of which costs anything until the guest uses it.
    pub(crate) fn new(vm: &kvm::Vm, vectors: usize) -> Result<Self, kvm::Error> {
        Ok(Messages {
            vectors: (0..vectors)
                .map(|_| vm.msi_vector())
                .collect::<Result<_, _>>()?,
            refused: LogLimit::new(),
        })
    }
}

impl Msi for Messages {
    fn vectors(&self) -> u16 {
        u16::try_from(self.vectors.len()).unwrap_or(u16::MAX)
    }

    fn program(&self, vector: u16, message: Option<Message>) {
        // One that is masked is not signalled, and mostly unmasked again with the same message: it
        // keeps its route, so that neither is a call.
        if let Some(Message { address, data }) = message
            && let Some(route) = self.vectors.get(usize::from(vector))
            && let Err(error) = route.route(MsiMessage { address, data })
            && log::log_enabled!(log::Level::Debug)
            && self.refused.allows()
        {
            log::debug!("MSI-X vector {vector} interrupts nobody: {error}");
        }
    }

    fn signal(&self, vector: u16) {
        if let Some(vector) = self.vectors.get(usize::from(vector)) {
            vector.trigger();
        }
    }
}
