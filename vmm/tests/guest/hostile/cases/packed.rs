//! Rules of packed rings (virtio 1.2, 2.8).

use super::{Case, case};
use crate::hostile::rig::{Rig, SIZE, link};
use vmm::virtio::testing::ring::{Descriptor, INDIRECT, NEXT, WRITE};

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, bits) in [
        ("both clear", 0),
        ("both set", AVAIL | USED),
        ("those of the next round", USED),
    ] {
        cases.push(case(format!("AVAIL and USED are {name}"), move |rig| {
            let chain = rig.good();
            for (index, descriptor) in (0..).zip(&chain) {
                let flags = descriptor.flags | bits;
                let descriptor = Descriptor {
                    flags,
                    ..*descriptor
                };
                rig.main().as_packed().set_descriptor(index, descriptor);
            }
            rig.kick();
            rig.kick();
            let first = chain[0].flags | bits;
            assert_eq!(rig.main().as_packed().flags(0), first, "left alone");
            // It simply was not available: the next one is.
            rig.works();
        }));
    }
    for id in [SIZE, SIZE + 1, 0x7fff, 0xffff] {
        cases.push(case(format!("a chain calls itself {id}"), move |rig| {
            let mut chain = rig.good();
            chain.last_mut().unwrap().next = id;
            rig.offer(&chain);
            assert_eq!(rig.used().0, id, "it is told back");
        }));
    }
    for off_wrap in [0x7fff, 0xffff, SIZE, SIZE | 0x8000, 0x8000, 0] {
        cases.push(case(
            format!("an interrupt is asked for at {off_wrap:#x}"),
            move |rig| {
                for flags in [2, 0xfffe, 3, 0xffff, 1, 0] {
                    rig.main().as_packed().set_driver_event(off_wrap, flags);
                    rig.works();
                }
            },
        ));
    }
    cases.extend(rings());
    cases.extend(tables());
    cases
}

fn rings() -> Vec<Case> {
    vec![
        case("the same name for two chains", |rig| {
            let mut chain = rig.good();
            chain.last_mut().unwrap().next = 5;
            rig.write(&chain);
            rig.write(&chain);
            rig.kick();
            if rig.keeps_chains() {
                return rig.refuses();
            }
            rig.until("both chains", |rig| {
                let flags = rig.main().as_packed().flags(chain.len() as u16);
                (flags & (AVAIL | USED) == AVAIL | USED).then_some(())
            });
        }),
        case("every descriptor has a next one", |rig| {
            let chain = vec![buffer(rig, NEXT); usize::from(SIZE)];
            rig.offer(&chain);
            rig.refuses();
        }),
        case("every descriptor has a next one, and is empty", |rig| {
            let empty = Descriptor {
                len: 0,
                ..buffer(rig, NEXT)
            };
            rig.offer(&vec![empty; usize::from(SIZE)]);
            rig.refuses();
        }),
        case("a chain wraps around, which it may", |rig| {
            rig.start_with(5, 0);
            for _ in 0..12 {
                rig.works();
            }
        }),
        case("a chain of two in a queue of one", |rig| {
            rig.start_with(1, 0);
            let first = buffer(rig, NEXT);
            rig.offer(&[first]);
            rig.refuses();
        }),
        case(
            "the first descriptor is available before the rest is",
            |rig| {
                // What follows is what an earlier round left: here, nothing.
                let first = buffer(rig, NEXT);
                rig.offer(&[first]);
                // An empty second descriptor ends the chain; no disk takes that for a request.
                match rig.kind {
                    vmm::virtio::Kind::Block => rig.refuses(),
                    _ => {
                        rig.until("a used chain", |rig| {
                            let flags = rig.main().as_packed().flags(0);
                            (flags & (AVAIL | USED) == AVAIL | USED).then_some(())
                        });
                    }
                }
            },
        ),
        case("flags are flipped while the chain is read", |rig| {
            let chain = rig.good();
            rig.write(&chain);
            rig.kick();
            for turn in 0..200 {
                let flags = if turn % 2 == 0 { 0xffff } else { AVAIL };
                rig.main().as_packed().set_flags(1, flags);
            }
        }),
    ]
}

fn tables() -> Vec<Case> {
    vec![
        case("an indirect descriptor behind a direct one", |rig| {
            let chain = rig.good();
            let table = rig.main().table(&chain);
            let first = buffer(rig, 0);
            rig.offer(&link(vec![first, table]));
            rig.refuses();
        }),
        case("flags in a table that mean nothing there", |rig| {
            let mut chain = rig.good();
            for descriptor in &mut chain {
                descriptor.flags |= AVAIL | USED | 0x7f78;
            }
            let table = rig.main().table(&chain);
            rig.takes(&[table]);
        }),
        case("INDIRECT in a table, where it means nothing", |rig| {
            let mut chain = rig.good();
            for descriptor in &mut chain {
                descriptor.flags |= INDIRECT;
            }
            let table = rig.main().table(&chain);
            rig.takes(&[table]);
        }),
        case("a table with what is read behind what is written", |rig| {
            let entries = [buffer(rig, WRITE), buffer(rig, 0)];
            let table = rig.main().table(&entries);
            rig.offer(&[table]);
            rig.refuses();
        }),
    ]
}

/// A buffer of 16 bytes with these flags.
fn buffer(rig: &mut Rig, flags: u16) -> Descriptor {
    Descriptor {
        address: rig.main().alloc(16),
        len: 16,
        flags,
        next: 0,
    }
}
