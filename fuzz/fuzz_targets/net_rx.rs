//! Frames of any kind from a host, with headers that ask for anything, into buffers of any cut.
//!
//! What the driver gets is a frame that the host had, whole and in its turn, with a header that
//! asks for nothing that was not agreed on. All others are dropped, and counted.

#![no_main]

use hype_fuzz::Input;
use hype_fuzz::net::{BUFFERS, Card, Frame, Host};
use libfuzzer_sys::fuzz_target;
use std::collections::VecDeque;
use virtio::features::RING_PACKED;
use virtio::net::{HEADER_LEN, Header, Mac, Net, Offloads};

/// Bits of the features by which a device may leave something to its driver.
const LEFT: [(u64, Offloads); 4] = [
    (1 << 1, Offloads::CHECKSUM),
    (1 << 7, Offloads::TSO4),
    (1 << 8, Offloads::TSO6),
    (1 << 9, Offloads::ECN),
];
const MERGEABLE: u64 = 1 << 15;
/// The parts of buffers.
const PARTS: [usize; 8] = [1, 12, 13, 26, 300, 1526, 4096, 66_000];
/// How many chains there are at once, each of up to three parts.
const CHAINS: usize = 20;

/// What the host gives: bytes by which one is told from another.
fn frame(input: &mut Input<'_>, number: usize) -> Frame {
    let mut header = [0; HEADER_LEN];
    let chosen = input.bytes(HEADER_LEN);
    header[..chosen.len()].copy_from_slice(chosen);
    let len = match input.byte() {
        long @ 240.. => usize::from(long - 240) * 4500,
        short => usize::from(short) * 8,
    };
    let bytes = (0..len).map(|at| (at ^ at >> 8 ^ number) as u8).collect();
    (Header::from_bytes(header), bytes)
}

/// What holds for a header that was let through.
fn check(header: &Header, agreed: Offloads) {
    let allowed = if agreed.contains(Offloads::CHECKSUM) {
        3
    } else {
        0
    };
    assert_eq!(header.flags & !allowed, 0, "{header:?}");
    let granted = match header.gso_type & 0x7f {
        0 => header.gso_type == 0,
        1 => agreed.contains(Offloads::TSO4),
        4 => agreed.contains(Offloads::TSO6),
        _ => false,
    };
    let ecn = header.gso_type & 0x80 == 0 || agreed.contains(Offloads::ECN);
    assert!(granted && ecn, "{header:?}");
}

/// The buffers that the driver has given: what each is called, and how long it is.
type Given = Vec<(u16, usize)>;

/// Takes what the driver has got. Gives the number of frames.
fn take(
    card: &mut Card<Net>,
    given: &mut Given,
    host: &mut VecDeque<Frame>,
    (agreed, mergeable): (Offloads, bool),
) -> u64 {
    let mut frames = 0;
    let ring = &mut card.rings[0];
    while let Some((id, len)) = ring.used() {
        let at = given.iter().position(|(given, _)| *given == id);
        let (_, room) = given.swap_remove(at.expect("one that was given"));
        if len == 0 {
            assert!(
                room < HEADER_LEN,
                "a buffer with room for a header comes back unused"
            );
            continue;
        }
        let mut bytes = ring.written(id, len as usize);
        assert!(bytes.len() == len as usize && len as usize >= HEADER_LEN);
        let header = bytes.drain(..HEADER_LEN).collect::<Vec<_>>();
        let header = Header::from_bytes(header.try_into().expect("a header"));
        check(&header, agreed);
        assert!(header.num_buffers == 1 || mergeable && header.num_buffers > 1);
        for _ in 1..header.num_buffers {
            let (id, len) = ring.used().expect("as many buffers as the header says");
            let at = given.iter().position(|(given, _)| *given == id);
            given.swap_remove(at.expect("one that was given"));
            bytes.extend(ring.written(id, len as usize));
        }
        // Those before it were dropped.
        let found = host.iter().position(|(_, frame)| *frame == bytes);
        let found = found.expect("a frame of the host's, in its turn");
        host.drain(..=found);
        frames += 1;
    }
    frames
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let choice = input.byte();
    let taken = (0..4).filter(|bit| choice >> bit & 1 != 0);
    let (mut features, agreed) = taken.fold((0, Offloads::empty()), |(bits, set), bit| {
        (bits | LEFT[bit].0, set | LEFT[bit].1)
    });
    let mergeable = choice & 0x40 != 0;
    features |= if mergeable { MERGEABLE } else { 0 };
    features |= if choice & 0x80 == 0 { 0 } else { RING_PACKED };
    let host = Host::default();
    let device = Net::new(host.clone(), Mac::of_name("fuzz")).expect("card");
    let counters = device.counters();
    let mut card = Card::new(device, features, 0..1);
    let (mut given, mut had) = (Given::new(), VecDeque::new());
    let (mut count, mut received, mut room) = (0, 0, 0);
    while !input.is_empty() {
        for _ in 0..input.byte() % 4 {
            let parts: Vec<_> = (0..1 + input.byte() % 3)
                .map(|_| input.one_of(&PARTS))
                .collect();
            let len: usize = parts.iter().sum();
            if given.len() < CHAINS && room + len < BUFFERS {
                room += len;
                given.push((card.rings[0].add(&[], &parts), len));
            }
        }
        for _ in 0..input.byte() % 4 {
            let frame = frame(&mut input, count);
            had.push_back(frame.clone());
            host.arriving().push_back(frame);
            count += 1;
        }
        card.notify(0);
        received += take(&mut card, &mut given, &mut had, (agreed, mergeable));
    }
    let left = host.arriving().len() as u64;
    let counts = counters.read();
    assert_eq!(counts.received, received);
    assert_eq!(
        counts.received + counts.received_dropped + left,
        count as u64
    );
    card.reset();
});
