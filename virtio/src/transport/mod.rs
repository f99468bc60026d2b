//! What all transports have in common: the device status, feature negotiation, queue set-up,
//! reset, and handing the device to its worker (virtio 1.2, chapters 2 and 3).
//!
//! A transport decodes registers ([`mmio`], [`pci`]) and calls [`Core`], which knows no register
//! and no offset. The rules of the specification are here once, and every value comes from the guest:
//! what isn't allowed is ignored, and the driver sees that when it reads back.
//!
//! Who has the device when, and how it is stopped, is in [`Life`].
//!
//! Doorbells are event descriptors that whoever has the hypervisor binds to the notify register
//! (ioeventfd); [`Core::notify`] is for notifies that come as register writes all the same.
//!
//! Not here: resetting single queues (`VIRTIO_F_RING_RESET` isn't offered), and taking a queue
//! out of service while the device is active, which needs that feature.

mod front;
mod life;
pub mod mmio;
mod negotiation;
pub mod pci;
pub mod status;
#[cfg(test)]
mod tests;

pub use life::Life;
pub use negotiation::Rings;

use crate::device::{Kind, Spec};
use crate::queue::QueueConfig;
use crate::worker::{Failed, Link, Mode, ring};
use crate::{Device, Error, GuestMemory, Io, Irq, Queue};
use status::{DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};
use std::io;
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// What a device is put into.
#[derive(Clone)]
pub struct Environment {
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// How the device interrupts its driver, unless its transport knows better.
    pub irq: Arc<dyn Irq>,
    /// The ring layouts that its driver may choose from.
    pub rings: Rings,
    /// Told the device's name and what is wrong when the machine has to end because of it.
    pub failed: Failed,
}

/// Where notifies of a queue arrive, and what they signal.
#[derive(Debug, Clone)]
pub struct Doorbell {
    /// The offset of the register in the transport's window.
    pub offset: u64,
    /// The queue. Where queues share an offset, it is the value that the driver writes there.
    pub queue: u16,
    /// What a notify signals.
    pub event: Arc<EventFd>,
}

/// A device as its driver sees it, but for the registers.
pub struct Core {
    spec: Spec,
    memory: Arc<GuestMemory>,
    link: Arc<Link>,
    rings: Rings,
    driver_features: u64,
    /// What the driver wrote; `NEEDS_RESET` is the link's.
    status: u8,
    queues: Vec<QueueConfig>,
    life: Life,
}

impl Core {
    /// Puts a device into its environment.
    pub fn new(device: Box<dyn Device>, environment: Environment) -> Result<Self, Error> {
        Self::with_mode(device, environment, Mode::Thread)
    }

    /// The same, with a choice of where the device runs.
    pub fn with_mode(
        device: Box<dyn Device>,
        environment: Environment,
        mode: Mode,
    ) -> Result<Self, Error> {
        let spec = device.spec().clone();
        let Environment {
            memory,
            irq,
            rings,
            failed,
        } = environment;
        let host = |source| Error::Host {
            what: format!("setting up {}", spec.name),
            source,
        };
        check(&spec).map_err(|rule| host(io::Error::new(io::ErrorKind::InvalidInput, rule)))?;
        let link = Link::new(&spec.name, spec.queues.len(), irq, failed).map_err(host)?;
        let link = Arc::new(link);
        let queues = fresh(&spec);
        Ok(Core {
            spec,
            memory,
            life: Life::new(device, &link, mode),
            link,
            rings,
            driver_features: 0,
            status: 0,
            queues,
        })
    }

    /// What is fixed about the device.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The device type.
    pub fn kind(&self) -> Kind {
        self.spec.kind
    }

    /// How far the device has come, and what the machine does with it.
    pub fn life(&mut self) -> &mut Life {
        &mut self.life
    }

    /// The event that a notify of each queue signals.
    pub fn doorbells(&self) -> &[Arc<EventFd>] {
        self.link.doorbells()
    }

    /// 32 bits of the offered features; there are none beyond the 64th.
    pub fn device_features(&self, select: u32) -> u32 {
        half(self.offered(), select)
    }

    /// 32 bits of the features that the driver took.
    pub fn driver_features(&self, select: u32) -> u32 {
        half(self.driver_features, select)
    }

    /// Takes 32 bits of the driver's features, until it has said `FEATURES_OK`.
    pub fn set_driver_features(&mut self, select: u32, value: u32) {
        if self.status & (FEATURES_OK | FAILED) == 0 {
            set_half(&mut self.driver_features, select, value);
        }
    }

    /// The device status (2.1).
    pub fn status(&self) -> u8 {
        let needs_reset = if self.link.needs_reset() {
            NEEDS_RESET
        } else {
            0
        };
        self.status | needs_reset
    }

    /// Takes a status that the driver wrote, if it may write that now. Writing 0 resets the
    /// device: it is idle, and untouched by what the driver said, when this returns.
    pub fn set_status(&mut self, value: u32) {
        // A driver that adds a bit writes back the device's own bit too.
        let ours = u32::from(self.status() & NEEDS_RESET);
        let Ok(to) = u8::try_from(value & !ours) else {
            return;
        };
        if value == 0 {
            return self.reset();
        }
        if !status::allowed(self.status, to) {
            return;
        }
        let set = to & !self.status;
        if set & FEATURES_OK != 0 {
            let (kind, taken) = (self.spec.kind, self.driver_features);
            if !negotiation::acceptable(kind, self.rings, self.offered(), taken) {
                return;
            }
        }
        self.status = to;
        if set & DRIVER_OK != 0 {
            self.start();
        }
        if set & FAILED != 0 {
            self.life.idle();
        }
    }

    /// How a queue is set up, if the device has it.
    pub fn queue(&self, index: u32) -> Option<&QueueConfig> {
        self.queues.get(usize::try_from(index).ok()?)
    }

