//! Serving requests of a disk allocates nothing, and neither do frames of a network card.

// The helpers of a test may panic like the test itself: that is how it fails.
#![allow(clippy::expect_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use virtio::block::{Block, BlockStorage, MemoryDisk, RawFile};
use virtio::features::RING_PACKED;
use virtio::features::{INDIRECT_DESC, VERSION_1};
use virtio::net::{Mac, Net, Wire};
use virtio::testing::Interrupts;
use virtio::testing::ring::{Ring, ram};
use virtio::{Device, Event, Io, Queue};

/// The system's allocator, with a count for each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is about to end has none any more.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: all is left to the system's allocator, which keeps the rules.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the rules of the trait, which are those of this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations 240 requests make, the first ones of each kind left out.
fn allocations(storage: impl BlockStorage) -> u64 {
    const DISCARD: u64 = 1 << 13;
    let features = VERSION_1 | INDIRECT_DESC | DISCARD;
    let mut device = Block::new(storage);
    let memory = ram(&[(0, 2 << 20)]);
    let mut ring = Ring::split(&memory, 0x1000..2 << 20, 256, 0);
    let queue = Queue::new(&ring.config(), Arc::clone(&memory), features).expect("queue");
    let config = Arc::clone(&device.spec().config);
    let irq = Arc::new(Interrupts::default());
    let mut io = Io::new(memory, features, config, irq, vec![Some(queue)]);
    device.activate(&mut io).expect("activation");

    let header = |kind: u32| [kind.to_le_bytes(), [0; 4], [0; 4], [0; 4]].concat();
    let range = [8u64.to_le_bytes(), 8u64.to_le_bytes()].concat();
    let many = vec![64; 64];
    let mut counts = Vec::new();
    for _ in 0..2 {
        for _ in 0..40 {
            ring.add_indirect(&[&header(0)], &[4096, 1]);
            ring.add_indirect(&[&header(0)], &[many.as_slice(), &[1]].concat());
            ring.add_indirect(&[&header(1), &[7; 4096]], &[1]);
            ring.add_indirect(&[&header(8)], &[20, 1]);
            ring.add_indirect(&[&header(11), &range], &[1]);
            ring.add_indirect(&[&header(99)], &[1]);
        }
        let before = COUNT.get();
        device.handle(Event::Queue(0), &mut io).expect("served");
        counts.push(COUNT.get() - before);
        let served = std::iter::from_fn(|| ring.used()).count();
        assert_eq!(served, 240);
    }
    counts.pop().unwrap_or(u64::MAX)
}

#[test]
fn requests_allocate_nothing() {
    assert_eq!(allocations(MemoryDisk::new(1 << 20).expect("memory")), 0);

    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(&[1; 1 << 20]).expect("write");
    let disk = RawFile::options().open(file.path()).expect("disk");
    assert_eq!(allocations(disk), 0);
}

/// How many allocations some frames make, the first ones left out: sent, and received.
fn allocations_of_frames(layout: u64) -> (u64, u64) {
    const MRG_RXBUF: u64 = 1 << 15;
    const FRAMES: usize = 60;
    let features = VERSION_1 | INDIRECT_DESC | MRG_RXBUF | layout;
    let (wire, host) = Wire::pair().expect("wire");
    let host = UnixDatagram::from(host.into_socket());
    let mut device = Net::new(wire, Mac::of_name("card")).expect("card");
    let memory = ram(&[(0, 8 << 20)]);
    let area = |n: u64| (n << 22).max(0x1000)..(n + 1) << 22;
    let mut rings = [0, 1].map(|n| Ring::new(&memory, area(n), 256, features));
    let queue = |ring: &Ring| {
        Some(Queue::new(&ring.config(), Arc::clone(&memory), features).expect("queue"))
    };
    let queues = rings.iter().map(queue).collect();
    let config = Arc::clone(&device.spec().config);
    let irq = Arc::new(Interrupts::default());
    let mut io = Io::new(memory, features, config, irq, queues);
    device.activate(&mut io).expect("activation");
    let mut counts = (0, 0);
    for _ in 0..2 {
        for _ in 0..FRAMES {
            rings[0].add(&[], &[1536]);
            rings[1].add_indirect(&[&[0; 12], &[2; 14], &[7; 1000]], &[]);
        }
        let before = COUNT.get();
        device.handle(Event::Queue(1), &mut io).expect("sent");
        counts.0 = COUNT.get() - before;
        for _ in 0..FRAMES {
            assert_eq!(host.recv(&mut [0; 2000]).expect("a frame"), 1014);
            host.send(&[2; 1014]).expect("a frame");
        }
        let before = COUNT.get();
        device.handle(Event::Queue(0), &mut io).expect("room");
        // One after the other at first, then many at once.
        for _ in 0..FRAMES {
            device.handle(Event::Fd(0), &mut io).expect("received");
        }
        counts.1 = COUNT.get() - before;
        for ring in &mut rings {
            assert_eq!(std::iter::from_fn(|| ring.used()).count(), FRAMES);
        }
    }
    counts
}

#[test]
fn frames_allocate_nothing() {
    for layout in [0, RING_PACKED] {
        assert_eq!(allocations_of_frames(layout), (0, 0), "layout {layout:#x}");
    }
}
