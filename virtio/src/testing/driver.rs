//! The register half of the fake driver: finds a device, agrees on features, sets rings up,
//! rings doorbells and waits for interrupts, as a guest's driver does (virtio 1.2, 3.1).
//!
//! A [`Driver`] knows no transport: what it asks of one is the trait [`Transport`], which is
//! written once for each of them, so whatever is tested with it is tested over all.

pub mod pci;

use super::irq::{Counts, Interrupts};
use super::ring::{Ring, ram};
use crate::features::{INDIRECT_DESC, VERSION_1};
use crate::memory::GuestMemory;
use crate::queue::QueueConfig;
use crate::transport::mmio::{Mmio, register};
use crate::transport::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET};
use crate::transport::{Doorbell, Environment, Life, Rings};
use crate::worker::Mode;
use crate::{Device, Error};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the driver waits for a device before the test counts as failed.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Each queue has this much guest memory if nothing else is said.
const QUEUE_MEMORY: u64 = 0x10_0000;
/// The first queue's starts here, as address 0 is not for rings.
const FIRST_QUEUE: u64 = 0x1000;
/// How many queues there is memory for.
const QUEUES: u64 = 8;

/// What a driver does with any transport.
pub trait Transport {
    /// The features that the device offers.
    fn device_features(&mut self) -> u64;
    /// Tells which ones the driver takes.
    fn set_driver_features(&mut self, features: u64);
    /// Reads the device status.
    fn status(&mut self) -> u8;
    /// Writes the device status.
    fn set_status(&mut self, status: u8);
    /// Lets interrupts through. A reset may undo it.
    fn enable_interrupts(&mut self) {}
    /// The largest size of a queue that was not set up yet; 0 if there is no such queue.
    fn queue_max_size(&mut self, queue: u16) -> u16;
    /// Tells size and addresses of a queue.
    fn set_queue(&mut self, queue: u16, config: &QueueConfig);
    /// Enables a queue or not, and tells whether it is enabled then.
    fn enable_queue(&mut self, queue: u16, enable: bool) -> bool;
    /// Notifies a queue by writing the register. The number may be anything.
    fn notify(&mut self, queue: u32);
    /// The events that notifies signal if the hypervisor takes them.
    fn doorbells(&self) -> Vec<Doorbell>;
    /// Reads the configuration space.
    fn read_config(&mut self, offset: u64, data: &mut [u8]);
    /// Writes the configuration space.
    fn write_config(&mut self, offset: u64, data: &[u8]);
    /// The generation of the configuration space.
    fn config_generation(&mut self) -> u32;
    /// Acknowledges all interrupts and tells their causes: bit 0 a queue, bit 1 the configuration.
    fn acknowledge(&mut self) -> u32;
    /// Machine: what it does with the device.
    fn life(&mut self) -> &mut Life;
    /// Machine: one turn of a device without a thread.
    fn turn(&mut self) {
        self.life().turn();
    }
    /// Machine: stops the device, to go on later.
    fn pause(&mut self) -> Result<(), Error> {
        self.life().pause()
    }
    /// Machine: lets the device go on.
    fn resume(&mut self) -> Result<(), Error> {
        self.life().resume()
    }
    /// Machine: stops the device for good.
    fn stop(&mut self) {
        self.life().stop();
    }
}

/// Accesses to registers of 32 bits.
pub trait Registers {
    /// Reads one.
    fn get(&mut self, offset: u64) -> u32;
    /// Writes one.
    fn set(&mut self, offset: u64, value: u32);
    /// Writes the halves of an address to a register and the next one.
    fn set_wide(&mut self, offset: u64, value: u64) {
        self.set(offset, value as u32);
        self.set(offset + 4, (value >> 32) as u32);
    }
}

impl Registers for Mmio {
    fn get(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn set(&mut self, offset: u64, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }
}

impl Transport for Mmio {
    fn device_features(&mut self) -> u64 {
        let half = |select| {
            self.set(register::DEVICE_FEATURES_SEL, select);
            u64::from(self.get(register::DEVICE_FEATURES))
        };
        let [low, high] = [0, 1].map(half);
        low | high << 32
    }

    fn set_driver_features(&mut self, features: u64) {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.set(register::DRIVER_FEATURES_SEL, select);
            self.set(register::DRIVER_FEATURES, half);
        }
    }

    fn status(&mut self) -> u8 {
        self.get(register::STATUS) as u8
    }

    fn set_status(&mut self, status: u8) {
        self.set(register::STATUS, status.into());
    }

