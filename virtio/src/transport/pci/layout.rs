//! What a function shows of itself: identity, capabilities, and where in BAR 0 the structures are
//! that these describe.

use super::config::{Config, Identity};
use super::msix::MAX_VECTORS;
use super::{common, structure};
use crate::device::Kind;

/// The vendor of all virtio devices.
const VENDOR: u16 = 0x1af4;
/// Device types count from here (4.1.2).
const FIRST_DEVICE: u16 = 0x1040;
/// 1 or higher: not transitional.
const REVISION: u8 = 1;

/// IDs of capabilities. Those of virtio structures are vendor-specific.
pub(crate) const VENDOR_SPECIFIC: u8 = 0x09;
pub(crate) const MSIX: u8 = 0x11;
/// Message control: MSI-X is used.
pub(super) const MSIX_ENABLE: u16 = 1 << 15;
/// Message control: all vectors are masked.
pub(super) const MSIX_MASK: u16 = 1 << 14;

const PAGE: u64 = 0x1000;
/// Where the regions of BAR 0 start.
pub(super) const COMMON: u64 = 0;
pub(super) const ISR: u64 = PAGE;
pub(super) const DEVICE: u64 = 2 * PAGE;
pub(super) const NOTIFY: u64 = 3 * PAGE;
pub(super) const PENDING: u64 = 4 * PAGE;
pub(super) const TABLE: u64 = 8 * PAGE;
/// The size of BAR 0: the table is its second half.
pub(super) const BAR_SIZE: u64 = 2 * TABLE;
/// From one queue's doorbell to the next one's.
pub(super) const NOTIFY_STEP: u32 = 4;

/// Offsets in the capability with the window (4.1.4.9): which BAR, where, how much, and the data.
pub(super) const WINDOW_BAR: usize = 4;
pub(super) const WINDOW_OFFSET: usize = 8;
pub(super) const WINDOW_LENGTH: usize = 12;
pub(super) const WINDOW_DATA: usize = 16;
pub(super) const WINDOW_END: usize = 20;

/// Vendor, device and class of a device type.
pub(super) fn identity(kind: Kind) -> Identity {
    let class = match kind {
        Kind::Net => 0x02_00_00,
        // Mass storage, communication: other.
        Kind::Block => 0x01_80_00,
        Kind::Console | Kind::Vsock => 0x07_80_00,
        // Fits in no class, or in one that is not known here.
        Kind::Rng | Kind::Other(_) => 0xff_00_00,
    };
    Identity {
        vendor: VENDOR,
        // Device types are below 64.
        device: FIRST_DEVICE + u16::from(kind.id()),
        revision: REVISION,
        class,
    }
}

/// How much of each region of BAR 0 is used.
pub(super) struct Layout {
    notify: u32,
    device: u32,
    vectors: u16,
}

impl Layout {
    pub fn of(queues: usize, config: usize, vectors: u16) -> Result<Self, &'static str> {
        let fits = |len: usize| u32::try_from(len).ok().filter(|len| *len <= PAGE as u32);
        if vectors == 0 || vectors > MAX_VECTORS {
            return Err("a function has from 1 to 2048 vectors");
        }
        Ok(Layout {
            notify: queues
                .checked_mul(NOTIFY_STEP as usize)
                .and_then(fits)
                .ok_or("there is room for the doorbells of 1024 queues")?,
            device: fits(config).ok_or("there is room for 4096 bytes of configuration space")?,
            vectors,
        })
    }

    /// Adds the capabilities. Returns where that of MSI-X and that of the window are.
    pub fn describe(&self, config: &mut Config) -> Option<(usize, usize)> {
        let mut body = self.vectors.checked_sub(1)?.to_le_bytes().to_vec();
        body.extend((TABLE as u32).to_le_bytes());
        body.extend((PENDING as u32).to_le_bytes());
        let writable = (MSIX_ENABLE | MSIX_MASK).to_le_bytes();
        let msix = config.add_capability(MSIX, &body, &writable)?;

        let mut add = |kind, start: u64, len: u32, more: &[u8], writable: &[u8]| {
            let len_of_all = u8::try_from(16 + more.len()).ok()?;
            let mut body = vec![len_of_all, kind, 0, 0, 0, 0];
            body.extend((start as u32).to_le_bytes());
            body.extend(len.to_le_bytes());
            body.extend(more);
            config.add_capability(VENDOR_SPECIFIC, &body, writable)
        };
        add(structure::COMMON, COMMON, common::SIZE, &[], &[])?;
        let step = NOTIFY_STEP.to_le_bytes();
        add(structure::NOTIFY, NOTIFY, self.notify, &step, &[])?;
        add(structure::ISR, ISR, 1, &[], &[])?;
        if self.device != 0 {
            add(structure::DEVICE, DEVICE, self.device, &[], &[])?;
        }
        // The driver writes: BAR; offset and length; data.
        let mut writable = [0xff; WINDOW_END - 2];
        for (mask, at) in writable.iter_mut().zip(2..) {
            if at < WINDOW_BAR || (WINDOW_BAR + 1..WINDOW_OFFSET).contains(&at) {
                *mask = 0;
            }
        }
        let window = add(structure::WINDOW, 0, 0, &[0; 4], &writable)?;
        Some((msix, window))
    }
}
