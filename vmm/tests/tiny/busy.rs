//! A guest that never rests: its first vCPU resets two devices, sets them up and gives them requests,
//! over and over, and looks at what comes back; the others make exits.

use crate::driven::{Driven, WRITE};
use crate::guest::{Code, NOWHERE, config_loaded};
use std::time::{Duration, Instant};
use vmm::virtio::block::{Block, BlockStorage, MemoryDisk};
use vmm::virtio::rng::Rng;
use vmm::vm_memory::VolatileSlice;
use vmm::{Config, Handle, Transport};

/// The vCPUs of the machine, the first of which drives the devices.
const CPUS: u32 = 4;
/// How long devices and vCPUs may take for the next round.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a device's buffers are, from the start of its memory.
const HEADER: u32 = 0x3000;
const STATUS_BYTE: u32 = 0x3100;
const DATA: u32 = 0x3200;

/// What the disk's first sector begins with.
const CONTENTS: u32 = 0x6570_7968;

/// The machine. Whatever is wrong with an answer resets it: then its outcome is a reboot.
pub fn machine() -> Config {
    let (disk, rng) = (Driven::new(0, 0), Driven::new(1, 0));
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
        transport: Some(Transport::Mmio),
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
