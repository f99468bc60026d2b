//! The configuration space of a device (virtio 1.2, 2.5), wherever its transport has it.

use super::{Case, case, ignored};
use vmm::virtio::Kind;

pub fn cases() -> Vec<Case> {
    vec![
        case("the configuration space is read in all widths", |rig| {
            let bytes: [u8; 8] = std::array::from_fn(|at| rig.registers.config().read(at as u64));
            assert_eq!(
                rig.registers.config().read::<u64>(0),
                u64::from_le_bytes(bytes)
            );
            let [b0, b1, b2, b3, b4, ..] = bytes;
            assert_eq!(
                rig.registers.config().get(0),
                u32::from_le_bytes([b0, b1, b2, b3])
            );
            assert_eq!(
                rig.registers.config().get(1),
                u32::from_le_bytes([b1, b2, b3, b4])
            );
            assert_eq!(
                rig.registers.config().read::<u16>(3),
                u16::from_le_bytes([b3, b4])
            );
            ignored(rig);
        }),
        case(
            "the configuration space is read and written behind its end",
            |rig| {
                for offset in [64, 0x400, rig.registers.config().len() - 4] {
                    rig.registers.config().set(offset, u32::MAX);
                    assert_eq!(rig.registers.config().get(offset), 0, "{offset:#x}");
                }
                let last = rig.registers.config().len() - 8;
                rig.registers.config().write(last, u64::MAX);
                assert_eq!(rig.registers.config().read::<u64>(last), 0);
                ignored(rig);
            },
        ),
        case(
            "what is fixed in the configuration space is written",
            |rig| {
                let before: u64 = rig.registers.config().read(0);
                rig.registers.config().write(0, !before);
                rig.registers.config().set(4, u32::MAX);
                rig.registers.config().write(0, 0xa5u8);
                assert_eq!(rig.registers.config().read::<u64>(0), before);
                ignored(rig);
            },
        ),
        case("a write begins where the configuration space ends", |rig| {
            // Eight bytes from before the end on: taken as a whole or not at all.
            let (last, end) = match rig.kind {
                Kind::Block => (56, 60),
                Kind::Console | Kind::Net => (4, 12),
                _ => (0, 0),
            };
            let before: u64 = rig.registers.config().read(last);
            rig.registers.config().write(end - 2, u64::MAX);
            assert_eq!(rig.registers.config().read::<u64>(last), before);
            ignored(rig);
        }),
    ]
}
