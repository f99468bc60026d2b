//! Resets leave nothing behind. Alone in its file: it counts what the whole process has.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use virtio::block::{Block, BlockStorage, MemoryDisk, Properties};
use virtio::features::INDIRECT_DESC;
use virtio::testing::driver::Driver;
use virtio::testing::echo::{ECHO, Echo};
use virtio::transport::mmio::Mmio;
use vm_memory::VolatileSlice;

const ROUNDS: usize = 1000;

/// A disk that takes its time, and knows how many calls it is in.
struct Slow {
    disk: MemoryDisk,
    calls: Arc<AtomicUsize>,
}

impl BlockStorage for Slow {
    fn properties(&self) -> Properties {
        self.disk.properties()
    }

    fn read_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_micros(300));
        let result = self.disk.read_vectored_at(buffers, offset);
        self.calls.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn write_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        self.disk.write_vectored_at(buffers, offset)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Descriptors, threads, mappings, and KiB of memory in use.
fn resources() -> [usize; 4] {
    let entries = |path| fs::read_dir(path).expect("procfs").count();
    let maps = fs::read_to_string("/proc/self/maps").expect("procfs");
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|line| line.split_whitespace().next());
    [
        entries("/proc/self/fd"),
        entries("/proc/self/task"),
        maps.lines().count(),
        resident.expect("VmRSS").parse().expect("a number"),
    ]
}

/// Goes through a thousand rounds, and compares.
fn leaves_nothing_behind(what: &str, mut round: impl FnMut()) {
    // The allocator's own mappings are there after the first ones.
    (0..20).for_each(|_| round());
    let [fds, threads, maps, resident] = resources();
    (0..ROUNDS).for_each(|_| round());
    let after = resources();
    assert_eq!(
        after[..2],
        [fds, threads],
        "descriptors and threads, {what}"
    );
    assert!(
        after[2] <= maps + 4,
        "{} mappings, {maps} before, {what}",
        after[2]
    );
    let grown = after[3].saturating_sub(resident);
    assert!(grown < 1024, "{grown} KiB more, {what}");
}

fn pauses_and_resets(driver: &mut Driver<Mmio>) {
    driver.start(0);
    for _ in 0..10 {
        driver.send(ECHO, &[b"request"], &[8]);
    }
    driver.transport.life().pause().expect("pause");
    driver.transport.life().resume().expect("resume");
    driver.reset();
}

/// A reset with 100 reads in flight. When it is over, the host has nothing to do with them.
fn reset_in_flight(driver: &mut Driver<Mmio>, calls: &AtomicUsize) {
    driver.start(INDIRECT_DESC);
    for _ in 0..100 {
        driver.send(0, &[&[0; 16]], &[512, 1]);
    }
    while calls.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    driver.reset();
    assert_eq!(calls.load(Ordering::SeqCst), 0, "calls after a reset");
}

#[test]
fn a_thousand_resets_with_requests_in_flight_leak_nothing() {
    let mut echo = Driver::mmio(Box::new(Echo::default()));
    leaves_nothing_behind("pauses and resets", || pauses_and_resets(&mut echo));

    let calls = Arc::new(AtomicUsize::new(0));
    let disk = MemoryDisk::new(1 << 20).expect("memory");
    let slow = Slow {
        disk,
        calls: Arc::clone(&calls),
    };
    let mut disk = Driver::mmio(Box::new(Block::new(slow)));
    leaves_nothing_behind("resets of a slow disk", || {
        reset_in_flight(&mut disk, &calls)
    });
}
