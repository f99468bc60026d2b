//! A virtio-mmio device in its window of the guest's address space.
//!
//! The registers are reached over the bus. Doorbells are not: KVM turns a write to one into an
//! event for the device's worker, and the vCPU does not leave the guest.

use crate::Error;
use crate::arch::layout::Window;
use crate::boot::DeviceWindow;
use crate::bus::{Action, BusDevice};
use crate::config::VirtioDevice;
use crate::gate::Gate;
use crate::irq::Line;
use crate::plugged::Plugged;
use kvm::{DataMatch, IoAddress, IoEventFd};
use std::sync::Arc;
use virtio::GuestMemory;
use virtio::transport::mmio::Mmio;

pub(crate) struct VirtioMmio {
    device: Arc<Plugged<Mmio>>,
    window: DeviceWindow,
    /// Bound for as long as the device exists.
    _doorbells: Vec<IoEventFd>,
}

impl VirtioMmio {
    pub(crate) fn new(
        device: VirtioDevice,
        at: Window,
        vm: &kvm::Vm,
        memory: &Arc<GuestMemory>,
        gate: &Arc<Gate>,
    ) -> Result<Self, Error> {
        let doing = |doing| move |source| Error::Kvm { doing, source };
        let irq = vm
            .irqfd(at.gsi)
            .map_err(doing("binding the interrupt of a device"))?;
        let device = Plugged::new(device, memory, gate, Arc::new(Line(irq)), Mmio::new)?;
        let doorbells = device
            .lock()
            .doorbells()
            .iter()
            .map(|doorbell| {
                let address = IoAddress::Mmio(at.base + doorbell.offset);
                let value = DataMatch::U32(doorbell.queue.into());
                vm.ioeventfd(address, Some(value), Arc::clone(&doorbell.event))
            })
            .collect::<Result<_, _>>()
            .map_err(doing("binding the doorbell of a device"))?;
        let window = DeviceWindow::new(device.name(), device.kind(), at);
        Ok(VirtioMmio {
            device: Arc::new(device),
            window,
            _doorbells: doorbells,
        })
    }

    pub(crate) fn device(&self) -> &Arc<Plugged<Mmio>> {
        &self.device
    }

    pub(crate) fn window(&self) -> &DeviceWindow {
        &self.window
    }
}

impl BusDevice for VirtioMmio {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.device.lock().read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        self.device.lock().write(offset, data);
        Action::None
    }
}
