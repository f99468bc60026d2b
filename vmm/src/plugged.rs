//! A virtio device as the rest of the machine sees it: something that is paused, resumed and
//! stopped, whatever the transport that its driver reaches it by.
//!
//! The transport's registers are accessed by one vCPU at a time; what leads a vCPU to them is in
//! [`window`](crate::window) and [`pci`](crate::pci).

use crate::Error;
use crate::config::{Transport, VirtioDevice};
use crate::control::ActiveDevice;
use crate::gate::Gate;
use crate::handle::DeviceReport;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use virtio::device::Kind;
use virtio::transport::{Environment, Life, mmio::Mmio, pci::Pci};
use virtio::worker::Fault;
use virtio::{Device, GuestMemory, Irq};

/// What is asked of a transport beside register accesses.
pub(crate) trait Lifecycle: Send {
    const TRANSPORT: Transport;
    fn life(&mut self) -> &mut Life;
}

impl Lifecycle for Mmio {
    const TRANSPORT: Transport = Transport::Mmio;

    fn life(&mut self) -> &mut Life {
        Mmio::life(self)
    }
}

impl Lifecycle for Pci {
    const TRANSPORT: Transport = Transport::Pci;

    fn life(&mut self) -> &mut Life {
        Pci::life(self)
    }
}

/// A device behind a transport.
pub(crate) struct Plugged<T> {
    name: String,
    kind: Kind,
    transport: Mutex<T>,
}

impl<T: Lifecycle> Plugged<T> {
    /// Puts a device behind the transport that `make` makes. If the device's code panics, the
    /// machine ends.
    pub(crate) fn new(
        VirtioDevice { device, rings, .. }: VirtioDevice,
        memory: &Arc<GuestMemory>,
        gate: &Arc<Gate>,
        irq: Arc<dyn Irq>,
        make: impl FnOnce(Box<dyn Device>, Environment) -> Result<T, virtio::Error>,
    ) -> Result<Self, Error> {
        let (name, kind) = (device.spec().name.clone(), device.spec().kind);
        let gate = Arc::clone(gate);
        let environment = Environment {
            memory: Arc::clone(memory),
            irq,
            rings,
            failed: Arc::new(move |device: &str, fault: Fault<'_>| {
                gate.end(Err(ended_by(device.into(), fault)));
            }),
        };
        let transport = make(device, environment).map_err(failed(&name, "set up"))?;
        Ok(Plugged {
            name,
            kind,
            transport: Mutex::new(transport),
        })
    }

    /// How messages call the device.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The registers. A panic in them leaves registers, which are safe to read whatever they hold.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.transport
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Lifecycle> ActiveDevice for Plugged<T> {
    fn pause(&self) -> Result<(), Error> {
        self.lock()
            .life()
            .pause()
            .map_err(failed(&self.name, "paused"))
    }

    fn resume(&self) -> Result<(), Error> {
        self.lock()
            .life()
            .resume()
            .map_err(failed(&self.name, "resumed"))
    }

    fn ask_to_stop(&self) {
        self.lock().life().ask_to_stop();
    }

    fn stop(&self) {
        self.lock().life().stop();
    }

    fn report(&self) -> DeviceReport {
        DeviceReport {
            name: self.name.clone(),
            kind: self.kind,
            transport: T::TRANSPORT,
            started: self.lock().life().ever_started(),
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
