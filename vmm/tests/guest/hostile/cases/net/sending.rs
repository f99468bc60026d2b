//! Frames that a card should not send, and headers that ask for what can't be done (5.1.6.2).

use super::{Case, case};
use crate::hostile::alone;
use crate::hostile::card::feature::{
    CSUM, CTRL_GUEST_OFFLOADS, GUEST_CSUM, GUEST_TSO, HOST_TSO, MRG_RXBUF,
};
use crate::hostile::card::{HEADER, LONGEST, PLAIN};
use crate::hostile::rig::{Rig, link};
use vmm::virtio::net::Header;

const NEEDS_CSUM: u8 = 1;
const TCPV4: u8 = 1;
/// How long frames are here, if that is not what a case is about.
const LEN: u16 = 1000;

pub fn cases(rig: &Rig) -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(shapes());
    if rig.offers(CSUM | HOST_TSO | GUEST_TSO) {
        cases.extend(refused_headers());
        cases.extend(good_headers());
        cases.extend(not_agreed());
    }
    cases
}

fn header(change: impl FnOnce(&mut Header)) -> Header {
    let mut header = Header::default();
    change(&mut header);
    header
}

/// The header of a segment of TCP.
fn segment() -> Header {
    header(|header| {
        header.flags = NEEDS_CSUM;
        header.gso_type = TCPV4;
        header.gso_size = 500;
        header.hdr_len = 54;
        header.csum_start = 34;
        header.csum_offset = 16;
    })
}

fn lengths() -> Vec<Case> {
    let most = LONGEST;
    let refused = [0, 1, 13, most + 1, 65_562 + 12, 1 << 20];
    let refused = refused.map(|len| {
        case(format!("a frame of {len} bytes is sent"), move |rig| {
            let frame = rig.frame(len);
            assert_eq!(rig.pass(0, &[&PLAIN, &frame]), None);
        })
    });
    let passes = [14, 1514, 65_550, most].map(|len| {
        case(
            format!("a frame of {len} bytes is sent, which may be"),
            move |rig| {
                rig.start_with_all();
                let frame = rig.frame(len);
                assert!(rig.pass(0, &[&PLAIN, &frame]).is_some());
            },
        )
    });
    // Parts of a header end QEMU 7.2 by an assertion.
    let parts: &[usize] = if alone() { &[] } else { &[1, 10, 11] };
    let without = parts.iter().map(|&len| {
        case(format!("{len} bytes of a header are sent"), move |rig| {
            assert_eq!(rig.pass(0, &[&PLAIN[..len]]), None);
        })
    });
    refused.into_iter().chain(passes).chain(without).collect()
}

fn shapes() -> Vec<Case> {
    vec![
        case("a header in 12 pieces, and a frame in 48", |rig| {
            rig.start_with(64, 0);
            let sent = [&PLAIN[..], &rig.frame(48)].concat();
            let pieces: Vec<&[u8]> = sent.chunks(1).collect();
            assert!(rig.pass(0, &pieces).is_some());
        }),
        case("a header and a part of the frame in one piece", |rig| {
            let sent = [&PLAIN[..], &rig.frame(100)].concat();
            assert!(
                rig.pass(0, &[&sent[..HEADER + 3], &sent[HEADER + 3..]])
                    .is_some()
            );
        }),
        case("a frame is sent with room behind it", |rig| {
            let frame = rig.frame(100);
            let id = rig.rings[1].add(&[&PLAIN, &frame], &[100]);
            rig.registers.notify(1);
            assert_eq!(rig.used_of(1), (id, 0));
        }),
        case("nothing is sent", |rig| {
            assert_eq!(rig.pass(0, &[&[]]), None);
        }),
        case("a frame to be written is sent", |rig| {
            let id = rig.rings[1].add(&[], &[12, 100]);
            rig.registers.notify(1);
            assert_eq!(rig.used_of(1), (id, 0));
        }),
        case("a GiB is sent at once", |rig| {
            rig.start_with(256, 0);
            let chain = link(rig.gibibyte(256, 0));
            rig.takes(&chain);
        }),
        case("a chain of which a part is no memory is sent", |rig| {
            let mut chain = rig.good();
            chain[1].address = u64::MAX - 7;
            rig.offer(&chain);
            rig.refuses();
        }),
    ]
}

