//! One suite over every device x transport x ring. A new device is one line right below; a new
//! transport or ring is one line in `suite!`, at the end.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../../examples/own_device/lines.rs"]
mod own;

use std::collections::HashSet;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use virtio::Device;
use virtio::block::{Block, MemoryDisk};
use virtio::console::Console;
use virtio::features::{EVENT_IDX, INDIRECT_DESC, RING_PACKED, VERSION_1};
use virtio::net::{Mac, Net, Wire};
use virtio::rng::Rng;
use virtio::stream::{Input, Output};
use virtio::testing::driver::{Driver, Kick, Transport};
use virtio::testing::echo::{ECHO, Echo};
use virtio::testing::ring::Ring;
use virtio::transport::mmio::Mmio;
use virtio::transport::pci::Pci;
use virtio::transport::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};

suite! {
    echo: Case { device: || Box::new(Echo::default()), request: echo_request, answers: ECHO },
    console: Case { device: console_with_silent_input, request: console_request, answers: 1 },
    rng: Case { device: || Box::new(Rng::new()), request: |_| (&[], &[32, 32]), answers: 0 },
    block: Case { device: || Box::new(disk_in_memory()), request: read_of_a_sector, answers: 0 },
    lanes: Case { device: disk_with_four_queues, request: read_of_a_sector, answers: 2 },
    // The one that an embedder could have written.
    lines: Case { device: || Box::new(own::Lines::new(|_| {})), request: console_request, answers: 1 },
    net: Case { device: card_on_a_wire, request: net_request, answers: 1 },
}

/// A device that is at work while another one should not be.
static ANOTHER: Case = Case {
    device: || Box::new(Echo::default()),
    request: echo_request,
    answers: ECHO,
};

/// What the suite has to know about a device.
struct Case {
    device: fn() -> Box<dyn Device>,
    /// A good request for a queue.
    request: fn(u16) -> Request,
    /// The queue that answers requests without anything else happening.
    answers: u16,
}

/// What is readable, and how much is writable.
type Request = (&'static [&'static [u8]], &'static [usize]);

fn echo_request(_queue: u16) -> Request {
    (&[b"what", b" ever"], &[4, 8])
}

fn console_with_silent_input() -> Box<dyn Device> {
    let (input, keyboard) = std::io::pipe().expect("pipe");
    // Nobody types, and nobody hangs up.
    std::mem::forget(keyboard);
    let input = Input::fd(input.into()).expect("console input");
    let output = Output::writer(std::io::sink());
    Box::new(Console::new(Some(input), Some(output)))
}

fn console_request(queue: u16) -> Request {
    match queue {
        1 => (&[b"some text\n"], &[]),
        _ => (&[], &[64]),
    }
}

fn disk_in_memory() -> Block {
    Block::new(MemoryDisk::new(1 << 20).expect("memory disk"))
}

fn disk_with_four_queues() -> Box<dyn Device> {
    Box::new(disk_in_memory().queues(4).expect("four queues"))
}

fn read_of_a_sector(_queue: u16) -> Request {
    (&[&[0; 16]], &[512, 1])
}

fn card_on_a_wire() -> Box<dyn Device> {
    let (wire, other) = Wire::pair().expect("wire");
    // Somebody who never sends, and takes everything.
    let other = UnixDatagram::from(other.into_socket());
    other.set_nonblocking(false).expect("socket");
    std::thread::spawn(move || while other.recv(&mut [0; 64]).is_ok_and(|len| len > 0) {});
    Box::new(Net::new(wire, Mac::of_name("a card")).expect("card"))
}

fn net_request(queue: u16) -> Request {
    match queue {
        0 => (&[], &[2048]),
        1 => (&[&[0; 12], &[0; 60]], &[]),
        _ => (&[&[0, 0, 1]], &[1]),
    }
}

/// A transport that the suite can put a device behind.
trait Subject: Transport + Sized {
    fn driver(device: Box<dyn Device>) -> Driver<Self>;
}

impl Subject for Mmio {
    fn driver(device: Box<dyn Device>) -> Driver<Self> {
        Driver::mmio(device)
    }
}

impl Subject for Pci {
    fn driver(device: Box<dyn Device>) -> Driver<Self> {
        Driver::pci(device)
    }
}

/// One device of the suite behind one transport, with one ring.
struct Bench<T> {
    driver: Driver<T>,
    case: &'static Case,
    ring: u64,
}

impl<T: Subject> Bench<T> {
    fn new(case: &'static Case, ring: u64) -> Self {
        Bench {
            driver: T::driver((case.device)()),
            case,
            ring,
        }
    }

