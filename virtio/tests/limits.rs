//! A host that has no descriptors or threads left costs the device, not the machine. One test, alone
//! in its file: the limits are the whole process's.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use virtio::Device;
use virtio::block::{Block, MemoryDisk};
use virtio::net::{Mac, Net, NetBackend, Wire};
use virtio::testing::driver::{Driver, Machine, Transport};
use virtio::testing::echo::{ECHO, Echo};
use virtio::transport::mmio::Mmio;
use virtio::transport::status::NEEDS_RESET;

/// With no descriptor beyond those that are open.
fn exhausted<R>(code: impl FnOnce() -> R) -> R {
    let limit = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        ..limit
    };
    setrlimit(Resource::Nofile, none).expect("lower the limit");
    let result = code();
    setrlimit(Resource::Nofile, limit).expect("restore the limit");
    result
}

#[test]
fn without_descriptors_or_threads_a_device_fails_and_works_again_with_them() {
    without_descriptors_a_device_fails_and_works_again_with_them();
    without_a_second_thread_no_lane_begins_and_all_do_with_them();
    without_a_second_thread_a_card_keeps_the_pairs_that_it_has();
}

fn without_descriptors_a_device_fails_and_works_again_with_them() {
    let machine = Machine::default();
    let refused = exhausted(|| Mmio::new(Box::new(Echo::default()), machine.environment()));
    let error = refused.err().expect("no doorbells without descriptors");
    assert_eq!(error.to_string(), "setting up echo0");

    let mut driver = Driver::mmio(Box::new(Echo::default()) as Box<dyn Device>);
    exhausted(|| driver.start(0));
    assert_ne!(driver.transport.status() & NEEDS_RESET, 0);

    driver.start(0);
    assert_eq!(driver.transport.status() & NEEDS_RESET, 0);
    driver.send(ECHO, &[b"hello"], &[8]);
    assert_eq!(driver.receive(ECHO).1, b"hello");

    driver.transport.pause().expect("pause");
    let refused = exhausted(|| driver.transport.resume());
    assert_eq!(
        refused.expect_err("no epoll").to_string(),
        "preparing to wait for the queues of echo0"
    );
    driver
        .transport
        .resume()
        .expect("resume, now that there are descriptors");
    driver.send(ECHO, &[b"again"], &[8]);
    assert_eq!(driver.receive(ECHO).1, b"again");
}

/// With room for the stack of one more thread, and not of two.
fn with_one_thread<R>(code: impl FnOnce() -> R) -> R {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let size = size.and_then(|size| size.trim().strip_suffix(" kB"));
    let size: u64 = size.and_then(|size| size.parse().ok()).expect("a size");
    let limit = getrlimit(Resource::As);
    let tight = Rlimit {
        current: Some((size << 10) + (7 << 19)),
        ..limit
    };
    setrlimit(Resource::As, tight).expect("lower the limit");
    let result = code();
    setrlimit(Resource::As, limit).expect("restore the limit");
    result
}

fn without_a_second_thread_no_lane_begins_and_all_do_with_them() {
    let disk = MemoryDisk::new(1 << 20).expect("memory disk");
    let disk = Block::new(disk).queues(4).expect("four queues");
    let mut driver = Driver::mmio(Box::new(disk));
    with_one_thread(|| driver.start(0));
    assert_ne!(driver.transport.status() & NEEDS_RESET, 0);
    let mut of_one_lane = Driver::mmio(Box::new(Echo::default()));
    with_one_thread(|| of_one_lane.start(0));
    assert_eq!(of_one_lane.transport.status() & NEEDS_RESET, 0);
    drop(of_one_lane);

    driver.start(0);
    assert_eq!(driver.transport.status() & NEEDS_RESET, 0);
    let works = |driver: &mut Driver<Mmio>| {
        for queue in 0..4 {
            let id = driver.send(queue, &[&[0; 16]], &[512, 1]);
            assert_eq!(driver.receive(queue).0, id);
        }
    };
    works(&mut driver);

    driver.transport.pause().expect("pause");
    let refused = with_one_thread(|| driver.transport.resume());
    let refused = refused.expect_err("no second thread").to_string();
    assert_eq!(refused, "starting a thread");
    driver.transport.resume().expect("resume, now with threads");
    works(&mut driver);
}

fn without_a_second_thread_a_card_keeps_the_pairs_that_it_has() {
    let (ours, _others): (Vec<Box<dyn NetBackend>>, Vec<Wire>) = (0..3)
        .map(|_| Wire::pair().expect("wire"))
        .map(|(one, other)| (Box::new(one) as _, other))
        .unzip();
    let net = Net::with_lanes(ours, Mac::of_name("card")).expect("card");
    let features = net.spec().features;
    let mut driver = Driver::mmio(Box::new(net));
    driver.start(features);
    let use_pairs = |driver: &mut Driver<Mmio>, count: u8| {
        driver.send(6, &[&[4, 0, count, 0]], &[1]);
        driver.receive(6).1
    };
    let sends = |driver: &mut Driver<Mmio>, pair: u16| {
        let id = driver.send(2 * pair + 1, &[&[0; 12], &[0; 60]], &[]);
        assert_eq!(driver.receive(2 * pair + 1).0, id);
    };
    // Two would be needed.
    assert_eq!(with_one_thread(|| use_pairs(&mut driver, 3)), [1]);
    sends(&mut driver, 0);
    assert_eq!(with_one_thread(|| use_pairs(&mut driver, 2)), [0]);
    sends(&mut driver, 1);
    assert_eq!(use_pairs(&mut driver, 3), [0]);
    (0..3).for_each(|pair| sends(&mut driver, pair));
    assert_eq!(driver.transport.status() & NEEDS_RESET, 0);
}
