//! PCI: a root complex with one bus, a host bridge and virtio functions.
//!
//! # The problem
//!
//! A guest finds PCI devices by asking the bus, and decides itself where they answer. So what the
//! bus for MMIO knows from the start for every other device is here the guest's to change, at any
//! time and to anything.
//!
//! # The design
//!
//! ```text
//!   0xcf8 0xcfc   ports   --+                     +-- 00.0  host bridge     bridge
//!                           +--> Root, a function +
//!   ECAM window           --+                     +-- 01.0  virtio function -- asks Places
//!                                                 +-- 02.0  ...                where BARs are
//!   memory window         -----> Places, a BAR ------> virtio function         places
//! ```
//!
//! - *Two ways to configuration space*: the enhanced mechanism (ECAM), a page for each function;
//!   and the two ports that every PC has had, which kernels without ACPI tables look for.
//!   What the guest reads of ECAM is memory, if KVM can do that: see [`shown`].
//! - *Memory*: like any host bridge, this one passes on a *window* of addresses, and a BAR
//!   outside of it answers nowhere. So RAM, interrupt controllers and other devices can't be
//!   covered by one, whatever the guest writes. The machine places each BAR as firmware would, and
//!   leaves it switched off: Linux keeps the place, and its probing needs to switch nothing.
//! - *Slots*: each function has a device of its own, from 1 to 31; when these are used up, the next
//!   round makes functions 1 of them, and so on.
//!
//! Locks: places before a function. Neither is held while a configuration access or a register
//! access of another function goes on.
//!
//! # What it does not do
//!
//! Bridges, other buses, I/O BARs, INTx (functions interrupt by messages), hot-plug, and PCI
//! Express beyond the way to configuration space.

mod bridge;
mod doorbells;
mod places;
mod ports;
mod shown;
#[cfg(test)]
mod tests;

use crate::arch::layout::{PCI_ADDRESS_PORT, PCI_DATA_PORTS, PCI_DEVICES, PCI_ECAM, PCI_WINDOW};
use crate::bus::{self, Action, Bus, BusDevice};
use crate::gathered::Patient;
use crate::plugged::Plugged;
use places::{Bars, Binder, Places};
use ports::{AddressPort, DataPorts};
pub(crate) use shown::Shown;
use std::sync::Arc;
use virtio::transport::pci::Pci;

/// A virtio function, shared by the vCPUs.
pub(crate) type Function = Arc<Plugged<Pci>>;

/// Configuration space has so many bytes for each function, as ECAM lays it out.
const CONFIG_SIZE: u64 = 0x1000;
/// The header's type, with the bit that says that there are other functions.
const HEADER_TYPE: u64 = 0x0e;
const MULTI_FUNCTION: u8 = 0x80;

/// All that there is on the bus.
pub(crate) struct Root {
    functions: Arc<[Function]>,
    places: Arc<Places>,
    shown: Option<Shown>,
}

impl Root {
    /// A bus with these functions, whose BARs are placed one behind the other. `doorbells` binds
    /// what a BAR has of them; the guest reads configuration space from what is `shown`.
    pub(crate) fn new(
        functions: Vec<Function>,
        doorbells: Box<dyn Binder>,
        shown: Option<Shown>,
    ) -> Self {
        for (function, address) in functions.iter().zip(places::addresses(PCI_WINDOW.start)) {
            function.lock().place(address);
        }
        let functions: Arc<[Function]> = functions.into();
        let root = Root {
            places: Arc::new(Places::new(Arc::clone(&functions), doorbells)),
            functions,
            shown,
        };
        if let Some(shown) = &root.shown {
            shown.fill(|at, data| root.read(at, data));
        }
        root
    }

    /// Registers that are patient, where they are now.
    pub(crate) fn patient(&self, patient: &mut Patient) {
        // The bridge has none that could be written to.
        patient.add(PCI_ECAM.start, 0..CONFIG_SIZE);
        let bases = places::addresses(PCI_WINDOW.start);
        for ((index, function), base) in (0..).zip(&*self.functions).zip(bases) {
            let config = PCI_ECAM.start + u64::from(slot(index)) * CONFIG_SIZE;
            patient.add(config, Pci::FIXED.start.into()..Pci::FIXED.end.into());
            for range in function.lock().patient() {
                patient.add(base, range);
            }
        }
        patient.add_index(&PCI_ADDRESS_PORT, 4);
    }

