//! Buffers in which a card can't receive, or only with care (5.1.6.3).

use super::{Case, case};
use crate::hostile::alone;
use crate::hostile::card::feature::MRG_RXBUF;
use crate::hostile::card::{HEADER, PLAIN};
use crate::hostile::rig::{Rig, link};
use std::thread;
use std::time::Duration;
use vmm::virtio::testing::ring::{Descriptor, WRITE};

/// How many buffers the driver gives.
const BUFFERS: usize = 250;

pub fn cases(rig: &Rig) -> Vec<Case> {
    // Buffers smaller than a header end QEMU 7.2 by an assertion.
    let useless: &[usize] = if alone() { &[0] } else { &[0, 1, 11] };
    let mut cases: Vec<Case> = useless
        .iter()
        .map(|&len| {
            case(
                format!("buffers of {len} bytes, to receive in"),
                move |rig| {
                    rig.start_with(256, 0);
                    let ids: Vec<u16> = (0..BUFFERS)
                        .map(|_| rig.rings[0].add(&[], &[len]))
                        .collect();
                    rig.registers.notify(0);
                    for id in ids {
                        assert_eq!(rig.used_of(0), (id, 0), "no room for a header");
                    }
                    rig.works();
                },
            )
        })
        .collect();
    if rig.offers(MRG_RXBUF) {
        let spread = [13, 16, 100, 1411, 1412].map(|len| {
            case(
                format!("a frame comes in buffers of {len} bytes"),
                move |rig| {
                    spread(rig, len);
                },
            )
        });
        cases.extend(spread);
        cases.push(case("too few buffers for a frame", |rig| {
            rig.start_with(256, 0);
            too_small(rig);
        }));
    }
    cases.extend([
        case("buffers that can only be read, to receive in", |rig| {
            let id = rig.rings[0].add(&[&[0xa5; 2000]], &[]);
            rig.registers.notify(0);
            assert_eq!(rig.used_of(0), (id, 0));
            rig.works();
        }),
        case("buffers too small for a frame, without merging", |rig| {
            rig.start_with(256, MRG_RXBUF);
            too_small(rig);
        }),
        case("a GiB to receive in", |rig| {
            rig.start_with(256, 0);
            rig.with_queue(0, |rig| {
                let chain = link(rig.gibibyte(256, WRITE));
                rig.offer(&chain);
                let (_, len) = rig.used();
                assert!((HEADER + 60..2000).contains(&(len as usize)), "{len}");
            });
        }),
        case("a reset while buffers wait for frames", |rig| {
            for _ in 0..10 {
                let place = rig.rings[0].alloc(2048);
                let room = Descriptor {
                    address: place,
                    len: 2048,
                    flags: WRITE,
                    next: 0,
                };
                rig.with_queue(0, |rig| rig.offer(&[room]));
                rig.set_status(0);
                assert_eq!(rig.status(), 0);
                rig.fill(place, 0xa5);
                // Time for a frame or two.
                thread::sleep(Duration::from_millis(3));
                assert!(rig.is_filled(place, 0xa5), "left alone");
                rig.start();
            }
            rig.works();
        }),
    ]);
    cases
}

/// The next frame, the chains that it is spread over, and as many new ones.
fn next(rig: &mut Rig, len: usize) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let mut chains = 1;
    let mut taken = 0;
    while taken < chains {
        let (id, count) = rig.used_of(0);
        bytes.extend(rig.rings[0].written(id, count as usize));
        if taken == 0 {
            assert!(bytes.len() >= HEADER, "{} bytes", bytes.len());
            chains = u16::from_le_bytes([bytes[10], bytes[11]]).into();
        }
        taken += 1;
        rig.rings[0].add(&[], &[len]);
    }
    rig.registers.notify(0);
    bytes.drain(..HEADER);
    (bytes, chains)
}

/// A frame that takes many buffers comes as a whole, and says how many.
fn spread(rig: &mut Rig, len: usize) {
    rig.start_with(256, 0);
    for _ in 0..BUFFERS {
        rig.rings[0].add(&[], &[len]);
    }
    rig.registers.notify(0);
    let frame = rig.frame(1400);
    rig.transmit(0, &[&PLAIN, &frame]);
    rig.until("the frame", |rig| {
        let (bytes, chains) = next(rig, len);
        assert_eq!(chains, (HEADER + bytes.len()).div_ceil(len));
        (bytes == frame).then_some(())
    });
}

/// A frame that does not fit is lost, and the one behind it comes.
fn too_small(rig: &mut Rig) {
    const LEN: usize = 100;
    for _ in 0..4 {
        rig.rings[0].add(&[], &[LEN]);
    }
    rig.registers.notify(0);
    for len in [1400, 60] {
        let frame = rig.frame(len);
        rig.transmit(0, &[&PLAIN, &frame]);
    }
    let last = rig.serial;
    rig.until("the second frame", |rig| {
        let (bytes, chains) = next(rig, LEN);
        assert_eq!((bytes.len(), chains), (60, 1), "one that fits");
        (bytes[6..12] == last.to_be_bytes()[2..]).then_some(())
    });
}
