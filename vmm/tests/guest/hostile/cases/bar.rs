//! A BAR where it should not be (PCI 3.0, 6.2.5): sizing it, moving it over other things, and
//! putting it back.

use super::{Case, case, ignored};
use crate::hostile::rig::RUNNING;
use crate::hostile::target::{MEMORY, MEMORY_LEN, Window};
use crate::hostile::transport::{COMMAND, Pci, header};
use vmm::virtio::transport::pci::common::register::DEVICE_STATUS;

const SIZE: u64 = 0x1_0000;
/// RAM that is used for nothing else.
const SPARE: u64 = MEMORY + MEMORY_LEN as u64 - SIZE;

/// Places where no BAR may answer.
const PLACES: [(&str, u64); 11] = [
    ("over RAM", SPARE),
    ("at 0", 0),
    ("over the I/O APIC", 0xfec0_0000),
    ("over the local APIC", 0xfee0_0000),
    ("over the configuration space", 0xe000_0000),
    ("over registers on MMIO", 0xd000_0000),
    ("just out of the window", 0xcfff_0000 + SIZE),
    ("behind the RAM", 0x1000_0000),
    ("at 4 GiB", 1 << 32),
    ("at 1 TiB", 1 << 40),
    ("at the end of the address space", u64::MAX - 0xffff),
];

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = PLACES
        .into_iter()
        .map(|(name, place)| {
            case(format!("the BAR is moved {name}"), move |rig| {
                rig.fill(SPARE, 0xa5);
                let moved = Moved::to(rig.pci(), place);
                assert_eq!(rig.status(), 0xff, "the old place");
                assert!(rig.is_filled(SPARE, 0xa5), "RAM is what it was");
                rig.fill(SPARE, 0x5a);
                assert!(rig.is_filled(SPARE, 0x5a), "RAM can be written");
                rig.canary.sing();
                drop(moved);
                ignored(rig);
            })
        })
        .collect();
    cases.extend([
        case("the BAR is moved within the window", |rig| {
            let place = 0xc800_0000;
            let moved = Moved::to(rig.pci(), place);
            let there = Window::map(place, SIZE);
            let status: u8 = there.read(DEVICE_STATUS);
            assert_eq!((u32::from(status), rig.status()), (RUNNING, 0xff));
            drop(moved);
            assert_eq!(there.read::<u8>(DEVICE_STATUS), 0xff);
            ignored(rig);
        }),
        case(
            "the BAR is moved over all others, whole and in part",
            |rig| {
                for place in others(rig.pci()) {
                    for place in [place, place - SIZE, place + SIZE] {
                        let moved = Moved::to(rig.pci(), place);
                        rig.canary.sing();
                        drop(moved);
                    }
                }
                ignored(rig);
            },
        ),
        case("the BAR is moved 300 times amid requests", |rig| {
            let home = rig.pci().function.bar(0);
            let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
            for turn in 0..300 {
                noise = noise.rotate_left(23).wrapping_mul(0x2545_f491_4f6c_dd1d);
                // Anywhere, below 4 GiB, and in the window.
                let place = [noise, noise >> 32, 0xc000_0000 | noise >> 36][turn % 3];
                let chain = rig.good();
                rig.write(&chain);
                rig.kick();
                rig.pci().function.move_bar(place);
                rig.kick();
                rig.pci().function.move_bar(home);
                rig.used();
            }
            ignored(rig);
        }),
    ]);
    cases.extend(
        [
            (true, [0, 4]),
            (true, [4, 0]),
            (false, [0, 4]),
            (false, [4, 0]),
        ]
        .map(sizing),
    );
    cases
}

/// All ones are written to the halves of the BAR in this order.
fn sizing((on, order): (bool, [u64; 2])) -> Case {
    let state = if on { "on" } else { "off" };
    case(
        format!("the BAR is sized in the order {order:?} while it is {state}"),
        move |rig| {
            let function = &rig.pci().function;
            let moved = Moved::to(rig.pci(), function.bar(0));
            function.write(header::COMMAND, if on { COMMAND } else { 4 });
            for half in order {
                function.write(header::BAR0 + half, u32::MAX);
            }
            let low = function.read::<u32>(header::BAR0);
            let high = function.read::<u32>(header::BAR0 + 4);
            assert_eq!((low, high), (!(SIZE as u32 - 1) | 4, u32::MAX));
            rig.canary.sing();
            drop(moved);
            ignored(rig);
        },
    )
}

/// Where the BARs of other functions are.
fn others(pci: &Pci) -> Vec<u64> {
    let own = pci.function.start;
    let functions = (0..pci.function.bus.len()).step_by(0x1000);
    functions
        .filter(|at| *at != own && pci.function.bus.read::<u16>(*at) == 0x1af4)
        .map(|at| u64::from(pci.function.bus.get(at + header::BAR0) & !15))
        .collect()
}

/// A BAR that is put back, whatever becomes of the case.
struct Moved<'a> {
    pci: &'a Pci,
    home: u64,
}

impl Moved<'_> {
    fn to(pci: &Pci, place: u64) -> Moved<'_> {
        let home = pci.function.bar(0);
        pci.function.move_bar(place);
        Moved { pci, home }
    }
}

impl Drop for Moved<'_> {
    fn drop(&mut self) {
        self.pci.function.move_bar(self.home);
        self.pci.function.write(header::COMMAND, COMMAND);
    }
}
