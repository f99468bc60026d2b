//! The fake driver on PCI: finds the structures through the capabilities, as real ones do.

use super::{Driver, Machine, Transport};
use crate::Device;
use crate::queue::QueueConfig;
use crate::testing::msi::{ADDRESS, Messages};
use crate::transport::pci::common::register;
use crate::transport::pci::layout::{MSIX, VENDOR_SPECIFIC};
use crate::transport::pci::{Pci, structure};
use crate::transport::{Doorbell, Life};
use crate::worker::Mode;
use std::sync::Arc;

/// As many vectors as the fake driver wants: one for the configuration and one for each queue.
pub const VECTORS: u16 = 1 + super::QUEUES as u16;

impl Driver<Pci> {
    /// A driver of a device with a PCI function that has a thread.
    pub fn pci(device: Box<dyn Device>) -> Self {
        Self::pci_in(device, Mode::Thread)
    }

    /// A driver of a device with a PCI function.
    pub fn pci_in(device: Box<dyn Device>, mode: Mode) -> Self {
        let machine = Machine::default();
        let messages = Messages::new(Arc::clone(&machine.interrupts), VECTORS);
        Self::pci_of(machine, messages, device, mode)
    }

    /// A driver of a device with a PCI function in this machine, which has these vectors.
    pub fn pci_of(
        machine: Machine,
        messages: Arc<Messages>,
        device: Box<dyn Device>,
        mode: Mode,
    ) -> Self {
        let pci = Pci::with_mode(device, machine.environment(), messages, mode);
        Driver::new(pci.expect("device behind a PCI function"), machine)
    }
}

/// Reads from the configuration space.
pub fn config<const N: usize>(pci: &mut Pci, offset: u16) -> [u8; N] {
    let mut data = [0; N];
    pci.config_read(offset, &mut data);
    data
}

/// Reads from BAR 0.
pub fn bar<const N: usize>(pci: &mut Pci, offset: u64) -> [u8; N] {
    let mut data = [0; N];
    pci.read(offset, &mut data);
    data
}

/// Finds a capability by its ID and where it is.
fn search(pci: &mut Pci, mut wanted: impl FnMut(&mut Pci, u8, u16) -> bool) -> Option<u16> {
    let [mut at] = config(pci, 0x34);
    // A list that bites its own tail has no more than fit.
    for _ in 0..64 {
        if at == 0 {
            break;
        }
        let [id, next] = config(pci, at.into());
        if wanted(pci, id, at.into()) {
            return Some(at.into());
        }
        at = next;
    }
    None
}

/// All capabilities: their IDs and where they are.
pub fn capabilities(pci: &mut Pci) -> Vec<(u8, u16)> {
    let mut found = Vec::new();
    search(pci, |_, id, at| {
        found.push((id, at));
        false
    });
    found
}

/// The virtio capability of this kind.
pub fn capability(pci: &mut Pci, kind: u8) -> Option<u16> {
    search(pci, |pci, id, at| {
        id == VENDOR_SPECIFIC && config(pci, at + 3) == [kind]
    })
}

/// Where in BAR 0 the structure of this kind is, if the device has one.
pub fn find(pci: &mut Pci, kind: u8) -> Option<u64> {
    let at = capability(pci, kind)?;
    Some(u32::from_le_bytes(config(pci, at + 8)).into())
}

/// Where the MSI-X capability is.
pub fn msix(pci: &mut Pci) -> u16 {
    let found = search(pci, |_, id, _| id == MSIX);
    found.expect("an MSI-X capability")
}

/// Where in BAR 0 the MSI-X table and the pending bits are.
pub fn msix_table(pci: &mut Pci) -> (u64, u64) {
    let at = msix(pci);
    let [table, pending] = [4, 8].map(|offset| u32::from_le_bytes(config(pci, at + offset)));
    (table.into(), pending.into())
}

/// Writes an entry of the MSI-X table.
pub fn program(pci: &mut Pci, vector: u16, address: u64, data: u32, masked: bool) {
    let entry = msix_table(pci).0 + u64::from(vector) * 16;
    pci.write(entry, &address.to_le_bytes());
    pci.write(entry + 8, &data.to_le_bytes());
    pci.write(entry + 12, &u32::from(masked).to_le_bytes());
}

