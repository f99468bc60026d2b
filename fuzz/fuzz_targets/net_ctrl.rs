//! Orders of any kind on the control queue of a card, of which frames come in between: every order is
//! answered, and the card goes on.

#![no_main]

use hype_fuzz::Input;
use hype_fuzz::net::{Card, Host};
use libfuzzer_sys::fuzz_target;
use virtio::Device;
use virtio::features::RING_PACKED;
use virtio::net::{Header, Mac, Net, NetBackend};

const CTRL_VQ: u64 = 1 << 17;
const MQ: u64 = 1 << 22;
/// As many pairs as the card has.
const PAIRS: u16 = 3;
/// How long the frames are.
const FRAME: usize = 60;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mask = input.number(8);
    let hosts: [Host; PAIRS as usize] = Default::default();
    let lanes = hosts.iter().cloned();
    let lanes = lanes.map(|host| Box::new(host) as Box<dyn NetBackend>);
    let device = Net::with_lanes(lanes.collect(), Mac::of_name("fuzz")).expect("card");
    let features = device.spec().features & mask & !RING_PACKED | CTRL_VQ;
    let has_pairs = features & MQ != 0;
    let control = if has_pairs { 2 * PAIRS } else { 2 };
    let mut card = Card::new(device, features, 0..u64::from(2 * PAIRS + 1));
    // Whether a receive buffer waits, of each pair: the filter may leave it there.
    let mut waits = [false; PAIRS as usize];
    while !input.is_empty() {
        let (len, choice) = (input.byte(), input.byte());
        let order = input.bytes(len.into());
        let (first, second) = order.split_at(order.len().min(usize::from(choice & 7)));
        let ring = &mut card.rings[usize::from(control)];
        let id = ring.add(&[first, second], &[usize::from(choice >> 4)]);
        card.notify(control);
        let ring = &mut card.rings[usize::from(control)];
        let (used, len) = ring.used().expect("an answer");
        assert_eq!((used, len), (id, u32::from(choice >> 4 != 0)));
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
                card.rings[2 * pair].add(&[], &[2048]);
            }
            card.notify(2 * pair as u16);
            *waits = card.rings[2 * pair].used().is_none();
        }
    }
    card.reset();
});
