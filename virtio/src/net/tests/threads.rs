//! A card whose pairs have threads, behind a transport.

use super::*;
use crate::testing::{Driver, Transport};
use crate::transport::mmio::Mmio;
use std::time::{Duration, Instant};

const PAIRS: u16 = 3;
const CONTROL: u16 = 2 * PAIRS;

/// A card on wires, and their other ends.
fn card(name: &str) -> (Driver<Mmio>, Vec<Wire>) {
    let wires = (0..PAIRS).map(|_| Wire::pair().unwrap());
    let (ours, others): (Vec<Box<dyn NetBackend>>, Vec<Wire>) = wires
        .map(|(one, other)| (Box::new(one) as _, other))
        .unzip();
    let net = Net::with_lanes(ours, MAC).unwrap().name(name);
    let features = net.spec().features;
    let mut driver = Driver::mmio(Box::new(net));
    driver.start(features);
    (driver, others)
}

/// The threads of this process that serve a device of this name.
fn threads(name: &str) -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let mut names: Vec<String> = names
        .map(|line| line.trim().to_owned())
        .filter(|comm| comm.starts_with(name))
        .collect();
    names.sort();
    names
}

fn use_pairs(driver: &mut Driver<Mmio>, count: u16) {
    let id = driver.send(CONTROL, &[&[4, 0], &count.to_le_bytes()], &[1]);
    assert_eq!(driver.receive(CONTROL), (id, vec![0]));
}

/// A frame each way.
fn pass(driver: &mut Driver<Mmio>, wires: &mut [Wire], pair: u16) {
    let wire = &mut wires[usize::from(pair)];
    let mut bytes = frame(60 + usize::from(pair));
    let len = bytes.len();
    let slices = [VolatileSlice::from(bytes.as_mut_slice())];
    wire.send(&Header::default(), &slices).unwrap();
    driver.send(2 * pair, &[], &[2048]);
    let (_, got) = driver.receive(2 * pair);
    assert_eq!(got[12..], frame(len));
    driver.send(2 * pair + 1, &[&[0; 12], &frame(70)], &[]);
    driver.receive(2 * pair + 1);
    let mut room = [0; 100];
    let room = [VolatileSlice::from(room.as_mut_slice())];
    assert_eq!(wire.receive(&mut Header::default(), &room).unwrap(), 70);
}

#[test]
fn a_pair_has_a_thread_once_the_driver_uses_it() {
    let (mut driver, mut wires) = card("threads-a");
    pass(&mut driver, &mut wires, 0);
    assert_eq!(threads("threads-a"), ["threads-a"]);
    use_pairs(&mut driver, 2);
    pass(&mut driver, &mut wires, 1);
    assert_eq!(threads("threads-a"), ["threads-a", "threads-a/2"]);
    use_pairs(&mut driver, 3);
    (0..PAIRS).for_each(|pair| pass(&mut driver, &mut wires, pair));
    assert_eq!(
        threads("threads-a"),
        ["threads-a", "threads-a/2", "threads-a/4"]
    );
    driver.reset();
    assert!(threads("threads-a").is_empty());
}

#[test]
fn without_multiqueue_there_is_one_thread() {
    let (wire, other) = Wire::pair().unwrap();
    let net = Net::new(wire, MAC).unwrap().name("threads-b");
    let mut driver = Driver::mmio(Box::new(net));
    let features = driver.transport.device_features();
    driver.start(features);
    pass(&mut driver, &mut [other], 0);
    assert_eq!(threads("threads-b"), ["threads-b"]);
}

#[test]
fn orders_pauses_and_resets_amid_traffic_lose_no_pair() {
    let (mut driver, mut wires) = card("threads-c");
    let features = driver.transport.device_features();
    let deadline = Instant::now() + Duration::from_secs(30);
    for round in 0..60 {
        let count = 1 + round % PAIRS;
        use_pairs(&mut driver, count);
        (0..count).for_each(|pair| pass(&mut driver, &mut wires, pair));
        // One that is on its way when the machine pauses.
        let id = driver.send(CONTROL, &[&[4, 0, 3, 0]], &[1]);
        driver.transport.pause().unwrap();
        driver.transport.resume().unwrap();
        assert_eq!(driver.receive(CONTROL), (id, vec![0]));
        (0..PAIRS).for_each(|pair| pass(&mut driver, &mut wires, pair));
        if round % 4 == 3 {
            driver.send(CONTROL, &[&[4, 0, 2, 0]], &[1]);
            driver.start(features);
            pass(&mut driver, &mut wires, 0);
        }
        assert!(Instant::now() < deadline, "round {round}");
    }
    assert_eq!(driver.machine.failures(), []);
}

#[test]
fn a_pair_that_loses_its_host_is_told_in_the_status() {
    let (mut driver, mut wires) = card("threads-d");
    use_pairs(&mut driver, 3);
    let before = driver.interrupts().config;
    for _ in 0..40 {
        driver.send(4, &[], &[2048]);
    }
    wires.pop();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut status = [1];
    while status != [0] {
        assert!(Instant::now() < deadline, "the link stays up");
        driver
            .transport
            .read_config(CONFIG_STATUS as u64, &mut status);
    }
    pass(&mut driver, &mut wires, 0);
    pass(&mut driver, &mut wires, 1);
    assert_eq!(driver.interrupts().config, before + 1);
    use_pairs(&mut driver, 2);
    driver
        .transport
        .read_config(CONFIG_STATUS as u64, &mut status);
    assert_eq!(status, [1]);
}

#[test]
fn a_host_that_does_not_read_never_blocks_the_driver() {
    let (mut driver, mut wires) = card("threads-e");
    let begin = Instant::now();
    for _ in 0..3000 {
        driver.send(1, &[&[0; 12], &frame(1500)], &[]);
        driver.receive(1);
    }
    // It is waited for once.
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let mut room = [0; 2000];
    let room = [VolatileSlice::from(room.as_mut_slice())];
    while wires[0].receive(&mut Header::default(), &room).is_ok() {}
    // It is looked whether the host goes on when it says so, which may take a moment.
    let mut sent = 0;
    while wires[0].receive(&mut Header::default(), &room).is_err() {
        driver.send(1, &[&[0; 12], &frame(70)], &[]);
        driver.receive(1);
        sent += 1;
        assert!(begin.elapsed() < Duration::from_secs(20), "{sent} are lost");
    }
    while wires[0].receive(&mut Header::default(), &room).is_ok() {}
    pass(&mut driver, &mut wires, 0);
}
