//! What two devices do to each other by memory that both were told of.

use crate::hostile::rig::{QUEUE_MEMORY, Rig, SIZE, header, link};
use crate::hostile::target::MEMORY;
use vmm::virtio::testing::ring::{Descriptor, WRITE};
use vmm::virtio::transport::status::NEEDS_RESET;

const ROUNDS: usize = 100;

/// What is done with a disk and an entropy device, one of which is in the other one's way.
pub struct Pair {
    pub name: &'static str,
    pub run: fn(&mut Rig, &mut Rig),
}

pub const PAIRS: [Pair; 3] = [
    Pair {
        name: "random bytes are written to the ring of a disk",
        run: |disk, random| {
            apart(disk, random);
            rounds(disk, random, |disk, random| {
                let ring = disk.main().config().desc;
                let chain = disk.good();
                disk.write(&chain);
                random.offer(&[over(ring)]);
                disk.kick();
            });
        },
    },
    Pair {
        name: "a disk is read to the ring of an entropy device",
        run: |disk, random| {
            apart(disk, random);
            rounds(disk, random, |disk, random| {
                let ring = random.main().config().desc;
                let read = disk.main().alloc_bytes(&header(0, 0));
                let status = disk.main().alloc(1);
                let part = |address, len, flags| Descriptor {
                    address,
                    len,
                    flags,
                    next: 0,
                };
                let data = Descriptor {
                    len: 512,
                    ..over(ring)
                };
                disk.offer(&link(vec![part(read, 16, 0), data, part(status, 1, WRITE)]));
                let chain = random.good();
                random.offer(&chain);
            });
        },
    },
    Pair {
        name: "two devices have one ring",
        run: |disk, random| {
            random.area = disk.area;
            rounds(disk, random, |disk, random| {
                let chain = disk.good();
                disk.offer(&chain);
                random.kick();
                disk.kick();
            });
        },
    },
];

/// Rings and buffers of their own.
fn apart(disk: &mut Rig, random: &mut Rig) {
    random.area = disk.area + 2 * QUEUE_MEMORY;
}

/// A buffer where the descriptors of a ring are.
fn over(ring: u64) -> Descriptor {
    Descriptor {
        address: ring,
        len: 16 * u32::from(SIZE),
        flags: WRITE,
        next: 0,
    }
}

/// What was not harmed goes on; what can't is started again.
fn rounds(disk: &mut Rig, random: &mut Rig, mut round: impl FnMut(&mut Rig, &mut Rig)) {
    random.start();
    disk.start();
    for _ in 0..ROUNDS {
        round(disk, random);
        for rig in [&mut *random, &mut *disk] {
            if rig.status() & u32::from(NEEDS_RESET) != 0 {
                rig.start();
            }
            rig.rounds += 1;
        }
    }
    random.reset();
    random.area = MEMORY;
    disk.recovers();
    disk.has_kept_the_disk();
    disk.reset();
    random.recovers();
    random.reset();
    disk.canary.sing();
}
