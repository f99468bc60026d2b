//! The PCI transport (virtio 1.2, 4.1), without its legacy: register decode and nothing else.
//!
//! A function is two address spaces. The machine passes accesses to its configuration space, and
//! asks after each write where BAR 0 answers then ([`Pci::decoded`]); accesses to BAR 0 come
//! with their offset in it. What registers mean is in [`Core`](super::Core), as for MMIO.
//!
//! ```text
//!  BAR 0, a page (or pages) each, so that a hypervisor can map or trap them by themselves
//!   0x0000  common configuration      status, features, queue set-up     common.rs
//!   0x1000  ISR status                why the device interrupts; read clears
//!   0x2000  device configuration      the device's own
//!   0x3000  notification              4 bytes for each queue: doorbells
//!   0x4000  MSI-X pending bits                                           msix.rs
//!   0x8000  MSI-X table               up to 2048 vectors
//! ```
//!
//! Interrupts are MSI-X and nothing else: INTx is not offered, and a driver that uses no MSI-X
//! can poll the ISR status. Messages leave through the [`Msi`] trait.
//!
//! A driver can reach BAR 0 through the configuration space as well, before it is mapped: that is
//! the window of 4.1.4.9.
//!
//! Not here: power states and function level reset (a device is reset by its status), and PCI
//! Express; each is a capability that drivers do without. Whether the function may be a bus
//! master is kept and read back, but stops nothing.

pub mod common;
mod config;
pub(crate) mod layout;
mod msix;
#[cfg(test)]
mod tests;

pub use msix::{Message, Msi};

use super::front::Front;
use super::{Doorbell, Environment, Life};
use crate::device::Kind;
use crate::worker::Mode;
use crate::{Device, Error};
use config::Config;
use layout::{
    BAR_SIZE, COMMON, DEVICE, ISR, Layout, MSIX_ENABLE, MSIX_MASK, NOTIFY, NOTIFY_STEP, PENDING,
    TABLE, WINDOW_BAR, WINDOW_DATA, WINDOW_END, WINDOW_LENGTH, WINDOW_OFFSET, identity,
};
use msix::{Table, Vectors};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// What a virtio structure is for, as its capability says (4.1.4).
pub mod structure {
    /// Common configuration: status, features, queue set-up.
    pub const COMMON: u8 = 1;
    /// Notification: doorbells.
    pub const NOTIFY: u8 = 2;
    /// ISR status: why the device interrupts.
    pub const ISR: u8 = 3;
    /// Device configuration: the device's own.
    pub const DEVICE: u8 = 4;
    /// The window to BAR 0, in the configuration space.
    pub const WINDOW: u8 = 5;
}

/// A device behind a PCI function.
pub struct Pci {
    front: Front,
    config: Config,
    vectors: Arc<Vectors>,
    table: Table,
    /// Where the MSI-X capability is.
    msix: usize,
    /// Where the capability with the window to BAR 0 is.
    window: usize,
}

impl Pci {
    /// The size of BAR 0.
    pub const BAR_SIZE: u64 = BAR_SIZE;

    /// Registers of the configuration space that never change, whatever is written to them: the
    /// BARs that there aren't, which kernels write to all the same to find that out.
    pub const FIXED: Range<u16> = 0x18..0x34;

    /// Puts a device behind a function. It interrupts through `msi`, not through the
    /// environment's interrupt.
    pub fn new(
        device: Box<dyn Device>,
        environment: Environment,
        msi: Arc<dyn Msi>,
    ) -> Result<Self, Error> {
        Self::with_mode(device, environment, msi, Mode::Thread)
    }

    /// The same, with a choice of where the device runs.
    pub fn with_mode(
        device: Box<dyn Device>,
        environment: Environment,
        msi: Arc<dyn Msi>,
        mode: Mode,
    ) -> Result<Self, Error> {
        let spec = device.spec();
        let refused = |rule| Error::Host {
            what: format!("putting {} on PCI", spec.name),
            source: io::Error::new(io::ErrorKind::InvalidInput, rule),
        };
        let layout = Layout::of(spec.queues.len(), spec.config.len(), msi.vectors());
        let layout = layout.map_err(refused)?;
        let mut config = Config::new(&identity(spec.kind), Self::BAR_SIZE);
        let (msix, window) = layout
            .describe(&mut config)
            .ok_or_else(|| refused("the capabilities do not fit"))?;
        let vectors = Arc::new(Vectors::new(msi, spec.queues.len()));
        let environment = Environment {
            irq: Arc::clone(&vectors) as _,
            ..environment
        };
        Ok(Pci {
            front: Front::new(device, environment, mode)?,
            config,
            table: Table::new(Arc::clone(&vectors)),
            vectors,
            msix,
            window,
        })
    }

