//! Orders of any kind on the control queue of a card, of which frames come in between: every order is
//! answered, and the card goes on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rustix::net::{SendFlags, send};
use std::sync::LazyLock;
use virtio::features::EVENT_IDX;
use virtio::net::{Mac, Net, NetBackend, Wire};
use virtio::testing::driver::{Driver, Machine, Transport};
use virtio::worker::Mode;

/// As many pairs as the card has.
const PAIRS: u16 = 3;
/// So many orders in a run...
const ORDERS: usize = 30;
/// ... find memory for as many buffers. Each run clears it.
static MACHINE: LazyLock<Machine> = LazyLock::new(|| Machine::with_queue_memory(0x1_4000));

const CTRL_VQ: u64 = 1 << 17;
const MQ: u64 = 1 << 22;

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
    let device = Net::with_lanes(lanes, Mac::of_name("fuzz")).expect("card");
    let wanted = u64::from_le_bytes(*mask) & !EVENT_IDX | CTRL_VQ;
    hype_fuzz::memory::clear(&MACHINE.memory);
    let mut driver = Driver::mmio_of(MACHINE.clone(), Box::new(device), Mode::Inline);
    driver.start(wanted);
    let has_pairs = driver.features() & MQ != 0;
    let control = if has_pairs { 2 * PAIRS } else { 2 };
    // Whether a receive buffer waits, of each pair: the filter may leave it there.
    let mut waits = [false; PAIRS as usize];
    for _ in 0..ORDERS {
        let Some((head, rest)) = data.split_first_chunk::<2>() else {
            break;
        };
        let (order, rest) = rest.split_at(rest.len().min(usize::from(head[0])));
        data = rest;
        let cut = order.len().min(usize::from(head[1] & 7));
        let (first, second) = order.split_at(cut);
        let room = usize::from(head[1] >> 4);
        let id = driver.send(control, &[first, second], &[room]);
        // The pairs follow in the first turn, and the answer comes in the second.
        driver.transport.turn();
        driver.transport.turn();
        let ring = &mut driver.rings[usize::from(control)];
        let (used, len) = ring.used().expect("an answer");
        assert_eq!((used, len), (id, u32::from(room != 0)));
        let answer = ring.written(id, len as usize);
        assert!(matches!(answer.as_slice(), [] | [0 | 1]), "{answer:?}");
        for ((pair, host), waits) in (0..).zip(&hosts).zip(&mut waits) {
            let frame = [order, &[0; 60]].concat();
            let _ = send(host, &frame[..60], SendFlags::DONTWAIT);
            if pair > 0 && !has_pairs {
                // Where its queue would be is the control queue.
                continue;
            }
            if !*waits {
                driver.send(2 * pair, &[], &[2048]);
            }
            driver.transport.turn();
            *waits = driver.rings[usize::from(2 * pair)].used().is_none();
        }
    }
    driver.transport.stop();
    assert_eq!(driver.machine.failures(), []);
});
