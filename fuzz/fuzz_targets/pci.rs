//! A driver that does anything at all to the PCI function and the memory of a device: its
//! configuration space with the window in it, BAR 0, and the MSI-X table.
//!
//! The input is a list of actions, as for MMIO; what has to hold there holds here. Besides:
//!
//! - What is fixed in the configuration space never changes: identity, capabilities, the BAR's size.
//! - BAR 0 answers where the driver has put it, if that is switched on and all of it fits.
//! - What the machine was told to send for a vector is what the table says, if MSI-X is on and
//!   the vector is open, and else nothing.
//! - A vector is pending only while MSI-X is on and it is masked; one that is assigned is there.

#![no_main]

use hype_fuzz::Input;
use hype_fuzz::transport::{self, ACTIONS};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use virtio::testing::driver::Driver;
use virtio::testing::driver::pci::{
    VECTORS, bar, capability, common, config, control, find, msix, msix_table, program, set_common,
};
use virtio::testing::msi::{ADDRESS, Messages};
use virtio::transport::pci::common::register;
use virtio::transport::pci::{Message, Pci, structure};
use virtio::worker::Mode;

/// The device's own configuration in BAR 0.
const PAGE: u64 = 0x1000;

/// Bits of a function's command and of MSI-X's message control.
const MEMORY_SPACE: u32 = 1 << 1;
const ENABLE: u32 = 1 << 31;
const MASK_ALL: u32 = 1 << 30;

/// Where things are.
struct Places {
    common: u64,
    device: u64,
    window: u16,
    msix: u16,
    table: u64,
    pending: u64,
}

impl Places {
    fn find(pci: &mut Pci) -> Self {
        let (table, pending) = msix_table(pci);
        Places {
            common: find(pci, structure::COMMON).expect("a common configuration"),
            device: find(pci, structure::DEVICE).expect("both devices have a configuration"),
            window: capability(pci, structure::WINDOW).expect("a window"),
            msix: msix(pci),
            table,
            pending,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let echo = input.byte().is_multiple_of(2);
    let machine = transport::machine();
    let messages = Messages::new(Arc::clone(&machine.interrupts), VECTORS);
    let device = transport::device(echo);
    let mut driver = Driver::pci_of(machine, Arc::clone(&messages), device, Mode::Inline);
    let places = Places::find(&mut driver.transport);
    let before = fixed(&mut driver.transport, &places);
    while !input.is_empty() {
        act(&mut driver, &mut input, echo, &places);
        transport::check(&mut driver);
        check(&mut driver.transport, &places, &messages);
    }
    assert_eq!(fixed(&mut driver.transport, &places), before);
});

fn act(driver: &mut Driver<Pci>, input: &mut Input<'_>, echo: bool, places: &Places) {
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
    // There the echo device is told to panic, and it does.
    let taboo = |offset: u64| echo && (places.device..places.device + PAGE).contains(&offset);
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
            let data = places.window + 16;
            if !echo || offset + width as u16 <= data || offset >= data + 4 {
                pci.config_write(offset, &value[..width]);
            }
        }
        5 => {
            // Through the window, to anywhere.
            let window = places.window;
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
fn check(pci: &mut Pci, places: &Places, messages: &Messages) {
    let command = word(pci, 4);
    let address = u64::from_le_bytes(config(pci, 0x10)) & !0xf;
    let fits = address.checked_add(Pci::BAR_SIZE).is_some();
    assert_eq!(address % Pci::BAR_SIZE, 0);
    let answers = command & MEMORY_SPACE != 0 && fits;
    assert_eq!(pci.decoded(), answers.then_some(address));

    let control = word(pci, places.msix);
    let vectors = control >> 16 & 0x7ff;
    let pending: u64 = u64::from_le_bytes(bar(pci, places.pending));
    assert_eq!(
        pending >> (vectors + 1),
        0,
        "pending vectors that don't exist"
    );
    for (entry, programmed) in (0..).zip(messages.vectors()) {
        let at = places.table + 16 * entry;
        let [address, rest] = [at, at + 8].map(|at| u64::from_le_bytes(bar(pci, at)));
        let is_masked = control & MASK_ALL != 0 || rest >> 32 != 0;
        let is_open = control & ENABLE != 0 && !is_masked;
        let data = rest as u32;
        let message = is_open.then_some(Message { address, data });
        assert_eq!(programmed, message, "vector {entry}");
        if control & ENABLE == 0 || !is_masked {
            assert_eq!(pending >> entry & 1, 0, "vector {entry} is pending");
        }
    }
    for field in [register::CONFIG_MSIX_VECTOR, register::QUEUE_MSIX_VECTOR] {
        let vector = u32::from(u16::from_le_bytes(bar(pci, places.common + field)));
        assert!(vector <= vectors || vector == 0xffff, "vector {vector:#x}");
    }
}

fn word(pci: &mut Pci, offset: u16) -> u32 {
    u32::from_le_bytes(config(pci, offset))
}

/// What the driver can't write of the configuration space.
fn fixed(pci: &mut Pci, places: &Places) -> Vec<u32> {
    let bits = |offset: u16| match offset {
        4 => 0xffff_0000,
        0x10 => 0xf,
        0x14 => 0,
        _ if offset == places.msix => !(ENABLE | MASK_ALL),
        _ if offset == places.window + 4 => 0xffff_ff00,
        _ if (places.window + 8..places.window + 20).contains(&offset) => 0,
        _ => !0,
    };
    let words = (0..0x100).step_by(4).filter(|offset| bits(*offset) != 0);
    words
        .map(|offset| word(pci, offset) & bits(offset))
        .collect()
}