/// Enables MSI-X or not, and masks all of its vectors or not.
pub fn control(pci: &mut Pci, enable: bool, mask: bool) {
    let at = msix(pci) + 2;
    let control = u16::from(enable) << 15 | u16::from(mask) << 14;
    pci.config_write(at, &control.to_le_bytes());
}

/// Reads a field of the common configuration.
pub fn common<const N: usize>(pci: &mut Pci, field: u64) -> [u8; N] {
    let start = find(pci, structure::COMMON).expect("a common configuration");
    bar(pci, start + field)
}

/// Writes a field of the common configuration.
pub fn set_common(pci: &mut Pci, field: u64, data: &[u8]) {
    let start = find(pci, structure::COMMON).expect("a common configuration");
    pci.write(start + field, data);
}

fn select(pci: &mut Pci, queue: u16) {
    set_common(pci, register::QUEUE_SELECT, &queue.to_le_bytes());
}

impl Transport for Pci {
    fn device_features(&mut self) -> u64 {
        let mut half = |select: u32| {
            set_common(self, register::DEVICE_FEATURE_SELECT, &select.to_le_bytes());
            u64::from(u32::from_le_bytes(common(self, register::DEVICE_FEATURE)))
        };
        half(0) | half(1) << 32
    }

    fn set_driver_features(&mut self, features: u64) {
        for (select, half) in [(0_u32, features as u32), (1, (features >> 32) as u32)] {
            set_common(self, register::DRIVER_FEATURE_SELECT, &select.to_le_bytes());
            set_common(self, register::DRIVER_FEATURE, &half.to_le_bytes());
        }
    }

    fn status(&mut self) -> u8 {
        let [status] = common(self, register::DEVICE_STATUS);
        status
    }

    fn set_status(&mut self, status: u8) {
        set_common(self, register::DEVICE_STATUS, &[status]);
    }

    fn enable_interrupts(&mut self) {
        // Memory decoding and bus mastering.
        self.config_write(4, &6_u16.to_le_bytes());
        for vector in 0..VECTORS {
            program(self, vector, ADDRESS, vector.into(), false);
        }
        control(self, true, false);
        set_common(self, register::CONFIG_MSIX_VECTOR, &[0, 0]);
    }

    fn queue_max_size(&mut self, queue: u16) -> u16 {
        select(self, queue);
        u16::from_le_bytes(common(self, register::QUEUE_SIZE))
    }

    fn set_queue(&mut self, queue: u16, config: &QueueConfig) {
        select(self, queue);
        let vector = queue.wrapping_add(1);
        set_common(self, register::QUEUE_SIZE, &config.size.to_le_bytes());
        set_common(self, register::QUEUE_MSIX_VECTOR, &vector.to_le_bytes());
        set_common(self, register::QUEUE_DESC, &config.desc.to_le_bytes());
        set_common(self, register::QUEUE_DRIVER, &config.avail.to_le_bytes());
        set_common(self, register::QUEUE_DEVICE, &config.used.to_le_bytes());
    }

    fn enable_queue(&mut self, queue: u16, enable: bool) -> bool {
        select(self, queue);
        let enable = u16::from(enable).to_le_bytes();
        set_common(self, register::QUEUE_ENABLE, &enable);
        common(self, register::QUEUE_ENABLE) == [1, 0]
    }

    fn notify(&mut self, queue: u32) {
        let at = capability(self, structure::NOTIFY).expect("doorbells");
        let start = u32::from_le_bytes(config(self, at + 8));
        let step = u32::from_le_bytes(config(self, at + 16));
        let value = queue as u16;
        let offset = u64::from(start) + u64::from(queue) * u64::from(step);
        self.write(offset, &value.to_le_bytes());
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        Pci::doorbells(self)
    }

    fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        match find(self, structure::DEVICE) {
            Some(start) => self.read(start + offset, data),
            None => data.fill(0),
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let Some(start) = find(self, structure::DEVICE) {
            self.write(start + offset, data);
        }
    }

    fn config_generation(&mut self) -> u32 {
        let [generation] = common(self, register::CONFIG_GENERATION);
        generation.into()
    }

    fn acknowledge(&mut self) -> u32 {
        let start = find(self, structure::ISR).expect("an ISR status");
        let [causes] = bar(self, start);
        causes.into()
    }

    fn life(&mut self) -> &mut Life {
        Pci::life(self)
    }
}
