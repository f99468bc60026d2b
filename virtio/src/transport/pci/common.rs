//! The common configuration: the registers behind which the [`Core`](crate::transport::Core) is
//! (virtio 1.2, 4.1.4.3).
//!
//! Each field takes the accesses of its own width; fields of 64 bits take their halves as well.
//! Other accesses read as 0 and are ignored.

use super::msix::{NO_VECTOR, Vectors};
use crate::transport::front::Front;
use crate::transport::{half, set_half};
use std::ops::Range;

/// Offsets of the fields.
pub mod register {
    /// Which 32 of the offered features (RW, 4 bytes).
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    /// 32 of the offered features (R, 4 bytes).
    pub const DEVICE_FEATURE: u64 = 0x04;
    /// Which 32 of the driver's features (RW, 4 bytes).
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    /// 32 of the features that the driver takes (RW, 4 bytes).
    pub const DRIVER_FEATURE: u64 = 0x0c;
    /// The vector for changes of the configuration (RW, 2 bytes).
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    /// How many queues there are (R, 2 bytes).
    pub const NUM_QUEUES: u64 = 0x12;
    /// Device status (RW, 1 byte).
    pub const DEVICE_STATUS: u64 = 0x14;
    /// Changes with the device's configuration space (R, 1 byte).
    pub const CONFIG_GENERATION: u64 = 0x15;
    /// Which queue the following ones are of (RW, 2 bytes).
    pub const QUEUE_SELECT: u64 = 0x16;
    /// The largest size after a reset, and the size then; 0: no such queue (RW, 2 bytes).
    pub const QUEUE_SIZE: u64 = 0x18;
    /// The vector of the queue (RW, 2 bytes).
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    /// Whether the queue is enabled (RW, 2 bytes).
    pub const QUEUE_ENABLE: u64 = 0x1c;
    /// Where it is notified, in units of the multiplier (R, 2 bytes).
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    /// Descriptor area (RW, 8 bytes).
    pub const QUEUE_DESC: u64 = 0x20;
    /// Driver area (RW, 8 bytes).
    pub const QUEUE_DRIVER: u64 = 0x28;
    /// Device area (RW, 8 bytes).
    pub const QUEUE_DEVICE: u64 = 0x30;
}
use register::*;

/// How much there is: up to `queue_device`. What follows in the structure of the specification
/// belongs to features that aren't offered (`NOTIFICATION_DATA`, `RING_RESET`).
pub(super) const SIZE: u32 = 0x38;

/// What a driver writes before it says, by another field, that this shall count. A vector counts
/// when the driver has read it back, which it must (4.1.5.1.2.2).
pub(super) fn patient() -> [Range<u64>; 2] {
    [
        DEVICE_FEATURE_SELECT..CONFIG_MSIX_VECTOR + 2,
        // Queues start with the device, by its status.
        QUEUE_SELECT..SIZE.into(),
    ]
}

/// How wide the field at an offset is. Those of 64 bits are two of 32 here.
fn width(offset: u64) -> usize {
    match offset {
        DEVICE_FEATURE_SELECT | DEVICE_FEATURE | DRIVER_FEATURE_SELECT | DRIVER_FEATURE => 4,
        CONFIG_MSIX_VECTOR | NUM_QUEUES | QUEUE_SELECT | QUEUE_SIZE | QUEUE_MSIX_VECTOR
        | QUEUE_ENABLE | QUEUE_NOTIFY_OFF => 2,
        DEVICE_STATUS | CONFIG_GENERATION => 1,
        QUEUE_DESC..0x38 if offset.is_multiple_of(4) => 4,
        _ => 0,
    }
}

/// Whether an access is one to all of a field of 64 bits.
fn is_wide(offset: u64, len: usize) -> bool {
    len == 8 && matches!(offset, QUEUE_DESC | QUEUE_DRIVER | QUEUE_DEVICE)
}

/// Which half of a field of 64 bits is at an offset.
fn upper(offset: u64) -> u32 {
    (offset / 4 % 2) as u32
}

