//! Requests that no disk serves (virtio 1.2, 5.2.6), and some that look odd and are right.

use super::{Case, case};
use crate::hostile::rig::{DISK, RUNNING, Rig, contents, header, link};
use vmm::virtio::features::INDIRECT_DESC;
use vmm::virtio::testing::ring::{Descriptor, WRITE};

// Request types.
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

// Statuses.
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// Where the configuration says whether there is a cache to write to.
const WCE: u64 = 32;

const SECTORS: u64 = DISK as u64 / 512;

const F_FLUSH: u64 = 1 << 9;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

pub fn cases() -> Vec<Case> {
    let mut cases = places();
    cases.extend(types());
    cases.extend(shapes());
    cases.extend(without_status());
    cases.extend(names());
    cases.extend(ranges());
    cases.extend(flushes());
    cases
}

/// The status of a request with these buffers, of which the last one takes it.
fn status(rig: &mut Rig, readable: &[&[u8]], writable: &[usize]) -> u8 {
    *rig.request(readable, writable).0.last().unwrap()
}

fn places() -> Vec<Case> {
    let mut cases = vec![
        case("the last sector, which is there", |rig| {
            let (bytes, len) = rig.request(&[&header(IN, SECTORS - 1)], &[512, 1]);
            assert_eq!((bytes[512], len), (OK, 513));
            assert!(bytes[..512] == contents()[DISK - 512..]);
        }),
        case("a read of more than the disk", |rig| {
            assert_eq!(status(rig, &[&header(IN, 0)], &[DISK + 512, 1]), IOERR);
        }),
        case("a read of a GiB at once", |rig| {
            rig.start_with(256, 0);
            let mut request = rig.good();
            let data = rig.gibibyte(254, WRITE);
            rig.main().write(request[0].address, &header(IN, 0));
            request.splice(1..2, data);
            rig.takes(&link(request.clone()));
            let status = request.last().unwrap().address;
            assert_eq!(rig.main().read(status, 1), [IOERR]);
        }),
        case("a write of more than the disk", |rig| {
            let data = vec![0xa5; DISK + 512];
            assert_eq!(status(rig, &[&header(OUT, 0), &data], &[1]), IOERR);
        }),
        case("two sectors, of which one is there", |rig| {
            let request = header(IN, SECTORS - 1);
            assert_eq!(status(rig, &[&request], &[1024, 1]), IOERR);
            let request = header(OUT, SECTORS - 1);
            assert_eq!(status(rig, &[&request, &[0xa5; 1024]], &[1]), IOERR);
        }),
    ];
    for sector in [SECTORS, 1 << 54, 1 << 55, u64::MAX / 512, 1 << 63, u64::MAX] {
        cases.push(case(format!("a read of sector {sector:#x}"), move |rig| {
            let (bytes, len) = rig.request(&[&header(IN, sector)], &[512, 1]);
            assert_eq!((bytes[512], len), (IOERR, 0));
        }));
        cases.push(case(format!("a write of sector {sector:#x}"), move |rig| {
            let request = header(OUT, sector);
            assert_eq!(status(rig, &[&request, &[0xa5; 512]], &[1]), IOERR);
        }));
    }
    cases
}

fn types() -> Vec<Case> {
    let unknown = [
        2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 17, 18, 20, 22, 24, 26, 28,
    ];
    let huge = [0x8000_0000, 0x8000_0001, 0x100, u32::MAX];
    unknown
        .into_iter()
        .chain(huge)
        .map(|kind| {
            case(format!("a request of type {kind:#x}"), move |rig| {
                let request = header(kind, 0);
                assert_eq!(status(rig, &[&request], &[1]), UNSUPP);
                assert_eq!(status(rig, &[&request, &[0xa5; 512]], &[1]), UNSUPP);
                assert_eq!(status(rig, &[&request], &[512, 1]), UNSUPP);
            })
        })
        .collect()
}

