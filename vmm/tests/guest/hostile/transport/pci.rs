//! The structures of the PCI transport (virtio 1.2, 4.1), found through the capabilities, and the
//! configuration space of the bus, through ECAM.

use super::Transport;
use crate::hostile::target::{Window, whereabouts};
use vmm::virtio::transport::pci::common::register;
use vmm::virtio::transport::pci::structure;

/// Offsets in the header of a function (PCI 3.0, 6.1).
pub mod header {
    pub const COMMAND: u64 = 0x04;
    pub const BAR0: u64 = 0x10;
    pub const CAPABILITIES: u64 = 0x34;
}

/// What a driver writes to `COMMAND`: the function answers, and may reach memory.
pub const COMMAND: u16 = 6;

/// Capabilities: a vendor's own, and MSI-X.
const VENDOR_SPECIFIC: u8 = 0x09;
const MSIX: u8 = 0x11;

const PAGE: u64 = 4096;

/// A function of bus 0, as ECAM shows it.
pub struct Function {
    /// The configuration space of the whole bus.
    pub bus: Window,
    /// Where that of the function is.
    pub start: u64,
}

impl Function {
    /// The function of this name.
    fn find(name: &str) -> Function {
        let numbers = name.split([':', '.']);
        let numbers = numbers.map(|digits| u64::from_str_radix(digits, 16).unwrap());
        let [0, 0, device, function] = numbers.collect::<Vec<_>>()[..] else {
            panic!("{name} is no function of bus 0");
        };
        Function {
            bus: Window::map(whereabouts("PCI ECAM 0000").0, 1 << 20),
            start: device << 15 | function << 12,
        }
    }

    pub fn read<T: Copy>(&self, offset: u64) -> T {
        self.bus.read(self.start + offset)
    }

    pub fn write<T: Copy>(&self, offset: u64, value: T) {
        self.bus.write(self.start + offset, value);
    }

    /// Where a BAR is, or should be. It is one for memory.
    pub fn bar(&self, number: u8) -> u64 {
        let at = header::BAR0 + 4 * u64::from(number);
        let low: u32 = self.read(at);
        let high: u32 = if low & 4 == 0 { 0 } else { self.read(at + 4) };
        u64::from(low & !15) | u64::from(high) << 32
    }

    /// Has BAR 0 elsewhere. A driver switches it off for that; this one does so if it likes.
    pub fn move_bar(&self, to: u64) {
        self.write(header::BAR0, to as u32);
        self.write(header::BAR0 + 4, (to >> 32) as u32);
    }

    /// The capabilities: what each is, and where.
    pub fn capabilities(&self) -> Vec<(u8, u64)> {
        let mut found = Vec::new();
        let mut at: u8 = self.read(header::CAPABILITIES);
        while at != 0 && found.len() < 48 {
            found.push((self.read(at.into()), at.into()));
            at = self.read(u64::from(at) + 1);
        }
        found
    }

    /// The capability of a virtio structure.
    fn structure(&self, kind: u8) -> Option<u64> {
        let all = self.capabilities().into_iter();
        let mut all = all
            .filter(|(id, _)| *id == VENDOR_SPECIFIC)
            .map(|(_, at)| at);
        all.find(|at| self.read::<u8>(at + 3) == kind)
    }

    /// Maps a virtio structure, and the rest of its page.
    fn map(&self, kind: u8) -> Option<Window> {
        let at = self.structure(kind)?;
        let start = self.bar(self.read(at + 4)) + u64::from(self.read::<u32>(at + 8));
        Some(Window::map(
            start,
            PAGE.max(self.read::<u32>(at + 12).into()),
        ))
    }
}

/// A device on PCI.
pub struct Pci {
    pub function: Function,
    pub common: Window,
    pub isr: Window,
    pub notify: Window,
    pub msix: Msix,
    /// Where the capability is that is a window to the BARs.
    pub window: u64,
    /// From one doorbell to the next.
    step: u64,
    device: Option<Window>,
}

/// MSI-X of a function (PCI 3.0, 6.8.2).
pub struct Msix {
    /// Where its capability is.
    pub at: u64,
    pub vectors: u16,
    pub table: Window,
    pub pending: Window,
}

