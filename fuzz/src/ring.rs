//! A ring whose driver writes whatever it likes, for any layout.
//!
//! The input is what the driver does: chains that may be proper ones, tables, what it wants to be
//! told of, and bytes anywhere in the ring. It goes on under the device's hands while chains are
//! served, as another vCPU would.
//!
//! What must hold: nothing panics and nothing outside of RAM is touched (the sanitizer sees to
//! that); one drain gives at most as many chains as the queue has descriptors; a chain is as long
//! as its parts, and that fits 32 bits; what is in flight is what was kept.

use crate::{Input, memory};
use std::io::Read;
use std::sync::{Arc, LazyLock};
use virtio::GuestMemory;
use virtio::features::RING_PACKED;
use virtio::queue::{Chain, Queue, QueueError, Step, Token};
use virtio::testing::ring::{Descriptor, INDIRECT, NEXT, Ring, WRITE, ram};

/// Two regions that touch, and a third behind a hole.
const REGIONS: [(u64, usize); 3] = [(0, 0x2000), (0x2000, 0x1000), (0x4000, 0x1000)];
/// Where the ring is.
const RING: std::ops::Range<u64> = 0x1000..0x2000;
/// Where tables are: behind the hole, away from all else.
const TABLE: u64 = 0x4800;
/// Where buffers start: at, across and behind the ends of regions, in the ring, and nowhere.
const PLACES: [u64; 8] = [
    0x2100,
    0x1ff0,
    0x2ff0,
    0x3000,
    0x4000,
    0x4ff8,
    RING.start,
    u64::MAX - 15,
];
const LENGTHS: [u32; 8] = [16, 1, 64, 0, 0x1000, 0x2000, 0x8000_0000, u32::MAX];

static MEMORY: LazyLock<Arc<GuestMemory>> = LazyLock::new(|| ram(&REGIONS));

/// One run, with a ring of at most this many descriptors.
pub fn run(data: &[u8], is_packed: bool) {
    let mut input = Input::new(data);
    let memory = &*MEMORY;
    memory::clear(memory);
    // Indirect descriptors and event indices.
    let mut features = u64::from(input.byte() & 3) << 28;
    let size = match is_packed {
        true => {
            features |= RING_PACKED;
            1 + u16::from(input.byte()) % 33
        }
        false => 1 << (input.byte() % 6),
    };
    let ring = Ring::new(memory, RING, size, features);
    let config = ring.config();
    let queue = Queue::new(&config, Arc::clone(memory), features).expect("a good place");
    let driver = Driver {
        ring,
        size,
        is_packed,
        start: config.desc,
        // As long as the last part of the ring can be.
        len: config.used + 6 + 8 * u64::from(size) - config.desc,
    };
    // A ring that is corrupt ends the run, as it ends its device.
    let _ = drive(queue, driver, &mut input);
}

/// What the device has kept for later.
type Kept = Vec<(Token, u32)>;

fn drive(mut queue: Queue, mut driver: Driver, input: &mut Input<'_>) -> Result<(), QueueError> {
    let mut kept = Kept::new();
    while !input.is_empty() {
        for _ in 0..input.byte() % 4 {
            driver.act(input);
        }
        let mut chains = 0;
        let drained = queue.drain(|chain| {
            chains += 1;
            serve(chain, &mut driver, input, &mut kept)
        });
        assert!(
            chains <= usize::from(queue.size()),
            "{chains} chains in one drain"
        );
        let drained = drained?;
        assert!(!drained.interrupt || chains > 0, "an interrupt for nothing");
        assert_eq!(usize::from(queue.in_flight()), kept.len());
        assert!(queue.in_flight() <= queue.size(), "more than there are");
        for _ in 0..input.byte() % 4 {
            if !kept.is_empty() {
                let any = usize::from(input.byte()) % kept.len();
                let (token, written) = kept.swap_remove(any);
                let completed = queue.complete(token, written);
                let forgotten = matches!(completed, Err(QueueError::NotInFlight { .. }));
                assert!(!forgotten, "a chain that was kept is not in flight");
                completed?;
            }
        }
    }
    Ok(())
}

fn serve(
    chain: &mut Chain<'_>,
    driver: &mut Driver,
    input: &mut Input<'_>,
    kept: &mut Kept,
) -> Result<Step, QueueError> {
    let (readable, writable) = (chain.readable_len(), chain.writable_len());
    assert!(readable.checked_add(writable).is_some());
    let parts: usize = chain.reader().slices().map(|slice| slice.len()).sum();
    assert_eq!(parts, readable as usize);
    let parts: usize = chain.writer().slices().map(|slice| slice.len()).sum();
    assert_eq!(parts, writable as usize);

    driver.act(input);
    let mut bytes = [0; 255];
    let bytes = &mut bytes[..usize::from(input.byte() % 128)];
    let read = chain.reader().read(bytes).expect("reading memory");
    assert_eq!(read, bytes.len().min(readable as usize));
    assert_eq!(chain.reader().remaining(), readable as usize - read);
    let fits = bytes.len() <= writable as usize;
    assert_eq!(chain.writer().write_all(bytes).is_ok(), fits);
    assert_eq!(chain.written() as usize, if fits { bytes.len() } else { 0 });
    chain.reader().advance(usize::from(input.byte()));
    chain.writer().advance(usize::from(input.byte()));
    assert!(chain.written() <= writable);

    Ok(match input.byte() % 8 {
        0 => Step::Stop,
        1..=3 => {
            kept.push((chain.token(), chain.written()));
            Step::Later
        }
        _ => Step::Done(chain.written()),
    })
}