fn refused_headers() -> Vec<Case> {
    type Change = fn(&mut Header);
    let mut bad: Vec<(&str, Change)> = vec![
        ("a segment of 0 bytes", |it| it.gso_size = 0),
        ("a segment without a checksum", |it| it.flags = 0),
        ("headers longer than the frame", |it| it.hdr_len = LEN + 1),
        ("headers of 65535 bytes", |it| it.hdr_len = 0xffff),
        ("a checksum from behind the frame", |it| it.csum_start = LEN),
        ("a checksum that goes behind the frame", |it| {
            it.csum_offset = LEN;
        }),
        ("a checksum of which half is behind the frame", |it| {
            it.csum_offset = LEN - 1 - it.csum_start;
        }),
        ("a checksum at the end of what can be said", |it| {
            (it.csum_start, it.csum_offset) = (0xffff, 0xffff);
        }),
        ("a checksum that wraps around", |it| {
            (it.csum_start, it.csum_offset) = (0xfffe, 16);
        }),
    ];
    // UDP is not offered; the others are no types, but for ECN, which is no type by itself.
    let types: [(&str, Change); 7] = [
        ("segmentation of type 2", |it| it.gso_type = 2),
        ("segmentation of UDP", |it| it.gso_type = 3),
        ("segmentation of UDP on a network layer", |it| {
            it.gso_type = 5
        }),
        ("segmentation of type 0x7f", |it| it.gso_type = 0x7f),
        ("segmentation of no type with ECN", |it| it.gso_type = 0x80),
        ("segmentation of UDP with ECN", |it| it.gso_type = 0x83),
        ("segmentation of type 0xff", |it| it.gso_type = 0xff),
    ];
    bad.extend(types);
    bad.into_iter()
        .map(|(name, change)| {
            case(format!("{name} is asked for"), move |rig| {
                let mut header = segment();
                change(&mut header);
                rig.start_with_all();
                let frame = rig.frame(LEN.into());
                assert_eq!(rig.pass(0, &[&header.to_bytes(), &frame]), None);
            })
        })
        .collect()
}

fn good_headers() -> Vec<Case> {
    let passes = |name: &str, sent: Header, expected: Header| {
        case(name, move |rig| {
            rig.start_with_all();
            let frame = rig.frame(LEN.into());
            let back = rig.pass(0, &[&sent.to_bytes(), &frame]).unwrap();
            let expected = Header {
                num_buffers: 1,
                ..expected
            };
            assert_eq!(back[..HEADER], expected.to_bytes());
        })
    };
    let nonsense = header(|it| {
        it.flags = !NEEDS_CSUM;
        (it.csum_start, it.csum_offset) = (0xffff, 0xffff);
        (it.hdr_len, it.gso_size, it.num_buffers) = (0xffff, 0xffff, 0xffff);
    });
    let large = Header {
        gso_size: 0xffff,
        ..segment()
    };
    let last = header(|it| {
        it.flags = NEEDS_CSUM;
        it.csum_start = LEN - 2;
    });
    let loud = Header {
        flags: 0xff,
        num_buffers: 0xffff,
        ..segment()
    };
    vec![
        passes("a segment is sent, which may be", segment(), segment()),
        passes("a segment of 65535 bytes is asked for", large, large),
        passes("the last two bytes are a checksum", last, last),
        passes(
            "fields and flags that mean nothing",
            nonsense,
            Header::default(),
        ),
        passes(
            "flags that mean nothing beside one that does",
            loud,
            segment(),
        ),
    ]
}

/// What was offered, and not taken.
fn not_agreed() -> Vec<Case> {
    let refused = |name: &str, without: u64, header: Header| {
        case(name, move |rig| {
            rig.start_with(16, without);
            let frame = rig.frame(LEN.into());
            assert_eq!(rig.pass(0, &[&header.to_bytes(), &frame]), None);
        })
    };
    let checksum = header(|it| it.flags = NEEDS_CSUM);
    vec![
        refused("a checksum without the feature", CSUM | HOST_TSO, checksum),
        refused("a segment without the feature", HOST_TSO, segment()),
        refused(
            "a segment comes that the driver does not take",
            CTRL_GUEST_OFFLOADS,
            segment(),
        ),
        refused(
            "a checksum comes that the driver does not take, without merging",
            GUEST_CSUM | CTRL_GUEST_OFFLOADS | MRG_RXBUF,
            checksum,
        ),
    ]
}
