//! Chains that break the rules of both ring layouts (virtio 1.2, 2.6 to 2.8).

use super::{Case, case};
use crate::hostile::rig::{Rig, SIZE, link};
use vmm::virtio::features::INDIRECT_DESC;
use vmm::virtio::testing::ring::{Descriptor, INDIRECT, NEXT, WRITE};

/// The end of the machine's memory.
const END: u64 = 256 << 20;

/// Buffers that are not RAM from the first byte to the last.
const BUFFERS: [(&str, u64, u32); 8] = [
    ("in the local APIC", 0xfee0_0000, 16),
    ("in the I/O APIC", 0xfec0_0000, 16),
    ("behind the RAM", END, 16),
    ("one byte past the RAM", END - 15, 16),
    ("of 4 GiB", 0x800_0000, u32::MAX),
    ("at 1 TiB", 1 << 40, 16),
    ("that wraps around", u64::MAX - 7, 16),
    ("at the last byte of the address space", u64::MAX, 1),
];

pub fn cases(rig: &Rig) -> Vec<Case> {
    let mut cases = Vec::new();
    let own = [
        ("in its own registers", rig.registers.address(), 16),
        ("in its own doorbell", rig.registers.doorbell(), 4),
    ];
    for (name, address, len) in own.into_iter().chain(BUFFERS) {
        for (way, flags) in [("read", 0), ("write", WRITE)] {
            let bad = Descriptor {
                address,
                len,
                flags,
                next: 0,
            };
            cases.push(case(format!("a buffer {name}, to {way}"), move |rig| {
                rig.offer(&[bad]);
                rig.refuses();
            }));
        }
        cases.push(case(format!("an indirect table {name}"), move |rig| {
            let len = if len == u32::MAX { len & !15 } else { 16 };
            let flags = INDIRECT;
            rig.offer(&[Descriptor {
                address,
                len,
                flags,
                next: 0,
            }]);
            rig.refuses();
        }));
    }
    cases.extend(shapes());
    cases.extend(tables());
    cases
}

fn shapes() -> Vec<Case> {
    vec![
        case("what is read comes after what is written", |rig| {
            let buffers = [buffer(rig, WRITE), buffer(rig, 0)];
            rig.offer(&link(buffers.to_vec()));
            rig.refuses();
        }),
        case("lengths add up to more than 32 bits", |rig| {
            let part = Descriptor {
                len: 12 << 20,
                ..buffer(rig, 0)
            };
            let last = Descriptor {
                len: u32::MAX - (12 << 20) + 1,
                ..part
            };
            rig.offer(&link(vec![part, last]));
            rig.refuses();
        }),
        case("flags that mean nothing", |rig| {
            let mut chain = rig.good();
            for descriptor in &mut chain {
                descriptor.flags |= 0x7f78;
            }
            rig.takes(&chain);
        }),
        case("a buffer over the ring itself, to write", |rig| {
            // It hurts nobody but its driver: whatever the device makes of it is fine.
            let config = rig.main().config();
            let mut chain = rig.good();
            for descriptor in chain.iter_mut().filter(|each| each.flags & WRITE != 0) {
                descriptor.address = config.desc;
            }
            rig.offer(&chain);
        }),
        case(
            "after an error the ring is mended, without a reset",
            |rig| {
                rig.main().corrupt();
                rig.kick();
                rig.refuses();
                let chain = rig.good();
                for _ in 0..20 {
                    rig.offer(&chain);
                }
                rig.is_broken();
            },
        ),
        case("no descriptor is empty but all are", |rig| {
            let empty = Descriptor {
                address: u64::MAX,
                ..Descriptor::default()
            };
            rig.offer(&link(vec![empty; 4]));
            // A disk can't tell its status then; others have nothing to do.
            match rig.kind {
                vmm::virtio::Kind::Block => rig.refuses(),
                _ => assert_eq!(rig.used().1, 0),
            }
        }),
    ]
}

fn tables() -> Vec<Case> {
    let lengths = [
        0u32,
        1,
        15,
        17,
        16 * (SIZE as u32 + 1),
        1 << 20,
        u32::MAX - 15,
        u32::MAX,
    ];
    let lengths = lengths.into_iter().map(|len| {
        case(format!("an indirect table of {len} bytes"), move |rig| {
            let table = good_table(rig, |_| {});
            rig.offer(&[Descriptor { len, ..table }]);
            rig.refuses();
        })
    });
    let others = [
        case("an indirect table without the feature", |rig| {
            rig.start_with(SIZE, INDIRECT_DESC);
            let table = good_table(rig, |_| {});
            rig.offer(&[table]);
            rig.refuses();
        }),
        case("an indirect descriptor with a next one", |rig| {
            let table = good_table(rig, |_| {});
            let next = buffer(rig, WRITE);
            rig.offer(&link(vec![table, next]));
            rig.refuses();
        }),
        case("an indirect descriptor that is to be written", |rig| {
            // The specification has the device ignore that.
            let mut table = good_table(rig, |_| {});
            table.flags |= WRITE;
            rig.takes(&[table]);
        }),
        case("an indirect table over its own ring", |rig| {
            let address = rig.main().config().desc;
            let len = 16 * u32::from(SIZE);
            rig.offer(&[Descriptor {
                address,
                len,
                flags: INDIRECT,
                next: 0,
            }]);
        }),
        case("a bad buffer behind good ones in a table", |rig| {
            let table = good_table(rig, |chain| {
                let last = chain.last_mut().unwrap();
                last.address = END;
                last.len = 1;
            });
            rig.offer(&[table]);
            rig.refuses();
        }),
    ];
    lengths.chain(others).collect()
}

/// A table with a good request that was changed.
fn good_table(rig: &mut Rig, change: impl FnOnce(&mut Vec<Descriptor>)) -> Descriptor {
    let mut chain = rig.good();
    change(&mut chain);
    rig.main().table(&chain)
}

/// A buffer of 16 bytes.
fn buffer(rig: &mut Rig, flags: u16) -> Descriptor {
    Descriptor {
        address: rig.main().alloc(16),
        len: 16,
        flags: flags & !NEXT,
        next: 0,
    }
}
