//! What all register windows have in common besides [`Core`]: the registers that select what
//! others are about, and why the device interrupts.

use super::{Addresses, Core, Environment};
use crate::queue::QueueConfig;
use crate::worker::Mode;
use crate::{Device, Error, Irq};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A [`Core`] with its selecting registers.
pub(super) struct Front {
    pub core: Core,
    /// Which 32 of the offered features are read.
    pub device_features_sel: u32,
    /// Which 32 of the driver's features are written.
    pub driver_features_sel: u32,
    /// Which queue the queue registers are of.
    pub queue_sel: u32,
    causes: Arc<Causes>,
}

impl Front {
    pub fn new(device: Box<dyn Device>, env: Environment, mode: Mode) -> Result<Self, Error> {
        let causes = Arc::new(Causes {
            bits: AtomicU32::new(0),
            irq: env.irq,
        });
        let env = Environment {
            irq: Arc::clone(&causes) as _,
            ..env
        };
        Ok(Front {
            core: Core::with_mode(device, env, mode)?,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            causes,
        })
    }

    pub fn device_features(&self) -> u32 {
        self.core.device_features(self.device_features_sel)
    }

    pub fn driver_features(&self) -> u32 {
        self.core.driver_features(self.driver_features_sel)
    }

    pub fn set_driver_features(&mut self, value: u32) {
        self.core
            .set_driver_features(self.driver_features_sel, value);
    }

    /// The selected queue, if the device has it.
    pub fn queue(&self) -> Option<&QueueConfig> {
        self.core.queue(self.queue_sel)
    }

    pub fn set_queue_size(&mut self, size: u32) {
        self.core.set_queue_size(self.queue_sel, size);
    }

    pub fn set_queue_ready(&mut self, value: u32) {
        self.core.set_queue_ready(self.queue_sel, value);
    }

    pub fn set_queue_address(&mut self, change: impl FnOnce(&mut Addresses<'_>)) {
        self.core.set_queue_addresses(self.queue_sel, change);
    }

    /// A reset forgets what was selected, and why the device has interrupted.
    pub fn set_status(&mut self, value: u32) {
        self.core.set_status(value);
        if value == 0 {
            self.device_features_sel = 0;
            self.driver_features_sel = 0;
            self.queue_sel = 0;
            self.acknowledge(u32::MAX);
        }
    }

    /// Why the device interrupts.
    pub fn causes(&self) -> u32 {
        self.causes.bits.load(Ordering::Acquire)
    }

    /// The driver knows these causes now. Returns all that there were.
    pub fn acknowledge(&self, causes: u32) -> u32 {
        self.causes.bits.fetch_and(!causes, Ordering::AcqRel)
    }
}

/// "Used Buffer Notification", or queue interrupt.
pub(super) const USED_BUFFER: u32 = 1;
/// "Configuration Change Notification"; of the device status as well.
pub(super) const CONFIG_CHANGE: u32 = 2;

/// Remembers why, before it interrupts.
struct Causes {
    bits: AtomicU32,
    irq: Arc<dyn Irq>,
}

impl Irq for Causes {
    fn queue(&self, queue: u16) {
        self.bits.fetch_or(USED_BUFFER, Ordering::AcqRel);
        self.irq.queue(queue);
    }

    fn config(&self) {
        self.bits.fetch_or(CONFIG_CHANGE, Ordering::AcqRel);
        self.irq.config();
    }
}
