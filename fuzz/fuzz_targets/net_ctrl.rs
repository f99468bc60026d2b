//! Orders of any kind on the control queue of a card, of which frames come in between: every order is
//! answered, and the card goes on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use virtio::features::VERSION_1;
use virtio::net::{Mac, Net, NetBackend, Wire};
use virtio::testing::Interrupts;
use virtio::testing::ring::{Ring, ram};
use virtio::{Device, Event, Io, Queue};

/// As many pairs as the card has.
const PAIRS: u16 = 3;

fuzz_target!(|data: &[u8]| {
    let Some((mask, mut data)) = data.split_first_chunk::<8>() else {
        return;
    };
    let wires: Vec<_> = (0..PAIRS).map(|_| Wire::pair().expect("wire")).collect();
    let (lanes, hosts): (Vec<Box<dyn NetBackend>>, Vec<Wire>) = wires
        .into_iter()
        .map(|(one, other)| (Box::new(one) as Box<dyn NetBackend>, other))
        .unzip();
    let hosts: Vec<_> = hosts.into_iter().map(Wire::into_socket).collect();
    let mut device = Net::with_lanes(lanes, Mac::of_name("fuzz")).expect("card");
    let features = device.spec().features & u64::from_le_bytes(*mask) | 1 << 17 | VERSION_1;
    let has_pairs = features & 1 << 22 != 0;
    let control = if has_pairs { 2 * PAIRS } else { 2 };
    let memory = ram(&[(0, 8 << 20)]);
    let area = |n: u64| (n << 20).max(0x1000)..(n + 1) << 20;
    // Whether a receive buffer waits, of each pair: the filter may leave it there.
    let mut waits = [false; PAIRS as usize];
    let mut rings: Vec<_> = (0..u64::from(2 * PAIRS + 1))
        .map(|n| Ring::split(&memory, area(n), 64, 0))
        .collect();
    let queue = |ring: &Ring| {
        Some(Queue::new(&ring.config(), Arc::clone(&memory), features).expect("queue"))
    };
    let queues = rings.iter().map(queue).collect();
    let config = Arc::clone(&device.spec().config);
    let irq = Arc::new(Interrupts::default());
    let mut io = Io::new(Arc::clone(&memory), features, config, irq, queues);
    device.activate(&mut io).expect("activation");
    while let Some((head, rest)) = data.split_first_chunk::<2>() {
        let (order, rest) = rest.split_at(rest.len().min(usize::from(head[0])));
        data = rest;
        let ring = &mut rings[usize::from(control)];
        let cut = order.len().min(usize::from(head[1] & 7));
        let (first, second) = order.split_at(cut);
        let id = ring.add(&[first, second], &[usize::from(head[1] >> 4)]);
        device
            .handle(Event::Queue(control), &mut io)
            .expect("no error");
        let (used, len) = ring.used().expect("an answer");
        assert_eq!((used, len), (id, u32::from(head[1] >> 4 != 0)));
        let answer = ring.written(id, len as usize);
        assert!(matches!(answer.as_slice(), [] | [0 | 1]), "{answer:?}");
        for ((pair, host), waits) in (0..).zip(&hosts).zip(&mut waits) {
            let flags = rustix::net::SendFlags::DONTWAIT;
            let frame = [order, &[0; 60]].concat();
            let _ = rustix::net::send(host, &frame[..60], flags);
            if pair > 0 && !has_pairs {
                // Where its queue would be is the control queue.
                continue;
            }
            if !*waits {
                rings[2 * pair].add(&[], &[2048]);
            }
            let event = Event::Queue(2 * pair as u16);
            device.handle(event, &mut io).expect("no error");
            *waits = rings[2 * pair].used().is_none();
        }
    }
    device.quiesce(&mut io).expect("idle");
    device.reset();
});
