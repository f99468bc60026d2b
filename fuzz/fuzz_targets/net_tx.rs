//! Frames of any kind from a driver, over both rings: header, cut, length.
//!
//! Each frame is sent or dropped, its chain comes back, and what the host side gets asks for nothing
//! that can't be done or was not agreed on.

#![no_main]

use hype_fuzz::Input;
use hype_fuzz::net::{BUFFERS, Card, Host};
use libfuzzer_sys::fuzz_target;
use virtio::features::RING_PACKED;
use virtio::net::{Header, Mac, Net, Offloads};

/// The longest frame with its header, and some.
const LONGEST: usize = 70_000;
static ZEROES: [u8; LONGEST] = [0; LONGEST];

/// What holds for a frame that was let through.
fn check(header: &Header, len: usize, agreed: Offloads) {
    assert!((14..=65_554).contains(&len));
    assert!(header.flags & !1 == 0 && header.num_buffers == 0);
    let field = usize::from(header.csum_start) + usize::from(header.csum_offset);
    if header.flags == 1 {
        assert!(agreed.contains(Offloads::CHECKSUM) && field + 2 <= len);
    } else {
        assert_eq!((field, header.gso_type), (0, 0));
    }
    let granted = match header.gso_type {
        0 => header.gso_size == 0 && header.hdr_len == 0,
        kind => {
            let ecn = kind & 0x80 == 0 || agreed.contains(Offloads::ECN);
            let segments = match kind & 0x7f {
                1 => agreed.contains(Offloads::TSO4),
                4 => agreed.contains(Offloads::TSO6),
                _ => false,
            };
            segments && ecn && header.gso_size > 0 && usize::from(header.hdr_len) <= len
        }
    };
    assert!(granted, "{header:?} of {len} bytes");
}

/// Bits of the features by which a driver leaves something to the device.
const LEFT: [(u64, Offloads); 4] = [
    (1 << 0, Offloads::CHECKSUM),
    (1 << 11, Offloads::TSO4),
    (1 << 12, Offloads::TSO6),
    (1 << 13, Offloads::ECN),
];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let choice = input.byte();
    let taken = (0..4).filter(|bit| choice >> bit & 1 != 0);
    let (features, agreed) = taken.fold((0, Offloads::empty()), |(bits, set), bit| {
        (bits | LEFT[bit].0, set | LEFT[bit].1)
    });
    let layout = if choice & 0x80 == 0 { 0 } else { RING_PACKED };
    let host = Host::default();
    let device = Net::new(host.clone(), Mac::of_name("fuzz")).expect("card");
    let counters = device.counters();
    let mut card = Card::new(device, features | layout, 1..2);
    let (mut count, mut sent, mut used) = (0, 0, 0);
    while !input.is_empty() && used + LONGEST < BUFFERS {
        let len = input.number(2) as usize % (LONGEST - 12);
        let cut = usize::from(input.byte());
        let header = input.bytes(12);
        let bytes = [header, &ZEROES[..len]].concat();
        used += bytes.len();
        let (first, second) = bytes.split_at(bytes.len().min(cut));
        let pieces: Vec<&[u8]> = first.chunks(3).chain([second]).take(60).collect();
        card.rings[0].add(&pieces, &[]);
        card.notify(1);
        assert!(card.rings[0].used().is_some(), "the chain comes back");
        count += 1;
        for (header, len) in host.sent() {
            check(&header, len, agreed);
            sent += 1;
        }
    }
    let counts = counters.read();
    assert_eq!(counts.sent, sent);
    assert_eq!(counts.sent + counts.sent_dropped, count);
    card.reset();
});
