//! What the fuzzed drivers of all transports do: rings, requests and doorbells, and what has to
//! hold whatever they do.

use crate::{Input, memory};
use std::sync::LazyLock;
use virtio::Device;
use virtio::console::Console;
use virtio::features::RING_PACKED;
use virtio::queue::QueueConfig;
use virtio::testing::driver::{Driver, Machine, Transport};
use virtio::testing::echo::Echo;
use virtio::transport::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};

/// Where the rings and buffers of queue 0 are.
const RINGS: u64 = 0x1000;
/// How much memory each queue has, one behind the other: little of it, as each run clears it.
const SPAN: u64 = 0x4000;
/// Where in it buffers are: behind the largest ring.
const BUFFERS: u64 = 0x2000;

static MACHINE: LazyLock<Machine> = LazyLock::new(|| Machine::with_queue_memory(SPAN));

/// The machine of all runs, as new but for its counters.
pub fn machine() -> Machine {
    memory::clear(&MACHINE.memory);
    MACHINE.clone()
}

/// The device: one that does what its driver orders, or a real one.
pub fn device(echo: bool) -> Box<dyn Device> {
    match echo {
        true => Box::new(Echo::default()),
        false => Box::new(Console::new(None, None)),
    }
}

/// How many actions [`act`] knows.
pub const ACTIONS: u64 = 9;

/// Does something that drivers do on any transport. Tells whether it was a reset.
pub fn act<T: Transport>(driver: &mut Driver<T>, input: &mut Input<'_>, action: u64) -> bool {
    match action {
        0 => {
            let status = input.byte();
            driver.transport.set_status(status);
            if status == 0 {
                assert_eq!(driver.transport.status(), 0);
                return true;
            }
        }
        1 | 2 => {
            let address = RINGS + input.number(2) % (2 * SPAN);
            let width = if action == 1 { 2 } else { 8 };
            let value = input.number(width).to_le_bytes();
            write(driver, address, &value[..width]);
        }
        3 => {
            // A proper start, with any of the offered features.
            let features = input.number(8);
            if driver.negotiate(features) {
                driver.set_up_queues(1 << (input.number(1) % 9));
                driver.add_status(DRIVER_OK);
            }
        }
        4 => {
            // A queue with addresses of the fuzzer's, as far as they are taken.
            let queue = input.number(1) as u16 % 3;
            let mut place = || RINGS + input.number(3);
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
        5 => {
            let queue = (input.number(1) % 2) as u16;
            let (readable, writable) = (input.number(1) as usize, input.number(1) as usize);
            request(driver, queue, readable, writable);
        }
        6 => driver.transport.notify(input.number(1) as u32),
        7 => {
            let _ = driver.transport.pause();
            let _ = driver.transport.resume();
        }
        _ => driver.transport.turn(),
    }
    false
}

/// Makes a chain available by hand: the rings may be what the fuzzer has made of them.
fn request<T: Transport>(driver: &mut Driver<T>, queue: u16, readable: usize, writable: usize) {
    let is_packed = driver.features() & RING_PACKED != 0;
    let Some(ring) = driver.rings.get_mut(usize::from(queue)) else {
        return;
    };
    let buffer = RINGS + u64::from(queue) * SPAN + BUFFERS;
    let descriptor = |len: usize, flags, next| virtio::testing::ring::Descriptor {
        address: buffer,
        len: len as u32 * 32,
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

fn write<T>(driver: &Driver<T>, address: u64, bytes: &[u8]) {
    use vm_memory::Bytes;
    let memory = &driver.machine.memory;
    memory
        .write_slice(bytes, vm_memory::GuestAddress(address))
        .expect("the rings are in RAM");
}

/// What holds at any time.
pub fn check<T: Transport>(driver: &mut Driver<T>) {
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
        assert_eq!(driver.transport.acknowledge(), 0);
    }
}