pub(super) fn read(front: &Front, vectors: &Vectors, offset: u64, data: &mut [u8]) {
    data.fill(0);
    if is_wide(offset, data.len()) {
        for (offset, half) in (offset..).step_by(4).zip(data.chunks_exact_mut(4)) {
            read(front, vectors, offset, half);
        }
    } else if data.len() == width(offset) {
        let value = get(front, vectors, offset).to_le_bytes();
        for (to, from) in data.iter_mut().zip(value) {
            *to = from;
        }
    }
}

pub(super) fn write(front: &mut Front, vectors: &Vectors, offset: u64, data: &[u8]) {
    if is_wide(offset, data.len()) {
        for (offset, half) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
            write(front, vectors, offset, half);
        }
    } else if data.len() == width(offset) {
        let little_endian = |value, byte: &u8| value << 8 | u32::from(*byte);
        set(
            front,
            vectors,
            offset,
            data.iter().rev().fold(0, little_endian),
        );
    }
}

fn get(front: &Front, vectors: &Vectors, offset: u64) -> u32 {
    let queue = front.queue();
    let area = |area| half(area, upper(offset));
    match offset {
        DEVICE_FEATURE_SELECT => front.device_features_sel,
        DEVICE_FEATURE => front.device_features(),
        DRIVER_FEATURE_SELECT => front.driver_features_sel,
        DRIVER_FEATURE => front.driver_features(),
        CONFIG_MSIX_VECTOR => vectors.config().into(),
        NUM_QUEUES => u32::try_from(front.core.spec().queues.len()).unwrap_or(0),
        DEVICE_STATUS => front.core.status().into(),
        CONFIG_GENERATION => front.core.config_generation(),
        QUEUE_SELECT => front.queue_sel,
        QUEUE_SIZE => queue.map_or(0, |queue| queue.size.into()),
        QUEUE_MSIX_VECTOR => vectors.queue(front.queue_sel).into(),
        QUEUE_ENABLE => queue.map_or(0, |queue| queue.ready.into()),
        QUEUE_NOTIFY_OFF => queue.map_or(0, |_| front.queue_sel),
        QUEUE_DESC..QUEUE_DRIVER => queue.map_or(0, |queue| area(queue.desc)),
        QUEUE_DRIVER..QUEUE_DEVICE => queue.map_or(0, |queue| area(queue.avail)),
        QUEUE_DEVICE..0x38 => queue.map_or(0, |queue| area(queue.used)),
        _ => 0,
    }
}

fn set(front: &mut Front, vectors: &Vectors, offset: u64, value: u32) {
    let vector = u16::try_from(value).unwrap_or(NO_VECTOR);
    let half = upper(offset);
    match offset {
        DEVICE_FEATURE_SELECT => front.device_features_sel = value,
        DRIVER_FEATURE_SELECT => front.driver_features_sel = value,
        DRIVER_FEATURE => front.set_driver_features(value),
        CONFIG_MSIX_VECTOR => vectors.set_config(vector),
        DEVICE_STATUS => {
            front.set_status(value);
            if value == 0 {
                vectors.reset();
            }
        }
        QUEUE_SELECT => front.queue_sel = value,
        QUEUE_SIZE => front.set_queue_size(value),
        QUEUE_MSIX_VECTOR => vectors.set_queue(front.queue_sel, vector),
        // A driver must not take a queue back by itself; a reset does (4.1.4.3.2).
        QUEUE_ENABLE if value == 1 => front.set_queue_ready(value),
        QUEUE_DESC..QUEUE_DRIVER => {
            front.set_queue_address(|queue| set_half(queue.desc, half, value));
        }
        QUEUE_DRIVER..QUEUE_DEVICE => {
            front.set_queue_address(|queue| set_half(queue.avail, half, value));
        }
        QUEUE_DEVICE..0x38 => {
            front.set_queue_address(|queue| set_half(queue.used, half, value));
        }
        _ => {}
    }
}