    /// Takes a size, if the queue may have it and isn't in use.
    pub fn set_queue_size(&mut self, index: u32, size: u32) {
        let features = self.driver_features;
        if let Some(queue) = self.settable(index)
            && let Ok(size) = u16::try_from(size)
            && Queue::is_size(size, features)
            && size <= queue.max_size
        {
            queue.size = size;
        }
    }

    /// Changes the addresses of a queue that isn't in use. They are checked when it is enabled.
    pub fn set_queue_addresses(&mut self, index: u32, change: impl FnOnce(&mut Addresses<'_>)) {
        if let Some(QueueConfig {
            desc, avail, used, ..
        }) = self.settable(index)
        {
            change(&mut Addresses { desc, avail, used });
        }
    }

    /// Enables a queue (1), if it can be used as it is set up, or takes it back (0), until
    /// `DRIVER_OK`. Refusal is seen by reading back.
    pub fn set_queue_ready(&mut self, index: u32, value: u32) {
        let features = self.driver_features;
        let memory = Arc::clone(&self.memory);
        let frozen = self.status & (DRIVER_OK | FAILED) != 0;
        let queue = usize::try_from(index)
            .ok()
            .and_then(|index| self.queues.get_mut(index));
        match (queue, value) {
            (Some(queue), 0) if !frozen => queue.ready = false,
            (Some(queue), 1) if !frozen => {
                let ready = QueueConfig {
                    ready: true,
                    ..*queue
                };
                // 0 is what an address is that was never set, and it is RAM.
                let set = ready.desc != 0 && ready.avail != 0 && ready.used != 0;
                if set && Queue::new(&ready, memory, features).is_ok() {
                    *queue = ready;
                }
            }
            _ => {}
        }
    }

    /// The driver notifies a queue, and the notify did not ring the doorbell by itself. One that
    /// is not in use is ignored.
    pub fn notify(&self, queue: u32) {
        let ready = self.queue(queue).is_some_and(|queue| queue.ready);
        if let (true, true, Ok(index)) = (self.life.is_active(), ready, usize::try_from(queue))
            && let Some(doorbell) = self.link.doorbells().get(index)
        {
            ring(doorbell);
        }
    }

    /// Reads the configuration space.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.spec.config.read(offset, data);
    }

    /// Takes a write to the configuration space, where the driver may write.
    pub fn write_config(&mut self, offset: u64, data: &[u8]) {
        if self.spec.config.write(offset, data) {
            self.life.config_written();
        }
    }

    /// The generation of the configuration space.
    pub fn config_generation(&self) -> u32 {
        self.spec.config.generation()
    }

    fn offered(&self) -> u64 {
        negotiation::offered(self.spec.features, self.rings)
    }

    /// The queue, unless the driver has given its set-up out of hand.
    fn settable(&mut self, index: u32) -> Option<&mut QueueConfig> {
        let frozen = self.status & (DRIVER_OK | FAILED) != 0;
        let queue = self.queues.get_mut(usize::try_from(index).ok()?)?;
        (!frozen && !queue.ready).then_some(queue)
    }

    fn start(&mut self) {
        let features = self.driver_features;
        let io = |queues| {
            let config = Arc::clone(&self.spec.config);
            let irq = Arc::clone(self.link.irq());
            Io::new(Arc::clone(&self.memory), features, config, irq, queues)
        };
        let queues = self.running_queues();
        if let Err(error) = self.life.start(features, queues, io) {
            self.link.fail(&error);
        }
    }

    fn running_queues(&self) -> Result<Vec<Option<Queue>>, Error> {
        let running = |(index, config): (u16, &QueueConfig)| match config.ready {
            false => Ok(None),
            true => Queue::new(config, Arc::clone(&self.memory), self.driver_features)
                .map(Some)
                .map_err(|source| Error::Queue {
                    queue: index,
                    source,
                }),
        };
        (0..).zip(&self.queues).map(running).collect()
    }

    fn reset(&mut self) {
        self.life.reset();
        self.link.clear_needs_reset();
        self.status = 0;
        self.driver_features = 0;
        self.queues = fresh(&self.spec);
    }
}

/// The guest addresses of a queue.
pub struct Addresses<'q> {
    /// Descriptor area.
    pub desc: &'q mut u64,
    /// Driver area.
    pub avail: &'q mut u64,
    /// Device area.
    pub used: &'q mut u64,
}

/// What a spec must be like. Broken by an embedder's device, never by a guest.
fn check(spec: &Spec) -> Result<(), &'static str> {
    if !(1..=63).contains(&spec.kind.id()) {
        return Err("a device type is a number from 1 to 63");
    }
    let sizes = |size: &u16| size.is_power_of_two() && *size <= 1 << 15;
    if spec.name.is_empty() || spec.name.contains('\0') {
        return Err("a device needs a name without NUL bytes");
    }
    if !spec.queues.iter().all(sizes) {
        return Err("a queue size is a power of two up to 32768");
    }
    if spec.queues.len() > usize::from(u16::MAX) {
        return Err("a device has less than 65536 queues");
    }
    Ok(())
}

/// The queues as they are after a reset.
fn fresh(spec: &Spec) -> Vec<QueueConfig> {
    let queue = |&max_size| QueueConfig {
        max_size,
        size: max_size,
        ..QueueConfig::default()
    };
    spec.queues.iter().map(queue).collect()
}

/// The lower (0) or upper (1) half of a value that is written in halves; there are no others.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, select: u32, half: u32) {
    match select {
        0 => *value = (*value & !0xffff_ffff) | u64::from(half),
        1 => *value = (*value & 0xffff_ffff) | (u64::from(half) << 32),
        _ => {}
    }
}
