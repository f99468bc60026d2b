//! A network card in memory that all runs share, and a host side without a socket.
//!
//! The host side looks as if there were always something to receive and room to send; what it has
//! is what the target gave it.

use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use virtio::features::VERSION_1;
use virtio::net::{Header, NetBackend, Offloads, Properties, Refusal};
use virtio::testing::Interrupts;
use virtio::testing::ring::{Ring, ram};
use virtio::{Device, Event, GuestMemory, Io, Queue};
use vm_memory::VolatileSlice;

/// How much memory there is. It need not be cleared: rings are when they are made, and of buffers
/// nothing is read that was not written before.
const MEMORY: u64 = 8 << 20;
/// How much of it the buffers of a card with one queue may have in all, for none is reused by a
/// larger one.
pub const BUFFERS: usize = 7 << 20;
/// How many descriptors a ring has.
const RING: u16 = 64;

static RAM: LazyLock<Arc<GuestMemory>> = LazyLock::new(|| ram(&[(0, MEMORY as usize)]));
/// Always readable and writable, and nobody hangs up.
static READY: LazyLock<OwnedFd> =
    LazyLock::new(|| eventfd(1, EventfdFlags::CLOEXEC).expect("eventfd"));

/// A frame in front of the card, or behind it.
pub type Frame = (Header, Vec<u8>);

/// The host side of a pair, of which the target has a clone.
#[derive(Clone, Default)]
pub struct Host {
    arriving: Arc<Mutex<VecDeque<Frame>>>,
    sent: Arc<Mutex<Vec<(Header, usize)>>>,
}

impl Host {
    /// What the card will be given.
    pub fn arriving(&self) -> MutexGuard<'_, VecDeque<Frame>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the card has sent since the last call: headers, and how long the frames are.
    pub fn sent(&self) -> Vec<(Header, usize)> {
        std::mem::take(&mut *self.sent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl NetBackend for Host {
    fn properties(&self) -> Properties {
        Properties::new().offloads(Offloads::all())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        READY.as_fd()
    }

    fn send(&mut self, header: &Header, frame: &[VolatileSlice<'_>]) -> Result<(), Refusal> {
        let len = frame.iter().map(VolatileSlice::len).sum();
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.push((*header, len));
        Ok(())
    }

    fn receive(
        &mut self,
        header: &mut Header,
        room: &[VolatileSlice<'_>],
    ) -> Result<usize, Refusal> {
        let frame = self.arriving().pop_front();
        let (given, bytes) = frame.ok_or(Refusal::Busy)?;
        *header = given;
        let mut rest = bytes.as_slice();
        for slice in room {
            let (now, later) = rest.split_at(rest.len().min(slice.len()));
            slice.copy_from(now);
            rest = later;
        }
        Ok(bytes.len())
    }
}

/// A card whose driver is ready.
pub struct Card<D> {
    device: D,
    io: Io,
    /// One for each queue.
    pub rings: Vec<Ring>,
}

impl<D: Device> Card<D> {
    /// Activates a device for a driver that takes these features. Only the queues of these numbers
    /// are there.
    pub fn new(mut device: D, features: u64, queues: std::ops::Range<u64>) -> Card<D> {
        let features = features | VERSION_1;
        let span = (MEMORY - 0x1000) / (queues.end - queues.start);
        let start = |number| 0x1000 + number * span;
        let rings: Vec<_> = (0..queues.end - queues.start)
            .map(|number| Ring::new(&RAM, start(number)..start(number + 1), RING, features))
            .collect();
        let there = rings.iter().map(|ring| {
            let queue = Queue::new(&ring.config(), Arc::clone(&RAM), features);
            Some(queue.expect("a good place"))
        });
        let absent = (0..queues.start).map(|_| None);
        let queues = absent.chain(there).collect();
        let config = Arc::clone(&device.spec().config);
        let irq = Arc::new(Interrupts::default());
        let mut io = Io::new(Arc::clone(&RAM), features, config, irq, queues);
        device.activate(&mut io).expect("activation");
        Card { device, io, rings }
    }

    /// The driver rings.
    pub fn notify(&mut self, queue: u16) {
        let event = Event::Queue(queue);
        self.device.handle(event, &mut self.io).expect("no error");
    }

    /// The driver is gone.
    pub fn reset(mut self) {
        self.device.quiesce(&mut self.io).expect("idle");
        self.device.reset();
    }
}
