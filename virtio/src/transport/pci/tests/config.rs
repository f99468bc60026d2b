//! The configuration space.

use super::*;
use crate::testing::driver::pci::{capabilities, config, msix};

const COMMAND: u16 = 0x04;
const BAR0: u16 = 0x10;

fn enable_memory(pci: &mut Pci, on: bool) {
    pci.config_write(COMMAND, &[u8::from(on) << 1]);
}

/// The 32 bits at an offset, and those behind them.
fn words(pci: &mut Pci, offset: u16) -> [u32; 2] {
    [offset, offset + 4].map(|offset| u32::from_le_bytes(config(pci, offset)))
}

#[test]
fn identity_is_that_of_a_modern_device() {
    let mut pci = driver().transport;
    assert_eq!(config(&mut pci, 0), [0xf4, 0x1a, 0x44, 0x10]);
    let [revision, class @ ..] = config::<4>(&mut pci, 8);
    assert_eq!((revision, class), (1, [0, 0, 0xff]));
    assert_eq!(config(&mut pci, 0x2c), [0xf4, 0x1a, 0x44, 0x10]);
    // One function, a header of type 0, no interrupt pin.
    assert_eq!(config(&mut pci, 0x0e), [0]);
    assert_eq!(config(&mut pci, 0x3d), [0]);
}

#[test]
fn each_device_type_has_an_identity_of_its_own() {
    use Kind::{Block, Console, Net, Rng, Vsock};
    let identities = [Net, Block, Console, Rng, Vsock].map(identity);
    let devices = identities.each_ref().map(|identity| identity.device);
    assert_eq!(devices, [0x1041, 0x1042, 0x1043, 0x1044, 0x1053]);
    let bases = identities.map(|identity| identity.class >> 16);
    assert_eq!(bases, [0x02, 0x01, 0x07, 0xff, 0x07]);
}

#[test]
fn capabilities_are_linked_and_do_not_overlap() {
    let mut pci = driver().transport;
    let found = capabilities(&mut pci);
    let ids: Vec<u8> = found.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [0x11, 9, 9, 9, 9, 9]);
    let mut end = 0x40;
    for (id, at) in found {
        assert!(at >= end && at % 4 == 0, "{id:#x} at {at:#x}");
        let [len] = config(&mut pci, at + 2);
        end = at + if id == 9 { u16::from(len) } else { 12 };
    }
    assert!(end <= 0x100);
    assert_eq!(config::<2>(&mut pci, 0x06)[0] & 0x10, 0x10);
}

#[test]
fn structures_have_pages_of_their_own_in_bar_0() {
    let mut pci = driver().transport;
    let mut pages = Vec::new();
    for kind in structure::COMMON..=structure::DEVICE {
        let at = capability(&mut pci, kind).unwrap();
        assert_eq!(config(&mut pci, at + 4), [0], "BAR of structure {kind}");
        let [offset, len] = words(&mut pci, at + 8);
        assert_eq!(offset % 0x1000, 0);
        pages.push(offset / 0x1000..(offset + len).div_ceil(0x1000));
    }
    let at = msix(&mut pci);
    let control = u16::from_le_bytes(config(&mut pci, at + 2));
    let vectors = u32::from(control & 0x7ff) + 1;
    for (offset, len) in words(&mut pci, at + 4).into_iter().zip([16 * vectors, 8]) {
        assert_eq!(offset % 0x1000, 0, "in BAR 0, on a page");
        pages.push(offset / 0x1000..(offset + len).div_ceil(0x1000));
    }
    pages.sort_by_key(|page| page.start);
    assert!(pages.is_sorted_by(|page, next| page.end <= next.start));
    assert!(pages.last().unwrap().end <= (Pci::BAR_SIZE / 0x1000) as u32);
}

#[test]
fn a_device_without_a_configuration_has_no_structure_for_it() {
    let mut pci = Driver::pci(Box::new(crate::rng::Rng::new())).transport;
    assert_eq!(capability(&mut pci, structure::DEVICE), None);
    assert!(capability(&mut pci, structure::WINDOW).is_some());
}

