//! A driver without manners: it can do all that a driver should, and lets each case do the rest.
//!
//! It has no interrupt, which is the kernel's, so it looks again until something has happened.

use super::alone;
use super::canary::Canary;
use super::card::feature::{GUEST_TSO, MQ};
use super::card::{ROOM, SMALL_ROOM};
use super::target::MEMORY;
use super::transport::{Mmio, Pci, Registers};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};
use vmm::virtio::features::RING_PACKED;
use vmm::virtio::testing::Ring;
use vmm::virtio::testing::ring::{Descriptor, NEXT, WRITE};
use vmm::virtio::transport::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET};
use vmm::virtio::{GuestMemory, Kind};

/// Far more than any device needs. Emulated hosts are slow.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same of a hypervisor that is expected to differ here and there.
const PATIENCE_ALONE: Duration = Duration::from_millis(500);
/// How long to wait between two looks.
const NAP: Duration = Duration::from_micros(100);

/// How much memory each queue has.
pub const QUEUE_MEMORY: u64 = 3 << 20;
/// How many descriptors a queue has, if a case does not care.
pub const SIZE: u16 = 16;

pub const FOUND: u32 = (ACKNOWLEDGE | DRIVER) as u32;
pub const NEGOTIATED: u32 = FOUND | FEATURES_OK as u32;
pub const RUNNING: u32 = NEGOTIATED | DRIVER_OK as u32;

/// The size of the disks here: all of it fits one request.
pub const DISK: usize = 64 << 10;

const VIRTIO_BLK_F_RO: u64 = 1 << 5;

/// A device, and the driver's side of it.
pub struct Rig {
    pub registers: Arc<Registers>,
    pub kind: Kind,
    pub packed: bool,
    pub read_only: bool,
    pub rings: Vec<Ring>,
    /// The features that the device offers.
    offered: u64,
    pub memory: Arc<GuestMemory>,
    /// Where its rings and buffers are.
    pub area: u64,
    pub canary: Rc<Canary>,
    /// The queue that is maltreated.
    target: Option<u16>,
    /// Whether all that a card offers is used: several pairs of queues, and segments, which take
    /// large buffers. Few cases do, for both take time.
    all: bool,
    /// How many frames were made.
    pub serial: u64,
    /// How often things were tried that come out by chance.
    pub rounds: usize,
}

impl Rig {
    pub fn new(registers: Registers, memory: Arc<GuestMemory>, canary: Rc<Canary>) -> Rig {
        let kind = match registers.device_id() {
            1 => Kind::Net,
            2 => Kind::Block,
            3 => Kind::Console,
            4 => Kind::Rng,
            other => panic!("device {other}"),
        };
        let half = |select| u64::from(registers.device_features(select));
        let offered = half(0) | half(1) << 32;
        Rig {
            registers: Arc::new(registers),
            kind,
            packed: false,
            read_only: kind == Kind::Block && offered & VIRTIO_BLK_F_RO != 0,
            rings: Vec::new(),
            offered,
            memory,
            area: MEMORY,
            canary,
            target: None,
            all: false,
            serial: 0,
            rounds: 0,
        }
    }

    pub fn mmio(&self) -> &Mmio {
        self.registers.mmio()
    }

    pub fn pci(&self) -> &Pci {
        self.registers.pci()
    }

    pub fn status(&self) -> u32 {
        self.registers.status()
    }

    pub fn set_status(&self, status: u32) {
        self.registers.set_status(status);
    }

    pub fn reset(&mut self) {
        self.set_status(0);
        self.rings.clear();
    }

    /// Whether the device offers all of these features.
    pub fn offers(&self, features: u64) -> bool {
        self.offered & features == features
    }

    /// What a driver of this ring layout takes.
    pub fn wanted(&self) -> u64 {
        let layout = if self.packed { 0 } else { RING_PACKED };
        let slow = match self.kind {
            Kind::Net if !self.all => MQ | GUEST_TSO,
            _ => 0,
        };
        self.offered & !layout & !slow
    }

    /// Starts again with all that a card offers.
    pub fn start_with_all(&mut self) {
        self.all = true;
        self.start();
    }

    /// How large a buffer is that has room for any frame.
    pub fn room(&self) -> usize {
        if self.all { ROOM } else { SMALL_ROOM }
    }

    pub fn set_features(&self, features: u64) {
        for select in [0, 1] {
            let half = (features >> (32 * select)) as u32;
            self.registers.set_driver_features(select, half);
        }
    }

    /// From a reset to where features are negotiated.
    pub fn find(&mut self) {
        self.reset();
        self.set_status(ACKNOWLEDGE.into());
        self.set_status(FOUND);
        assert_eq!(self.status(), FOUND);
    }

    /// From a reset to `FEATURES_OK`, if the device agrees.
    pub fn offer_features(&mut self, features: u64) -> bool {
        self.find();
        self.set_features(features);
        self.set_status(NEGOTIATED);
        self.status() == NEGOTIATED
    }