    /// An access to the configuration space. What is not there reads as 0.
    pub fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        if self.hits_window(offset, data.len()) {
            let bytes = self.look_through_window();
            self.config.fix(self.window + WINDOW_DATA, &bytes);
        }
        self.config.read(offset.into(), data);
    }

    /// An access to the configuration space. What is not writable stays as it is.
    pub fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset.into(), data);
        let control = u16::from_le_bytes(self.config.get(self.msix + 2));
        self.table
            .control(control & MSIX_ENABLE != 0, control & MSIX_MASK != 0);
        if self.hits_window(offset, data.len()) {
            self.reach_through_window();
        }
    }

    /// Whether these bytes of the configuration space belong to the window to BAR 0. Once it is
    /// written to, what is read there can change, and reading can have an effect; all else changes by
    /// writes alone, and can be shown to the driver as a copy.
    pub fn is_window(&self, offset: u16, len: usize) -> bool {
        let start = usize::from(offset);
        start < self.window + WINDOW_END && start + len > self.window + WINDOW_BAR
    }

    /// Writes an address to BAR 0, as firmware would.
    pub fn place(&mut self, address: u64) {
        self.config
            .write(config::header::BAR0, &address.to_le_bytes());
    }

    /// Where BAR 0 answers, if it does. The driver decides on it: the address may be anything.
    pub fn decoded(&self) -> Option<u64> {
        self.config.decoded(Self::BAR_SIZE)
    }

    /// An access to `offset` in BAR 0. What is not there reads as 0.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match offset {
            COMMON..ISR => common::read(&self.front, &self.vectors, offset, data),
            ISR => {
                if let [data] = data {
                    *data = self.front.causes().take() as u8;
                }
            }
            DEVICE..NOTIFY => self.front.core.read_config(offset - DEVICE, data),
            PENDING..TABLE => self.table.read_pending(offset - PENDING, data),
            TABLE.. => self.table.read(offset - TABLE, data),
            _ => {}
        }
    }

    /// An access to `offset` in BAR 0. What is not there ignores it.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        match offset {
            COMMON..ISR => common::write(&mut self.front, &self.vectors, offset, data),
            DEVICE..NOTIFY => self.front.core.write_config(offset - DEVICE, data),
            // The address alone says which queue, whatever is written, as it is for doorbells.
            NOTIFY..PENDING => {
                let step = u64::from(NOTIFY_STEP);
                let (queue, rest) = ((offset - NOTIFY) / step, (offset - NOTIFY) % step);
                if let (Ok(queue), 0) = (u32::try_from(queue), rest) {
                    self.front.core.notify(queue);
                }
            }
            TABLE.. => self.table.write(offset - TABLE, data),
            _ => {}
        }
    }

    /// Where notifies arrive in BAR 0, and what they signal: an address for each queue, so that
    /// any value counts. A notify that signals there need not be written here.
    pub fn doorbells(&self) -> Vec<Doorbell> {
        let doorbell = |(queue, event): (u16, &Arc<_>)| Doorbell {
            offset: NOTIFY + u64::from(queue) * u64::from(NOTIFY_STEP),
            queue,
            event: Arc::clone(event),
        };
        (0..)
            .zip(self.front.core.doorbells())
            .map(doorbell)
            .collect()
    }

    /// Registers in BAR 0 to which a write has no effect until some other register is accessed: one
    /// that arrives late, but in order, is as good. Vectors are masked while they are changed.
    pub fn patient(&self) -> Vec<Range<u64>> {
        let from = |base: u64| move |range: Range<u64>| base + range.start..base + range.end;
        let common = common::patient().into_iter().map(from(COMMON));
        common
            .chain(self.table.messages().map(from(TABLE)))
            .collect()
    }

    /// How messages call the device.
    pub fn name(&self) -> &str {
        &self.front.core.spec().name
    }

    /// The device type.
    pub fn kind(&self) -> Kind {
        self.front.core.kind()
    }

    /// How far the device has come, and what the machine does with it. The vCPUs are paused when it
    /// pauses.
    pub fn life(&mut self) -> &mut Life {
        self.front.core.life()
    }
}

/// The window to BAR 0. Accesses to its data are accesses to what the driver has put there.
impl Pci {
    fn hits_window(&self, offset: u16, len: usize) -> bool {
        let start = usize::from(offset);
        start < self.window + WINDOW_END && start + len > self.window + WINDOW_DATA
    }

    /// Offset and length of the access that the window stands for, if it is one that the
    /// specification has: 1, 2 or 4 bytes, aligned, within BAR 0.
    fn behind_window(&self) -> Option<(u64, usize)> {
        let [bar] = self.config.get(self.window + WINDOW_BAR);
        let offset = u32::from_le_bytes(self.config.get(self.window + WINDOW_OFFSET));
        let len = u32::from_le_bytes(self.config.get(self.window + WINDOW_LENGTH));
        let fits = u64::from(offset) + u64::from(len) <= Self::BAR_SIZE;
        let fine = bar == 0 && matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len) && fits;
        Some((offset.into(), usize::try_from(len).ok()?)).filter(|_| fine)
    }

    fn look_through_window(&mut self) -> [u8; 4] {
        // What isn't on a bus reads as all ones.
        let mut bytes = [0xff; 4];
        if let Some((offset, len)) = self.behind_window()
            && let Some(data) = bytes.get_mut(..len)
        {
            self.read(offset, data);
        }
        bytes
    }

    fn reach_through_window(&mut self) {
        let bytes: [u8; 4] = self.config.get(self.window + WINDOW_DATA);
        if let Some((offset, len)) = self.behind_window()
            && let Some(data) = bytes.get(..len)
        {
            self.write(offset, data);
        }
    }
}
