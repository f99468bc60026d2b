use super::*;
use crate::testing::driver::{Driver, Registers, Transport};
use crate::testing::echo::{COMMAND, Command, Echo};
use crate::transport::front::{CONFIG_CHANGE, USED_BUFFER};
use crate::transport::status::DRIVER_OK;

fn driver() -> Driver<Mmio> {
    Driver::mmio_in(Box::new(Echo::default()), Mode::Inline)
}

fn started() -> Driver<Mmio> {
    let mut driver = driver();
    driver.start(0);
    driver
}

/// All registers that can be read, but for the configuration space.
fn snapshot(mmio: &mut Mmio) -> Vec<u32> {
    (0..CONFIG)
        .step_by(4)
        .map(|offset| mmio.get(offset))
        .collect()
}

#[test]
fn identity_is_that_of_a_modern_device() {
    let mut mmio = driver().transport;
    let identity = [MAGIC_VALUE, VERSION, DEVICE_ID, VENDOR_ID].map(|offset| mmio.get(offset));
    assert_eq!(identity, [0x7472_6976, 2, 4, VENDOR]);
}

#[test]
fn reads_of_other_widths_and_offsets_give_zero() {
    let mut mmio = started().transport;
    for offset in 0..CONFIG {
        for width in [0, 1, 2, 3, 8, 16] {
            let mut data = vec![0xaa; width];
            mmio.read(offset, &mut data);
            // An access that reaches from the registers into the configuration space as well.
            assert_eq!(data, vec![0; width], "{width} bytes at {offset:#x}");
        }
        if offset % 4 != 0 {
            let mut data = [0xaa; 4];
            mmio.read(offset, &mut data);
            assert_eq!(data, [0; 4], "4 bytes at {offset:#x}");
        }
    }
}

#[test]
fn writes_of_other_widths_and_offsets_are_ignored() {
    let mut mmio = started().transport;
    let before = snapshot(&mut mmio);
    for offset in 0..CONFIG {
        for width in [0, 1, 2, 3, 8, 16] {
            mmio.write(offset, &vec![0; width]);
            mmio.write(offset, &vec![0xff; width]);
        }
        if offset % 4 != 0 {
            mmio.write(offset, &[0; 4]);
        }
    }
    assert_eq!(snapshot(&mut mmio), before);
}

#[test]
fn registers_for_writing_read_as_zero() {
    let mut mmio = started().transport;
    for offset in [
        DEVICE_FEATURES_SEL,
        DRIVER_FEATURES,
        DRIVER_FEATURES_SEL,
        QUEUE_SEL,
        QUEUE_NUM,
        QUEUE_NOTIFY,
        INTERRUPT_ACK,
        QUEUE_DESC_LOW,
        QUEUE_DESC_HIGH,
        QUEUE_DRIVER_LOW,
        QUEUE_DRIVER_HIGH,
        QUEUE_DEVICE_LOW,
        QUEUE_DEVICE_HIGH,
        SHM_SEL,
    ] {
        assert_eq!(mmio.get(offset), 0, "{offset:#x}");
    }
}

#[test]
fn registers_for_reading_and_undefined_ones_ignore_writes() {
    let mut mmio = started().transport;
    let before = snapshot(&mut mmio);
    let known = [
        DEVICE_FEATURES_SEL,
        DRIVER_FEATURES,
        DRIVER_FEATURES_SEL,
        QUEUE_SEL,
        QUEUE_NUM,
        QUEUE_READY,
        QUEUE_NOTIFY,
        STATUS,
    ];
    for offset in (0..CONFIG)
        .step_by(4)
        .filter(|offset| !known.contains(offset))
    {
        mmio.set(offset, 0);
        mmio.set(offset, u32::MAX);
    }
    assert_eq!(snapshot(&mut mmio), before);
}

#[test]
fn a_queue_that_is_not_there_reads_as_zero() {
    let mut mmio = driver().transport;
    for sel in [2, 0xffff, 0x1_0000, u32::MAX] {
        mmio.set(QUEUE_SEL, sel);
        mmio.set(QUEUE_READY, 1);
        mmio.set(QUEUE_NUM, 16);
        mmio.set_wide(QUEUE_DESC_LOW, 0x1000);
        assert_eq!(
            [mmio.get(QUEUE_NUM_MAX), mmio.get(QUEUE_READY)],
            [0, 0],
            "{sel:#x}"
        );
    }
}

#[test]
fn addresses_are_set_in_halves() {
    let mut mmio = driver().transport;
    mmio.set(QUEUE_SEL, 1);
    mmio.set_wide(QUEUE_DESC_LOW, 0x1111_1111_2222_2222);
    mmio.set_wide(QUEUE_DRIVER_LOW, 0x3333_3333_4444_4444);
    mmio.set_wide(QUEUE_DEVICE_LOW, 0x5555_5555_6666_6666);
    mmio.set(QUEUE_DESC_LOW, 0x7777_7777);
    let queue = mmio.front.core.queue(1).unwrap();
    assert_eq!(queue.desc, 0x1111_1111_7777_7777);
    assert_eq!(queue.avail, 0x3333_3333_4444_4444);
    assert_eq!(queue.used, 0x5555_5555_6666_6666);
    assert_eq!(mmio.front.core.queue(0).unwrap().desc, 0);
}

