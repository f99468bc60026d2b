//! What a device is: the contract between a device and whoever runs it.
//!
//! ```text
//!            activate                      handle*                    quiesce
//!   idle ---------------> active ------------------------> active ---------------> idle
//!    ^    (DRIVER_OK, or            (Queue | Fd | Config)          (reset, pause,    |
//!    |     resume)                                                  shutdown)        |
//!    +-------------------------------------------------------------------------------+
//! ```
//!
//! A device has no thread and no lock of its own. A [`worker`](crate::worker) owns it while it
//! is active and calls it with one event after the other; the transport owns it otherwise.
//!
//! At the end of the machine, and only then, [`Device::finish`] follows: what the guest has put into
//! a ring for somebody on the host is not lost with it.
//!
//! A device that is to use several processors of the host says how it divides itself: into itself
//! and further [lanes](Lane), each with some of the queues, an [`Io`] of its own, and a thread that
//! makes the same calls. Lanes share what their device gives them, and nothing else.

use crate::{ConfigSpace, Error, Io};
use std::ops::Range;
use std::sync::Arc;

/// The device types of virtio 1.2, chapter 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Network card (5.1).
    Net,
    /// Block device (5.2).
    Block,
    /// Console (5.3).
    Console,
    /// Entropy source (5.4).
    Rng,
    /// Socket device (5.10).
    Vsock,
    /// Another one, by its number: 1 to 63, which is what PCI has room for (4.1.2).
    Other(u8),
}

impl Kind {
    /// The number by which a driver knows it.
    pub const fn id(self) -> u8 {
        match self {
            Kind::Net => 1,
            Kind::Block => 2,
            Kind::Console => 3,
            Kind::Rng => 4,
            Kind::Vsock => 19,
            Kind::Other(id) => id,
        }
    }
}

/// What is fixed about a device before the guest boots.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The device type, as the driver reads it.
    pub kind: Kind,
    /// How messages call this device, as in `console0`.
    pub name: String,
    /// The features offered besides those of the rings and the transport, which offer their own.
    pub features: u64,
    /// The largest size of each queue, a power of two up to 32768.
    pub queues: Vec<u16>,
    /// The configuration space, shared with the transport.
    pub config: Arc<ConfigSpace>,
}

/// Why a device is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The driver rang the doorbell of this queue, or may have.
    Queue(u16),
    /// A descriptor that the device watches under this token is ready.
    Fd(u32),
    /// The driver wrote to the configuration space.
    ConfigWritten,
    /// Another lane of the device has [told](Io::tell_lanes) that what they share has changed.
    Shared,
}

/// A virtio device: a state machine that is called with events.
///
/// # Failure
///
/// What an `Err` costs is decided in one place, the worker: the device, which then shows
/// `DEVICE_NEEDS_RESET` until its driver resets it. A request that is merely bad is answered
/// with the device's own error status, and is not an `Err`.
pub trait Device: Send + 'static {
    /// What is fixed about the device. The same at each call.
    fn spec(&self) -> &Spec;

    /// The driver is ready (`DRIVER_OK`), or the machine goes on after a pause: watch host
    /// descriptors. Called once before the first [`handle`](Self::handle). A worker calls
    /// `handle` with each queue right afterwards, so chains that wait already are not lost.
    fn activate(&mut self, io: &mut Io) -> Result<(), Error>;

    /// Something happened. Does not wait for events of the host: those are watched. It may wait for
    /// the end of host I/O on files, one chain at a time.
    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error>;

    /// The device is about to be idle: complete or fail what is in flight, so that no host I/O
    /// touches guest memory afterwards. Called once, after the last [`handle`](Self::handle).
    fn quiesce(&mut self, io: &mut Io) -> Result<(), Error>;

    /// The machine is over: the driver adds nothing any more, and nobody waits for an answer. What
    /// it has left in the rings of the device itself may be taken once more, by [`Io::drain`],
    /// which takes no more chains than the ring has room for. Called while idle, at most once, and
    /// not for a device that has failed; it does not wait for the host.
    fn finish(&mut self, io: &mut Io) -> Result<(), Error> {
        let _ = io;
        Ok(())
    }

    /// The driver has reset the device: forget what the driver said. Called while idle.
    fn reset(&mut self) {}

    /// The lanes beside the device itself, for a driver that took these features. What they don't
    /// claim is the device's own. Called at `DRIVER_OK`, before the device is activated. A
    /// lane lives until the next reset, pauses included; one of whose queues the driver has enabled
    /// none is dropped at once.
    fn lanes(&self, features: u64) -> Vec<Box<dyn Lane>> {
        let _ = features;
        Vec::new()
    }
}

/// A part of a device: some of its queues, served beside the others. It is called as a [`Device`]
/// is, on a thread of its own, and its [`Io`] has its queues only, under the driver's numbers.
///
/// An `Err` costs the device: all of its lanes stop until the driver resets it. Writes to the
/// configuration space are told to each lane.
pub trait Lane: Send + 'static {
    /// Its queues. Of two lanes that claim the same queue, the first has it.
    fn queues(&self) -> Range<u16>;

    /// Whether it has nothing to do yet, whatever is in its queues. Such a lane costs nothing but
    /// its memory: it is activated, on a thread of its own, once this is false when the device is
    /// activated or another lane [tells](Io::tell_lanes) of a change. A lane that is active stays so.
    fn is_asleep(&self) -> bool {
        false
    }

    /// As [`Device::activate`]. Lanes are activated in no order.
    fn activate(&mut self, io: &mut Io) -> Result<(), Error>;

    /// As [`Device::handle`].
    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error>;

    /// As [`Device::quiesce`]. Other lanes may still be serving.
    fn quiesce(&mut self, io: &mut Io) -> Result<(), Error>;
}

/// How a device interrupts its driver.
pub trait Irq: Send + Sync {
    /// Buffers of queue `queue` were used.
    fn queue(&self, queue: u16);
    /// The configuration space or the device status changed.
    fn config(&self);
}
