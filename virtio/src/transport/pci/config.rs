//! PCI configuration space as a checked table: a byte of content and a mask of writable bits for
//! each byte of it (PCI 3.0, 6.1 and 6.2).
//!
//! What is writable keeps what was written; nothing else ever changes on the driver's side. So
//! sizing a BAR needs no code: its lower bits aren't writable, and all ones read back as the
//! mask. What a write *means*, its owner looks up in the table afterwards.
//!
//! There are 256 bytes. The rest of the 4 KiB that a PCI Express function would have reads as 0:
//! there is no PCI Express capability, and without one Linux doesn't look for extended ones,
//! which spares it accesses at boot.

/// The size of the table.
const SIZE: usize = 256;
/// Where the first capability goes: behind the header.
const FIRST_CAPABILITY: usize = 0x40;

/// Offsets in a header of type 0 (6.1).
pub(super) mod header {
    pub const VENDOR_ID: usize = 0x00;
    pub const DEVICE_ID: usize = 0x02;
    pub const COMMAND: usize = 0x04;
    pub const STATUS: usize = 0x06;
    pub const REVISION: usize = 0x08;
    pub const CLASS: usize = 0x09;
    pub const BAR0: usize = 0x10;
    pub const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
    pub const SUBSYSTEM_ID: usize = 0x2e;
    pub const CAPABILITIES: usize = 0x34;
}
use header::*;

/// `COMMAND`: the function answers at its BARs.
const MEMORY_SPACE: u16 = 1 << 1;
/// `COMMAND`: it may be a master.
const BUS_MASTER: u16 = 1 << 2;
/// `COMMAND`: it must not use INTx, which it doesn't anyway.
const INTX_DISABLE: u16 = 1 << 10;
/// `STATUS`: there are capabilities.
const CAPABILITY_LIST: u16 = 1 << 4;
/// A memory BAR with 64 bits.
const BAR_64: u8 = 0b100;

/// Which function it is.
pub(super) struct Identity {
    pub vendor: u16,
    pub device: u16,
    pub revision: u8,
    /// Base class, subclass and programming interface, from the upper byte down.
    pub class: u32,
}

/// The table.
pub(super) struct Config {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    /// Where the offset of the next capability is to be written.
    last_link: usize,
    end: usize,
}

impl Config {
    /// A function with one BAR, a power of two in size.
    pub fn new(identity: &Identity, bar_size: u64) -> Self {
        let mut config = Config {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            last_link: CAPABILITIES,
            end: FIRST_CAPABILITY,
        };
        config.fix(VENDOR_ID, &identity.vendor.to_le_bytes());
        config.fix(DEVICE_ID, &identity.device.to_le_bytes());
        config.fix(STATUS, &CAPABILITY_LIST.to_le_bytes());
        config.fix(REVISION, &[identity.revision]);
        let [interface, subclass, base, _] = identity.class.to_le_bytes();
        config.fix(CLASS, &[interface, subclass, base]);
        config.fix(SUBSYSTEM_VENDOR_ID, &identity.vendor.to_le_bytes());
        config.fix(SUBSYSTEM_ID, &identity.device.to_le_bytes());
        config.fix(BAR0, &[BAR_64]);
        config.allow(
            COMMAND,
            &(MEMORY_SPACE | BUS_MASTER | INTX_DISABLE).to_le_bytes(),
        );
        config.allow(BAR0, &bar_mask(bar_size).to_le_bytes());
        config
    }

    /// Adds a capability: what follows its ID and link, and which bits of that are writable.
    /// Returns the offset of the capability; none if there is no room for it.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<usize> {
        let at = self.end;
        let end = at.checked_add(2)?.checked_add(body.len())?;
        let link = u8::try_from(at).ok().filter(|_| end <= SIZE)?;
        self.fix(self.last_link, &[link]);
        self.fix(at, &[id, 0]);
        self.fix(at + 2, body);
        self.allow(at + 2, writable);
        self.last_link = at + 1;
        self.end = end.next_multiple_of(4);
        Some(at)
    }

    /// Reads from any offset, as many bytes as there are; 0 from beyond the table.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        let source = self.bytes.get(offset..).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(source) {
            *to = *from;
        }
    }

    /// Takes the bits that may be written.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        let bytes = self.bytes.get_mut(offset..).unwrap_or_default();
        let masks = self.writable.get(offset..).unwrap_or_default();
        for ((byte, mask), new) in bytes.iter_mut().zip(masks).zip(data) {
            *byte = *byte & !mask | new & mask;
        }
    }

    /// Some bytes of the table.
    pub fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut data = [0; N];
        self.read(offset, &mut data);
        data
    }

    /// The address in the BAR, if the function answers there.
    pub fn decoded(&self, bar_size: u64) -> Option<u64> {
        let on = u16::from_le_bytes(self.get(COMMAND)) & MEMORY_SPACE != 0;
        let address = u64::from_le_bytes(self.get(BAR0)) & bar_mask(bar_size);
        // The last byte has an address, too.
        (on && address.checked_add(bar_size).is_some()).then_some(address)
    }

    /// Content that the driver does not decide on.
    pub fn fix(&mut self, offset: usize, content: &[u8]) {
        copy(&mut self.bytes, offset, content);
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        copy(&mut self.writable, offset, mask);
    }
}

fn bar_mask(size: u64) -> u64 {
    !size.saturating_sub(1)
}

fn copy(to: &mut [u8; SIZE], offset: usize, from: &[u8]) {
    let to = to.get_mut(offset..).unwrap_or_default();
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
