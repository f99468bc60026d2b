//! The device status field (virtio 1.2, 2.1) and the order in which a driver may set its bits
//! (3.1.1).

/// The driver has noticed the device.
pub const ACKNOWLEDGE: u8 = 1;
/// The driver knows how to drive it.
pub const DRIVER: u8 = 2;
/// The driver is set up: the device is active.
pub const DRIVER_OK: u8 = 4;
/// Driver and device agree on features.
pub const FEATURES_OK: u8 = 8;
/// The device can't go on; only the device sets this.
pub const NEEDS_RESET: u8 = 64;
/// The driver has given up on the device.
pub const FAILED: u8 = 128;

const FOUND: u8 = ACKNOWLEDGE | DRIVER;
const NEGOTIATED: u8 = FOUND | FEATURES_OK;
const RUNNING: u8 = NEGOTIATED | DRIVER_OK;

/// What a driver may make of the status, besides 0, which is a reset at any time. Everything
/// else is ignored: bits that are cleared, skipped or reserved. (Of the device's own bit,
/// [`NEEDS_RESET`], neither side of this table knows.)
const TRANSITIONS: [(u8, u8); 10] = [
    (0, ACKNOWLEDGE),
    // Firmware likes to set both at once.
    (0, FOUND),
    (ACKNOWLEDGE, FOUND),
    (FOUND, NEGOTIATED),
    (NEGOTIATED, RUNNING),
    // After FAILED, only a reset helps.
    (0, FAILED),
    (ACKNOWLEDGE, ACKNOWLEDGE | FAILED),
    (FOUND, FOUND | FAILED),
    (NEGOTIATED, NEGOTIATED | FAILED),
    (RUNNING, RUNNING | FAILED),
];

/// Whether a driver may go from one status to the other.
pub(crate) fn allowed(from: u8, to: u8) -> bool {
    TRANSITIONS.contains(&(from, to))
}
