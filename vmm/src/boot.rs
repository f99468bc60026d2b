//! What puts a guest into memory: [`loader::load`], or a loader of the embedder's.

use crate::arch::layout::Window;
use loader::{Boot, Payload, Platform};
use std::error::Error;
use virtio::GuestMemory;
use virtio::device::Kind;

/// Puts something to run into guest memory, and says in which state the first vCPU starts.
///
/// A [`Config`](crate::Config) without one uses [`loader::load`] on its payload. Closures are
/// loaders too:
///
/// ```
/// # use vmm::{Config, Guest};
/// let mut config = Config::default();
/// config.loader = Some(Box::new(|guest: &Guest<'_>| Err("nothing to run".into())));
/// ```
pub trait Loader: Send {
    /// Called once, before any vCPU runs.
    fn load(&mut self, guest: &Guest<'_>) -> Result<Boot, Box<dyn Error + Send + Sync>>;
}

impl<F> Loader for F
where
    F: FnMut(&Guest<'_>) -> Result<Boot, Box<dyn Error + Send + Sync>> + Send,
{
    fn load(&mut self, guest: &Guest<'_>) -> Result<Boot, Box<dyn Error + Send + Sync>> {
        self(guest)
    }
}

/// The machine that a [`Loader`] loads into.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Guest<'a> {
    /// All of RAM. What is reserved by the platform is written already.
    pub memory: &'a GuestMemory,
    /// Where firmware tables are, and what the machine adds to the command line.
    pub platform: &'a Platform<'a>,
    /// As configured.
    pub payload: Option<&'a Payload>,
    /// Where the virtio-mmio devices are. Those on PCI are found by asking the bus.
    pub devices: &'a [DeviceWindow],
}

/// Where in the guest's address space a virtio-mmio device is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceWindow {
    /// The name of the device, as messages call it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The guest-physical address of its registers.
    pub base: u64,
    /// How many bytes of registers there are.
    pub size: u64,
    /// Its interrupt line.
    pub gsi: u32,
}

impl DeviceWindow {
    pub(crate) fn new(name: &str, kind: Kind, at: Window) -> Self {
        DeviceWindow {
            name: name.to_owned(),
            kind,
            base: at.base,
            size: at.size,
            gsi: at.gsi,
        }
    }

    /// The kernel parameter that tells of this device where no ACPI table does.
    pub(crate) fn parameter(&self) -> String {
        format!(
            "virtio_mmio.device={:#x}@{:#x}:{}",
            self.size, self.base, self.gsi
        )
    }
}
