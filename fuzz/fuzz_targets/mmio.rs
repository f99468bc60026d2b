//! A driver that does anything at all to the registers and the memory of a device.
//!
//! The input is a list of actions: accesses to the register window, writes to guest memory,
//! doorbells, pauses, and, so that it doesn't take luck to get anywhere, a proper start and
//! proper requests. The device has no thread, so a run repeats exactly.
//!
//! Besides not crashing, the transport has to keep its promises: the status is one that the
//! specification knows, a reset is a reset, and a device that is not active touches no memory
//! and interrupts nobody.

#![no_main]

use libfuzzer_sys::fuzz_target;
use virtio::Device;
use virtio::console::Console;
use virtio::features::RING_PACKED;
use virtio::queue::QueueConfig;
use virtio::testing::driver::{Driver, Registers, Transport};
use virtio::testing::echo::Echo;
use virtio::transport::mmio::{Mmio, register};
use virtio::transport::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};
use virtio::worker::Mode;

/// Where the rings and buffers of queue 0 are; the next one's are 1 MiB up.
const RINGS: u64 = 0x1000;
/// How much of it is worth writing to.
const SPAN: u64 = 0x4000;

/// The input, taken from its front. What is missing is 0.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn bytes(&mut self, count: usize) -> u64 {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn width(&mut self) -> usize {
        1 << (self.bytes(1) % 4)
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let echo = input.bytes(1) % 2 == 0;
    let device: Box<dyn Device> = match echo {
        true => Box::new(Echo::default()),
        false => Box::new(Console::new(None, None)),
    };
    let mut driver = Driver::mmio_in(device, Mode::Inline);
    while !input.0.is_empty() {
        act(&mut driver, &mut input, echo);
        check(&mut driver);
    }
});

fn act(driver: &mut Driver<Mmio>, input: &mut Input<'_>, echo: bool) {
    match input.bytes(1) % 12 {
        0 => {
            let (offset, width) = (input.bytes(2), input.width());
            driver
                .transport
                .read(offset % (Mmio::SIZE + 16), &mut [0; 8][..width]);
        }
        1 => {
            let (offset, width) = (input.bytes(2) % (Mmio::SIZE + 16), input.width());
            let value = input.bytes(8).to_le_bytes();
            // There the echo device is told to panic, and it does.
            if !echo || offset < register::CONFIG {
                driver.transport.write(offset, &value[..width]);
            }
        }
        // The registers there are, as wide as they are.
        2 => {
            let offset = input.bytes(1) % 64 * 4;
            driver.transport.set(offset, input.bytes(4) as u32);
        }
        3 => {
            let status = input.bytes(1) as u32;
            driver.transport.set(register::STATUS, status);
            if status == 0 {
                assert_eq!(driver.transport.get(register::STATUS), 0);
                assert_eq!(driver.transport.get(register::QUEUE_READY), 0);
            }
        }
        4 => {
            let address = RINGS + (input.bytes(1) % 2) * 0x10_0000 + input.bytes(2) % SPAN;
            let value = input.bytes(2).to_le_bytes();
            write(driver, address, &value[..2]);
        }
        5 => {
            let address = RINGS + (input.bytes(1) % 2) * 0x10_0000 + input.bytes(2) % SPAN;
            let value = input.bytes(8).to_le_bytes();
            write(driver, address, &value);
        }
        6 => {
            // A proper start, with any of the offered features.
            let features = input.bytes(8);
            if driver.negotiate(features) {
                driver.set_up_queues(1 << (input.bytes(1) % 9));
                driver.add_status(DRIVER_OK);
            }
        }
        7 => {
            // A queue with addresses of the fuzzer's, as far as they are taken.
            let queue = input.bytes(1) as u16 % 3;
            let mut place = || RINGS + input.bytes(3);
            let config = QueueConfig {
                desc: place(),
                avail: place(),
                used: place(),
                size: 16,
                ..QueueConfig::default()
            };
            driver.transport.set_queue(queue, &config);
            driver.transport.enable_queue(queue, true);
        }
        8 => {
            let queue = (input.bytes(1) % 2) as u16;
            let (readable, writable) = (input.bytes(1) as usize, input.bytes(1) as usize);
            request(driver, queue, readable, writable);
        }
        9 => driver.transport.notify(input.bytes(1) as u32),
        10 => {
            let _ = driver.transport.pause();
            let _ = driver.transport.resume();
        }
        _ => driver.transport.turn(),
    }
}

/// Makes a chain available by hand: the rings may be what the fuzzer has made of them.
fn request(driver: &mut Driver<Mmio>, queue: u16, readable: usize, writable: usize) {
    let is_packed = driver.features() & RING_PACKED != 0;
    let Some(ring) = driver.rings.get_mut(usize::from(queue)) else {
        return;
    };
    let buffer = RINGS + u64::from(queue) * 0x10_0000 + 0x8_0000;
    let descriptor = |len: usize, flags, next| virtio::testing::ring::Descriptor {
        address: buffer,
        len: len as u32 * 64,
        flags,
        next,
    };
    let chain = [descriptor(readable, 1, 1), descriptor(writable, 2, 0)];
    if is_packed {
        ring.as_packed().push_avail(&chain);
    } else {
        let split = ring.as_split();
        split.set_descriptor(0, chain[0]);
        split.set_descriptor(1, chain[1]);
        split.push_avail(0);
    }
    driver.notify(queue);
}

fn write(driver: &Driver<Mmio>, address: u64, bytes: &[u8]) {
    use vm_memory::Bytes;
    let memory = &driver.machine.memory;
    memory
        .write_slice(bytes, vm_memory::GuestAddress(address))
        .expect("the rings are in RAM");
}

/// What holds at any time.
fn check(driver: &mut Driver<Mmio>) {
    let status = driver.transport.status();
    let steps = status & !(NEEDS_RESET | FAILED);
    let known = [
        0,
        ACKNOWLEDGE,
        ACKNOWLEDGE | DRIVER,
        ACKNOWLEDGE | DRIVER | FEATURES_OK,
        ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
    ];
    assert!(known.contains(&steps), "status {status:#x}");
    assert!(
        status & NEEDS_RESET == 0 || steps & DRIVER_OK != 0,
        "status {status:#x}"
    );
    assert_eq!(driver.machine.failures(), []);
    if status & DRIVER_OK == 0 || status & (FAILED | NEEDS_RESET) != 0 {
        let before = driver.interrupts();
        driver.transport.turn();
        assert_eq!(driver.interrupts(), before, "an idle device interrupts");
    }
    if status == 0 {
        assert_eq!(driver.transport.get(register::INTERRUPT_STATUS), 0);
    }
}
