//! Rules of split rings (virtio 1.2, 2.7).

use super::{Case, case};
use crate::hostile::rig::{Rig, SIZE};
use vmm::virtio::features::EVENT_IDX;
use vmm::virtio::testing::ring::{Descriptor, INDIRECT, NEXT, WRITE};
use vmm::virtio::transport::mmio::register::INTERRUPT_ACK;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for index in [SIZE + 1, SIZE + 2, 0x7fff, 0x8000, 0xfffe, 0xffff] {
        cases.push(case(
            format!("the available index goes from 0 to {index}"),
            move |rig| {
                let chain = rig.good();
                rig.write(&chain);
                rig.main().as_split().set_avail_idx(index);
                rig.kick();
                rig.refuses();
            },
        ));
    }
    for head in [SIZE, SIZE + 1, 0x7fff, 0xffff] {
        cases.push(case(
            format!("a chain starts at descriptor {head}"),
            move |rig| {
                rig.main().as_split().push_avail(head);
                rig.kick();
                rig.refuses();
            },
        ));
    }
    for next in [SIZE, SIZE + 1, 0x7fff, 0xffff] {
        cases.push(case(
            format!("a chain goes on at descriptor {next}"),
            move |rig| {
                let first = buffer(rig, NEXT, next);
                rig.offer(&[first]);
                rig.refuses();
            },
        ));
        cases.push(case(
            format!("a table goes on at descriptor {next}"),
            move |rig| {
                let first = buffer(rig, NEXT, next);
                let table = rig.main().table(&[first]);
                rig.offer(&[table]);
                rig.refuses();
            },
        ));
    }
    cases.extend(loops());
    cases.extend(indices());
    cases
}

fn loops() -> Vec<Case> {
    let self_loop = |name: &str, flags: u16| {
        case(name, move |rig| {
            let first = buffer(rig, flags | NEXT, 0);
            rig.offer(&[first]);
            rig.refuses();
        })
    };
    vec![
        self_loop("a descriptor that is read is its own next", 0),
        self_loop("a descriptor that is written is its own next", WRITE),
        case("an empty descriptor is its own next", |rig| {
            let first = Descriptor {
                len: 0,
                ..buffer(rig, NEXT, 0)
            };
            rig.offer(&[first]);
            rig.refuses();
        }),
        case("two descriptors follow each other", |rig| {
            let pair = [buffer(rig, NEXT, 1), buffer(rig, NEXT, 0)];
            rig.offer(&pair);
            rig.refuses();
        }),
        case("a chain of all descriptors goes on at its start", |rig| {
            let ring = (1..=SIZE).map(|next| buffer(rig, NEXT, next % SIZE));
            let ring: Vec<Descriptor> = ring.collect();
            rig.offer(&ring);
            rig.refuses();
        }),
        case("an indirect table is a loop", |rig| {
            let pair = [buffer(rig, NEXT, 1), buffer(rig, NEXT, 0)];
            let table = rig.main().table(&pair);
            rig.offer(&[table]);
            rig.refuses();
        }),
        case("a table in a table", |rig| {
            let chain = rig.good();
            let inner = rig.main().table(&chain);
            let outer = rig.main().table(&[inner]);
            rig.offer(&[outer]);
            rig.refuses();
        }),
        case("a table that names itself", |rig| {
            let address = rig.main().alloc(16);
            let inner = Descriptor {
                address,
                len: 16,
                flags: INDIRECT,
                next: 0,
            };
            rig.main().write(address, &inner.to_bytes());
            rig.offer(&[inner]);
            rig.refuses();
        }),
        case(
            "a chain that is longer than the queue, with its table",
            |rig| {
                let entries = (1..=SIZE).map(|next| buffer(rig, NEXT, next));
                let mut entries: Vec<Descriptor> = entries.collect();
                entries.last_mut().unwrap().flags = 0;
                let table = rig.main().table(&entries);
                let first = buffer(rig, NEXT, 1);
                rig.offer(&[first, table]);
                rig.refuses();
            },
        ),
    ]
}

