//! BAR 0, but for MSI-X.

use super::*;
use crate::testing::echo::{COMMAND, Command};

/// Whether there is a field, or half of an address, at this offset with this width.
fn is_field(offset: u64, width: usize) -> bool {
    match width {
        1 => matches!(offset, 0x14 | 0x15),
        2 => [0x10, 0x12, 0x16, 0x18, 0x1a, 0x1c, 0x1e].contains(&offset),
        4 => offset.is_multiple_of(4) && (offset < 0x10 || (0x20..0x38).contains(&offset)),
        8 => [0x20, 0x28, 0x30].contains(&offset),
        _ => false,
    }
}

#[test]
fn fields_read_as_zero_in_other_widths() {
    let mut pci = started().transport;
    for offset in 0..0x1000 {
        for width in [0, 1, 2, 3, 4, 8, 16] {
            let own = is_field(offset, width);
            let mut data = vec![0xaa; width];
            pci.read(offset, &mut data);
            assert!(own || data == vec![0; width], "{width} at {offset:#x}");
        }
    }
}

#[test]
fn fields_ignore_writes_of_other_widths() {
    let mut driver = started();
    let before = fields(&mut driver.transport);
    for offset in 0..0x1000 {
        for width in [0, 1, 2, 3, 4, 8, 16] {
            if !is_field(offset, width) {
                driver.transport.write(offset, &vec![0; width]);
                driver.transport.write(offset, &vec![0xff; width]);
            }
        }
    }
    assert_eq!(fields(&mut driver.transport), before);
    works(&mut driver);
}

#[test]
fn fields_for_reading_ignore_writes() {
    let mut pci = started().transport;
    let before = fields(&mut pci);
    for value in [0, 0xff] {
        set_common(&mut pci, DEVICE_FEATURE, &[value; 4]);
        set_common(&mut pci, NUM_QUEUES, &[value; 2]);
        set_common(&mut pci, CONFIG_GENERATION, &[value]);
        set_common(&mut pci, QUEUE_NOTIFY_OFF, &[value; 2]);
    }
    assert_eq!(fields(&mut pci), before);
}

#[test]
fn selectors_and_the_driver_s_features_read_back() {
    let mut pci = driver().transport;
    for (field, value) in [
        (DEVICE_FEATURE_SELECT, 0x1234_5678),
        (DRIVER_FEATURE_SELECT, 1),
        (DRIVER_FEATURE, 0x9abc_def0),
    ] {
        set_common(&mut pci, field, &u32::to_le_bytes(value));
        assert_eq!(common(&mut pci, field), u32::to_le_bytes(value));
    }
    // There are no features beyond the 64th.
    assert_eq!(common(&mut pci, DEVICE_FEATURE), [0; 4]);
    set_common(&mut pci, QUEUE_SELECT, &[7, 1]);
    assert_eq!(common(&mut pci, QUEUE_SELECT), [7, 1]);
}

#[test]
fn a_queue_that_is_not_there_reads_as_zero_and_has_no_vector() {
    let mut pci = driver().transport;
    assert_eq!(common(&mut pci, NUM_QUEUES), [2, 0]);
    for queue in [2, 3, 0x7fff, u16::MAX] {
        set_common(&mut pci, QUEUE_SELECT, &queue.to_le_bytes());
        set_common(&mut pci, QUEUE_SIZE, &[16, 0]);
        set_common(&mut pci, QUEUE_MSIX_VECTOR, &[0, 0]);
        set_common(&mut pci, QUEUE_DESC, &[1; 8]);
        set_common(&mut pci, QUEUE_ENABLE, &[1, 0]);
        for field in [QUEUE_SIZE, QUEUE_ENABLE, QUEUE_NOTIFY_OFF] {
            assert_eq!(common(&mut pci, field), [0; 2], "{queue} {field:#x}");
        }
        assert_eq!(common(&mut pci, QUEUE_DESC), [0; 8]);
        assert_eq!(common(&mut pci, QUEUE_MSIX_VECTOR), [0xff; 2]);
    }
}

#[test]
fn addresses_are_set_whole_or_in_halves() {
    let mut pci = driver().transport;
    set_common(&mut pci, QUEUE_SELECT, &[1, 0]);
    for (field, value) in [
        (QUEUE_DESC, 0x1111_1111_2222_2222_u64),
        (QUEUE_DRIVER, 0x3333_3333_4444_4444),
        (QUEUE_DEVICE, 0x5555_5555_6666_6666),
    ] {
        set_common(&mut pci, field, &value.to_le_bytes());
        assert_eq!(common(&mut pci, field), value.to_le_bytes());
        set_common(&mut pci, field + 4, &0x7777_7777_u32.to_le_bytes());
        assert_eq!(common(&mut pci, field), (value as u32).to_le_bytes());
        assert_eq!(common(&mut pci, field + 4), 0x7777_7777_u32.to_le_bytes());
    }
    let queue = pci.front.core.queue(1).unwrap();
    assert_eq!(queue.desc, 0x7777_7777_2222_2222);
    assert_eq!(queue.avail, 0x7777_7777_4444_4444);
    assert_eq!(queue.used, 0x7777_7777_6666_6666);
    assert_eq!(pci.front.core.queue(0).unwrap().desc, 0);
}

