//! A part of a ring: checked once against RAM, then used without looking it up again.

use super::{Part, QueueError};
use crate::memory::{GuestMemory, Window};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vm_memory::{Bytes, GuestAddress};

/// Memory in which both sides keep a part of a ring.
#[derive(Debug)]
pub(super) struct Area {
    part: Part,
    address: u64,
    len: usize,
    window: Window,
}

impl Area {
    /// Checks that `part` has an address, is aligned and lies within one region of RAM.
    pub(super) fn new(
        memory: &Arc<GuestMemory>,
        part: Part,
        address: u64,
        len: usize,
        alignment: u64,
    ) -> Result<Area, QueueError> {
        // The registers read 0 before the driver has written them, so 0 means "not set". No
        // driver keeps a ring in the first page of RAM.
        if address == 0 {
            return Err(QueueError::NoAddress(part));
        }
        if !address.is_multiple_of(alignment) {
            return Err(QueueError::Alignment {
                part,
                address,
                alignment,
            });
        }
        let window = Window::new(memory, GuestAddress(address), len)
            .ok_or(QueueError::Outside { part, address, len })?;
        Ok(Area {
            part,
            address,
            len,
            window,
        })
    }

    /// Reads the 16-bit field at `offset`, in one access.
    pub(super) fn load(&self, offset: usize, order: Ordering) -> Result<u16, QueueError> {
        let value = self
            .window
            .slice()
            .load(offset, order)
            .map_err(|_| self.outside())?;
        Ok(u16::from_le(value))
    }

    /// Writes the 16-bit field at `offset`, in one access.
    pub(super) fn store(
        &self,
        offset: usize,
        value: u16,
        order: Ordering,
    ) -> Result<(), QueueError> {
        self.window
            .slice()
            .store(value.to_le(), offset, order)
            .map_err(|_| self.outside())
    }

    /// Writes the 32-bit field at `offset`, in one access.
    pub(super) fn store_u32(&self, offset: usize, value: u32) -> Result<(), QueueError> {
        let slice = self.window.slice();
        slice
            .store(value.to_le(), offset, Ordering::Relaxed)
            .map_err(|_| self.outside())
    }

    /// Reads the 32-bit field at `offset`, in one access.
    pub(super) fn load_u32(&self, offset: usize) -> Result<u32, QueueError> {
        let value = self
            .window
            .slice()
            .load(offset, Ordering::Relaxed)
            .map_err(|_| self.outside())?;
        Ok(u32::from_le(value))
    }

    /// Copies the 16 bytes of a descriptor, as a little-endian number.
    pub(super) fn descriptor(&self, offset: usize) -> Result<u128, QueueError> {
        let value = self
            .window
            .slice()
            .read_obj(offset)
            .map_err(|_| self.outside())?;
        Ok(u128::from_le(value))
    }

    // Offsets are computed from checked sizes, so this is not expected to be seen.
    fn outside(&self) -> QueueError {
        QueueError::Outside {
            part: self.part,
            address: self.address,
            len: self.len,
        }
    }
}