/// The driver, which keeps no rules.
struct Driver {
    ring: Ring,
    size: u16,
    is_packed: bool,
    start: u64,
    len: u64,
}

impl Driver {
    /// Does one thing.
    fn act(&mut self, input: &mut Input<'_>) {
        match input.byte() % 8 {
            0..=2 => {
                let chain = chain(input);
                self.offer(&chain, input);
            }
            3 => {
                let entries = chain(input);
                let table = self.table(&entries, input.byte());
                self.offer(&[table], input);
            }
            4 => self.flip(input),
            5 => {
                let (place, flags) = (input.number(2) as u16, input.byte().into());
                match self.is_packed {
                    true => self.ring.as_packed().set_driver_event(place, flags),
                    false => {
                        self.ring.as_split().set_avail_flags(flags);
                        self.ring.as_split().set_used_event(place);
                    }
                }
            }
            6 => {
                let place = self.start + input.number(2) % self.len;
                let count = usize::from(input.byte() % 8);
                self.ring.write(place, input.bytes(count));
            }
            _ => {}
        }
    }

    /// Makes descriptors available, wherever others are.
    fn offer(&mut self, chain: &[Descriptor], input: &mut Input<'_>) {
        let first = u16::from(input.byte()) % self.size;
        if self.is_packed {
            // There it is the chain's identifier.
            let named = |descriptor: &Descriptor| Descriptor {
                next: match descriptor.next {
                    0 => first,
                    other => other,
                },
                ..*descriptor
            };
            let chain: Vec<_> = chain.iter().map(named).collect();
            return self.ring.as_packed().push_avail(&chain);
        }
        let split = self.ring.as_split();
        for (index, descriptor) in (first..).zip(chain) {
            let next = match descriptor.next {
                0 => (index + 1) % self.size,
                other => other,
            };
            let descriptor = Descriptor {
                next,
                ..*descriptor
            };
            split.set_descriptor(index % self.size, descriptor);
        }
        split.push_avail(first);
    }

    /// Writes a table, which may be too long or no whole number of entries.
    fn table(&mut self, entries: &[Descriptor], odd: u8) -> Descriptor {
        for (index, entry) in (0..).zip(entries) {
            let entry = Descriptor {
                next: if entry.next == 0 {
                    index as u16 + 1
                } else {
                    entry.next
                },
                ..*entry
            };
            let bytes = match self.is_packed {
                true => entry.to_packed_bytes(),
                false => entry.to_bytes(),
            };
            self.ring.write(TABLE + 16 * index, &bytes);
        }
        let len = 16 * entries.len() as u32;
        Descriptor {
            address: TABLE,
            len: match odd {
                0..240 => len,
                240..248 => len + u32::from(odd % 8),
                _ => LENGTHS[usize::from(odd % 8)],
            },
            flags: INDIRECT | if odd == 0 { NEXT } else { 0 },
            next: 0,
        }
    }

    /// Makes available what is there, or takes it back.
    fn flip(&mut self, input: &mut Input<'_>) {
        let (from, count) = (u16::from(input.byte()) % self.size, u16::from(input.byte()));
        if !self.is_packed {
            let split = self.ring.as_split();
            let index = split.avail_idx().wrapping_add(count % 64);
            return split.set_avail_idx(index);
        }
        let packed = self.ring.as_packed();
        for slot in from..self.size.min(from + 1 + count % 64) {
            packed.set_flags(slot, packed.flags(slot) ^ 0x8080);
        }
    }
}

/// One to four descriptors, mostly a proper chain.
fn chain(input: &mut Input<'_>) -> Vec<Descriptor> {
    let shape = input.byte();
    let (count, readable) = (1 + shape % 4, shape / 4 % 5);
    let descriptor = |index| {
        let choice = input.byte();
        let mut descriptor = Descriptor {
            address: PLACES[usize::from(choice % 8)],
            len: LENGTHS[usize::from(choice / 8 % 8)],
            flags: 0,
            next: 0,
        };
        if index >= readable {
            descriptor.flags |= WRITE;
        }
        if index + 1 < count {
            descriptor.flags |= NEXT;
        }
        if choice >= 0xf0 {
            descriptor.flags ^= u16::from(input.byte());
            descriptor.next = u16::from(input.byte());
        }
        descriptor
    };
    (0..count).map(descriptor).collect()
}