#[test]
fn an_enabled_queue_stays_enabled_and_as_it_is() {
    let mut driver = driver();
    assert!(driver.negotiate(0));
    driver.set_up_queues(64);
    set_common(&mut driver.transport, QUEUE_SELECT, &[1, 0]);
    let before = fields(&mut driver.transport);
    assert_eq!(common(&mut driver.transport, QUEUE_ENABLE), [1, 0]);
    for value in [0, 2, 0xff] {
        set_common(&mut driver.transport, QUEUE_ENABLE, &[value; 2]);
        set_common(&mut driver.transport, QUEUE_SIZE, &[8, 0]);
        set_common(&mut driver.transport, QUEUE_DESC, &[0; 8]);
    }
    assert_eq!(fields(&mut driver.transport), before);
}

#[test]
fn isr_status_names_the_cause_and_forgets_it_when_read() {
    let mut driver = started();
    let isr = find(&mut driver.transport, structure::ISR).unwrap();
    driver.send(ECHO, &[b"ping"], &[4]);
    driver
        .transport
        .write_config(COMMAND, &[Command::Count as u8]);
    driver.transport.turn();
    for width in [2, 4, 8] {
        let mut data = vec![0xaa; width];
        driver.transport.read(isr, &mut data);
        assert_eq!(data, vec![0; width]);
        driver.transport.write(isr, &vec![0xff; width]);
    }
    driver.transport.write(isr, &[0xff]);
    assert_eq!(bar(&mut driver.transport, isr), [3]);
    assert_eq!(bar(&mut driver.transport, isr), [0]);
}

#[test]
fn the_device_s_configuration_takes_any_width_within_its_bounds() {
    let mut pci = driver().transport;
    let start = find(&mut pci, structure::DEVICE).unwrap();
    let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
    pci.write(start + 8, &bytes);
    for width in 1..=8 {
        for from in 0..=8 - width {
            let mut data = vec![0xaa; width];
            pci.read(start + 8 + from as u64, &mut data);
            assert_eq!(data, bytes[from..from + width]);
        }
    }
    pci.write(start + 12, &[9; 8]);
    pci.write(start + 16, &[9]);
    assert_eq!(bar(&mut pci, start + 12), [5, 6, 7, 8, 0, 0, 0, 0]);
}

#[test]
fn the_generation_counts_changes_of_the_configuration() {
    let mut driver = started();
    for round in 1..=300_u32 {
        driver
            .transport
            .write_config(COMMAND, &[Command::Count as u8]);
        driver.transport.turn();
        assert_eq!(driver.transport.config_generation(), round % 256);
    }
}

#[test]
fn each_queue_is_notified_at_an_address_of_its_own() {
    let mut driver = driver();
    let at = capability(&mut driver.transport, structure::NOTIFY).unwrap();
    let start = find(&mut driver.transport, structure::NOTIFY).unwrap();
    let mut step = [0; 4];
    driver.transport.config_read(at + 16, &mut step);
    let step = u64::from(u32::from_le_bytes(step));
    let bells = driver.transport.doorbells();
    let places: Vec<_> = bells.iter().map(|bell| (bell.offset, bell.queue)).collect();
    assert_eq!(places, [(start, 0), (start + step, 1)]);
    for queue in 0..2_u16 {
        set_common(&mut driver.transport, QUEUE_SELECT, &queue.to_le_bytes());
        assert_eq!(
            common(&mut driver.transport, QUEUE_NOTIFY_OFF),
            queue.to_le_bytes()
        );
    }
}

#[test]
fn a_notify_rings_the_doorbell_whatever_is_written() {
    let mut driver = started();
    let bell = driver.transport.doorbells().remove(1);
    let _ = bell.event.read();
    for width in [1, 2, 4, 8] {
        driver.transport.write(bell.offset, &vec![0xee; width]);
        assert_eq!(bell.event.read().unwrap(), 1);
    }
    for offset in [bell.offset + 1, bell.offset + 2, bell.offset + 4, 0x3ffc] {
        driver.transport.write(offset, &[1, 0]);
        assert!(bell.event.read().is_err(), "{offset:#x}");
    }
}

#[test]
fn a_reset_forgets_selections_vectors_and_causes() {
    let mut driver = started();
    driver.send(ECHO, &[b"ping"], &[4]);
    driver.transport.turn();
    set_common(&mut driver.transport, QUEUE_SELECT, &[1, 0]);
    set_common(&mut driver.transport, DEVICE_FEATURE_SELECT, &[1; 4]);
    driver.transport.set_status(0);
    assert_eq!(
        fields(&mut driver.transport),
        fields(&mut self::driver().transport)
    );
    assert_eq!(driver.transport.acknowledge(), 0);
}

#[test]
fn accesses_anywhere_do_no_harm() {
    let mut driver = started();
    let mut noise = Noise(7);
    for _ in 0..100_000 {
        let mut data = [0; 8];
        let width = 1 << noise.below(4);
        let offset = match noise.below(4) {
            0 => noise.next(),
            1 => u64::MAX - noise.below(16),
            // All but what commands the device to panic.
            2 => noise.below(DEVICE),
            _ => NOTIFY + noise.below(Pci::BAR_SIZE),
        };
        driver.transport.read(offset, &mut data[..width]);
        driver
            .transport
            .write(offset, &noise.next().to_le_bytes()[..width]);
    }
    driver.start(0);
    works(&mut driver);
}