#[test]
fn reads_of_any_width_and_offset_show_the_same_bytes() {
    let mut pci = driver().transport;
    let whole = space(&mut pci);
    assert_eq!(whole[0x100..], [0; 0xf00]);
    for width in [1, 2, 3, 4, 8] {
        for offset in 0..0x1000 {
            let mut data = vec![0xaa; width];
            pci.config_read(offset, &mut data);
            let mut expected = whole[usize::from(offset)..].to_vec();
            expected.resize(width.max(expected.len()), 0);
            let window = usize::from(offset) + width > usize::from(window(&mut pci)) + 16;
            let window = window && offset < window_end(&mut pci);
            assert!(
                window || data == expected[..width],
                "{width} at {offset:#x}"
            );
        }
    }
    let mut data = [0xaa; 4];
    pci.config_read(u16::MAX, &mut data);
    assert_eq!(data, [0; 4]);
}

fn window(pci: &mut Pci) -> u16 {
    capability(pci, structure::WINDOW).unwrap()
}

fn window_end(pci: &mut Pci) -> u16 {
    window(pci) + 20
}

#[test]
fn only_what_is_writable_changes() {
    let mut pci = driver().transport;
    let before = space(&mut pci);
    let window = usize::from(window(&mut pci));
    let control = usize::from(msix(&mut pci)) + 2;
    let mut expected = before.clone();
    expected[4..6].copy_from_slice(&[0x06, 0x04]);
    expected[0x10..0x18].copy_from_slice(&(!0xffff_u64 | 0b100).to_le_bytes());
    expected[control + 1] |= 0xc0;
    expected[window + 4] = 0xff;
    // All ones in the data, too, as the window leads nowhere now.
    expected[window + 8..window + 20].fill(0xff);
    for offset in 0..0x1000 {
        pci.config_write(offset, &[0xff]);
    }
    assert_eq!(space(&mut pci), expected);
    pci.config_write(0xfff, &[0xff; 8]);
    pci.config_write(u16::MAX, &[0xff; 8]);
    assert_eq!(space(&mut pci), expected);
    for offset in 0..0x1000 {
        pci.config_write(offset, &[0]);
    }
    let zero = space(&mut pci);
    assert_eq!(zero[..window + 16], before[..window + 16]);
}

#[test]
fn a_bar_is_sized_by_all_ones_in_any_order_with_decoding_on_or_off() {
    for on in [false, true] {
        for order in [[0, 4], [4, 0]] {
            let mut pci = driver().transport;
            pci.place(0x12_3456_0000);
            enable_memory(&mut pci, on);
            for half in order {
                pci.config_write(BAR0 + half, &[0xff; 4]);
            }
            let [low, high] = words(&mut pci, BAR0);
            let mask = u64::from(low & !0xf) | u64::from(high) << 32;
            assert_eq!((low & 0xf, !mask + 1), (0b100, Pci::BAR_SIZE));
            // What ends beyond the last address answers nowhere.
            assert_eq!(pci.decoded(), None);
            for half in order {
                let address = 0x12_3456_0000_u64.to_le_bytes();
                let half = usize::from(half);
                pci.config_write(BAR0 + half as u16, &address[half..half + 4]);
            }
            assert_eq!(pci.decoded(), on.then_some(0x12_3456_0000));
        }
    }
}

#[test]
fn bar_0_answers_where_it_is_placed_while_decoding_is_on() {
    let mut pci = driver().transport;
    pci.place(0xe000_0000);
    assert_eq!(pci.decoded(), None);
    enable_memory(&mut pci, true);
    assert_eq!(pci.decoded(), Some(0xe000_0000));
    pci.config_write(BAR0, &0xe123_4567_u32.to_le_bytes());
    assert_eq!(pci.decoded(), Some(0xe123_0000));
    pci.config_write(BAR0 + 4, &[0xff; 4]);
    assert_eq!(pci.decoded(), Some(0xffff_ffff_e123_0000));
    enable_memory(&mut pci, false);
    assert_eq!(pci.decoded(), None);
}