    /// From a reset to where queues are set up.
    pub fn negotiate(&mut self, without: u64) {
        let features = self.wanted() & !without;
        assert!(self.offer_features(features), "{features:#x} were refused");
    }

    /// A ring for a queue, of which the device knows nothing yet.
    pub fn ring(&self, queue: u16, size: u16, features: u64) -> Ring {
        let start = self.area + u64::from(queue) * QUEUE_MEMORY;
        Ring::new(&self.memory, start..start + QUEUE_MEMORY, size, features)
    }

    /// Tells the device the size of a queue and where it is.
    pub fn place(&self, queue: u32, size: u32, areas: [u64; 3]) {
        self.registers.set_size(queue, size);
        self.registers.set_areas(queue, areas);
    }

    /// A ring for each queue, enabled.
    pub fn set_up(&mut self, size: u16, without: u64) {
        self.set_up_all_but(None, size, without);
    }

    /// The same without one of the queues.
    pub fn set_up_all_but(&mut self, missing: Option<u16>, size: u16, without: u64) {
        let features = self.wanted() & !without;
        let queues = self.queues(features);
        for queue in 0..queues {
            let is_control = self.kind == Kind::Net && queue + 1 == queues;
            let size = if is_control {
                Rig::control_size(size)
            } else {
                size
            };
            let ring = self.ring(queue, size, features);
            if missing != Some(queue) {
                self.place(queue.into(), size.into(), areas(&ring));
                assert_eq!(self.registers.enable(queue.into(), 1), 1, "queue {queue}");
            }
            self.rings.push(ring);
        }
    }

    /// From a reset to `DRIVER_OK`.
    pub fn start_with(&mut self, size: u16, without: u64) {
        self.negotiate(without);
        self.set_up(size, without);
        self.set_status(RUNNING);
        // It may have found by now what another processor writes to the ring.
        assert_eq!(self.status() & !u32::from(NEEDS_RESET), RUNNING);
    }

    pub fn start(&mut self) {
        self.start_with(SIZE, 0);
    }

    /// How many queues there are if these features are agreed on.
    fn queues(&self, features: u64) -> u16 {
        match self.kind {
            Kind::Console => 2,
            Kind::Net => self.card_queues(features),
            _ => 1,
        }
    }

    /// The queue that is maltreated: the one of requests, or that for output, if a case does not
    /// care.
    pub fn queue(&self) -> u16 {
        let output = matches!(self.kind, Kind::Console | Kind::Net);
        self.target.unwrap_or(output.into())
    }

    /// Whether the device keeps the chains of that queue for later: then none may come twice. A card
    /// keeps buffers for frames, and orders until all pairs follow.
    pub fn keeps_chains(&self) -> bool {
        self.kind == Kind::Net && self.queue().is_multiple_of(2)
    }

    /// Starts again, whatever a case has changed and whatever became of it.
    pub fn start_as_usual(&mut self) {
        self.all = false;
        self.target = None;
        self.reset();
        assert_eq!(self.status(), 0, "status after a reset");
        self.start();
    }

    /// Has another queue maltreated, while `run` lasts.
    pub fn with_queue(&mut self, queue: u16, run: impl FnOnce(&mut Self)) {
        self.target = Some(queue);
        run(self);
        self.target = None;
    }

    /// The ring of that queue.
    pub fn main(&mut self) -> &mut Ring {
        let queue = usize::from(self.queue());
        &mut self.rings[queue]
    }

    pub fn kick(&self) {
        self.registers.notify(self.queue().into());
    }

    /// Makes these descriptors available as they are: in a split ring from descriptor 0 on.
    pub fn offer(&mut self, descriptors: &[Descriptor]) {
        self.write(descriptors);
        self.kick();
    }

    /// The same, without telling the device.
    pub fn write(&mut self, descriptors: &[Descriptor]) {
        let packed = self.packed;
        let ring = self.main();
        if packed {
            return ring.as_packed().push_avail(descriptors);
        }
        for (index, descriptor) in (0..).zip(descriptors) {
            ring.as_split().set_descriptor(index, *descriptor);
        }
        ring.as_split().push_avail(0);
    }

    /// A request that the device has to answer.
    pub fn good(&mut self) -> Vec<Descriptor> {
        let kind = self.kind;
        if kind == Kind::Net {
            return link(self.card_good());
        }
        let ring = self.main();
        let mut buffer = |bytes, flags| filled(ring, bytes, flags);
        link(match kind {
            Kind::Block => vec![
                buffer(&header(8, 0), 0),
                buffer(&[0; 20], WRITE),
                buffer(&[0xff], WRITE),
            ],
            Kind::Console => vec![buffer(b"0123456789abcdef", 0)],
            _ => vec![buffer(&[0; 64], WRITE)],
        })
    }

    /// Waits for the next chain that the device has used: its identifier, and the length.
    pub fn used_of(&mut self, queue: u16) -> (u16, u32) {
        self.until("a used chain", |rig| rig.rings[usize::from(queue)].used())
    }

