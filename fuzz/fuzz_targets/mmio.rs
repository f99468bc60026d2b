//! A driver that does anything at all to the MMIO registers and the memory of a device.
//!
//! The input is a list of actions: accesses to the register window, writes to guest memory,
//! doorbells, pauses, and, so that it doesn't take luck to get anywhere, a proper start and
//! proper requests. The device has no thread, so a run repeats exactly.
//!
//! Besides not crashing, the transport has to keep its promises: the status is one that the
//! specification knows, a reset is a reset, and a device that is not active touches no memory
//! and interrupts nobody.

#![no_main]

mod guest;

use guest::{ACTIONS, Input};
use libfuzzer_sys::fuzz_target;
use virtio::testing::driver::{Driver, Registers};
use virtio::transport::mmio::{Mmio, register};
use virtio::worker::Mode;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let echo = input.bytes(1) % 2 == 0;
    let mut driver = Driver::mmio_in(guest::device(echo), Mode::Inline);
    while !input.is_empty() {
        act(&mut driver, &mut input, echo);
        guest::check(&mut driver);
    }
});

fn act(driver: &mut Driver<Mmio>, input: &mut Input<'_>, echo: bool) {
    let action = input.bytes(1) % (ACTIONS + 3);
    if action < ACTIONS {
        if guest::act(driver, input, action) {
            assert_eq!(driver.transport.get(register::QUEUE_READY), 0);
        }
        return;
    }
    let transport = &mut driver.transport;
    match action - ACTIONS {
        0 => {
            let (offset, width) = (input.bytes(2), input.width());
            transport.read(offset % (Mmio::SIZE + 16), &mut [0; 8][..width]);
        }
        1 => {
            let (offset, width) = (input.bytes(2) % (Mmio::SIZE + 16), input.width());
            let value = input.bytes(8).to_le_bytes();
            // There the echo device is told to panic, and it does.
            if !echo || offset < register::CONFIG {
                transport.write(offset, &value[..width]);
            }
        }
        // The registers there are, as wide as they are.
        _ => {
            let offset = input.bytes(1) % 64 * 4;
            transport.set(offset, input.bytes(4) as u32);
        }
    }
}
