//! The structures of the PCI transport in BAR 0 (virtio 1.2, 4.1.4): widths, directions, and what
//! is not there.

use super::{Case, case, ignored};
use vmm::virtio::transport::pci::common::register::*;

/// The fields of the common configuration, and how wide they are.
const FIELDS: [(u64, u64); 16] = [
    (DEVICE_FEATURE_SELECT, 4),
    (DEVICE_FEATURE, 4),
    (DRIVER_FEATURE_SELECT, 4),
    (DRIVER_FEATURE, 4),
    (CONFIG_MSIX_VECTOR, 2),
    (NUM_QUEUES, 2),
    (DEVICE_STATUS, 1),
    (CONFIG_GENERATION, 1),
    (QUEUE_SELECT, 2),
    (QUEUE_SIZE, 2),
    (QUEUE_MSIX_VECTOR, 2),
    (QUEUE_ENABLE, 2),
    (QUEUE_NOTIFY_OFF, 2),
    (QUEUE_DESC, 8),
    (QUEUE_DRIVER, 8),
    (QUEUE_DEVICE, 8),
];
const END: u64 = 0x38;

/// Whether the specification has an access of this width. Fields of 64 bits have halves.
fn is_access(offset: u64, width: u64) -> bool {
    let half = width == 4 && offset.is_multiple_of(4) && (QUEUE_DESC..END).contains(&offset);
    half || FIELDS.contains(&(offset, width))
}

pub fn cases() -> Vec<Case> {
    let mut cases = fields();
    cases.extend(selectors());
    cases.extend(others());
    cases
}

fn fields() -> Vec<Case> {
    vec![
        case("fields are read in other widths", |rig| {
            let common = &rig.pci().common;
            for offset in 0..END {
                let read = [
                    (1, common.read::<u8>(offset).into()),
                    (2, common.read::<u16>(offset).into()),
                    (4, common.read::<u32>(offset).into()),
                    (8, common.read::<u64>(offset)),
                ];
                for (width, value) in read {
                    let wrong = !is_access(offset, width) && value != 0;
                    assert!(!wrong, "{width} bytes at {offset:#x}: {value:#x}");
                }
            }
            ignored(rig);
        }),
        case("fields are written in other widths", |rig| {
            let common = &rig.pci().common;
            for (offset, width) in (0..END).flat_map(|at| [1, 2, 4, 8].map(|width| (at, width))) {
                // What is a field's width may say something to the device.
                match width {
                    _ if is_access(offset, width) => {}
                    1 => common.write(offset, 0u8),
                    2 => common.write(offset, 0u16),
                    4 => common.write(offset, 0u32),
                    _ => common.write(offset, 0u64),
                }
            }
            ignored(rig);
        }),
        case("fields for reading are written", |rig| {
            let common = &rig.pci().common;
            let narrow = [NUM_QUEUES, QUEUE_NOTIFY_OFF];
            let before = narrow.map(|offset| common.read::<u16>(offset));
            let features = common.get(DEVICE_FEATURE);
            for value in [0u32, u32::MAX] {
                narrow
                    .iter()
                    .for_each(|offset| common.write(*offset, value as u16));
                common.write(CONFIG_GENERATION, value as u8);
                common.set(DEVICE_FEATURE, value);
            }
            assert_eq!(narrow.map(|offset| common.read::<u16>(offset)), before);
            assert_eq!(common.get(DEVICE_FEATURE), features);
            ignored(rig);
        }),
        case("the common configuration is used behind its end", |rig| {
            let common = &rig.pci().common;
            for offset in [END, END + 1, END + 8, 0x100, 0xffc] {
                common.set(offset, u32::MAX);
                assert_eq!(common.get(offset), 0, "{offset:#x}");
            }
            ignored(rig);
        }),
    ]
}

fn selectors() -> Vec<Case> {
    vec![
        case("queues that do not exist are selected", |rig| {
            let common = &rig.pci().common;
            for queue in [2u16, 3, 0xff, 0x100, 0x7fff, 0xffff] {
                common.write(QUEUE_SELECT, queue);
                assert_eq!(common.read::<u16>(QUEUE_SIZE), 0, "{queue:#x}");
                rig.place(queue.into(), 16, [0x800_0000; 3]);
                assert_eq!(rig.registers.enable(queue.into(), 1), 0, "{queue:#x}");
                common.write(QUEUE_MSIX_VECTOR, 0u16);
                assert_eq!(common.read::<u16>(QUEUE_MSIX_VECTOR), 0xffff);
            }
            ignored(rig);
        }),
        case("features beyond the 64th are read", |rig| {
            for select in [2, 3, 0x100, 0x8000_0000, u32::MAX] {
                assert_eq!(rig.registers.device_features(select), 0, "{select:#x}");
            }
            ignored(rig);
        }),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case(
            "the ISR status is read in other widths, and written",
            |rig| {
                let isr = &rig.pci().isr;
                isr.write(0, u8::MAX);
                isr.write(0, u32::MAX);
                isr.write(1, u16::MAX);
                for offset in [1, 2, 4, 0x10, 0xff8] {
                    assert_eq!(isr.get(offset), 0, "{offset:#x}");
                }
                let wide = (isr.read::<u16>(0), isr.get(0), isr.read::<u64>(0));
                assert_eq!(wide, (0, 0, 0));
                ignored(rig);
            },
        ),
        case("doorbells of other widths, and between doorbells", |rig| {
            let notify = &rig.pci().notify;
            for offset in (0..16).chain([0x40, 0xff8]) {
                notify.write(offset, u8::MAX);
                notify.write(offset, u16::MAX);
                notify.write(offset, u32::MAX);
                notify.write(offset, u64::MAX);
                assert_eq!(notify.get(offset), 0, "{offset:#x}");
            }
            ignored(rig);
        }),
        case("structures are read across their ends", |rig| {
            let pci = rig.pci();
            for window in [&pci.common, &pci.isr, &pci.notify] {
                let last = window.len() - 8;
                window.write(last + 1, 0u32);
                window.write(last + 3, u32::MAX);
                let _: u64 = window.read(last);
            }
            ignored(rig);
        }),
    ]
}
