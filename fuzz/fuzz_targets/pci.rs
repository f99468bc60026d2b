//! A driver that does anything at all to the PCI function and the memory of a device: its
//! configuration space with the window in it, BAR 0, and the MSI-X table.
//!
//! The input is a list of actions, as for MMIO; what has to hold there holds here. Besides, what
//! identifies a function never changes, BAR 0 answers at a place where all of it fits, nothing is
//! pending while MSI-X is off, and a vector that is assigned is there.

#![no_main]

use hype_fuzz::Input;
use hype_fuzz::transport::{self, ACTIONS};
use libfuzzer_sys::fuzz_target;
use virtio::testing::driver::Driver;
use virtio::testing::driver::pci::{
    bar, capability, common, config, control, find, msix, msix_table, program, set_common,
};
use virtio::testing::msi::ADDRESS;
use virtio::transport::pci::common::register;
use virtio::transport::pci::{Pci, structure};
use virtio::worker::Mode;

/// The device's own configuration in BAR 0.
const PAGE: u64 = 0x1000;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let echo = input.number(1) % 2 == 0;
    let mut driver = Driver::pci_of(transport::machine(), transport::device(echo), Mode::Inline);
    let identity: [u8; 4] = config(&mut driver.transport, 0);
    while !input.is_empty() {
        act(&mut driver, &mut input, echo);
        transport::check(&mut driver);
        check(&mut driver.transport);
        assert_eq!(config(&mut driver.transport, 0), identity);
    }
});

fn act(driver: &mut Driver<Pci>, input: &mut Input<'_>, echo: bool) {
    let action = input.number(1) % (ACTIONS + 9);
    if action < ACTIONS {
        if transport::act(driver, input, action) {
            let pci = &mut driver.transport;
            assert_eq!(common(pci, register::QUEUE_ENABLE), [0; 2]);
            assert_eq!(common(pci, register::QUEUE_MSIX_VECTOR), [0xff; 2]);
            assert_eq!(common(pci, register::CONFIG_MSIX_VECTOR), [0xff; 2]);
        }
        return;
    }
    let pci = &mut driver.transport;
    let device = find(pci, structure::DEVICE).expect("both devices have a configuration");
    // There the echo device is told to panic, and it does.
    let taboo = |offset: u64| echo && (device..device + PAGE).contains(&offset);
    match action - ACTIONS {
        0 => {
            let (offset, width) = (input.number(3), input.width());
            pci.read(offset % (Pci::BAR_SIZE + 16), &mut [0; 8][..width]);
        }
        1 => {
            let (offset, width) = (input.number(3) % (Pci::BAR_SIZE + 16), input.width());
            let value = input.number(8).to_le_bytes();
            if !taboo(offset) {
                pci.write(offset, &value[..width]);
            }
        }
        // The fields there are, in the widths that they may have.
        2 => {
            let (field, width) = (input.number(1) % 0x40, input.width());
            set_common(pci, field, &input.number(width).to_le_bytes()[..width]);
        }
        3 => pci.config_read(input.number(2) as u16, &mut [0; 8][..input.width()]),
        4 => {
            let (offset, width) = (input.number(2) as u16 % 0x1008, input.width());
            let value = input.number(8).to_le_bytes();
            let data = capability(pci, structure::WINDOW).expect("a window") + 16;
            if !echo || offset + width as u16 <= data || offset >= data + 4 {
                pci.config_write(offset, &value[..width]);
            }
        }
        5 => {
            // Through the window, to anywhere.
            let window = capability(pci, structure::WINDOW).expect("a window");
            let (offset, len) = (input.number(4) as u32, input.number(1) as u32 % 6);
            pci.config_write(window + 4, &[input.number(1) as u8 % 2]);
            pci.config_write(window + 8, &offset.to_le_bytes());
            pci.config_write(window + 12, &len.to_le_bytes());
            if !taboo(offset.into()) {
                pci.config_write(window + 16, &(input.number(4) as u32).to_le_bytes());
            }
            config::<4>(pci, window + 16);
        }
        6 => {
            let (vector, masked) = (input.number(1) as u16, input.number(1) % 2 == 1);
            let address = input.number(1) + ADDRESS;
            program(pci, vector % 8, address, input.number(1) as u32, masked);
        }
        7 => {
            let bits = input.number(1);
            control(pci, bits & 1 != 0, bits & 2 != 0);
        }
        _ => pci.place(input.number(8)),
    }
}

/// What holds at any time.
fn check(pci: &mut Pci) {
    if let Some(address) = pci.decoded() {
        assert_eq!(address % Pci::BAR_SIZE, 0);
        assert!(address.checked_add(Pci::BAR_SIZE).is_some());
    }
    let at = msix(pci);
    let [low, high] = config(pci, at + 2);
    let vectors = u16::from_le_bytes([low, high]) & 0x7ff;
    if high & 0x80 == 0 {
        let pending = msix_table(pci).1;
        assert_eq!(bar(pci, pending), [0; 8], "pending while MSI-X is off");
    }
    for field in [register::CONFIG_MSIX_VECTOR, register::QUEUE_MSIX_VECTOR] {
        let vector = u16::from_le_bytes(common(pci, field));
        assert!(vector <= vectors || vector == 0xffff, "vector {vector:#x}");
    }
}