    fn started(case: &'static Case, ring: u64) -> Self {
        let mut bench = Self::new(case, ring);
        bench.driver.start(bench.ring);
        bench
    }

    fn send(&mut self, queue: u16) -> u16 {
        let (readable, writable) = (self.case.request)(queue);
        self.driver.send(queue, readable, writable)
    }

    /// Some requests on each queue.
    fn fill(&mut self) {
        for queue in 0..self.driver.rings.len() as u16 {
            for _ in 0..8 {
                self.send(queue);
            }
        }
    }

    /// The device does its work.
    fn works(&mut self) {
        let id = self.send(self.case.answers);
        let (used, _) = self.driver.receive(self.case.answers);
        assert_eq!(used, id, "the request that was made is answered");
        assert_eq!(self.driver.transport.status() & NEEDS_RESET, 0);
    }

    /// The device does its work after a reset.
    fn works_again(&mut self) {
        self.driver.start(self.ring);
        self.works();
    }

    /// Rings all doorbells and gives a device that should be idle the time to betray that it is
    /// not: another one is at work a hundred times.
    fn tempt(&mut self) {
        for queue in 0..self.driver.rings.len() as u16 {
            self.driver.notify(queue);
            self.driver.transport.notify(queue.into());
        }
        let case = &ANOTHER;
        let mut other = Bench::<T>::started(case, 0);
        (0..100).for_each(|_| other.works());
    }

    /// How many chains of each queue the device has used that the driver has not taken.
    fn used_waiting(&self) -> Vec<u16> {
        self.driver.rings.iter().map(Ring::used_waiting).collect()
    }
}

fn a_request_is_answered<T: Subject>(case: &'static Case, ring: u64) {
    for kick in [Kick::Event, Kick::Register] {
        let mut bench = Bench::<T>::started(case, ring);
        bench.driver.kick = kick;
        for _ in 0..100 {
            bench.works();
        }
    }
}

fn a_reset_hands_back_what_is_in_flight<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::started(case, ring);
    bench.fill();
    bench.driver.transport.set_status(0);
    assert_eq!(bench.driver.transport.status(), 0);
    let used = bench.used_waiting();
    bench.tempt();
    assert_eq!(bench.used_waiting(), used, "nothing is used after a reset");
    bench.works_again();
}

fn a_reset_storm_is_survived<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::new(case, ring);
    for round in 0..300 {
        bench.driver.start(ring);
        bench.fill();
        if round % 3 == 0 {
            bench.driver.receive(case.answers);
        }
        bench.driver.reset();
        bench.driver.reset();
    }
    bench.works_again();
}

fn a_pause_loses_no_chain<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::started(case, ring);
    let mut sent = HashSet::new();
    for _ in 0..10 {
        sent.extend([bench.send(case.answers), bench.send(case.answers)]);
        bench.driver.transport.pause().expect("pause");
        bench.driver.transport.pause().expect("pause once more");
        sent.insert(bench.send(case.answers));
        bench.driver.transport.resume().expect("resume");
    }
    let answered: HashSet<u16> = (0..30)
        .map(|_| bench.driver.receive(case.answers).0)
        .collect();
    assert_eq!(answered, sent);
    bench.works();
}

fn a_paused_device_does_nothing_and_can_be_reset<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::started(case, ring);
    bench.fill();
    bench.driver.transport.pause().expect("pause");
    let (used, interrupts) = (bench.used_waiting(), bench.driver.interrupts());
    bench.fill();
    assert_eq!(
        (bench.used_waiting(), bench.driver.interrupts()),
        (used, interrupts)
    );
    bench.driver.reset();
    bench.driver.transport.resume().expect("resume");
    bench.works_again();
}

fn the_configuration_space_has_an_end<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::started(case, ring);
    let len = (case.device)().spec().config.len() as u64;
    let transport = &mut bench.driver.transport;
    for width in [1, 2, 4, 8] {
        let mut data = vec![0xaa; width];
        for offset in [len, len + 1, len + 0x100, 0xf00 - width as u64] {
            transport.read_config(offset, &mut data);
            assert_eq!(data, vec![0; width], "{width} bytes at {offset:#x}");
            transport.write_config(offset, &vec![0xff; width]);
        }
        transport.read_config(len.saturating_sub(1), &mut data);
        assert_eq!(data[1..], vec![0; width - 1]);
        transport.write_config(len.saturating_sub(1), &vec![0xff; width + 1]);
    }
    bench.works();
}

