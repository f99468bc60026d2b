//! A packed ring whose driver wrote whatever it liked.
//!
//! The input is the guest: first a few choices, then the ring as it lies in memory, then the
//! memory that its buffers are likely to point at. While chains are served, the input goes on
//! to change the ring under the device's hands, as another vCPU would.
//!
//! What must hold: nothing panics and nothing outside of RAM is touched (the sanitizer sees to
//! that); one drain gives at most as many chains as the queue has descriptors; a chain is as long
//! as its parts, and that fits 32 bits; what is in flight is what was kept, and it never has more
//! descriptors than there are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Read;
use std::sync::{Arc, LazyLock};
use virtio::GuestMemory;
use virtio::features::RING_PACKED;
use virtio::queue::{Chain, Queue, QueueConfig, QueueError, Step, Token};
use virtio::testing::ring::ram;
use vm_memory::{Bytes, GuestAddress};

/// Where the ring is; the rest of RAM follows it.
const RING: u64 = 0x1000;
/// The largest queue, whose descriptors come first; the two areas follow them.
const MAX_SIZE: u16 = 33;
const DRIVER: u64 = RING + 16 * MAX_SIZE as u64;
const DEVICE: u64 = DRIVER + 4;
const RING_LEN: usize = (DEVICE + 4 - RING) as usize;
/// Two regions that touch, and a third behind a hole.
const REGIONS: [(u64, usize); 3] = [(0, 0x2000), (0x2000, 0x1000), (0x4000, 0x1000)];

static MEMORY: LazyLock<Arc<GuestMemory>> = LazyLock::new(|| ram(&REGIONS));

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices(input);
    let memory = &*MEMORY;
    for (start, len) in REGIONS {
        memory
            .write_slice(&vec![0; len], GuestAddress(start))
            .expect("RAM");
    }
    let features = RING_PACKED | u64::from(choices.byte() & 3) << 28;
    let config = QueueConfig {
        max_size: MAX_SIZE,
        size: 1 + u16::from(choices.byte()) % MAX_SIZE,
        ready: true,
        desc: RING,
        avail: DRIVER,
        used: DEVICE,
    };
    let mut queue = Queue::new(&config, Arc::clone(memory), features).expect("a good place");
    let ring = choices.bytes(RING_LEN);
    memory.write_slice(ring, GuestAddress(RING)).expect("RAM");
    // A ring that is corrupt ends the run, as it ends its device.
    let _ = drive(&mut queue, memory, &mut choices);
});

fn drive(
    queue: &mut Queue,
    memory: &GuestMemory,
    choices: &mut Choices<'_>,
) -> Result<(), QueueError> {
    // What the device has kept for later.
    let mut kept = Vec::new();
    while !choices.is_empty() {
        let mut chains = 0;
        let drained = queue.drain(|chain| {
            chains += 1;
            serve(chain, memory, choices, &mut kept)
        });
        assert!(
            chains <= usize::from(queue.size()),
            "{chains} chains in one drain"
        );
        let drained = drained?;
        assert!(!drained.interrupt || chains > 0, "an interrupt for nothing");
        assert_eq!(usize::from(queue.in_flight()), kept.len());
        assert!(queue.in_flight() <= queue.size(), "more than there are");
        for _ in 0..choices.byte() % 4 {
            if !kept.is_empty() {
                let any = usize::from(choices.byte()) % kept.len();
                let (token, written) = kept.swap_remove(any);
                queue.complete(token, written)?;
            }
        }
        choices.scribble(memory, queue.size());
    }
    Ok(())
}

fn serve(
    chain: &mut Chain<'_>,
    memory: &GuestMemory,
    choices: &mut Choices<'_>,
    kept: &mut Vec<(Token, u32)>,
) -> Result<Step, QueueError> {
    let (readable, writable) = (chain.readable_len(), chain.writable_len());
    assert!(readable.checked_add(writable).is_some());
    let length = |lengths: &mut dyn Iterator<Item = usize>| lengths.sum::<usize>();
    assert_eq!(
        length(&mut chain.reader().slices().map(|slice| slice.len())),
        readable as usize
    );
    assert_eq!(
        length(&mut chain.writer().slices().map(|slice| slice.len())),
        writable as usize
    );

    choices.scribble(memory, MAX_SIZE);
    let mut bytes = vec![0; usize::from(choices.byte())];
    let read = chain.reader().read(&mut bytes).expect("reading memory");
    assert_eq!(read, bytes.len().min(readable as usize));
    let fits = bytes.len() <= writable as usize;
    assert_eq!(chain.writer().write_all(&bytes).is_ok(), fits);
    assert_eq!(chain.written() as usize, if fits { bytes.len() } else { 0 });

    Ok(match choices.byte() % 8 {
        0 => Step::Stop,
        1..=3 => {
            kept.push((chain.token(), chain.written()));
            Step::Later
        }
        _ => Step::Done(chain.written()),
    })
}

/// The input, taken from its start. Where it ends, everything is 0.
struct Choices<'i>(&'i [u8]);

impl<'i> Choices<'i> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn bytes(&mut self, count: usize) -> &'i [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// Flips whose a descriptor is, makes some available in either round, changes a few bytes of
    /// the ring, or does nothing.
    fn scribble(&mut self, memory: &GuestMemory, size: u16) {
        match self.byte() % 5 {
            0 => {
                let slot = u64::from(u16::from(self.byte()) % size);
                let flags = GuestAddress(RING + 16 * slot + 14);
                let old: u16 = memory.read_obj(flags).expect("RAM");
                memory.write_obj(old ^ 0x8080, flags).expect("RAM");
            }
            1 => {
                let round = if self.byte() % 2 == 0 { 0x80 } else { 0x8000 };
                let from = u64::from(self.byte() % 33);
                for slot in from..u64::from(size) {
                    let flags = GuestAddress(RING + 16 * slot + 14);
                    let old: u16 = memory.read_obj(flags).expect("RAM");
                    memory.write_obj(old & !0x8080 | round, flags).expect("RAM");
                }
            }
            2 => {
                let place = u64::from(u16::from_le_bytes([self.byte(), self.byte()]));
                let count = usize::from(self.byte() % 8);
                let bytes = self.bytes(count);
                memory
                    .write_slice(bytes, GuestAddress(RING + place % RING_LEN as u64))
                    .expect("RAM");
            }
            _ => {}
        }
    }
}
