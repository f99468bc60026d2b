//! A virtio device on MMIO as a guest drives it that is nothing but a list of instructions.
//!
//! The ring lies where the guest puts it, is split, and has one request at a time: a ring entry that
//! nobody ever wrote names the first descriptor.

use crate::guest::Code;
use vmm::virtio::GuestMemory;
use vmm::vm_memory::{Bytes, GuestAddress};

/// The first virtio-mmio window, the distance of the next, and registers of virtio 1.2, 4.2.2.
const WINDOW: u32 = 0xd000_0000;
const WINDOW_SIZE: u32 = 0x1000;
const DRIVER_FEATURES: u32 = 0x20;
const DRIVER_FEATURES_SEL: u32 = 0x24;
const QUEUE_SEL: u32 = 0x30;
const QUEUE_NUM: u32 = 0x38;
const QUEUE_READY: u32 = 0x44;
const QUEUE_NOTIFY: u32 = 0x50;
const STATUS: u32 = 0x70;
const QUEUE_DESC: u32 = 0x80;
const QUEUE_DRIVER: u32 = 0x90;
const QUEUE_DEVICE: u32 = 0xa0;

/// Where a device's ring is, from the start of its memory. Its buffers are behind it.
const MEMORY: u32 = 0x1_0000;
const MEMORY_SIZE: u32 = 0x4000;
const AVAIL: u32 = 0x1000;
const USED: u32 = 0x2000;
/// Behind the flags.
const INDEX: u32 = 2;

/// Flags of a descriptor (2.7.5).
const NEXT: u16 = 1;
pub const WRITE: u16 = 2;

/// A device of the guest's.
pub struct Driven {
    window: u32,
    queue: u32,
    pub memory: u32,
}

impl Driven {
    /// Device `number` of those on MMIO, of which this one queue is used.
    pub fn new(number: u32, queue: u32) -> Self {
        Driven {
            window: WINDOW + number * WINDOW_SIZE,
            queue,
            memory: MEMORY + number * MEMORY_SIZE,
        }
    }

    /// Resets the device and starts it with an empty ring.
    pub fn start(&self, code: Code) -> Code {
        let (at, memory) = (self.window, self.memory);
        code.store32(at + STATUS, 0)
            .store32(memory + AVAIL, 0)
            .store32(memory + USED, 0)
            .store32(at + STATUS, 1 | 2)
            .store32(at + DRIVER_FEATURES_SEL, 1)
            .store32(at + DRIVER_FEATURES, 1)
            .store32(at + STATUS, 1 | 2 | 8)
            .store32(at + QUEUE_SEL, self.queue)
            .store32(at + QUEUE_NUM, 4)
            .store32(at + QUEUE_DESC, memory)
            .store32(at + QUEUE_DRIVER, memory + AVAIL)
            .store32(at + QUEUE_DEVICE, memory + USED)
            .store32(at + QUEUE_READY, 1)
            .store32(at + STATUS, 1 | 2 | 8 | 4)
    }

    /// Puts the request into the ring and rings the doorbell.
    pub fn send(&self, code: Code) -> Code {
        self.notify(code.increment16(self.memory + AVAIL + INDEX))
    }

    /// Rings the doorbell.
    pub fn notify(&self, code: Code) -> Code {
        code.store32(self.window + QUEUE_NOTIFY, self.queue)
    }

    /// Waits until the device has used the request.
    pub fn receive(&self, code: Code) -> Code {
        code.wait_until_same16(self.memory + USED + INDEX, self.memory + AVAIL + INDEX)
    }

    /// Writes the request's descriptors: one behind the other.
    pub fn describe(&self, memory: &GuestMemory, buffers: &[(u32, u32, u16)]) {
        for (index, &(offset, len, flags)) in (0u16..).zip(buffers) {
            let last = usize::from(index) + 1 == buffers.len();
            let flags = flags | if last { 0 } else { NEXT };
            let mut descriptor = [0; 16];
            descriptor[..4].copy_from_slice(&(self.memory + offset).to_le_bytes());
            descriptor[8..12].copy_from_slice(&len.to_le_bytes());
            descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
            descriptor[14..].copy_from_slice(&(index + 1).to_le_bytes());
            let at = GuestAddress(u64::from(self.memory) + 16 * u64::from(index));
            memory.write_slice(&descriptor, at).unwrap();
        }
    }
}
