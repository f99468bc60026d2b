//! The MMIO transport, version 2 (virtio 1.2, 4.2.2): register decode and nothing else.
//!
//! Registers are 32 bits wide and aligned (4.2.2.2); other accesses read as 0 and are ignored.
//! The configuration space takes any width. Everything that a register means is in
//! [`Core`](super::Core).

use super::front::Front;
use super::{Doorbell, Environment, Life, set_half};
use crate::device::Kind;
use crate::worker::Mode;
use crate::{Device, Error};
use std::ops::Range;
use std::sync::Arc;

/// Offsets of the registers (4.2.2).
pub mod register {
    /// "virt" (R).
    pub const MAGIC_VALUE: u64 = 0x000;
    /// 2 (R).
    pub const VERSION: u64 = 0x004;
    /// Device type (R).
    pub const DEVICE_ID: u64 = 0x008;
    /// Who made the device (R).
    pub const VENDOR_ID: u64 = 0x00c;
    /// 32 of the offered features (R).
    pub const DEVICE_FEATURES: u64 = 0x010;
    /// Which 32 (W).
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    /// 32 of the features that the driver takes (W).
    pub const DRIVER_FEATURES: u64 = 0x020;
    /// Which 32 (W).
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    /// Which queue the queue registers are of (W).
    pub const QUEUE_SEL: u64 = 0x030;
    /// The largest size; 0: there is no such queue (R).
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    /// The size (W).
    pub const QUEUE_NUM: u64 = 0x038;
    /// Whether the queue is enabled (RW).
    pub const QUEUE_READY: u64 = 0x044;
    /// Doorbell: the number of a queue (W).
    pub const QUEUE_NOTIFY: u64 = 0x050;
    /// Why the device interrupts (R).
    pub const INTERRUPT_STATUS: u64 = 0x060;
    /// Which of these causes the driver has handled (W).
    pub const INTERRUPT_ACK: u64 = 0x064;
    /// Device status (RW).
    pub const STATUS: u64 = 0x070;
    /// Descriptor area (W).
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    /// Descriptor area (W).
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    /// Driver area: the available ring (W).
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    /// Driver area: the available ring (W).
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    /// Device area: the used ring (W).
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    /// Device area: the used ring (W).
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    /// Which shared memory region (W).
    pub const SHM_SEL: u64 = 0x0ac;
    /// Its length; all ones: there is no such region (R).
    pub const SHM_LEN_LOW: u64 = 0x0b0;
    /// Its length (R).
    pub const SHM_LEN_HIGH: u64 = 0x0b4;
    /// Its address (R).
    pub const SHM_BASE_LOW: u64 = 0x0b8;
    /// Its address (R).
    pub const SHM_BASE_HIGH: u64 = 0x0bc;
    /// Changes with the configuration space (R).
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    /// Where the configuration space starts (RW).
    pub const CONFIG: u64 = 0x100;
}
use register::*;

#[cfg(test)]
mod tests;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VENDOR: u32 = u32::from_le_bytes(*b"hype");

/// A device behind a window of MMIO registers.
pub struct Mmio {
    front: Front,
}

impl Mmio {
    /// The size of the register window.
    pub const SIZE: u64 = 0x1000;

    /// Registers to which a write has no effect until some other register is accessed: one that
    /// arrives late, but in order, is as good. Queues start with the device, by its status; an
    /// acknowledgement is of causes that were told before, by a read. What lies between two of these
    /// registers, and is in the same range, is nothing.
    pub const PATIENT: [Range<u64>; 3] = [
        DEVICE_FEATURES_SEL..QUEUE_READY + 4,
        INTERRUPT_ACK..INTERRUPT_ACK + 4,
        QUEUE_DESC_LOW..QUEUE_DEVICE_HIGH + 4,
    ];

    /// Puts a device behind its registers.
    pub fn new(device: Box<dyn Device>, env: Environment) -> Result<Self, Error> {
        Self::with_mode(device, env, Mode::Thread)
    }

