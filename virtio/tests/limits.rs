//! A host that has no descriptors left costs the device, not the machine. Alone in its file: the
//! limit is the whole process's.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use virtio::Device;
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
        "preparing to wait for 2 queues"
    );
    driver
        .transport
        .resume()
        .expect("resume, now that there are descriptors");
    driver.send(ECHO, &[b"again"], &[8]);
    assert_eq!(driver.receive(ECHO).1, b"again");
}
