//! The driver's side of a network card: frames that come back, and orders.
//!
//! Whoever is behind the card sends each frame back, and others besides ([`super::mirror`]).

use super::rig::{Rig, filled};
use vmm::virtio::testing::ring::{Descriptor, WRITE};

/// What the driver takes, by number (virtio 1.2, 5.1.3).
pub mod feature {
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    pub const GUEST_TSO: u64 = 1 << 7 | 1 << 8 | 1 << 9;
    pub const HOST_TSO: u64 = 1 << 11 | 1 << 12 | 1 << 13;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const CTRL_VQ: u64 = 1 << 17;
    pub const CTRL_RX: u64 = 1 << 18;
    pub const MQ: u64 = 1 << 22;
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
}

/// How much stands before a frame.
pub const HEADER: usize = 12;
/// The header of a frame with which nothing is left to do.
pub const PLAIN: [u8; HEADER] = [0; HEADER];
/// The longest frame: a packet of 64 KiB with Ethernet's header and the tag of a VLAN.
pub const LONGEST: usize = 65_536 + 14 + 4;
/// Room for any frame.
pub const ROOM: usize = LONGEST + HEADER;
/// The same if there are no segments.
pub const SMALL_ROOM: usize = 2048;
/// The largest size of the control queue.
const CONTROL_SIZE: u16 = 64;

/// Where the configuration says how many pairs of queues there are.
const PAIRS: u64 = 8;

/// An order that is always possible: promiscuous mode.
pub const ORDER: [u8; 3] = [0, 0, 1];

impl Rig {
    /// How many queues a card has.
    pub(super) fn card_queues(&self, features: u64) -> u16 {
        match features & feature::MQ {
            0 => 3,
            _ => 2 * self.registers.config().read::<u16>(PAIRS) + 1,
        }
    }

    /// The queue that takes orders: the last one.
    pub fn control(&self) -> u16 {
        self.rings.len() as u16 - 1
    }

    /// How large the control queue may be.
    pub(super) fn control_size(size: u16) -> u16 {
        size.min(CONTROL_SIZE)
    }

    /// A frame that is like no other.
    pub fn frame(&mut self, len: usize) -> Vec<u8> {
        self.serial += 1;
        let mut frame = vec![self.serial as u8; len];
        let number = self.serial.to_be_bytes();
        let addresses = [&[2, 0, 0, 0, 0, 1], &number[2..], &[0x88, 0xb5]].concat();
        let fits = addresses.len().min(len);
        frame[..fits].copy_from_slice(&addresses[..fits]);
        frame
    }

    /// Gives a chain to a transmit queue, and gets it back with nothing written.
    pub fn transmit(&mut self, pair: u16, parts: &[&[u8]]) {
        let queue = 2 * pair + 1;
        let id = self.rings[usize::from(queue)].add(parts, &[]);
        self.registers.notify(queue.into());
        assert_eq!(self.used_of(queue), (id, 0), "what is sent comes back");
    }

    /// Gives a buffer to a receive queue, and tells what comes: a header and a frame.
    pub fn receive(&mut self, pair: u16) -> Vec<u8> {
        let queue = 2 * pair;
        let room = self.room();
        self.rings[usize::from(queue)].add(&[], &[room]);
        self.registers.notify(queue.into());
        let (id, len) = self.used_of(queue);
        self.rings[usize::from(queue)].written(id, len as usize)
    }

    /// Sends a frame in these parts, with its header, and another one behind it. Tells what comes
    /// back of the first one: its header and itself, or nothing.
    pub fn pass(&mut self, pair: u16, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let sent = parts.concat();
        let frame = sent.get(HEADER..).unwrap_or_default();
        self.transmit(pair, parts);
        let next = self.frame(60);
        self.transmit(pair, &[&PLAIN, &next]);
        let mut back = None;
        self.until("a frame to come back", |rig| {
            let received = rig.receive(pair);
            assert!(received.len() > HEADER, "{} bytes", received.len());
            let it = &received[HEADER..];
            let is_over = it == next;
            if it == frame {
                back = Some(received);
            }
            is_over.then_some(())
        });
        back
    }

    /// Gives an order, and tells what is answered where there is room for it.
    pub fn order(&mut self, parts: &[&[u8]], room: &[usize]) -> (Vec<u8>, u32) {
        let queue = self.control();
        let ring = &mut self.rings[usize::from(queue)];
        let id = ring.add(parts, room);
        self.registers.notify(queue.into());
        let (used, len) = self.used_of(queue);
        assert_eq!(used, id);
        let total = room.iter().sum();
        (self.rings[usize::from(queue)].written(id, total), len)
    }

    /// Frames pass both ways, and orders are taken.
    pub(super) fn card_works(&mut self) {
        let frame = self.frame(60);
        self.transmit(0, &[&PLAIN, &frame]);
        self.until("the frame to come back", |rig| {
            let received = rig.receive(0);
            let header = &received[..HEADER];
            assert_eq!(header[..10], PLAIN[..10], "{header:x?}");
            (received[HEADER..] == frame).then_some(())
        });
        assert_eq!(self.order(&[&ORDER], &[1]), (vec![0], 1));
    }

    /// Something good for the queue that is maltreated.
    pub(super) fn card_good(&mut self) -> Vec<Descriptor> {
        let (queue, control, room) = (self.queue(), self.control(), self.room());
        let ring = self.main();
        let mut buffer = |bytes, flags| filled(ring, bytes, flags);
        match queue {
            _ if queue == control => vec![buffer(&ORDER, 0), buffer(&[0xff], WRITE)],
            _ if queue.is_multiple_of(2) => vec![buffer(&vec![0; room], WRITE)],
            _ => vec![buffer(&PLAIN, 0), buffer(&[2; 60], 0)],
        }
    }
}