impl Pci {
    /// The function of this name.
    pub fn find(name: &str) -> Pci {
        let function = Function::find(name);
        function.write(header::COMMAND, COMMAND);
        let notify = function.structure(structure::NOTIFY).unwrap();
        Pci {
            common: function.map(structure::COMMON).unwrap(),
            isr: function.map(structure::ISR).unwrap(),
            notify: function.map(structure::NOTIFY).unwrap(),
            device: function.map(structure::DEVICE),
            step: function.read::<u32>(notify + 16).into(),
            window: function.structure(structure::WINDOW).unwrap(),
            msix: Msix::find(&function),
            function,
        }
    }

    fn select(&self, queue: u32) {
        write(&self.common, register::QUEUE_SELECT, queue);
    }
}

impl Msix {
    fn find(function: &Function) -> Msix {
        let mut all = function.capabilities().into_iter();
        let (_, at) = all.find(|(id, _)| *id == MSIX).unwrap();
        let part = |at: u64| {
            let place: u32 = function.read(at);
            let bar = function.bar((place & 7) as u8);
            Window::map(bar + u64::from(place & !7), PAGE)
        };
        Msix {
            at,
            vectors: (function.read::<u16>(at + 2) & 0x7ff) + 1,
            table: part(at + 4),
            pending: part(at + 8),
        }
    }

    /// Writes an entry of the table.
    pub fn program(&self, vector: u16, address: u64, data: u32, masked: bool) {
        let entry = u64::from(vector) * 16;
        self.table.set_wide(entry, address);
        self.table.set(entry + 8, data);
        self.mask(vector, masked);
    }

    pub fn mask(&self, vector: u16, masked: bool) {
        self.table.set(u64::from(vector) * 16 + 12, masked.into());
    }

    /// Whether a vector is pending.
    pub fn is_pending(&self, vector: u16) -> bool {
        self.pending.get(u64::from(vector) / 32 * 4) >> (vector % 32) & 1 != 0
    }
}

/// Writes a register of 16 bits, or a double word in its place if the value does not fit.
fn write(window: &Window, register: u64, value: u32) {
    match u16::try_from(value) {
        Ok(value) => window.write(register, value),
        Err(_) => window.write(register, value),
    }
}

impl Transport for Pci {
    fn device_id(&self) -> u32 {
        u32::from(self.function.read::<u16>(2)) - 0x1040
    }

    fn device_features(&self, select: u32) -> u32 {
        self.common.set(register::DEVICE_FEATURE_SELECT, select);
        self.common.get(register::DEVICE_FEATURE)
    }

    fn set_driver_features(&self, select: u32, features: u32) {
        self.common.set(register::DRIVER_FEATURE_SELECT, select);
        self.common.set(register::DRIVER_FEATURE, features);
    }

    fn status(&self) -> u32 {
        self.common.read::<u8>(register::DEVICE_STATUS).into()
    }

    fn set_status(&self, status: u32) {
        match u8::try_from(status) {
            Ok(status) => self.common.write(register::DEVICE_STATUS, status),
            Err(_) => self.common.write(register::DEVICE_STATUS, status),
        }
    }

    fn set_size(&self, queue: u32, size: u32) {
        self.select(queue);
        write(&self.common, register::QUEUE_SIZE, size);
    }

    fn set_areas(&self, queue: u32, [desc, driver, device]: [u64; 3]) {
        self.select(queue);
        self.common.set_wide(register::QUEUE_DESC, desc);
        self.common.set_wide(register::QUEUE_DRIVER, driver);
        self.common.set_wide(register::QUEUE_DEVICE, device);
    }

    fn enable(&self, queue: u32, value: u32) -> u32 {
        self.select(queue);
        write(&self.common, register::QUEUE_ENABLE, value);
        self.common.read::<u16>(register::QUEUE_ENABLE).into()
    }

    /// Queues that have no doorbell are rung at the first one.
    fn notify(&self, queue: u32) {
        let offset = u64::from(queue) * self.step;
        let fits = offset + 4 <= self.notify.len();
        write(&self.notify, if fits { offset } else { 0 }, queue);
    }

    fn causes(&self) -> u32 {
        self.isr.read::<u8>(0).into()
    }

    fn generation(&self) -> u32 {
        self.common.read::<u8>(register::CONFIG_GENERATION).into()
    }

    fn config(&self) -> &Window {
        self.device.as_ref().expect("a configuration")
    }

    fn address(&self) -> u64 {
        self.common.address()
    }

    fn doorbell(&self) -> u64 {
        self.notify.address()
    }
}
