//! Registers that two processors use at once: doorbells, resets, and set-up.

use super::{Case, case, race, rounds};
use crate::hostile::rig::{FOUND, NEGOTIATED, RUNNING, Rig, SIZE, areas};
use crate::hostile::target::{MEMORY, MEMORY_LEN};
use std::time::{Duration, Instant};

/// How many requests are in flight when a device is reset.
const IN_FLIGHT: usize = 100;
/// Far more than an interrupt needs.
const PATIENCE: Duration = Duration::from_secs(5);
/// RAM that is used for nothing else.
const SPARE: u64 = MEMORY + MEMORY_LEN as u64 - 4096;

pub fn cases() -> Vec<Case> {
    vec![
        case("two processors ring doorbells", |rig| {
            let queue = u32::from(rig.queue());
            let ring = move |registers: &super::Registers, turn: usize| {
                registers.notify([queue, 0, queue, 1, 63][turn % 5]);
            };
            race(rig, ring, |rig| {
                rounds(rig, |rig| {
                    (0..50).for_each(|_| rig.kick());
                    rig.works();
                });
            });
        }),
        case("one resets, the other one rings doorbells", |rig| {
            race(
                rig,
                |registers, turn| registers.notify(turn as u32 % 2),
                |rig| {
                    rounds(rig, |rig| {
                        let chain = rig.good();
                        rig.offer(&chain);
                        rig.reset();
                        assert_eq!(rig.status(), 0);
                        rig.start();
                    });
                },
            );
        }),
        case("both reset and start", |rig| {
            let statuses = [0, 1, FOUND, NEGOTIATED, RUNNING, 0, 0x80 | RUNNING];
            race(
                rig,
                move |registers, turn| registers.set_status(statuses[turn % 7]),
                |rig| {
                    rounds(rig, drive);
                },
            );
        }),
        case("both set the queue up", |rig| {
            let set_up = |registers: &super::Registers, turn: usize| {
                let queue = turn as u32 % 3;
                match turn % 4 {
                    0 => registers.set_size(queue, turn as u32 % 70),
                    1 => registers.set_areas(queue, [SPARE; 3]),
                    2 => registers.set_driver_features(queue, turn as u32),
                    _ => {
                        registers.enable(queue, turn as u32 / 4 % 2);
                    }
                }
            };
            race(rig, set_up, |rig| rounds(rig, drive));
        }),
        case("a reset with 100 requests in flight", in_flight),
        case("a reset as soon as the device interrupts", |rig| {
            let queue = rig.queue().into();
            race(
                rig,
                move |registers, _| registers.notify(queue),
                |rig| {
                    rounds(rig, |rig| {
                        let chain = rig.good();
                        rig.offer(&chain);
                        let end = Instant::now() + PATIENCE;
                        while rig.registers.causes() & 1 == 0 {
                            assert!(Instant::now() < end, "no interrupt");
                        }
                        rig.set_status(0);
                        assert_eq!(rig.status(), 0);
                        rig.start();
                    });
                },
            );
        }),
    ]
}

/// What a card says about its address, while the driver changes it, is one address or the other.
pub fn address() -> Case {
    case("the address of a card changes while it is read", |rig| {
        let read = |registers: &super::Registers, _| {
            let before = registers.generation();
            let low: u32 = registers.config().read(0);
            let high: u16 = registers.config().read(4);
            if registers.generation() == before {
                let bytes = (u64::from(high) << 32 | u64::from(low)).to_le_bytes();
                assert!(
                    [[0x22; 6], [0xee; 6]].iter().any(|one| bytes[..6] == *one),
                    "{bytes:x?}"
                );
            }
        };
        let set = |rig: &mut Rig, byte| {
            assert_eq!(rig.order(&[&[1, 1], &[byte; 6]], &[1]).0, [0]);
        };
        set(rig, 0x22);
        race(rig, read, |rig| {
            rounds(rig, |rig| {
                set(rig, 0xee);
                set(rig, 0x22);
            });
        });
    })
}

/// Goes from a reset to requests, while nobody knows what comes of any step.
fn drive(rig: &mut Rig) {
    let registers = rig.registers.clone();
    let ring = rig.ring(rig.queue(), SIZE, rig.wanted());
    for status in [0, 1, FOUND] {
        registers.set_status(status);
    }
    rig.set_features(rig.wanted());
    registers.set_status(NEGOTIATED);
    rig.place(rig.queue().into(), SIZE.into(), areas(&ring));
    registers.enable(rig.queue().into(), 1);
    registers.set_status(RUNNING);
    rig.kick();
    rig.status();
}

/// Once the status reads as 0, nothing of what was available is written, whatever the other
/// processor says to the doorbells.
fn in_flight(rig: &mut Rig) {
    let queue = rig.queue().into();
    race(
        rig,
        move |registers, _| registers.notify(queue),
        |rig| {
            rounds(rig, |rig| {
                rig.start_with(256, 0);
                let good = rig.good();
                let room = good.iter().find(|part| part.flags & 2 != 0).copied();
                for _ in 0..IN_FLIGHT {
                    let table = rig.main().table(&good);
                    match rig.packed {
                        true => rig.main().as_packed().push_avail(&[table]),
                        false => offer_next(rig, table),
                    }
                }
                rig.kick();
                rig.set_status(0);
                assert_eq!(rig.status(), 0);
                let used = rig.main().config().used;
                let places = [Some(used), room.map(|room| room.address)];
                for place in places.into_iter().flatten() {
                    rig.fill(place, 0xa5);
                }
                rig.kick();
                for _ in 0..10 {
                    rig.status();
                }
                for place in places.into_iter().flatten() {
                    assert!(rig.is_filled(place, 0xa5), "{place:#x} was written");
                }
            });
        },
    );
}

/// Each table has a descriptor of its own.
fn offer_next(rig: &mut Rig, table: vmm::virtio::testing::ring::Descriptor) {
    let split = rig.main().as_split();
    let head = split.avail_idx();
    split.set_descriptor(head, table);
    split.push_avail(head);
}
