//! Configuration space by ports (PCI 3.0, 3.2.2.3.2), and ECAM behind the buses that there are.

use super::{Case, case, ignored};
use crate::hostile::rig::Rig;
use crate::hostile::target::{Ports, Window};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

pub fn cases() -> Vec<Case> {
    vec![
        case("configuration by ports that are not enabled", |rig| {
            let ports = Ports::borrow();
            for address in [0, own(rig), 0x7fff_fffc] {
                ports.write32(ADDRESS, address & !ENABLE);
                assert_eq!(ports.read32(DATA), u32::MAX, "{address:#x}");
                ports.write32(DATA, 0);
                ports.write8(DATA + 1, 0);
            }
            ignored(rig);
        }),
        case("functions that are not there, by ports", |rig| {
            let ports = Ports::borrow();
            for address in [0x0001_0000, 0x00ff_0800, 0x0000_f900, 0x0000_ff00] {
                ports.write32(ADDRESS, ENABLE | address);
                assert_eq!(ports.read32(DATA), u32::MAX, "{address:#x}");
                assert_eq!(ports.read16(DATA + 2), u16::MAX, "{address:#x}");
                ports.write32(DATA, 0);
            }
            ignored(rig);
        }),
        case("the address port in bytes and words", |rig| {
            let ports = Ports::borrow();
            ports.write32(ADDRESS, ENABLE | own(rig));
            // Not the byte behind it, which resets machines.
            ports.write8(ADDRESS, 0x55);
            ports.write16(ADDRESS, 0);
            ports.write8(ADDRESS + 2, 0xff);
            ports.write8(ADDRESS + 3, 0);
            let read = (ports.read8(ADDRESS), ports.read16(ADDRESS));
            assert_eq!(read, (u8::MAX, u16::MAX));
            let id: u32 = rig.pci().function.read(0);
            assert_eq!(ports.read32(DATA), id, "the address is what it was");
            ignored(rig);
        }),
        case(
            "the data ports in all widths, and across their end",
            |rig| {
                let ports = Ports::borrow();
                ports.write32(ADDRESS, ENABLE | own(rig));
                let id: u32 = rig.pci().function.read(0);
                for byte in 0..4u16 {
                    let wanted = id >> (8 * byte);
                    assert_eq!(ports.read8(DATA + byte), wanted as u8);
                    if byte < 3 {
                        assert_eq!(ports.read16(DATA + byte), wanted as u16);
                    } else {
                        assert_eq!(ports.read16(DATA + byte), u16::MAX);
                    }
                    if byte > 0 {
                        assert_eq!(ports.read32(DATA + byte), u32::MAX);
                        ports.write32(DATA + byte, 0);
                    }
                }
                ignored(rig);
            },
        ),
        case("a storm of ports while the function is used", |rig| {
            let ports = Ports::borrow();
            for turn in 0..300u32 {
                ports.write32(ADDRESS, ENABLE | turn.wrapping_mul(0x0123_4568));
                let _ = ports.read32(DATA);
            }
            ignored(rig);
        }),
        case("configuration space of buses that are not there", |rig| {
            let bus = &rig.pci().function.bus;
            let behind = Window::map(bus.address() + bus.len(), 0x1000);
            for offset in [0, 1, 4, 0x10, 0xffc] {
                behind.write(offset, 0u8);
                behind.set(offset, 0);
                assert_eq!(behind.read::<u8>(offset), u8::MAX);
                assert_eq!(behind.get(offset), u32::MAX);
            }
            ignored(rig);
        }),
    ]
}

/// The function, as the address port has it.
fn own(rig: &Rig) -> u32 {
    // ECAM has 12 bits for what is 8 bits here.
    (rig.pci().function.start >> 4) as u32
}