fn indices() -> Vec<Case> {
    vec![
        case("the available index goes back by one", |rig| {
            rig.works();
            rig.works();
            let back = rig.main().as_split().avail_idx().wrapping_sub(1);
            rig.main().as_split().set_avail_idx(back);
            rig.kick();
            rig.refuses();
        }),
        case("the same chain twice at once", |rig| {
            let chain = rig.good();
            for descriptor in (0..).zip(&chain) {
                rig.main()
                    .as_split()
                    .set_descriptor(descriptor.0, *descriptor.1);
            }
            rig.main().as_split().push_avail(0);
            rig.main().as_split().push_avail(0);
            rig.kick();
            if rig.keeps_chains() {
                return rig.refuses();
            }
            // Each time it is a new request.
            assert_eq!((rig.used().0, rig.used().0), (0, 0));
        }),
        case("the ring is full of one chain", |rig| {
            let chain = rig.good();
            rig.write(&chain);
            for _ in 1..SIZE {
                rig.main().as_split().push_avail(0);
            }
            rig.kick();
            if rig.keeps_chains() {
                return rig.refuses();
            }
            for _ in 0..SIZE {
                assert_eq!(rig.used().0, 0);
            }
        }),
        case("the guest writes the device's index", |rig| {
            rig.works();
            let right = rig.main().as_split().used_idx();
            rig.main().as_split().set_used_idx(0x5555);
            let chain = rig.good();
            rig.offer(&chain);
            rig.until("the device's own index", |rig| {
                (rig.main().as_split().used_idx() == right + 1).then_some(())
            });
        }),
        case("any used_event", |rig| {
            for event in [0xffff, 0, 0x8000, SIZE, 1, 0x7fff] {
                rig.main().as_split().set_used_event(event);
                rig.works();
            }
        }),
        case("flags of the available ring that mean nothing", |rig| {
            rig.start_with(SIZE, EVENT_IDX);
            for flags in [0xffff, 0xfffe, 1, 0x8000] {
                rig.main().as_split().set_avail_flags(flags);
                rig.works();
            }
        }),
        case("a chain changes while it is read", |rig| {
            // The second one of the two is good or bad, whenever the device looks.
            let chain = rig.good();
            rig.write(&chain);
            rig.kick();
            for turn in 0..200 {
                let flags = if turn % 2 == 0 {
                    0xffff
                } else {
                    chain[0].flags
                };
                let first = Descriptor { flags, ..chain[0] };
                rig.main().as_split().set_descriptor(0, first);
            }
        }),
    ]
}

/// More requests than an index of 16 bits can count, in the smallest number of writes: every slot of
/// the ring has its chain, so that the index alone says what is available.
pub fn around() -> Case {
    const FULL: u16 = 64;
    const ROUNDS: u16 = 1040;
    case(
        "66560 requests, of which each 64th is to be told by an interrupt",
        |rig| {
            rig.start_with(FULL, 0);
            let room = Descriptor {
                len: 1,
                ..buffer(rig, WRITE, 0)
            };
            for index in 0..FULL {
                rig.main().as_split().set_descriptor(index, room);
                rig.main().as_split().set_avail(index, index);
            }
            for round in 1..=ROUNDS {
                let end = round.wrapping_mul(FULL);
                rig.mmio().window().set(INTERRUPT_ACK, 1);
                // Of the last one of them.
                rig.main().as_split().set_used_event(end.wrapping_sub(1));
                rig.main().as_split().set_avail_idx(end);
                // If not, the device is about to look again by itself.
                if rig.main().must_kick() {
                    rig.kick();
                }
                rig.until("the interrupt", |rig| {
                    (rig.registers.causes() & 1 != 0).then_some(())
                });
                assert_eq!(rig.main().as_split().used_idx(), end, "round {round}");
            }
        },
    )
}

/// A buffer of 16 bytes with these flags.
fn buffer(rig: &mut Rig, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        address: rig.main().alloc(16),
        len: 16,
        flags,
        next,
    }
}
