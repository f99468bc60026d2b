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

use hype_fuzz::Input;
use hype_fuzz::transport::{self, ACTIONS};
use libfuzzer_sys::fuzz_target;
use virtio::testing::driver::{Driver, Registers};
use virtio::transport::mmio::{Mmio, register};
use virtio::worker::Mode;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let echo = input.byte().is_multiple_of(2);
    let mut driver = Driver::mmio_of(transport::machine(), transport::device(echo), Mode::Inline);
    while !input.is_empty() {
        act(&mut driver, &mut input, echo);
        transport::check(&mut driver);
    }
});

fn act(driver: &mut Driver<Mmio>, input: &mut Input<'_>, echo: bool) {
    let action = input.number(1) % (ACTIONS + 3);
    if action < ACTIONS {
        if transport::act(driver, input, action) {
            assert_eq!(driver.transport.get(register::QUEUE_READY), 0);
        }
        return;
    }
    let mmio = &mut driver.transport;
    match action - ACTIONS {
        0 => {
            let (offset, width) = (input.number(2), input.width());
            mmio.read(offset % (Mmio::SIZE + 16), &mut [0; 8][..width]);
        }
        1 => {
            let (offset, width) = (input.number(2) % (Mmio::SIZE + 16), input.width());
            let value = input.number(8).to_le_bytes();
            // There the echo device is told to panic, and it does.
            if !echo || offset < register::CONFIG {
                mmio.write(offset, &value[..width]);
            }
        }
        // The registers there are, as wide as they are.
        _ => {
            let offset = input.number(1) % 64 * 4;
            mmio.set(offset, input.number(4) as u32);
        }
    }
}
