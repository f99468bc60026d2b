//! A guest that never rests: its first vCPU resets two devices, sets them up and gives them requests,
//! over and over, and looks at what comes back; the others make exits.
//!
//! The rings lie where the guest puts them, are split, and have one request at a time: a ring entry
//! that nobody ever wrote names the first descriptor.

use crate::guest::{Code, NOWHERE, config_loaded};
use std::time::{Duration, Instant};
use vmm::virtio::block::{Block, BlockStorage, MemoryDisk};
use vmm::virtio::rng::Rng;
use vmm::vm_memory::{Bytes, GuestAddress, VolatileSlice};
use vmm::{Config, Handle};

/// The vCPUs of the machine, the first of which drives the devices.
const CPUS: u32 = 4;
/// How long devices and vCPUs may take for the next round.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// Where a device's ring and buffers are, from the start of its memory.
const MEMORY: u32 = 0x1_0000;
const MEMORY_SIZE: u32 = 0x4000;
const AVAIL: u32 = 0x1000;
const USED: u32 = 0x2000;
const HEADER: u32 = 0x3000;
const STATUS_BYTE: u32 = 0x3100;
const DATA: u32 = 0x3200;
/// Behind the flags.
const INDEX: u32 = 2;

/// Flags of a descriptor (2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// What the disk's first sector begins with.
const CONTENTS: u32 = 0x6570_7968;

/// A device of the guest's.
struct Driven {
    window: u32,
    memory: u32,
}

impl Driven {
    fn new(number: u32) -> Self {
        Driven {
            window: WINDOW + number * WINDOW_SIZE,
            memory: MEMORY + number * MEMORY_SIZE,
        }
    }

    /// Resets the device and starts it with an empty ring.
    fn start(&self, code: Code) -> Code {
        let (at, memory) = (self.window, self.memory);
        code.store32(at + STATUS, 0)
            .store32(memory + AVAIL, 0)
            .store32(memory + USED, 0)
            .store32(at + STATUS, 1 | 2)
            .store32(at + DRIVER_FEATURES_SEL, 1)
            .store32(at + DRIVER_FEATURES, 1)
            .store32(at + STATUS, 1 | 2 | 8)
            .store32(at + QUEUE_SEL, 0)
            .store32(at + QUEUE_NUM, 4)
            .store32(at + QUEUE_DESC, memory)
            .store32(at + QUEUE_DRIVER, memory + AVAIL)
            .store32(at + QUEUE_DEVICE, memory + USED)
            .store32(at + QUEUE_READY, 1)
            .store32(at + STATUS, 1 | 2 | 8 | 4)
    }

    /// Puts the request into the ring and rings the doorbell.
    fn send(&self, code: Code) -> Code {
        code.increment16(self.memory + AVAIL + INDEX)
            .store32(self.window + QUEUE_NOTIFY, 0)
    }

    /// Waits until the device has used the request.
    fn receive(&self, code: Code) -> Code {
        code.wait_until_same16(self.memory + USED + INDEX, self.memory + AVAIL + INDEX)
    }

    /// Writes the request's descriptors: one behind the other.
    fn describe(&self, memory: &vmm::virtio::GuestMemory, buffers: &[(u32, u32, u16)]) {
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

/// The machine. Whatever is wrong with an answer resets it: then its outcome is a reboot.
pub fn machine() -> Config {
    let (disk, rng) = (Driven::new(0), Driven::new(1));
    let mut code = Code::new().start_processors();
    let again = code.0.len();
    code = rng.start(disk.start(code));
    for _ in 0..4 {
        code = code
            .store32(disk.memory + DATA, 0)
            .store32(disk.memory + STATUS_BYTE, 0xff);
        // Both at once.
        code = rng.send(disk.send(code));
        code = rng.receive(disk.receive(code));
        code = code
            .reset_unless32(disk.memory + STATUS_BYTE, 0)
            .reset_unless32(disk.memory + DATA, CONTENTS);
    }
    // The next round's reset finds the devices at work.
    code = rng.send(disk.send(code)).out8(NOWHERE, 0).jump_to(again);

    let bytes = MemoryDisk::new(1 << 20).unwrap();
    let mut contents = CONTENTS.to_le_bytes();
    let contents = VolatileSlice::from(contents.as_mut_slice());
    bytes.write_vectored_at(&[contents], 0).unwrap();
    let config = config_loaded(code, Code::new().chatter_16(), move |memory| {
        // The header of a read of the first sector is zeroes (5.2.6).
        disk.describe(
            memory,
            &[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS_BYTE, 1, WRITE)],
        );
        rng.describe(memory, &[(DATA, 64, WRITE)]);
    });
    Config {
        cpus: CPUS,
        devices: vec![Block::new(bytes).into(), Rng::new().into()],
        ..config
    }
}

/// Waits until the first vCPU has been through so many rounds more, and all others have run.
pub fn wait_for_rounds(handle: &Handle, more: u64) {
    let before = handle.report();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = handle.report();
        let mut made = now
            .exits
            .iter()
            .zip(&before.exits)
            .map(|(now, before)| now.io_out - before.io_out);
        if made.next().unwrap() >= more && made.all(|exits| exits > 0) {
            return;
        }
        assert!(Instant::now() < deadline, "stalled: {before:?} {now:?}");
        std::thread::yield_now();
    }
}