#[test]
fn a_bar_that_has_moved_about_answers_where_it_is_put_back() {
    let mut driver = started();
    let mut noise = Noise(3);
    for _ in 0..100_000 {
        let address = noise.next() >> noise.below(64);
        let half = 4 * noise.below(2) as u16;
        let pci = &mut driver.transport;
        pci.config_write(BAR0 + half, &(address as u32).to_le_bytes());
        enable_memory(pci, noise.below(2) == 1);
        let at = pci.decoded().unwrap_or(0);
        assert!(at.is_multiple_of(Pci::BAR_SIZE) && at.checked_add(Pci::BAR_SIZE).is_some());
    }
    driver.transport.place(0xe000_0000);
    enable_memory(&mut driver.transport, true);
    assert_eq!(driver.transport.decoded(), Some(0xe000_0000));
    works(&mut driver);
}

#[test]
fn command_bits_toggled_amid_requests_do_no_harm() {
    let mut driver = started();
    for command in 0..2_000_u16 {
        driver
            .transport
            .config_write(COMMAND, &(command ^ 0x7ff).to_le_bytes());
        works(&mut driver);
    }
}

#[test]
fn garbage_in_the_configuration_space_leaves_a_function_that_can_be_set_up() {
    let mut driver = driver();
    let mut noise = Noise(5);
    for _ in 0..100_000 {
        let (value, width) = (noise.next(), 1 << noise.below(4));
        let limit = if noise.below(2) == 0 { 0x100 } else { 0x1004 };
        let offset = noise.below(limit) as u16;
        driver
            .transport
            .config_write(offset, &value.to_le_bytes()[..width]);
        driver.transport.config_read(offset, &mut vec![0; width]);
    }
    driver.start(0);
    works(&mut driver);
}

fn aim(pci: &mut Pci, bar: u8, offset: u32, len: u32) -> u16 {
    let window = window(pci);
    pci.config_write(window + 4, &[bar]);
    pci.config_write(window + 8, &offset.to_le_bytes());
    pci.config_write(window + 12, &len.to_le_bytes());
    window + 16
}

#[test]
fn the_window_leads_to_bar_0_even_while_that_is_not_decoded() {
    let mut pci = driver().transport;
    let common = find(&mut pci, structure::COMMON).unwrap() as u32;
    let data = aim(&mut pci, 0, common + DEVICE_STATUS as u32, 1);
    pci.config_write(data, &[1]);
    assert_eq!(pci.status(), 1);
    assert_eq!(config::<4>(&mut pci, data)[0], 1);
    let data = aim(&mut pci, 0, common + DRIVER_FEATURE as u32, 4);
    pci.config_write(data, &0x1234_5678_u32.to_le_bytes());
    assert_eq!(config(&mut pci, data), 0x1234_5678_u32.to_le_bytes());
    assert_eq!(pci.front.driver_features(), 0x1234_5678);
    let data = aim(&mut pci, 0, common + QUEUE_SELECT as u32, 2);
    pci.config_write(data, &[1, 0]);
    assert_eq!(pci.front.queue_sel, 1);
}

#[test]
fn a_read_through_the_window_is_a_read_of_the_register() {
    let mut driver = started();
    driver.send(ECHO, &[b"ping"], &[4]);
    driver.transport.turn();
    let isr = find(&mut driver.transport, structure::ISR).unwrap();
    let data = aim(&mut driver.transport, 0, isr as u32, 1);
    assert_eq!(config::<1>(&mut driver.transport, data), [1]);
    assert_eq!(config::<1>(&mut driver.transport, data), [0]);
}

