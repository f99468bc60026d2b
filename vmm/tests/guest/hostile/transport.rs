//! A transport as a guest sees it: what a driver does with a device's registers, whichever they
//! are. The cases that are not about a transport itself know no more than this.
//!
//! Registers are as narrow as their transport has them, but numbers are not: one that does not fit
//! is written as a double word where the register is, which no device may take for something else.

mod mmio;
mod pci;

pub use mmio::Mmio;
pub use pci::{COMMAND, Pci, header};

use super::target::{Found, Window};
use std::ops::Deref;

/// What a driver does with a device.
pub trait Transport {
    /// The device type.
    fn device_id(&self) -> u32;
    /// 32 of the features that the device offers.
    fn device_features(&self, select: u32) -> u32;
    /// Tells 32 of the features that the driver takes.
    fn set_driver_features(&self, select: u32, features: u32);
    /// Reads the device status.
    fn status(&self) -> u32;
    /// Writes the device status.
    fn set_status(&self, status: u32);
    /// Tells the size of a queue.
    fn set_size(&self, queue: u32, size: u32);
    /// Tells where a queue is: descriptors, and what the driver and the device write.
    fn set_areas(&self, queue: u32, areas: [u64; 3]);
    /// Writes the register that enables a queue, and tells what it reads then.
    fn enable(&self, queue: u32, value: u32) -> u32;
    /// Rings the doorbell of a queue.
    fn notify(&self, queue: u32);
    /// Why the device has interrupted. This may forget it, or not.
    fn causes(&self) -> u32;
    /// The generation of the configuration space.
    fn generation(&self) -> u32;
    /// The configuration space of the device.
    fn config(&self) -> &Window;
    /// Where registers are, for descriptors that should not point there.
    fn address(&self) -> u64;
    /// Where a doorbell is.
    fn doorbell(&self) -> u64;
}

/// The registers of a device.
pub enum Registers {
    Mmio(Mmio),
    Pci(Pci),
}

impl Registers {
    /// Takes a device from its driver.
    pub fn take(found: &Found) -> Registers {
        found.take();
        match found.bus_name().contains(':') && found.bus_name().contains('.') {
            true => Registers::Pci(Pci::find(found.bus_name())),
            false => Registers::Mmio(Mmio::find(found.bus_name())),
        }
    }

    /// Those of a device on MMIO.
    pub fn mmio(&self) -> &Mmio {
        match self {
            Registers::Mmio(mmio) => mmio,
            Registers::Pci(_) => panic!("the device is on PCI"),
        }
    }

    /// Those of a device on PCI.
    pub fn pci(&self) -> &Pci {
        match self {
            Registers::Mmio(_) => panic!("the device is on MMIO"),
            Registers::Pci(pci) => pci,
        }
    }
}

impl Deref for Registers {
    type Target = dyn Transport;

    fn deref(&self) -> &Self::Target {
        match self {
            Registers::Mmio(mmio) => mmio,
            Registers::Pci(pci) => pci,
        }
    }
}