    fn queue_max_size(&mut self, queue: u16) -> u16 {
        self.set(register::QUEUE_SEL, queue.into());
        self.get(register::QUEUE_NUM_MAX) as u16
    }

    fn set_queue(&mut self, queue: u16, config: &QueueConfig) {
        self.set(register::QUEUE_SEL, queue.into());
        self.set(register::QUEUE_NUM, config.size.into());
        self.set_wide(register::QUEUE_DESC_LOW, config.desc);
        self.set_wide(register::QUEUE_DRIVER_LOW, config.avail);
        self.set_wide(register::QUEUE_DEVICE_LOW, config.used);
    }

    fn enable_queue(&mut self, queue: u16, enable: bool) -> bool {
        self.set(register::QUEUE_SEL, queue.into());
        self.set(register::QUEUE_READY, enable.into());
        self.get(register::QUEUE_READY) == 1
    }

    fn notify(&mut self, queue: u32) {
        self.set(register::QUEUE_NOTIFY, queue);
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        Mmio::doorbells(self)
    }

    fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        self.read(register::CONFIG + offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.write(register::CONFIG + offset, data);
    }

    fn config_generation(&mut self) -> u32 {
        self.get(register::CONFIG_GENERATION)
    }

    fn acknowledge(&mut self) -> u32 {
        let causes = self.get(register::INTERRUPT_STATUS);
        self.set(register::INTERRUPT_ACK, causes);
        causes
    }

    fn life(&mut self) -> &mut Life {
        Mmio::life(self)
    }
}

/// A machine around a device: guest memory, an interrupt that counts, and what panics said.
#[derive(Clone)]
pub struct Machine {
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// The device's interrupts.
    pub interrupts: Arc<Interrupts>,
    /// The ring layouts that the device offers.
    pub rings: Rings,
    /// Each queue has this much memory, ring and buffers, one after the other.
    queue_memory: u64,
    failures: Arc<Mutex<Vec<(String, String)>>>,
}

impl Default for Machine {
    fn default() -> Self {
        Machine::with_queue_memory(QUEUE_MEMORY)
    }
}

impl Machine {
    /// A machine that has this much memory for each queue, in whole pages.
    pub fn with_queue_memory(queue_memory: u64) -> Self {
        // Regions that are too small for huge pages, which take long to be cleared.
        let queue = |queue| (FIRST_QUEUE + queue * queue_memory, queue_memory as usize);
        let regions: Vec<_> = (0..QUEUES).map(queue).collect();
        let memory = ram(&[&[(0, FIRST_QUEUE as usize)], &*regions].concat());
        Machine {
            memory,
            interrupts: Arc::default(),
            rings: Rings::default(),
            queue_memory,
            failures: Arc::default(),
        }
    }

    /// What a transport is made with.
    pub fn environment(&self) -> Environment {
        let failures = Arc::clone(&self.failures);
        Environment {
            memory: Arc::clone(&self.memory),
            irq: Arc::clone(&self.interrupts) as _,
            rings: self.rings,
            failed: Arc::new(move |device, what| {
                lock(&failures).push((device.to_owned(), what.to_string()));
            }),
        }
    }