#[test]
fn a_window_that_leads_nowhere_reads_as_ones_and_ignores_writes() {
    let mut pci = driver().transport;
    let size = Pci::BAR_SIZE as u32;
    let status = DEVICE_STATUS as u32;
    let nowhere = [
        (1, status, 1),
        (5, status, 1),
        (255, status, 1),
        (0, status, 0),
        (0, status, 3),
        (0, status, 5),
        (0, status, 8),
        (0, status, 255),
        (0, status, u32::MAX),
        (0, 0, 0),
        (0, status + 1, 2),
        (0, status + 2, 4),
        (0, size, 1),
        (0, size - 2, 4),
        (0, u32::MAX, 1),
        (0, u32::MAX - 3, 4),
    ];
    for (bar, offset, len) in nowhere {
        let data = aim(&mut pci, bar, offset, len);
        assert_eq!(config(&mut pci, data), [0xff; 4], "{bar} {offset:#x} {len}");
        pci.config_write(data, &[1, 0, 0, 0]);
        assert_eq!(pci.status(), 0, "{bar} {offset:#x} {len}");
    }
}

#[test]
fn a_window_reads_any_of_bar_0_without_harm() {
    let mut driver = started();
    for offset in 0..Pci::BAR_SIZE as u32 {
        for len in [1, 2, 4] {
            let data = aim(&mut driver.transport, 0, offset, len);
            config::<4>(&mut driver.transport, data);
        }
    }
    works(&mut driver);
}

#[test]
fn a_function_that_cannot_be_is_refused() {
    let refused = |queues, config, vectors| Layout::of(queues, config, vectors).err();
    assert_eq!(refused(1024, 4096, 2048), None);
    for (queues, config, vectors) in [(1025, 0, 1), (1, 4097, 1), (1, 0, 0), (1, 0, 2049)] {
        assert!(refused(queues, config, vectors).is_some());
    }
    let machine = Machine::default();
    let msi = Messages::new(Arc::clone(&machine.interrupts), 0);
    let pci = Pci::new(Box::new(Echo::default()), machine.environment(), msi);
    assert_eq!(pci.err().unwrap().to_string(), "putting echo0 on PCI");
}

#[test]
fn fixed_registers_keep_what_they_are_whatever_is_written() {
    let mut driver = driver();
    let pci = &mut driver.transport;
    let before = space(pci);

    for offset in Pci::FIXED {
        for byte in [0xff, 0, 0x55] {
            pci.config_write(offset, &[byte]);
        }
    }

    assert_eq!(space(pci), before);
}

#[test]
fn every_write_that_can_change_what_another_byte_reads_as_is_one_to_the_window() {
    let mut driver = driver();
    let pci = &mut driver.transport;
    for offset in 0..0x100 {
        if pci.is_window(offset, 1) {
            continue;
        }
        let before = space(pci);
        pci.config_write(offset, &[!before[usize::from(offset)]]);
        let mut after = space(pci);
        after[usize::from(offset)] = before[usize::from(offset)];
        assert_eq!(after, before, "{offset:#x}");
    }
    let (start, end) = (window(pci), window_end(pci));
    assert!(!pci.is_window(start, 4) && pci.is_window(start, 5));
    assert!(pci.is_window(end - 1, 1) && !pci.is_window(end, 4));
}

#[test]
fn doorbells_status_and_masks_are_not_patient() {
    let (driver, _msi) = with_vectors(3);
    let patient = driver.transport.patient();

    let is_patient = |at: u64| patient.iter().any(|range| range.contains(&at));
    let control = |vector: u64| layout::TABLE + 16 * vector + 12;
    let prompt = [
        DEVICE_STATUS,
        layout::ISR,
        layout::DEVICE,
        layout::NOTIFY,
        control(0),
        control(2),
        control(3) - 12,
    ];
    for at in prompt {
        assert!(!is_patient(at), "{at:#x}");
    }
    for at in [DRIVER_FEATURE, QUEUE_SELECT, QUEUE_ENABLE, QUEUE_DEVICE] {
        assert!(is_patient(at), "{at:#x}");
    }
    assert!(is_patient(control(2) - 4));
}