    /// Puts the bus where vCPUs find it. `ecam_is_told`: in a table that the guest reads.
    pub(crate) fn attach(
        self,
        mmio: &mut Bus,
        pio: &mut Bus,
        ecam_is_told: bool,
    ) -> Result<(), bus::Error> {
        mmio.insert(PCI_WINDOW, Arc::new(Bars(Arc::clone(&self.places))))?;
        let root = Arc::new(self);
        mmio.insert(PCI_ECAM, Arc::new(Ecam(Arc::clone(&root))))?;
        let address = Arc::new(AddressPort::new(!ecam_is_told));
        pio.insert(PCI_ADDRESS_PORT, Arc::clone(&address) as _)?;
        pio.insert(PCI_DATA_PORTS, Arc::new(DataPorts { root, address }))
    }

    /// One access to configuration space.
    fn read(&self, at: Address, data: &mut [u8]) {
        match self.find(at) {
            Some(Found::Bridge) => bridge::read(at.offset, data),
            Some(Found::Function(index, function)) => {
                self.read_function(index, &mut function.lock(), at.offset, data);
            }
            None => data.fill(0xff),
        }
    }

    fn read_function(&self, index: usize, function: &mut Pci, offset: u16, data: &mut [u8]) {
        function.config_read(offset, data);
        if self.functions.len() > index + PCI_DEVICES
            && let Some(at) = HEADER_TYPE.checked_sub(offset.into())
            && let Some(byte) = usize::try_from(at).ok().and_then(|at| data.get_mut(at))
        {
            *byte |= MULTI_FUNCTION;
        }
    }

    /// One access to configuration space.
    fn write(&self, at: Address, data: &[u8]) {
        if let Some(Found::Function(index, function)) = self.find(at) {
            let mut function = function.lock();
            if let Some(shown) = &self.shown
                && function.is_window(at.offset, data.len())
            {
                shown.hide();
            }
            function.config_write(at.offset, data);
            if let Some(shown) = &self.shown {
                shown.update(at, data.len(), |offset, word| {
                    self.read_function(index, &mut function, offset, word);
                });
            }
            drop(function);
            self.places.follow(index);
        }
    }

    fn find(&self, at: Address) -> Option<Found<'_>> {
        let (device, function) = (usize::from(at.slot >> 3), usize::from(at.slot & 7));
        match (device.checked_sub(1), function) {
            (None, 0) => Some(Found::Bridge),
            (None, _) => None,
            (Some(first), _) => {
                let index = first + function * PCI_DEVICES;
                let function = self.functions.get(index)?;
                Some(Found::Function(index, function))
            }
        }
    }
}

/// Device and function of one of the functions: [`Root::find`] the other way round.
fn slot(index: usize) -> u8 {
    let (device, function) = (index % PCI_DEVICES + 1, index / PCI_DEVICES);
    (device << 3 | function) as u8
}

enum Found<'a> {
    Bridge,
    Function(usize, &'a Function),
}

/// Something in the configuration space of bus 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    /// Device and function: 5 and 3 bits.
    slot: u8,
    /// Which byte.
    offset: u16,
}

/// The enhanced configuration access mechanism (PCI Express 5.0, 7.2.2): a page for each function
/// of the bus.
struct Ecam(Arc<Root>);

impl Ecam {
    fn address(offset: u64) -> Option<Address> {
        Some(Address {
            slot: u8::try_from(offset / CONFIG_SIZE).ok()?,
            offset: u16::try_from(offset % CONFIG_SIZE).ok()?,
        })
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match Self::address(offset) {
            Some(at) => self.0.read(at, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        if let Some(at) = Self::address(offset) {
            self.0.write(at, data);
        }
        Action::None
    }
}