    /// The same, with a choice of where the device runs.
    pub fn with_mode(device: Box<dyn Device>, env: Environment, mode: Mode) -> Result<Self, Error> {
        Ok(Mmio {
            front: Front::new(device, env, mode)?,
        })
    }

    /// An access of the vCPU's to `offset` in the window.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.front.core.read_config(offset, data);
        }
        data.fill(0);
        if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
            *data = self.register(offset).to_le_bytes();
        }
    }

    /// An access of the vCPU's to `offset` in the window.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            self.front.core.write_config(offset, data);
        } else if let Ok(data) = <[u8; 4]>::try_from(data) {
            self.set_register(offset, u32::from_le_bytes(data));
        }
    }

    /// Where notifies arrive, and what they signal. A notify that signals there need not be
    /// written here.
    pub fn doorbells(&self) -> Vec<Doorbell> {
        let doorbell = |(queue, event)| Doorbell {
            offset: QUEUE_NOTIFY,
            queue,
            event: Arc::clone(event),
        };
        (0..)
            .zip(self.front.core.doorbells())
            .map(doorbell)
            .collect()
    }

    /// How messages call the device.
    pub fn name(&self) -> &str {
        &self.front.core.spec().name
    }

    /// The device type.
    pub fn kind(&self) -> Kind {
        self.front.core.kind()
    }

    /// How far the device has come, and what the machine does with it. The vCPUs are paused when it
    /// pauses.
    pub fn life(&mut self) -> &mut Life {
        self.front.core.life()
    }

    // Registers that are not there, or that are for writing, read as 0.
    fn register(&self, offset: u64) -> u32 {
        let queue = self.front.queue();
        match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => 2,
            DEVICE_ID => self.front.core.kind().id().into(),
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => self.front.device_features(),
            QUEUE_NUM_MAX => queue.map_or(0, |queue| queue.max_size.into()),
            QUEUE_READY => queue.map_or(0, |queue| queue.ready.into()),
            INTERRUPT_STATUS => self.front.causes().tell(),
            STATUS => self.front.core.status().into(),
            // Whatever SHM_SEL says: no device here has shared memory.
            SHM_LEN_LOW | SHM_LEN_HIGH | SHM_BASE_LOW | SHM_BASE_HIGH => u32::MAX,
            CONFIG_GENERATION => self.front.core.config_generation(),
            _ => 0,
        }
    }

    // Registers that are not there, or that are for reading, ignore what is written.
    fn set_register(&mut self, offset: u64, value: u32) {
        let front = &mut self.front;
        match offset {
            DEVICE_FEATURES_SEL => front.device_features_sel = value,
            DRIVER_FEATURES => front.set_driver_features(value),
            DRIVER_FEATURES_SEL => front.driver_features_sel = value,
            QUEUE_SEL => front.queue_sel = value,
            QUEUE_NUM => front.set_queue_size(value),
            QUEUE_READY => front.set_queue_ready(value),
            QUEUE_NOTIFY => front.core.notify(value),
            INTERRUPT_ACK => front.causes().acknowledge(value),
            STATUS => front.set_status(value),
            QUEUE_DESC_LOW => front.set_queue_address(|queue| set_half(queue.desc, 0, value)),
            QUEUE_DESC_HIGH => front.set_queue_address(|queue| set_half(queue.desc, 1, value)),
            QUEUE_DRIVER_LOW => front.set_queue_address(|queue| set_half(queue.avail, 0, value)),
            QUEUE_DRIVER_HIGH => front.set_queue_address(|queue| set_half(queue.avail, 1, value)),
            QUEUE_DEVICE_LOW => front.set_queue_address(|queue| set_half(queue.used, 0, value)),
            QUEUE_DEVICE_HIGH => front.set_queue_address(|queue| set_half(queue.used, 1, value)),
            _ => {}
        }
    }
}
