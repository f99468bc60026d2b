//! Queues that can't be (virtio 1.2, 2.6 and 4.2.3.2): sizes, places, and when they may change.

use super::{Case, case};
use crate::hostile::rig::{RUNNING, Rig, SIZE, areas};
use crate::hostile::target::{MEMORY, MEMORY_LEN};
use crate::hostile::transport::Registers;

/// The end of the machine's memory.
const END: u64 = 256 << 20;

/// Places that are no RAM, or are not for as long as a part of a ring is.
const PLACES: [(&str, u64); 8] = [
    ("where nothing is set", 0),
    ("in the local APIC", 0xfee0_0000),
    ("in the I/O APIC", 0xfec0_0000),
    ("behind the RAM", END),
    ("2 bytes before the end of the RAM", END - 2),
    ("at 1 TiB", 1 << 40),
    ("at the end of the address space", u64::MAX - 15),
    ("at the last byte of the address space", u64::MAX),
];

const PARTS: [&str; 3] = ["descriptor area", "driver area", "device area"];

pub fn cases(rig: &Rig) -> Vec<Case> {
    let mut cases = Vec::new();
    for (part, part_name) in PARTS.into_iter().enumerate() {
        let own = ("in its own registers", rig.registers.address());
        for (name, place) in PLACES.into_iter().chain([own]) {
            cases.push(case(format!("the {part_name} is {name}"), move |rig| {
                refused(rig, |areas| areas[part] = place);
            }));
        }
        let alignment = match (rig.packed, part) {
            (_, 0) => 16,
            (false, 1) => 2,
            _ => 4,
        };
        cases.push(case(
            format!("the {part_name} is not aligned"),
            move |rig| {
                let mut off = 1;
                while off < alignment {
                    refused(rig, |areas| areas[part] += off);
                    off *= 2;
                }
            },
        ));
    }
    cases.extend(moments());
    cases.extend(sizes(rig));
    cases
}

/// When a queue may be set up, and how.
fn moments() -> Vec<Case> {
    vec![
        case("the parts of a ring lie over each other", |rig| {
            rig.negotiate(0);
            let ring = rig.ring(rig.queue(), SIZE, rig.wanted());
            let [desc, ..] = areas(&ring);
            rig.place(rig.queue().into(), SIZE.into(), [desc; 3]);
            assert_eq!(
                rig.registers.enable(rig.queue().into(), 1),
                1,
                "it is allowed"
            );
            rig.set_status(RUNNING);
            ring.write(desc, &[0xa5; 16 * SIZE as usize]);
            for _ in 0..10 {
                rig.kick();
            }
        }),
        case("a queue is enabled by other numbers than 1", |rig| {
            rig.negotiate(0);
            let ring = rig.ring(rig.queue(), SIZE, rig.wanted());
            rig.place(rig.queue().into(), SIZE.into(), areas(&ring));
            for value in [2, 3, 0x100, 0x8000_0001, u32::MAX] {
                assert_eq!(
                    rig.registers.enable(rig.queue().into(), value),
                    0,
                    "{value:#x}"
                );
            }
        }),
        case("a queue is enabled twice and taken back", |rig| {
            rig.negotiate(0);
            rig.set_up(SIZE, 0);
            assert_eq!(rig.registers.enable(rig.queue().into(), 1), 1);
            // On PCI only a reset takes it back (4.1.4.3.2).
            let left = u32::from(matches!(*rig.registers, Registers::Pci(_)));
            assert_eq!(rig.registers.enable(rig.queue().into(), 0), left);
            assert_eq!(rig.registers.enable(rig.queue().into(), 0), left);
            rig.rings.clear();
            rig.set_up(SIZE, 0);
            rig.set_status(RUNNING);
            rig.works();
        }),
        case("an enabled queue is moved", |rig| {
            rig.negotiate(0);
            rig.set_up(SIZE, 0);
            rig.place(rig.queue().into(), 4, elsewhere());
            rig.set_status(RUNNING);
            go_round(rig);
        }),
        case(
            "a running queue is moved, disabled and enabled again",
            |rig| {
                rig.place(rig.queue().into(), 4, elsewhere());
                assert_eq!(
                    rig.registers.enable(rig.queue().into(), 0),
                    1,
                    "it stays enabled"
                );
                rig.place(rig.queue().into(), 4, elsewhere());
                rig.registers.enable(rig.queue().into(), 1);
                go_round(rig);
            },
        ),
        case("a queue is enabled while the device runs", |rig| {
            rig.negotiate(0);
            rig.set_status(RUNNING);
            let ring = rig.ring(rig.queue(), SIZE, rig.wanted());
            rig.place(rig.queue().into(), SIZE.into(), areas(&ring));
            assert_eq!(rig.registers.enable(rig.queue().into(), 1), 0);
            rig.kick();
            assert_eq!(rig.status(), RUNNING);
        }),
    ]
}

fn sizes(rig: &Rig) -> Vec<Case> {
    let mut sizes = vec![0, 512, 32768, 65535, 65536, 65536 + 8, u32::MAX];
    if !rig.packed {
        sizes.extend([3, 15, 17]);
    }
    let bad = sizes.into_iter().map(|size| {
        case(format!("a queue of {size} descriptors"), move |rig| {
            rig.negotiate(0);
            // The size that was there before stays: the ring has so many, and goes round.
            let ring = rig.ring(rig.queue(), SIZE, rig.wanted());
            rig.place(rig.queue().into(), SIZE.into(), areas(&ring));
            rig.registers.set_size(rig.queue().into(), size);
            assert_eq!(rig.registers.enable(rig.queue().into(), 1), 1);
            rig.rings.push(ring);
            rig.set_status(RUNNING);
            go_round(rig);
        })
    });
    let good: &[u16] = if rig.packed { &[3, 5, 64] } else { &[4, 64] };
    let good = good.iter().map(|&size| {
        case(
            format!("a queue of {size} descriptors, which may be"),
            move |rig| {
                rig.start_with(size, 0);
                go_round(rig);
            },
        )
    });
    bad.chain(good).collect()
}

/// More requests than the ring has places.
fn go_round(rig: &mut Rig) {
    for _ in 0..SIZE + 4 {
        rig.works();
    }
}

/// The queue can't be enabled with an area that is changed like this, and can with the right one.
fn refused(rig: &mut Rig, change: impl Fn(&mut [u64; 3])) {
    rig.negotiate(0);
    let ring = rig.ring(rig.queue(), SIZE, rig.wanted());
    let mut areas = areas(&ring);
    change(&mut areas);
    rig.place(rig.queue().into(), SIZE.into(), areas);
    assert_eq!(rig.registers.enable(rig.queue().into(), 1), 0, "{areas:x?}");
    rig.set_status(RUNNING);
    rig.kick();
    assert_eq!(rig.status(), RUNNING, "it runs without that queue");
}

/// Memory without a ring.
fn elsewhere() -> [u64; 3] {
    [MEMORY + MEMORY_LEN as u64 - 0x4000; 3]
}
