//! A virtio device in its window of the guest's address space.
//!
//! The registers are reached over the bus, one vCPU at a time. Doorbells are not: KVM turns a
//! write to one into an event for the device's worker, and the vCPU does not leave the guest.

use crate::Error;
use crate::arch::layout::Window;
use crate::boot::DeviceWindow;
use crate::bus::{Action, BusDevice};
use crate::config::VirtioDevice;
use crate::control::ActiveDevice;
use crate::gate::Gate;
use crate::handle::DeviceReport;
use crate::irq::Line;
use kvm::{DataMatch, IoAddress, IoEventFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use virtio::GuestMemory;
use virtio::transport::Environment;
use virtio::transport::mmio::Mmio;
use virtio::worker::Fault;

pub(crate) struct VirtioMmio {
    transport: Mutex<Mmio>,
    window: DeviceWindow,
    /// Bound for as long as the device exists.
    _doorbells: Vec<IoEventFd>,
}

impl VirtioMmio {
    pub(crate) fn new(
        VirtioDevice { device, rings }: VirtioDevice,
        at: Window,
        vm: &kvm::Vm,
        memory: &Arc<GuestMemory>,
        gate: &Arc<Gate>,
    ) -> Result<Self, Error> {
        let (name, kind) = (device.spec().name.clone(), device.spec().kind);
        let doing = |doing| move |source| Error::Kvm { doing, source };
        let irq = vm
            .irqfd(at.gsi)
            .map_err(doing("binding the interrupt of a device"))?;
        let gate = Arc::clone(gate);
        let environment = Environment {
            memory: Arc::clone(memory),
            irq: Arc::new(Line(irq)),
            rings,
            failed: Arc::new(move |device: &str, fault: Fault<'_>| {
                gate.end(Err(ended_by(device.into(), fault)));
            }),
        };
        let transport = Mmio::new(device, environment).map_err(failed(&name, "set up"))?;
        let doorbells = transport
            .doorbells()
            .iter()
            .map(|doorbell| {
                let address = IoAddress::Mmio(at.base + doorbell.offset);
                let value = DataMatch::U32(doorbell.queue.into());
                vm.ioeventfd(address, Some(value), Arc::clone(&doorbell.event))
            })
            .collect::<Result<_, _>>()
            .map_err(doing("binding the doorbell of a device"))?;
        let window = DeviceWindow::new(&name, kind, at);
        Ok(VirtioMmio {
            transport: Mutex::new(transport),
            window,
            _doorbells: doorbells,
        })
    }

    pub(crate) fn window(&self) -> &DeviceWindow {
        &self.window
    }

    // A panic in the transport leaves registers, which are safe to read whatever they hold.
    fn lock(&self) -> MutexGuard<'_, Mmio> {
        self.transport
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl BusDevice for VirtioMmio {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.lock().read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        self.lock().write(offset, data);
        Action::None
    }
}

impl ActiveDevice for VirtioMmio {
    fn pause(&self) -> Result<(), Error> {
        self.lock()
            .pause()
            .map_err(failed(&self.window.name, "paused"))
    }

    fn resume(&self) -> Result<(), Error> {
        self.lock()
            .resume()
            .map_err(failed(&self.window.name, "resumed"))
    }

    fn ask_to_stop(&self) {
        self.lock().ask_to_stop();
    }

    fn stop(&self) {
        self.lock().stop();
    }

    fn report(&self) -> DeviceReport {
        DeviceReport {
            name: self.window.name.clone(),
            kind: self.window.kind,
            started: self.lock().ever_started(),
        }
    }
}

/// Why the machine ends when a device fails it.
fn ended_by(device: String, fault: Fault<'_>) -> Error {
    match fault {
        Fault::Panicked(message) => Error::DevicePanicked {
            device,
            message: message.into(),
        },
        Fault::Stuck => Error::DeviceStuck { device },
    }
}

fn failed(device: &str, done: &'static str) -> impl FnOnce(virtio::Error) -> Error {
    let device = device.to_owned();
    move |source| Error::Device {
        device,
        done,
        source,
    }
}
