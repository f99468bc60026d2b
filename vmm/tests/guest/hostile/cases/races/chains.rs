//! Rings and chains that change after the doorbell.

use super::{Case, case, outcome, race, rounds};
use crate::hostile::rig::{Rig, SIZE};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use vm_memory::{Bytes, GuestAddress};
use vmm::virtio::GuestMemory;
use vmm::virtio::testing::ring::{Descriptor, INDIRECT, NEXT, WRITE};

/// The end of the machine's memory.
const END: u64 = 256 << 20;

/// What flags are flipped among. In a packed ring, some bits say that a descriptor is available.
const FLAGS: [u16; 8] = [
    0,
    NEXT,
    WRITE,
    NEXT | WRITE,
    INDIRECT,
    0x80 | INDIRECT | NEXT,
    0x80,
    0xffff,
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (place, in_table) in [("a buffer", false), ("a buffer in a table", true)] {
        cases.extend([
            case(
                format!("{place} moves between RAM and registers"),
                move |rig| {
                    let registers = rig.registers.address();
                    changing(rig, in_table, move |memory, good, at, turn| {
                        let address = [good.address, registers][turn % 2];
                        memory.store(address, at, Relaxed).unwrap();
                    });
                },
            ),
            case(
                format!("{place} moves between RAM and its end"),
                move |rig| {
                    changing(rig, in_table, |memory, good, at, turn| {
                        let address = [good.address, END - 1, END, u64::MAX][turn % 4];
                        memory.store(address, at, Relaxed).unwrap();
                    });
                },
            ),
            case(format!("{place} grows and shrinks"), move |rig| {
                changing(rig, in_table, |memory, good, at, turn| {
                    let len = [good.len, 0xffff_fff0][turn % 2];
                    let at = GuestAddress(at.0 + 8);
                    memory.store(len, at, Relaxed).unwrap();
                });
            }),
        ]);
    }
    cases.extend([
        case("flags are flipped in all descriptors", |rig| {
            let start = rig.main().config().desc;
            let at = if rig.packed { 14 } else { 12 };
            written(rig, move |memory, turn| {
                let slot = (turn / 3) as u64 % u64::from(SIZE);
                let place = GuestAddress(start + slot * 16 + at);
                memory.store(FLAGS[turn % 8], place, Relaxed).unwrap();
            });
        }),
        case("what is available is taken back and given again", |rig| {
            let config = rig.main().config();
            // The index of a split ring; the first descriptor's flags of a packed one.
            let place = GuestAddress(if rig.packed {
                config.desc + 14
            } else {
                config.avail + 2
            });
            written(rig, move |memory, turn| {
                let value = [0u16, 1, 0x80, 0x8000, 0x8080, 0xffff][turn % 6];
                memory.store(value, place, Relaxed).unwrap();
            });
        }),
        case("what the device writes is written", |rig| {
            let config = rig.main().config();
            let len = if rig.packed {
                4
            } else {
                6 + 8 * u64::from(SIZE)
            };
            written(rig, move |memory, turn| {
                let place = GuestAddress(config.used + turn as u64 * 2 % len);
                memory.store(turn as u16, place, Relaxed).unwrap();
            });
        }),
        case("interrupts are asked for at random", |rig| {
            let config = rig.main().config();
            // Behind a split ring; all of the area of a packed one.
            let behind = if rig.packed {
                0
            } else {
                4 + 2 * u64::from(SIZE)
            };
            let place = GuestAddress(config.avail + behind);
            let memory = Arc::clone(&rig.memory);
            let set = move |turn: usize| memory.store(turn as u16, place, Relaxed).unwrap();
            let spoil = |_: &_, turn: usize| set(turn.wrapping_mul(0x9e37));
            race(rig, spoil, |rig| rounds(rig, Rig::works));
        }),
    ]);
    cases
}

/// The last descriptor of a good request changes, in the ring or in a table. The device has to
/// answer, be it that it can't go on.
fn changing(
    rig: &mut Rig,
    in_table: bool,
    change: impl Fn(&GuestMemory, &Descriptor, GuestAddress, usize) + Sync,
) {
    let good = rig.good();
    let (offered, start) = if in_table {
        let table = rig.main().table(&good);
        (vec![table], table.address)
    } else {
        (good.clone(), rig.main().config().desc)
    };
    let index = good.len() - 1;
    let last = good[index];
    let place = GuestAddress(start + 16 * index as u64);
    // In a packed ring, only the first chain is where the first one is.
    let once = rig.packed && !in_table;
    let memory = Arc::clone(&rig.memory);
    let spoil = |_: &_, turn| change(&memory, &last, place, turn);
    race(rig, spoil, |rig| {
        rounds(rig, |rig| {
            rig.offer(&offered);
            if outcome(rig).is_none() || once {
                rig.start();
            }
        });
    });
}

/// Something of the ring is written, so that nobody can say what is available: the device need not
/// answer, but has to stop when it is told.
fn written(rig: &mut Rig, write: impl Fn(&GuestMemory, usize) + Sync) {
    let memory = Arc::clone(&rig.memory);
    race(
        rig,
        |_, turn| write(&memory, turn),
        |rig| {
            rounds(rig, |rig| {
                let chain = rig.good();
                for _ in 0..3 {
                    rig.offer(&chain);
                }
                rig.status();
                rig.start();
            });
        },
    );
}
