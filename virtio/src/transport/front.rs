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
            state: AtomicU32::new(0),
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
            self.causes.take();
        }
    }

    /// Why the device interrupts.
    pub fn causes(&self) -> &Causes {
        &self.causes
    }
}

/// "Used Buffer Notification", or queue interrupt.
pub(super) const USED_BUFFER: u32 = 1;
/// "Configuration Change Notification"; of the device status as well.
pub(super) const CONFIG_CHANGE: u32 = 2;

/// Remembers why, before it interrupts.
///
/// What a driver acknowledges is what it was told, and never what came afterwards. So nothing is lost
/// if the acknowledgement arrives late, which lets KVM gather it.
pub(super) struct Causes {
    /// Those that the driver was told, above those that it was not.
    state: AtomicU32,
    irq: Arc<dyn Irq>,
}

/// By how many bits they are above.
const TOLD: u32 = 16;

/// Told or not.
fn all(state: u32) -> u32 {
    (state >> TOLD) | (state & ((1 << TOLD) - 1))
}

impl Causes {
    /// Tells the driver, which is expected to acknowledge them.
    pub fn tell(&self) -> u32 {
        let told = |state| Some(all(state) << TOLD);
        match self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, told)
        {
            Ok(state) | Err(state) => all(state),
        }
    }

    /// The driver has handled these, as far as it was told.
    pub fn acknowledge(&self, causes: u32) {
        self.state.fetch_and(!(causes << TOLD), Ordering::AcqRel);
    }

    /// Forgets all of them, and tells which there were.
    pub fn take(&self) -> u32 {
        all(self.state.swap(0, Ordering::AcqRel))
    }
}

impl Irq for Causes {
    fn queue(&self, queue: u16) {
        self.state.fetch_or(USED_BUFFER, Ordering::AcqRel);
        self.irq.queue(queue);
    }

    fn config(&self) {
        self.state.fetch_or(CONFIG_CHANGE, Ordering::AcqRel);
        self.irq.config();
    }
}
