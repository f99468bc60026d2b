//! Orders of any kind on the control queue of a card, of which frames come in between: every order is
//! answered, and the card goes on.

#![no_main]

use hype_fuzz::net::Host;
use hype_fuzz::{Input, memory};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use virtio::features::EVENT_IDX;
use virtio::net::{Header, Mac, Net, NetBackend};
use virtio::testing::driver::{Driver, Machine, Transport};
use virtio::transport::status::DRIVER_OK;
use virtio::worker::Mode;

/// Those of either side, without which nobody may leave segments to the other one.
const CHECKSUMS: u64 = 1 << 0 | 1 << 1;
const CTRL_VQ: u64 = 1 << 17;
const MQ: u64 = 1 << 22;
/// As many pairs as the card has.
const PAIRS: u16 = 3;
/// How long the frames are.
const FRAME: usize = 60;
/// So many orders in a run...
const ORDERS: usize = 30;
/// ... find memory for as many buffers. Each run clears it.
static MACHINE: LazyLock<Machine> = LazyLock::new(|| Machine::with_queue_memory(0x1_4000));

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let wanted = input.number(8) & !EVENT_IDX | CHECKSUMS | CTRL_VQ;
    let hosts: [Host; PAIRS as usize] = Default::default();
    let lanes = hosts.iter().cloned();
    let lanes = lanes.map(|host| Box::new(host) as Box<dyn NetBackend>);
    let device = Net::with_lanes(lanes.collect(), Mac::of_name("fuzz")).expect("card");
    memory::clear(&MACHINE.memory);
    let mut driver = Driver::mmio_of(MACHINE.clone(), Box::new(device), Mode::Inline);
    if !driver.negotiate(wanted) {
        // One of them needs another one.
        return;
    }
    driver.set_up_queues(256);
    driver.add_status(DRIVER_OK);
    let has_pairs = driver.features() & MQ != 0;
    let control = if has_pairs { 2 * PAIRS } else { 2 };
    // Whether a receive buffer waits, of each pair: the filter may leave it there.
    let mut waits = [false; PAIRS as usize];
    for _ in 0..ORDERS {
        if input.is_empty() {
            break;
        }
        let (len, choice) = (input.byte(), input.byte());
        let order = input.bytes(len.into());
        let (first, second) = order.split_at(order.len().min(usize::from(choice & 7)));
        let room = usize::from(choice >> 4);
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
            let frame = [order, &[0; FRAME]].concat()[..FRAME].to_vec();
            let mut arriving = host.arriving();
            // One that nobody takes keeps its place.
            arriving.truncate(7);
            arriving.push_back((Header::default(), frame));
            drop(arriving);
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
