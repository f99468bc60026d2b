//! Frames of any kind from a driver, over both rings: header, cut, length.
//!
//! Each frame is sent or dropped, its chain comes back, and what the host side gets asks for nothing
//! that can't be done or was not agreed on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use virtio::features::{RING_PACKED, VERSION_1};
use virtio::net::{Header, Mac, Net, NetBackend, Offloads, Properties, Refusal};
use virtio::testing::Interrupts;
use virtio::testing::ring::{Ring, ram};
use virtio::{Device, Event, Io, Queue};
use vm_memory::VolatileSlice;

/// Takes frames, and looks at them.
struct Critic {
    descriptor: OwnedFd,
    agreed: Offloads,
    frames: Arc<AtomicU64>,
}

impl NetBackend for Critic {
    fn properties(&self) -> Properties {
        Properties::new().offloads(Offloads::all())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    fn send(&mut self, header: &Header, frame: &[VolatileSlice<'_>]) -> Result<(), Refusal> {
        let len: usize = frame.iter().map(VolatileSlice::len).sum();
        assert!((14..=65_554).contains(&len));
        assert!(header.flags & !1 == 0 && header.num_buffers == 0);
        let field = usize::from(header.csum_start) + usize::from(header.csum_offset);
        if header.flags == 1 {
            assert!(self.agreed.contains(Offloads::CHECKSUM) && field + 2 <= len);
        } else {
            assert_eq!((field, header.gso_type), (0, 0));
        }
        let agreed = match header.gso_type {
            0 => header.gso_size == 0 && header.hdr_len == 0,
            kind => {
                let ecn = kind & 0x80 == 0 || self.agreed.contains(Offloads::ECN);
                let segments = match kind & 0x7f {
                    1 => self.agreed.contains(Offloads::TSO4),
                    4 => self.agreed.contains(Offloads::TSO6),
                    _ => false,
                };
                segments && ecn && header.gso_size > 0 && usize::from(header.hdr_len) <= len
            }
        };
        assert!(agreed, "{header:?} of {len} bytes");
        self.frames.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn receive(&mut self, _: &mut Header, _: &[VolatileSlice<'_>]) -> Result<usize, Refusal> {
        Err(Refusal::Busy)
    }
}

/// Bits of the features by which a driver leaves something to the device.
const HOST: [(u64, Offloads); 4] = [
    (1 << 0, Offloads::CHECKSUM),
    (1 << 11, Offloads::TSO4),
    (1 << 12, Offloads::TSO6),
    (1 << 13, Offloads::ECN),
];

fuzz_target!(|data: &[u8]| {
    let Some((choice, mut data)) = data.split_first() else {
        return;
    };
    let taken = (0..4).filter(|bit| choice >> bit & 1 != 0);
    let (features, agreed) = taken.fold((0, Offloads::empty()), |(bits, set), bit| {
        (bits | HOST[bit].0, set | HOST[bit].1)
    });
    let layout = if choice & 0x80 == 0 { 0 } else { RING_PACKED };
    let features = features | layout | VERSION_1;
    let (descriptor, _other) = std::io::pipe().expect("pipe");
    let frames = Arc::new(AtomicU64::new(0));
    let critic = Critic {
        descriptor: descriptor.into(),
        agreed,
        frames: Arc::clone(&frames),
    };
    let mut device = Net::new(critic, Mac::of_name("fuzz")).expect("card");
    let counters = device.counters();
    let memory = ram(&[(0, 1 << 20)]);
    let mut ring = Ring::new(&memory, 0x1000..1 << 20, 64, layout);
    let queue = Queue::new(&ring.config(), Arc::clone(&memory), features).expect("queue");
    let config = Arc::clone(&device.spec().config);
    let irq = Arc::new(Interrupts::default());
    let mut io = Io::new(memory, features, config, irq, vec![None, Some(queue)]);
    device.activate(&mut io).expect("activation");
    let mut count = 0;
    while let Some((cut, rest)) = data.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([cut[0], cut[1]])) % 70_000;
        let (header, rest) = rest.split_at(rest.len().min(12));
        data = rest;
        let bytes = [header, &vec![0; len]].concat();
        let (first, second) = bytes.split_at(bytes.len().min(usize::from(cut[2])));
        let pieces: Vec<&[u8]> = first.chunks(3).chain([second]).take(60).collect();
        ring.add(&pieces, &[]);
        device.handle(Event::Queue(1), &mut io).expect("no error");
        assert!(ring.used().is_some(), "the chain comes back");
        count += 1;
    }
    let counts = counters.read();
    assert_eq!(counts.sent, frames.load(Ordering::Relaxed));
    assert_eq!(counts.sent + counts.sent_dropped, count);
});