fn an_unknown_queue_is_ignored<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::new(case, ring);
    assert!(bench.driver.negotiate(ring));
    bench.driver.set_up_queues(256);
    let config = bench.driver.rings[0].config();
    let count = bench.driver.rings.len() as u16;
    for queue in [count, count + 1, 0x7fff, u16::MAX] {
        assert_eq!(bench.driver.transport.queue_max_size(queue), 0);
        bench.driver.transport.set_queue(queue, &config);
        assert!(!bench.driver.transport.enable_queue(queue, true));
    }
    bench.driver.add_status(DRIVER_OK);
    for queue in [count.into(), 0xffff, 0x1_0000, u32::MAX] {
        bench.driver.transport.notify(queue);
    }
    bench.works();
}

fn only_offered_features_are_agreed_on<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::new(case, ring);
    let offered = bench.driver.transport.device_features();
    for bit in 0..64 {
        let features = VERSION_1 | 1 << bit;
        let transport = &mut bench.driver.transport;
        transport.set_status(0);
        transport.set_status(ACKNOWLEDGE);
        transport.set_status(ACKNOWLEDGE | DRIVER);
        transport.set_driver_features(features);
        transport.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        let agreed = transport.status() & FEATURES_OK != 0;
        assert!(
            !agreed || features & !offered == 0,
            "feature {bit} is not offered"
        );
    }
    for features in [0, offered, offered & !VERSION_1] {
        let agreed = bench.driver.negotiate(features);
        assert!(agreed, "{features:#x} and VERSION_1 together are fine");
    }
    bench.works_again();
}

fn enabling_a_queue_twice_is_enabling_it_once<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::new(case, ring);
    assert!(bench.driver.negotiate(ring));
    bench.driver.set_up_queues(256);
    for queue in 0..bench.driver.rings.len() as u16 {
        assert!(bench.driver.transport.enable_queue(queue, true));
    }
    bench.driver.add_status(DRIVER_OK);
    for queue in 0..bench.driver.rings.len() as u16 {
        assert!(bench.driver.transport.enable_queue(queue, true));
    }
    bench.driver.add_status(DRIVER_OK);
    bench.works();
}

fn a_device_without_queues_is_idle<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::new(case, ring);
    assert!(bench.driver.negotiate(ring));
    bench.driver.add_status(DRIVER_OK);
    for queue in 0..4 {
        bench.driver.transport.notify(queue);
    }
    // Whatever the worker had to say it has said before this returns.
    bench.driver.transport.pause().expect("pause");
    assert_eq!(
        bench.driver.transport.status() & (NEEDS_RESET | DRIVER_OK),
        DRIVER_OK
    );
    assert_eq!(bench.driver.machine.failures(), []);
    bench.driver.transport.resume().expect("resume");
    bench.works_again();
}

fn a_notify_before_driver_ok_is_not_served<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::new(case, ring);
    assert!(bench.driver.negotiate(ring));
    bench.driver.set_up_queues(256);
    bench.fill();
    bench.tempt();
    assert_eq!(bench.used_waiting().iter().sum::<u16>(), 0);
    // The chains are not lost, though nobody notifies again.
    bench.driver.add_status(DRIVER_OK);
    for _ in 0..8 {
        bench.driver.receive(case.answers);
    }
    bench.works();
}

fn a_busy_device_can_be_stopped<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::started(case, ring);
    bench.fill();
    bench.driver.transport.stop();
    let used = bench.used_waiting();
    bench.fill();
    bench.tempt();
    bench.driver.transport.stop();
    assert_eq!(bench.used_waiting(), used);
}

fn a_busy_device_can_be_dropped<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::started(case, ring);
    bench.fill();
    let doorbells = bench.driver.transport.doorbells();
    let Driver {
        transport, rings, ..
    } = bench.driver;
    drop(transport);
    let used = || -> Vec<u16> { rings.iter().map(Ring::used_waiting).collect() };
    let before = used();
    for doorbell in doorbells {
        doorbell.event.write(1).expect("doorbell");
    }
    Bench::<T>::started(&ANOTHER, 0).works();
    assert_eq!(used(), before);
}

fn a_corrupt_ring_costs_the_device_until_it_is_reset<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::started(case, ring);
    let before = bench.driver.interrupts();
    let queue = usize::from(case.answers);
    bench.driver.rings[queue].corrupt();
    bench.driver.notify(case.answers);
    bench.driver.wait_for_needs_reset();
    bench.driver.until("a configuration interrupt", |driver| {
        (driver.interrupts().config > before.config).then_some(())
    });
    assert_eq!(bench.driver.transport.acknowledge() & 2, 2);
    bench.driver.transport.pause().expect("pause");
    bench.driver.transport.resume().expect("resume");
    assert_ne!(
        bench.driver.transport.status() & NEEDS_RESET,
        0,
        "a pause is no reset"
    );
    bench.driver.reset();
    assert_eq!(bench.driver.transport.status(), 0);
    bench.works_again();
}