    /// The devices that failed the machine, and how.
    pub fn failures(&self) -> Vec<(String, String)> {
        lock(&self.failures).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the driver rings a doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kick {
    /// By the event descriptor, as with an ioeventfd.
    Event,
    /// By the register.
    Register,
}

/// A driver and its device.
pub struct Driver<T> {
    /// The device's registers.
    pub transport: T,
    /// What is around the device.
    pub machine: Machine,
    /// The rings of the queues that were set up.
    pub rings: Vec<Ring>,
    /// How doorbells are rung.
    pub kick: Kick,
    features: u64,
}

impl Driver<Mmio> {
    /// A driver of a device with MMIO registers that has a thread.
    pub fn mmio(device: Box<dyn Device>) -> Self {
        Self::mmio_in(device, Mode::Thread)
    }

    /// A driver of a device with MMIO registers.
    pub fn mmio_in(device: Box<dyn Device>, mode: Mode) -> Self {
        Self::mmio_of(Machine::default(), device, mode)
    }

    /// A driver of a device with MMIO registers in this machine.
    pub fn mmio_of(machine: Machine, device: Box<dyn Device>, mode: Mode) -> Self {
        let mmio = Mmio::with_mode(device, machine.environment(), mode);
        Driver::new(mmio.expect("device behind MMIO registers"), machine)
    }
}

impl<T: Transport> Driver<T> {
    /// A driver of the device behind a transport.
    pub fn new(transport: T, machine: Machine) -> Self {
        Driver {
            transport,
            machine,
            rings: Vec::new(),
            kick: Kick::Event,
            features: 0,
        }
    }

    /// The features that were agreed on.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Resets the device and forgets the rings.
    pub fn reset(&mut self) {
        self.transport.set_status(0);
        self.rings.clear();
        self.features = 0;
    }

    /// Steps 1 to 6 of 3.1.1, with those of the `wanted` features that are offered, and
    /// `VERSION_1`. Tells whether the device agrees.
    pub fn negotiate(&mut self, wanted: u64) -> bool {
        self.reset();
        self.add_status(ACKNOWLEDGE);
        self.add_status(DRIVER);
        let features = (wanted | VERSION_1) & self.transport.device_features();
        self.transport.set_driver_features(features);
        self.add_status(FEATURES_OK);
        self.transport.enable_interrupts();
        self.features = features;
        self.transport.status() & FEATURES_OK != 0
    }

    /// Makes a ring for each queue of the device, of at most `size` descriptors, and enables it.
    pub fn set_up_queues(&mut self, size: u16) {
        for queue in 0..QUEUES as u16 {
            let max_size = self.transport.queue_max_size(queue);
            if max_size == 0 {
                break;
            }
            let len = self.machine.queue_memory;
            let start = FIRST_QUEUE + u64::from(queue) * len;
            let area = start..start + len;
            let size = size.min(max_size);
            let ring = Ring::new(&self.machine.memory, area, size, self.features);
            let config = ring.config();
            self.transport.set_queue(queue, &config);
            assert!(
                self.transport.enable_queue(queue, true),
                "queue {queue} was refused"
            );
            self.rings.push(ring);
        }
    }

    /// Everything up to `DRIVER_OK`, with all queues.
    pub fn start(&mut self, wanted: u64) {
        assert!(self.negotiate(wanted), "features were refused");
        self.set_up_queues(256);
        self.add_status(DRIVER_OK);
    }

    /// Sets bits of the status, as drivers do: by writing back what they read.
    pub fn add_status(&mut self, bits: u8) {
        let status = self.transport.status();
        self.transport.set_status(status | bits);
    }

    /// Makes a chain available, with an indirect table if that was agreed on, and rings the
    /// doorbell if the device wants that.
    pub fn send(&mut self, queue: u16, readable: &[&[u8]], writable: &[usize]) -> u16 {
        let ring = &mut self.rings[usize::from(queue)];
        let id = match self.features & INDIRECT_DESC {
            0 => ring.add(readable, writable),
            _ => ring.add_indirect(readable, writable),
        };
        if ring.must_kick() {
            self.notify(queue);
        }
        id
    }

    /// Rings a doorbell.
    pub fn notify(&mut self, queue: u16) {
        let doorbells = self.transport.doorbells();
        match doorbells.iter().find(|doorbell| doorbell.queue == queue) {
            Some(doorbell) if self.kick == Kick::Event => {
                doorbell.event.write(1).expect("ring a doorbell");
            }
            _ => self.transport.notify(queue.into()),
        }
    }

    /// Waits for a used chain and returns what was written to it.
    pub fn receive(&mut self, queue: u16) -> (u16, Vec<u8>) {
        let (id, len) = self.until("a chain to be used", |driver| {
            let ring = &mut driver.rings[usize::from(queue)];
            ring.used().or_else(|| {
                if ring.enable_interrupts() {
                    ring.used()
                } else {
                    None
                }
            })
        });
        (id, self.rings[usize::from(queue)].written(id, len as usize))
    }

    /// Waits until the device says that it can't go on.
    pub fn wait_for_needs_reset(&mut self) {
        self.until("DEVICE_NEEDS_RESET", |driver| {
            (driver.transport.status() & NEEDS_RESET != 0).then_some(())
        });
    }

    /// Looks for something, and again after each interrupt, until the deadline.
    pub fn until<R>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<R>) -> R {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let before = self.interrupts();
            if let Some(found) = look(self) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let news = self
                .machine
                .interrupts
                .wait(left, |counts| *counts != before);
            assert!(news, "waited in vain for {what}: {before:?}");
        }
    }

    /// How many interrupts there were.
    pub fn interrupts(&self) -> Counts {
        self.machine.interrupts.counts()
    }
}