    pub fn used(&mut self) -> (u16, u32) {
        self.used_of(self.queue())
    }

    /// A GiB or a little more in pieces: a place in memory, over and over.
    pub fn gibibyte(&mut self, pieces: u32, flags: u16) -> Vec<Descriptor> {
        let len = (1u32 << 30).div_ceil(pieces).next_multiple_of(512);
        // What is behind the queue's memory is RAM too, and nothing gets so far.
        let address = self.main().alloc(1 << 20);
        let piece = Descriptor {
            address,
            len,
            flags,
            next: 0,
        };
        vec![piece; pieces as usize]
    }

    /// A request as a driver makes it, and what came back.
    pub fn request(&mut self, readable: &[&[u8]], writable: &[usize]) -> (Vec<u8>, u32) {
        let id = self.main().add(readable, writable);
        self.kick();
        let (used, len) = self.used();
        assert_eq!(used, id);
        let total = writable.iter().sum();
        (self.main().written(id, total), len)
    }

    /// The device answers a request.
    pub fn works(&mut self) {
        let (bytes, len) = match self.kind {
            Kind::Net => {
                self.card_works();
                assert_eq!(self.status(), RUNNING);
                return;
            }
            Kind::Block => self.request(&[&header(8, 0)], &[20, 1]),
            Kind::Console => self.request(&[b"."], &[]),
            _ => self.request(&[], &[16]),
        };
        let expected = [21, 0, 16][match self.kind {
            Kind::Block => 0,
            Kind::Console => 1,
            _ => 2,
        }];
        assert_eq!(len, expected, "the used length of a good request");
        assert!(self.kind != Kind::Block || bytes[20] == 0, "its status");
        assert_eq!(self.status(), RUNNING);
    }

    /// The device takes a chain as it takes a good one.
    pub fn takes(&mut self, chain: &[Descriptor]) {
        self.offer(chain);
        self.used();
        assert_eq!(self.status(), RUNNING);
    }

    /// The device says that it can't go on, and has used nothing since.
    pub fn refuses(&mut self) {
        self.is_broken();
        self.until("an interrupt that says so", |rig| {
            (rig.registers.causes() & 2 != 0).then_some(())
        });
    }

    /// The same of a device that may have said so before.
    pub fn is_broken(&mut self) {
        self.until("NEEDS_RESET", |rig| {
            (rig.status() == RUNNING | u32::from(NEEDS_RESET)).then_some(())
        });
        assert_eq!(self.main().used_waiting(), 0, "used chains");
    }

    /// After a reset all is well.
    pub fn recovers(&mut self) {
        self.start_as_usual();
        self.works();
    }

    /// No byte of the disk was changed.
    pub fn has_kept_the_disk(&mut self) {
        let (bytes, len) = self.request(&[&header(0, 0)], &[DISK, 1]);
        assert_eq!((bytes[DISK], len as usize), (0, DISK + 1));
        assert!(bytes[..DISK] == contents(), "what is on the disk");
    }

    /// Fills 256 bytes of memory.
    pub fn fill(&self, address: u64, byte: u8) {
        let bytes = [byte; 256];
        let address = GuestAddress(address);
        self.memory.write_slice(&bytes, address).unwrap();
    }

    /// Whether they are as they were filled.
    pub fn is_filled(&self, address: u64, byte: u8) -> bool {
        let mut bytes = [!byte; 256];
        let address = GuestAddress(address);
        self.memory.read_slice(&mut bytes, address).unwrap();
        bytes == [byte; 256]
    }

    /// Looks for something until it is there.
    pub fn until<R>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<R>) -> R {
        let patience = if alone() { PATIENCE_ALONE } else { PATIENCE };
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}: status {:#x}",
                self.status()
            );
            thread::sleep(NAP);
        }
    }
}

/// Where the three parts of a ring are.
pub fn areas(ring: &Ring) -> [u64; 3] {
    let config = ring.config();
    [config.desc, config.avail, config.used]
}

/// A buffer with these bytes.
pub fn filled(ring: &mut Ring, bytes: &[u8], flags: u16) -> Descriptor {
    Descriptor {
        address: ring.alloc_bytes(bytes),
        len: bytes.len() as u32,
        flags,
        next: 0,
    }
}

/// Makes a chain: each descriptor is followed by the next one.
pub fn link(mut descriptors: Vec<Descriptor>) -> Vec<Descriptor> {
    let last = descriptors.len() - 1;
    for (index, descriptor) in (1..).zip(&mut descriptors[..last]) {
        descriptor.flags |= NEXT;
        descriptor.next = index;
    }
    descriptors
}

/// The header of a block request.
pub fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

/// What is on the disk: no sector is like another, nor empty.
pub fn contents() -> Vec<u8> {
    (0..DISK)
        .map(|at| (at / 512 + at % 251 + 1) as u8)
        .collect()
}