fn a_device_given_up_by_its_driver_is_idle_until_it_is_reset<T: Subject>(
    case: &'static Case,
    ring: u64,
) {
    let mut bench = Bench::<T>::started(case, ring);
    bench.driver.add_status(FAILED);
    let used = bench.used_waiting();
    bench.fill();
    bench.driver.add_status(DRIVER_OK);
    bench.tempt();
    assert_eq!(bench.used_waiting(), used);
    bench.works_again();
}

fn a_notify_storm_is_survived<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::started(case, ring);
    let doorbells = bench.driver.transport.doorbells();
    std::thread::scope(|scope| {
        for doorbell in &doorbells {
            scope.spawn(|| (0..20_000).for_each(|_| doorbell.event.write(1).expect("doorbell")));
        }
        for _ in 0..20 {
            bench.works();
        }
    });
    bench.works();
}

fn a_reset_amid_notifies_of_another_vcpu_is_fine<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::new(case, ring);
    let doorbells = bench.driver.transport.doorbells();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                doorbells
                    .iter()
                    .for_each(|doorbell| doorbell.event.write(1).expect("doorbell"));
                std::thread::yield_now();
            }
        });
        for _ in 0..300 {
            bench.driver.start(ring);
            bench.send(case.answers);
            bench.driver.reset();
        }
        done.store(true, Ordering::Relaxed);
    });
    bench.works_again();
}

fn a_driver_may_change_the_layout_at_each_reset<T: Subject>(case: &'static Case, ring: u64) {
    let mut bench = Bench::<T>::new(case, ring);
    for round in 0..200 {
        bench.ring = ring ^ if round % 2 == 0 { 0 } else { RING_PACKED };
        bench.works_again();
        assert_eq!(
            bench.driver.features() & RING_PACKED,
            bench.ring & RING_PACKED
        );
        bench.fill();
        bench.driver.reset();
    }
}

/// Writes the tests of each device: [`combinations!`] of it.
macro_rules! suite {
    ($($device:ident: $case:expr,)*) => {
        $(mod $device {
            use super::*;
            static CASE: Case = $case;
            combinations! {
                mmio_split: (Mmio, 0),
                mmio_split_event_idx: (Mmio, EVENT_IDX),
                mmio_split_indirect_event_idx: (Mmio, EVENT_IDX | INDIRECT_DESC),
                mmio_packed: (Mmio, RING_PACKED),
                mmio_packed_event_idx: (Mmio, RING_PACKED | EVENT_IDX),
                mmio_packed_indirect_event_idx: (Mmio, RING_PACKED | EVENT_IDX | INDIRECT_DESC),
                pci_split: (Pci, 0),
                pci_split_event_idx: (Pci, EVENT_IDX),
                pci_split_indirect_event_idx: (Pci, EVENT_IDX | INDIRECT_DESC),
                pci_packed: (Pci, RING_PACKED),
                pci_packed_event_idx: (Pci, RING_PACKED | EVENT_IDX),
                pci_packed_indirect_event_idx: (Pci, RING_PACKED | EVENT_IDX | INDIRECT_DESC),
            }
        })*
    };
}
use suite;

/// Writes the tests of one device for each transport and ring.
macro_rules! combinations {
    ($($name:ident: ($transport:ty, $ring:expr),)*) => {
        $(mod $name {
            use super::*;
            tests! { $transport, $ring;
                a_request_is_answered
                a_reset_hands_back_what_is_in_flight
                a_reset_storm_is_survived
                a_pause_loses_no_chain
                a_paused_device_does_nothing_and_can_be_reset
                the_configuration_space_has_an_end
                an_unknown_queue_is_ignored
                only_offered_features_are_agreed_on
                enabling_a_queue_twice_is_enabling_it_once
                a_device_without_queues_is_idle
                a_notify_before_driver_ok_is_not_served
                a_busy_device_can_be_stopped
                a_busy_device_can_be_dropped
                a_corrupt_ring_costs_the_device_until_it_is_reset
                a_device_given_up_by_its_driver_is_idle_until_it_is_reset
                a_notify_storm_is_survived
                a_reset_amid_notifies_of_another_vcpu_is_fine
                a_driver_may_change_the_layout_at_each_reset
            }
        })*
    };
}
use combinations;

macro_rules! tests {
    ($transport:ty, $ring:expr; $($test:ident)*) => {
        $(#[test]
        fn $test() {
            super::super::$test::<$transport>(&CASE, $ring);
        })*
    };
}
use tests;