fn shapes() -> Vec<Case> {
    let refused = |name: &str, kind: u32, sent: &'static [usize], room: &'static [usize]| {
        case(name, move |rig| {
            let bytes = [&header(kind, 0)[..], &[0xa5; 4096]].concat();
            let mut at = 0;
            let mut cut = |len: &usize| {
                at += len;
                &bytes[at - len..at]
            };
            let sent: Vec<&[u8]> = sent.iter().map(&mut cut).collect();
            assert_eq!(status(rig, &sent, room), IOERR);
        })
    };
    vec![
        refused("a header of 15 bytes", IN, &[15], &[512, 1]),
        refused("a header of 1 byte", IN, &[1], &[512, 1]),
        refused("no header at all", IN, &[], &[512, 1]),
        refused("a read with a byte too much to read", IN, &[17], &[512, 1]),
        refused("a read with data to read", IN, &[16, 512], &[1]),
        refused("a read of 511 bytes", IN, &[16], &[511, 1]),
        refused("a read of 513 bytes", IN, &[16], &[513, 1]),
        refused("a read of 1 byte", IN, &[16], &[1, 1]),
        refused("a write of 511 bytes", OUT, &[16, 511], &[1]),
        refused("a write of 513 bytes", OUT, &[16, 513], &[1]),
        refused("a write with room for data", OUT, &[16], &[512, 1]),
        refused("a write with data and room", OUT, &[16, 512], &[512, 1]),
        refused("a flush with data", FLUSH, &[16, 512], &[1]),
        refused("a flush with room", FLUSH, &[16], &[512, 1]),
        case("a header in 16 pieces, which it may be", |rig| {
            rig.start_with(64, 0);
            let request = header(IN, 1);
            let pieces: Vec<&[u8]> = request.chunks(1).collect();
            let (bytes, len) = rig.request(&pieces, &[512, 1]);
            assert_eq!((bytes[512], len), (OK, 513));
            assert!(bytes[..512] == contents()[512..1024]);
        }),
        case("header, data and status in one buffer each way", |rig| {
            let request = [&header(OUT, 2)[..], &contents()[1024..1536]].concat();
            assert_eq!(status(rig, &[&request], &[1]), OK);
            let (bytes, len) = rig.request(&[&header(IN, 2)], &[513]);
            assert_eq!((bytes[512], len), (OK, 513));
        }),
        case("a request of no sectors", |rig| {
            assert_eq!(status(rig, &[&header(IN, 0)], &[1]), OK);
            assert_eq!(status(rig, &[&header(OUT, 0)], &[1]), OK);
            assert_eq!(status(rig, &[&header(IN, SECTORS)], &[1]), OK);
            assert_eq!(status(rig, &[&header(IN, SECTORS + 1)], &[1]), IOERR);
        }),
        case("a read in 250 pieces", |rig| {
            rig.start_with(256, 0);
            let pieces = [&[2; 249][..], &[14, 1]].concat();
            let (bytes, len) = rig.request(&[&header(IN, 0)], &pieces);
            assert_eq!((bytes[512], len), (OK, 513));
            assert!(bytes[..512] == contents()[..512]);
        }),
    ]
}

/// Without room for the status, nothing can be told, and nothing may be done.
fn without_status() -> Vec<Case> {
    let mut cases = vec![case("the status is in the registers of a device", |rig| {
        let mut chain = rig.good();
        chain.last_mut().unwrap().address = rig.registers.address();
        rig.offer(&chain);
        rig.refuses();
    })];
    for (name, flags, len) in [
        ("there is no room for the status", None, 0),
        ("the status is of no bytes", Some(WRITE), 0),
        ("the status can only be read", Some(0), 1),
    ] {
        cases.push(case(name, move |rig| {
            // A write that must not happen: what is on the disk is looked at later.
            let data = [&header(OUT, 0)[..], &[0xa5; 512]].concat();
            let mut chain = vec![Descriptor {
                address: rig.main().alloc_bytes(&data),
                len: data.len() as u32,
                ..Descriptor::default()
            }];
            if let Some(flags) = flags {
                chain.push(Descriptor {
                    address: rig.main().alloc(16),
                    len,
                    flags,
                    next: 0,
                });
            }
            rig.offer(&link(chain));
            rig.refuses();
        }));
    }
    cases
}

fn names() -> Vec<Case> {
    let mut cases: Vec<Case> = [1, 19, 20, 21, 512, 4096]
        .into_iter()
        .map(|room: usize| {
            case(
                format!("the name of the disk in {room} bytes"),
                move |rig| {
                    let mut chain = rig.good();
                    chain[1].address = rig.main().alloc_bytes(&vec![0xa5; room]);
                    chain[1].len = room as u32;
                    rig.offer(&chain);
                    let written = if room <= 20 { room + 1 } else { 20 };
                    assert_eq!(rig.used().1 as usize, written);
                    assert_eq!(rig.main().read(chain[2].address, 1), [OK]);
                    let bytes = rig.main().read(chain[1].address, room);
                    let name = bytes.iter().take_while(|byte| **byte == 0).count();
                    assert_eq!(name, room.min(20), "it has no name, which is 20 times 0");
                    assert!(bytes[name..].iter().all(|byte| *byte == 0xa5));
                },
            )
        })
        .collect();
    cases.push(case("the name of the disk in no buffer", |rig| {
        assert_eq!(status(rig, &[&header(GET_ID, 0)], &[1]), IOERR);
    }));
    cases.push(case("the name of the disk, with data", |rig| {
        let request = header(GET_ID, 0);
        assert_eq!(status(rig, &[&request, &[0; 20]], &[20, 1]), IOERR);
    }));
    cases
}

/// A range of a discard.
fn range(sector: u64, count: u32, flags: u32) -> [u8; 16] {
    let mut range = [0; 16];
    range[..8].copy_from_slice(&sector.to_le_bytes());
    range[8..12].copy_from_slice(&count.to_le_bytes());
    range[12..].copy_from_slice(&flags.to_le_bytes());
    range
}

