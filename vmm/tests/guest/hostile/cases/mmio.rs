//! Registers of the MMIO transport (virtio 1.2, 4.2.2): widths, directions, and what is not there.

use super::{Case, case, ignored};
use crate::hostile::rig::Rig;
use vmm::virtio::transport::mmio::register::*;

/// Registers that can only be written.
const WRITE_ONLY: [u64; 15] = [
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
    0xc0, // QUEUE_RESET, which belongs to a feature that is not offered.
];

/// Registers that can only be read, besides those of shared memory.
const READ_ONLY: [u64; 7] = [
    MAGIC_VALUE,
    VERSION,
    DEVICE_ID,
    VENDOR_ID,
    DEVICE_FEATURES,
    QUEUE_NUM_MAX,
    CONFIG_GENERATION,
];

/// Offsets without a register.
const NOTHING: [u64; 10] = [
    0x018, 0x01c, 0x028, 0x02c, 0x03c, 0x040, 0x048, 0x0a8, 0x0c4, 0x0f8,
];

pub fn cases() -> Vec<Case> {
    let mut cases = widths();
    cases.extend(directions());
    cases.extend(selectors());
    cases
}

fn widths() -> Vec<Case> {
    vec![
        case("a register is read in bytes", narrow::<u8>),
        case("a register is read in words", narrow::<u16>),
        case("two registers are read at once", narrow::<u64>),
        case("a read crosses two registers", |rig| {
            assert_eq!(rig.mmio().window().read::<u32>(MAGIC_VALUE + 2), 0);
            assert_eq!(rig.mmio().window().read::<u32>(DEVICE_ID - 1), 0);
        }),
        case("the status is written in a byte", |rig| {
            rig.mmio().window().write(STATUS, 0u8);
            ignored(rig);
        }),
        case("the status is written in a word", |rig| {
            rig.mmio().window().write(STATUS, 0u16);
            ignored(rig);
        }),
        case("the status is written in eight bytes", |rig| {
            rig.mmio().window().write(STATUS, 0u64);
            ignored(rig);
        }),
        case("the status is written across its ends", |rig| {
            for offset in [STATUS - 3, STATUS - 1, STATUS + 1, STATUS + 3] {
                rig.mmio().window().write(offset, 0u32);
            }
            ignored(rig);
        }),
        case("doorbells of other widths are rung", |rig| {
            rig.mmio().window().write(QUEUE_NOTIFY, 0u8);
            rig.mmio().window().write(QUEUE_NOTIFY, 0u16);
            rig.mmio().window().write(QUEUE_NOTIFY, 0u64);
            rig.mmio().window().write(QUEUE_NOTIFY + 1, 0u32);
            ignored(rig);
        }),
    ]
}

fn directions() -> Vec<Case> {
    vec![
        case("registers for writing are read", |rig| {
            for offset in WRITE_ONLY {
                assert_eq!(rig.mmio().window().get(offset), 0, "{offset:#x}");
            }
            ignored(rig);
        }),
        case("registers for reading are written", |rig| {
            let before = READ_ONLY.map(|offset| rig.mmio().window().get(offset));
            for offset in READ_ONLY {
                rig.mmio().window().set(offset, 0);
                rig.mmio().window().set(offset, u32::MAX);
            }
            let after = READ_ONLY.map(|offset| rig.mmio().window().get(offset));
            assert_eq!(before, after);
            ignored(rig);
        }),
        case("registers that are not there are used", |rig| {
            for offset in NOTHING {
                rig.mmio().window().set(offset, u32::MAX);
                assert_eq!(rig.mmio().window().get(offset), 0, "{offset:#x}");
            }
            ignored(rig);
        }),
        case("interrupts that did not come are acknowledged", |rig| {
            for causes in [u32::MAX, 0, 0x8000_0000, !3] {
                rig.mmio().window().set(INTERRUPT_ACK, causes);
            }
            ignored(rig);
        }),
    ]
}

fn selectors() -> Vec<Case> {
    vec![
        case("shared memory is looked for", |rig| {
            for select in [0, 1, 0xff, 0x100, u32::MAX] {
                rig.mmio().window().set(SHM_SEL, select);
                for offset in [SHM_LEN_LOW, SHM_LEN_HIGH, SHM_BASE_LOW, SHM_BASE_HIGH] {
                    assert_eq!(rig.mmio().window().get(offset), u32::MAX);
                    rig.mmio().window().set(offset, 0);
                }
            }
            ignored(rig);
        }),
        case("queues that do not exist are selected", |rig| {
            for queue in [2, 0xff, 0xffff, 0x1_0000, 0x8000_0000, u32::MAX] {
                assert_eq!(rig.mmio().max_size(queue), 0, "{queue:#x}");
                rig.place(queue, 16, [0x800_0000; 3]);
                assert_eq!(rig.registers.enable(queue, 1), 0, "{queue:#x}");
            }
            ignored(rig);
        }),
        case("features beyond the 64th are read", |rig| {
            for select in [2, 3, 0x100, 0x8000_0000, u32::MAX] {
                rig.mmio().window().set(DEVICE_FEATURES_SEL, select);
                assert_eq!(rig.mmio().window().get(DEVICE_FEATURES), 0, "{select:#x}");
            }
            ignored(rig);
        }),
    ]
}

/// A read of this width, which is not a register's, finds nothing.
fn narrow<T: Copy + Default + PartialEq + std::fmt::Debug>(rig: &mut Rig) {
    for offset in [MAGIC_VALUE, DEVICE_FEATURES, STATUS, CONFIG_GENERATION - 4] {
        let value: T = rig.mmio().window().read(offset);
        assert_eq!(value, T::default(), "{offset:#x}");
    }
    ignored(rig);
}
