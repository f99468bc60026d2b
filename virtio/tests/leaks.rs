//! Resets leave nothing behind. Alone in its file: it counts what the whole process has.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use virtio::testing::driver::Driver;
use virtio::testing::echo::{ECHO, Echo};

/// Descriptors, threads, mappings.
fn resources() -> [usize; 3] {
    let entries = |path| fs::read_dir(path).expect("procfs").count();
    let maps = fs::read_to_string("/proc/self/maps").expect("procfs");
    [
        entries("/proc/self/fd"),
        entries("/proc/self/task"),
        maps.lines().count(),
    ]
}

#[test]
fn a_thousand_resets_with_requests_in_flight_leak_nothing() {
    let mut driver = Driver::mmio(Box::new(Echo::default()));
    let mut cycle = || {
        driver.start(0);
        for _ in 0..10 {
            driver.send(ECHO, &[b"request"], &[8]);
        }
        driver.transport.life().pause().expect("pause");
        driver.transport.life().resume().expect("resume");
        driver.reset();
    };
    // The allocator's own mappings are there after the first ones.
    (0..10).for_each(|_| cycle());
    let [fds, threads, maps] = resources();
    (0..1000).for_each(|_| cycle());
    let after = resources();
    assert_eq!(after[..2], [fds, threads], "descriptors and threads");
    assert!(after[2] <= maps + 4, "{} mappings, {maps} before", after[2]);
}