#[test]
fn there_is_no_shared_memory_whatever_is_selected() {
    let mut mmio = driver().transport;
    for sel in [0, 1, 255, u32::MAX] {
        mmio.set(SHM_SEL, sel);
        assert_eq!(
            [SHM_LEN_LOW, SHM_LEN_HIGH].map(|offset| mmio.get(offset)),
            [u32::MAX; 2]
        );
    }
}

#[test]
fn config_space_takes_any_width_within_its_bounds() {
    let mut mmio = driver().transport;
    let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
    mmio.write(CONFIG + 8, &bytes);
    for width in 1..=8 {
        for start in 0..=8 - width {
            let mut data = vec![0xaa; width];
            mmio.read(CONFIG + 8 + start as u64, &mut data);
            assert_eq!(data, bytes[start..start + width]);
        }
    }
}

#[test]
fn config_space_ends_where_it_ends() {
    let mut mmio = driver().transport;
    mmio.write(CONFIG + 8, &[9; 8]);
    mmio.write(CONFIG + 12, &[1; 8]);
    mmio.write(CONFIG + 6, &[1; 4]);
    mmio.write(CONFIG + 16, &[1]);
    mmio.write(u64::MAX, &[1; 8]);
    let mut data = [0xaa; 8];
    mmio.read(CONFIG + 12, &mut data);
    assert_eq!(data, [9, 9, 9, 9, 0, 0, 0, 0]);
    for offset in [CONFIG + 16, Mmio::SIZE - 8, Mmio::SIZE, u64::MAX] {
        mmio.read(offset, &mut data);
        assert_eq!(data, [0; 8], "{offset:#x}");
    }
}

#[test]
fn interrupt_status_names_the_cause_until_it_is_acknowledged() {
    let mut driver = started();
    driver.send(0, &[b"ping"], &[4]);
    driver.transport.turn();
    assert_eq!(driver.transport.get(INTERRUPT_STATUS), USED_BUFFER);
    driver
        .transport
        .write_config(COMMAND, &[Command::Count as u8]);
    driver.transport.turn();
    assert_eq!(
        driver.transport.get(INTERRUPT_STATUS),
        USED_BUFFER | CONFIG_CHANGE
    );
    driver.transport.set(INTERRUPT_ACK, !3);
    assert_eq!(
        driver.transport.get(INTERRUPT_STATUS),
        USED_BUFFER | CONFIG_CHANGE
    );
    driver.transport.set(INTERRUPT_ACK, USED_BUFFER);
    assert_eq!(driver.transport.get(INTERRUPT_STATUS), CONFIG_CHANGE);
    driver.transport.set(INTERRUPT_ACK, u32::MAX);
    assert_eq!(driver.transport.get(INTERRUPT_STATUS), 0);
}

#[test]
fn an_acknowledgement_that_arrives_late_takes_no_later_cause() {
    let mut driver = started();
    driver.send(0, &[b"ping"], &[4]);
    driver.transport.turn();
    assert_eq!(driver.transport.get(INTERRUPT_STATUS), USED_BUFFER);
    driver.send(0, &[b"ping"], &[4]);
    driver.transport.turn();
    driver.transport.set(INTERRUPT_ACK, USED_BUFFER);
    assert_eq!(driver.transport.get(INTERRUPT_STATUS), USED_BUFFER);
    driver.transport.set(INTERRUPT_ACK, USED_BUFFER);
    assert_eq!(driver.transport.get(INTERRUPT_STATUS), 0);
}

#[test]
fn a_reset_forgets_selections_and_interrupts() {
    let mut driver = started();
    driver.send(0, &[b"ping"], &[4]);
    driver.transport.turn();
    driver.transport.set(QUEUE_SEL, 7);
    driver.transport.set(DEVICE_FEATURES_SEL, 7);
    driver.transport.set(STATUS, 0);
    let mut fresh = self::driver().transport;
    assert_eq!(snapshot(&mut driver.transport), snapshot(&mut fresh));
}

#[test]
fn a_doorbell_is_where_the_queue_is_notified() {
    let driver = started();
    let doorbells = driver.transport.doorbells();
    let places: Vec<_> = doorbells
        .iter()
        .map(|bell| (bell.offset, bell.queue))
        .collect();
    assert_eq!(places, [(QUEUE_NOTIFY, 0), (QUEUE_NOTIFY, 1)]);
}

#[test]
fn status_shows_driver_ok_only_when_started() {
    let mut driver = driver();
    assert!(!driver.transport.life().ever_started());
    driver.start(0);
    assert_eq!(driver.transport.status() & DRIVER_OK, DRIVER_OK);
    assert!(driver.transport.life().ever_started());
}

#[test]
fn a_device_that_failed_takes_no_more_turns() {
    let mut driver = started();
    driver
        .transport
        .write_config(COMMAND, &[Command::Fail as u8]);
    driver.transport.turn();
    driver.send(0, &[b"ping"], &[4]);
    driver.notify(0);
    driver.transport.turn();
    assert_eq!(driver.rings[0].used(), None);
}
