//! A descriptor, and the table of descriptors that one may name: the rules that both layouts
//! share (virtio 1.2, 2.7.5 and 2.8.5 to 2.8.7).

use super::QueueError;
use super::chain::Buffers;
use crate::memory::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

/// The size of a descriptor.
pub(super) const SIZE: usize = 16;

/// The chain goes on.
pub(super) const VIRTQ_DESC_F_NEXT: u16 = 1;
/// The device writes the buffer; without this, it reads it.
pub(super) const VIRTQ_DESC_F_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub(super) const VIRTQ_DESC_F_INDIRECT: u16 = 4;

/// A descriptor, copied: what the driver writes to the ring later makes no difference. Flags that
/// are not known are ignored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    /// Of a split ring, the index of the next descriptor; of a packed one, the chain's identifier.
    pub(super) tag: u16,
}

impl Descriptor {
    /// `struct virtq_desc`: address, length, flags, next.
    pub(super) fn split(bits: u128) -> Self {
        Descriptor {
            address: bits as u64,
            len: (bits >> 64) as u32,
            flags: (bits >> 96) as u16,
            tag: (bits >> 112) as u16,
        }
    }

    /// `struct pvirtq_desc`: address, length, identifier, flags.
    pub(super) fn packed(bits: u128) -> Self {
        Descriptor {
            address: bits as u64,
            len: (bits >> 64) as u32,
            tag: (bits >> 96) as u16,
            flags: (bits >> 112) as u16,
        }
    }

    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Adds the buffer to the chain at hand.
    pub(super) fn push(
        &self,
        memory: &GuestMemory,
        buffers: &mut Buffers,
    ) -> Result<(), QueueError> {
        let writable = self.has(VIRTQ_DESC_F_WRITE);
        buffers.push(memory, self.address, self.len, writable)
    }
}

/// An indirect table.
pub(super) struct Table<'m> {
    slice: VolatileSlice<'m>,
    entries: u16,
    address: u64,
}

impl<'m> Table<'m> {
    /// Finds the table that a descriptor names, if that may name one: `negotiated` tells of the
    /// feature. `limit` is the size of the queue, which no chain exceeds.
    pub(super) fn open(
        memory: &'m GuestMemory,
        descriptor: &Descriptor,
        negotiated: bool,
        limit: u16,
    ) -> Result<Self, QueueError> {
        if !negotiated {
            return Err(QueueError::IndirectNotNegotiated);
        }
        if descriptor.has(VIRTQ_DESC_F_NEXT) {
            return Err(QueueError::IndirectWithNext);
        }
        let Descriptor { address, len, .. } = *descriptor;
        let bytes = len as usize;
        if bytes == 0 || !bytes.is_multiple_of(SIZE) {
            return Err(QueueError::IndirectLength { len });
        }
        let entries = u16::try_from(bytes / SIZE)
            .ok()
            .filter(|entries| *entries <= limit)
            .ok_or(QueueError::ChainTooLong { limit })?;
        let slice = memory
            .get_slice(GuestAddress(address), bytes)
            .map_err(|_| QueueError::BadAddress { address, len })?;
        Ok(Table {
            slice,
            entries,
            address,
        })
    }

    /// How many descriptors there are; at least one.
    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    /// Copies a descriptor, as a little-endian number.
    pub(super) fn read(&self, index: u16) -> Result<u128, QueueError> {
        // Byte by byte: an indirect table has no alignment.
        self.slice
            .read_obj(SIZE * usize::from(index))
            .map(u128::from_le)
            .map_err(|_| QueueError::BadAddress {
                address: self.address,
                len: u32::from(self.entries) * SIZE as u32,
            })
    }
}