fn ranges() -> Vec<Case> {
    let mut cases = Vec::new();
    let bad = [
        ("of no sectors", range(0, 0, 0), IOERR),
        ("behind the end", range(SECTORS, 1, 0), IOERR),
        ("across the end", range(SECTORS - 1, 2, 0), IOERR),
        ("of 2^32 - 1 sectors", range(0, u32::MAX, 0), IOERR),
        ("that wraps around", range(u64::MAX, 1, 0), IOERR),
        ("that wraps around in bytes", range(1 << 55, 1, 0), IOERR),
        ("with a flag that means nothing", range(0, 1, 2), UNSUPP),
        ("with all flags", range(0, 1, u32::MAX), UNSUPP),
    ];
    for (kind, verb) in [(DISCARD, "discard"), (WRITE_ZEROES, "zero")] {
        for (name, range, expected) in bad {
            cases.push(case(format!("{verb} a range {name}"), move |rig| {
                let request = header(kind, 0);
                assert_eq!(status(rig, &[&request, &range], &[1]), expected);
            }));
        }
        for len in [0, 1, 15, 17, 31] {
            cases.push(case(format!("{verb} ranges of {len} bytes"), move |rig| {
                let ranges = [range(0, 1, 0), range(1, 1, 0)].concat();
                let request = header(kind, 0);
                assert_eq!(status(rig, &[&request, &ranges[..len]], &[1]), IOERR);
            }));
        }
        cases.push(case(format!("{verb} too many ranges"), move |rig| {
            let count = if kind == DISCARD { 33 } else { 2 };
            let ranges = range(0, 1, 0).repeat(count);
            assert_eq!(status(rig, &[&header(kind, 0), &ranges], &[1]), IOERR);
        }));
        cases.push(case(
            format!("{verb} a good range and a bad one"),
            move |rig| {
                let ranges = [range(0, 1, 0), range(SECTORS, 1, 0)].concat();
                assert_eq!(status(rig, &[&header(kind, 0), &ranges], &[1]), IOERR);
            },
        ));
        cases.push(case(format!("{verb} without the feature"), move |rig| {
            rig.start_with(16, F_DISCARD | F_WRITE_ZEROES);
            let request = header(kind, 0);
            assert_eq!(status(rig, &[&request, &range(0, 1, 0)], &[1]), UNSUPP);
        }));
        cases.push(case(format!("{verb} with room for data"), move |rig| {
            let request = header(kind, 0);
            let room = &[512, 1];
            assert_eq!(status(rig, &[&request, &range(0, 1, 0)], room), IOERR);
        }));
    }
    cases.push(case("unmap, in a discard", |rig| {
        let request = header(DISCARD, 0);
        assert_eq!(status(rig, &[&request, &range(0, 1, 1)], &[1]), UNSUPP);
    }));
    cases
}

fn flushes() -> Vec<Case> {
    vec![
        case("a flush without the feature", |rig| {
            rig.start_with(16, F_FLUSH);
            assert_eq!(status(rig, &[&header(FLUSH, 0)], &[1]), UNSUPP);
        }),
        case("many flushes at once, and a reset", |rig| {
            rig.start_with(256, INDIRECT_DESC);
            for _ in 0..120 {
                rig.main().add(&[&header(FLUSH, 0)], &[1]);
            }
            rig.kick();
            rig.reset();
            assert_eq!(rig.status(), 0);
        }),
        case(
            "the cache is switched on and off while it is written",
            |rig| {
                let request = header(OUT, 0);
                let data = &contents()[..512];
                for turn in 0..40u8 {
                    rig.registers.config().write(WCE, turn.wrapping_mul(7));
                    assert_eq!(status(rig, &[&request, data], &[1]), OK);
                }
                assert_eq!(rig.status(), RUNNING);
            },
        ),
    ]
}

pub fn of_a_read_only_disk() -> Vec<Case> {
    let mut cases = vec![
        case("a read-only disk is written", |rig| {
            let request = header(OUT, 0);
            assert_eq!(status(rig, &[&request, &[0xa5; 512]], &[1]), IOERR);
        }),
        case("a read-only disk is flushed", |rig| {
            assert_eq!(status(rig, &[&header(FLUSH, 0)], &[1]), IOERR);
        }),
        case("a read-only disk's cache is switched on", |rig| {
            rig.registers.config().write(WCE, 1u8);
            assert_eq!(rig.registers.config().read::<u8>(WCE), 0);
        }),
        case(
            "a write to a read-only disk of which F_RO was not taken",
            |rig| {
                rig.start_with(16, 1 << 5);
                let request = header(OUT, 0);
                assert_eq!(status(rig, &[&request, &[0xa5; 512]], &[1]), IOERR);
            },
        ),
        case("a read-only disk still is what it was", |rig| {
            let (bytes, _) = rig.request(&[&header(IN, 0)], &[DISK, 1]);
            assert!(bytes[..DISK] == contents());
        }),
    ];
    for (kind, verb) in [(DISCARD, "discarded"), (WRITE_ZEROES, "zeroed")] {
        cases.insert(
            0,
            case(format!("a read-only disk is {verb}"), move |rig| {
                let request = header(kind, 0);
                assert_eq!(status(rig, &[&request, &range(0, 1, 0)], &[1]), IOERR);
            }),
        );
    }
    cases
}
