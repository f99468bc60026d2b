//! Frames as drivers and hosts make them, without a thread: over sockets whose other end is the test.

mod control;
mod hostile;
mod link;
mod receive;
mod stream;
mod threads;
mod wire;

use super::*;
use crate::Queue;
use crate::features::{INDIRECT_DESC, VERSION_1};
use crate::io::Interest;
use crate::sys;
use crate::testing::{Interrupts, Ring};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vm_memory::VolatileSlice;

const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const HOST_TSO4: u64 = 1 << 11;
const MRG_RXBUF: u64 = 1 << 15;

/// What a driver takes that takes what there is.
const ALL: u64 = !features::MQ;

/// A host side that has headers, as a tap has: they are in front of the frames. A lane that is not
/// in use is detached.
struct Tapped {
    socket: OwnedFd,
    attached: bool,
    told: Arc<std::sync::Mutex<Vec<Offloads>>>,
}

impl NetBackend for Tapped {
    fn properties(&self) -> Properties {
        Properties::new().offloads(Offloads::all()).mtu(1500)
    }

    fn enable(&mut self, enabled: bool) -> std::io::Result<()> {
        self.attached = enabled;
        Ok(())
    }

    fn set_offloads(&mut self, accepted: Offloads) -> std::io::Result<()> {
        if !self.attached {
            return Err(std::io::Error::from_raw_os_error(libc::EBADFD));
        }
        self.told.lock().unwrap().push(accepted);
        Ok(())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn send(&mut self, header: &Header, frame: &[VolatileSlice<'_>]) -> Result<(), Refusal> {
        match sys::send(self.socket.as_fd(), &header.to_bytes(), frame) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(Refusal::Busy),
            Err(error) => match error.raw_os_error() {
                Some(libc::EIO) => Err(Refusal::Down),
                Some(libc::EPIPE) => Err(Refusal::Gone(error)),
                _ => Err(Refusal::Lost(error)),
            },
        }
    }

    fn receive(
        &mut self,
        header: &mut Header,
        room: &[VolatileSlice<'_>],
    ) -> Result<usize, Refusal> {
        let mut bytes = [0; HEADER_LEN];
        let mut rest = [0; 1];
        match sys::read_packet(self.socket.as_fd(), &mut bytes, room, &mut rest) {
            Ok(0) => Err(Refusal::Gone(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(len) => {
                *header = Header::from_bytes(bytes);
                Ok(len.saturating_sub(HEADER_LEN))
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(Refusal::Busy),
            Err(error) => Err(Refusal::Gone(error)),
        }
    }
}

/// A card, its driver, and the test as its host.
struct Bench {
    device: Net,
    io: Io,
    /// Its further lanes, and whether they are active.
    lanes: Vec<(Box<dyn Lane>, Io, bool)>,
    rings: Vec<Ring>,
    irq: Arc<Interrupts>,
    /// The other end of each lane.
    hosts: Vec<OwnedFd>,
    told: Arc<std::sync::Mutex<Vec<Offloads>>>,
    counters: Arc<Counters>,
}

/// No chain.
const NOTHING: [u32; 0] = [];

const RX: u16 = 0;
const TX: u16 = 1;

impl Bench {
    /// A card whose driver takes these of the features that it offers.
    fn new(wanted: u64) -> Self {
        Self::with_lanes(wanted, 1, 256)
    }

    fn with_lanes(wanted: u64, lanes: usize, ring_size: u16) -> Self {
        let told: Arc<std::sync::Mutex<Vec<Offloads>>> = Arc::default();
        let mut hosts = Vec::new();
        let lane = |_| {
            let (one, other) = Wire::pair().unwrap();
            hosts.push(other.into_socket());
            Box::new(Tapped {
                socket: one.into_socket(),
                attached: true,
                told: Arc::clone(&told),
            }) as Box<dyn NetBackend>
        };
        let device = Net::with_lanes((0..lanes).map(lane).collect(), MAC).unwrap();
        Self::over(device, wanted, ring_size, hosts, told)
    }

    /// A card on something else, whose other ends these are.
    fn over(
        device: Net,
        wanted: u64,
        ring_size: u16,
        hosts: Vec<OwnedFd>,
        told: Arc<std::sync::Mutex<Vec<Offloads>>>,
    ) -> Self {
        let offered = device.spec().features | INDIRECT_DESC;
        let features = offered & wanted | VERSION_1;
        let count = device.spec().queues.len() as u64;
        let regions: Vec<_> = (0..count).map(|n| (n * 0x40_0000, 0x40_0000)).collect();
        let memory = crate::testing::ring::ram(&regions);
        let area = |n: u64| n * 0x40_0000 + 0x1000..(n + 1) * 0x40_0000;
        let rings: Vec<_> = (0..count)
            .map(|n| Ring::split(&memory, area(n), ring_size, 0))
            .collect();
        let mut queues: Vec<_> = rings
            .iter()
            .map(|ring| Some(Queue::new(&ring.config(), Arc::clone(&memory), features).unwrap()))
            .collect();
        let irq: Arc<Interrupts> = Arc::default();
        let config = Arc::clone(&device.spec().config);
        let counters = device.counters();
        let io = |queues| {
            let (memory, config) = (Arc::clone(&memory), Arc::clone(&config));
            Io::new(memory, features, config, Arc::clone(&irq) as _, queues)
        };
        let lanes = device.lanes(features).into_iter().map(|lane| {
            let mut own: Vec<_> = queues.iter().map(|_| None).collect();
            for number in lane.queues().map(usize::from) {
                own[number] = queues[number].take();
            }
            (lane, io(own), false)
        });
        let lanes = lanes.collect();
        let mut bench = Bench {
            device,
            io: io(queues),
            lanes,
            rings,
            irq: Arc::clone(&irq),
            hosts,
            told,
            counters,
        };
        bench.device.activate(&mut bench.io).unwrap();
        bench.tell();
        bench
    }

    /// As a worker does when a lane tells the others.
    fn tell(&mut self) {
        for (lane, io, is_active) in &mut self.lanes {
            if *is_active {
                lane.handle(Event::Shared, io).unwrap();
            } else if !lane.is_asleep() {
                lane.activate(io).unwrap();
                *is_active = true;
                for queue in lane.queues() {
                    lane.handle(Event::Queue(queue), io).unwrap();
                }
            }
        }
        self.device.handle(Event::Shared, &mut self.io).unwrap();
    }

    /// Something happens to a pair behind the first.
    fn lane_event(&mut self, pair: usize, event: Event) {
        let (lane, io, is_active) = &mut self.lanes[pair - 1];
        if *is_active {
            lane.handle(event, io).unwrap();
        }
        self.device.handle(Event::Shared, &mut self.io).unwrap();
    }

    /// What the host's descriptor of a pair behind the first is watched for.
    fn lane_interest(&self, pair: usize) -> Option<Interest> {
        self.lanes[pair - 1].1.interest(0)
    }

    fn event(&mut self, event: Event) {
        self.device.handle(event, &mut self.io).unwrap();
    }

    /// The driver gives buffers to receive into.
    fn give(&mut self, count: usize, sizes: &[usize]) {
        for _ in 0..count {
            self.rings[0].add(&[], sizes);
        }
        self.event(Event::Queue(RX));
    }

    /// The driver sends; nothing may come back but the chain.
    fn transmit(&mut self, pieces: &[&[u8]]) {
        let id = self.rings[1].add(pieces, &[]);
        self.event(Event::Queue(TX));
        assert_eq!(self.rings[1].used(), Some((id, 0)));
    }

    /// What the host got, if anything.
    fn sent(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut bytes = vec![0; 70_000];
        let (count, _) = recv(&self.hosts[0], bytes.as_mut_slice(), RecvFlags::DONTWAIT).ok()?;
        bytes.truncate(count);
        let frame = bytes.split_off(HEADER_LEN);
        Some((Header::from_bytes(bytes.try_into().unwrap()), frame))
    }

    /// The host has a frame.
    fn arrive(&mut self, header: Header, frame: &[u8]) {
        let packet = [header.to_bytes().as_slice(), frame].concat();
        send(&self.hosts[0], &packet, SendFlags::DONTWAIT).unwrap();
        self.event(Event::Fd(0));
    }

    /// What the driver got: how much of each chain, and all of it.
    fn received(&mut self) -> (Vec<u32>, Vec<u8>) {
        let (mut lens, mut bytes) = (Vec::new(), Vec::new());
        while let Some((id, len)) = self.rings[0].used() {
            bytes.extend(self.rings[0].written(id, len as usize));
            lens.push(len);
        }
        (lens, bytes)
    }

    /// What the host's descriptor is watched for.
    fn interest(&self) -> Option<Interest> {
        self.io.interest(0)
    }

    fn link_is_up(&self) -> bool {
        let mut status = [0; 2];
        self.device.spec().config.read(6, &mut status);
        status == [1, 0]
    }

    /// Waits for the timer, and has it looked at.
    fn patience_ends(&mut self) {
        std::thread::sleep(pair::PATIENCE * 2);
        self.event(Event::Fd(1));
    }

    /// Frames pass in both directions.
    fn works(&mut self) {
        while self.sent().is_some() {}
        self.transmit(&[&[0; 12], &frame(60)]);
        assert_eq!(self.sent(), Some((Header::default(), frame(60))));
        self.received();
        self.give(48, &[2048]);
        self.received();
        self.arrive(Header::default(), &frame(60));
        assert_eq!(self.received().0, [72]);
    }
}

/// A frame to the card of this length.
fn frame(len: usize) -> Vec<u8> {
    let payload = (0..len.saturating_sub(6)).map(|at| (at * 7 + at / 256) as u8);
    MAC.bytes().into_iter().chain(payload).take(len).collect()
}

/// A header that asks for a checksum and segments.
fn tso4() -> Header {
    Header {
        flags: 1,
        gso_type: 1,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    }
}

#[test]
fn the_configuration_space_has_address_link_pairs_and_mtu() {
    let bench = Bench::with_lanes(ALL, 3, 64);
    let mut bytes = [0; 12];
    bench.device.spec().config.read(0, &mut bytes);
    assert_eq!(bytes, [2, 0, 0, 0, 0, 1, 1, 0, 3, 0, 220, 5]);
}

#[test]
fn what_is_offered_is_what_the_host_side_can_do() {
    let (wire, _other) = Wire::pair().unwrap();
    let plain = Net::new(wire, MAC).unwrap().spec().features;
    assert_eq!(plain & (CSUM | GUEST_CSUM | GUEST_TSO4 | HOST_TSO4), 0);
    assert_eq!(plain & features::MQ, 0, "one pair");
    let offloads = Bench::new(ALL).device.spec().features;
    assert_eq!(features::host_offloads(offloads), Offloads::all());
    assert_eq!(features::guest_offloads(offloads), Offloads::all());
}

#[test]
fn a_card_that_makes_no_sense_is_refused() {
    let wire = || Wire::pair().unwrap().0;
    for bytes in [[0; 6], [1, 0, 0, 0, 0, 1], [0xff; 6]] {
        assert!(Net::new(wire(), Mac::new(bytes)).is_err(), "{bytes:x?}");
    }
    assert!(Net::with_lanes(Vec::new(), MAC).is_err());
    let lanes = |count: usize| -> Vec<Box<dyn NetBackend>> {
        (0..count).map(|_| Box::new(wire()) as _).collect()
    };
    assert!(Net::with_lanes(lanes(MAX_PAIRS), MAC).is_ok());
    assert!(Net::with_lanes(lanes(MAX_PAIRS + 1), MAC).is_err());
    let unlike: Vec<Box<dyn NetBackend>> = vec![Box::new(wire()), Box::new(wire().mtu(9000))];
    assert!(Net::with_lanes(unlike, MAC).is_err());
    for (mtu, good) in [
        (0, false),
        (67, false),
        (68, true),
        (1500, true),
        (1501, false),
    ] {
        assert_eq!(
            Net::new(wire(), MAC).unwrap().mtu(mtu).is_ok(),
            good,
            "{mtu}"
        );
    }
}

#[test]
fn a_frame_is_sent_as_it_is_with_a_clean_header() {
    let mut bench = Bench::new(ALL);
    bench.transmit(&[&tso4().to_bytes(), &frame(4000)]);
    assert_eq!(bench.sent(), Some((tso4(), frame(4000))));

    let noise = Header {
        flags: 0xfe,
        hdr_len: 9,
        csum_start: 7,
        num_buffers: 3,
        ..Header::default()
    };
    bench.transmit(&[&noise.to_bytes(), &frame(60)]);
    assert_eq!(bench.sent(), Some((Header::default(), frame(60))));
    assert_eq!(bench.counters.read().sent, 2);
}

#[test]
fn addresses_are_read_and_written_alike() {
    for text in ["02:00:5e:00:53:01", "02-00-5E-00-53-01"] {
        assert_eq!(
            text.parse::<Mac>().unwrap().to_string(),
            "02:00:5e:00:53:01"
        );
    }
    for (text, error) in [
        ("", MacError::Malformed),
        ("02:00:5e:00:53", MacError::Malformed),
        ("02:00:5e:00:53:01:02", MacError::Malformed),
        ("02:00:5e:00:53:1", MacError::Malformed),
        ("02:00:5e:00:53:+1", MacError::Malformed),
        ("02:00:5e:00:53:0g", MacError::Malformed),
        ("02005e005301", MacError::Malformed),
        ("01:00:5e:00:00:01", MacError::Multicast),
        ("ff:ff:ff:ff:ff:ff", MacError::Multicast),
        ("00:00:00:00:00:00", MacError::Zero),
    ] {
        assert_eq!(text.parse::<Mac>(), Err(error), "{text}");
    }
}

#[test]
fn names_have_addresses_of_their_own_that_stay() {
    assert_eq!(Mac::of_name("vm/0"), Mac::of_name("vm/0"));
    let all: std::collections::HashSet<Mac> = (0..1000)
        .map(|n| Mac::of_name(&format!("vm/{n}")))
        .collect();
    assert_eq!(all.len(), 1000);
    for mac in all.into_iter().chain([Mac::random().unwrap()]) {
        assert_eq!(mac.bytes()[0] & 3, 2, "{mac}: local, of one");
    }
    assert_ne!(Mac::random().unwrap(), Mac::random().unwrap());
}
