//! What the driver reads about a disk: features and configuration space (virtio 1.2, 5.2.3, 5.2.4).

use super::{
    F_BLK_SIZE, F_CONFIG_WCE, F_DISCARD, F_FLUSH, F_MQ, F_RO, F_SEG_MAX, F_TOPOLOGY,
    F_WRITE_ZEROES, Properties, SECTOR, SEG_MAX,
};
use crate::ConfigSpace;

/// The size of `struct virtio_blk_config` up to `write_zeroes_may_unmap` and its padding.
const CONFIG_SIZE: usize = 60;
/// Where `writeback` is in it.
pub(super) const WRITEBACK: usize = 32;

/// How many ranges one discard may name.
pub(super) const MAX_DISCARD_SEG: u32 = 32;
/// How long a range may be: 1 GiB, as a file system may take a while for it.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 21;
/// How many ranges one request may zero: in the worst case all of it is written.
pub(super) const MAX_WRITE_ZEROES_SEG: u32 = 1;
/// How long such a range may be: 16 MiB.
pub(super) const MAX_WRITE_ZEROES_SECTORS: u32 = 1 << 15;

/// The shape of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    size: u64,
    read_only: bool,
    logical_block: u32,
    physical_block: u32,
    discard: Option<u32>,
    queues: u16,
}

impl Geometry {
    pub(super) fn new(properties: &Properties) -> Self {
        let logical_block = properties.logical_block.max(SECTOR as u32);
        Geometry {
            size: properties.size,
            read_only: properties.read_only,
            logical_block,
            physical_block: properties.physical_block.max(logical_block),
            discard: properties.discard,
            queues: 1,
        }
    }

    pub(super) fn with_logical_block(self, logical_block: u32) -> Self {
        Geometry {
            logical_block,
            physical_block: self.physical_block.max(logical_block),
            ..self
        }
    }

    pub(super) fn with_queues(self, queues: u16) -> Self {
        Geometry { queues, ..self }
    }

    /// How many request queues there are.
    pub(super) fn queues(&self) -> u16 {
        self.queues
    }

    /// In bytes; whole blocks only.
    pub(super) fn capacity(&self) -> u64 {
        self.size - self.size % u64::from(self.logical_block)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn features(&self) -> u64 {
        let several = if self.queues > 1 { F_MQ } else { 0 };
        let always = F_SEG_MAX | F_BLK_SIZE | F_TOPOLOGY | several;
        let discard = if self.discard.is_some() { F_DISCARD } else { 0 };
        match self.read_only {
            true => always | F_RO,
            false => always | F_FLUSH | F_CONFIG_WCE | F_WRITE_ZEROES | discard,
        }
    }

    /// What `writeback` is before the driver changes it.
    pub(super) fn initial_writeback(&self) -> u8 {
        u8::from(!self.read_only)
    }

    pub(super) fn config(&self) -> ConfigSpace {
        let mut bytes = vec![0; CONFIG_SIZE];
        let mut put = |offset: usize, field: &[u8]| {
            for (to, from) in bytes.iter_mut().skip(offset).zip(field) {
                *to = *from;
            }
        };
        let ratio = self.physical_block / self.logical_block;
        put(0, &(self.capacity() / SECTOR).to_le_bytes()); // capacity
        put(12, &SEG_MAX.to_le_bytes()); // seg_max
        put(20, &self.logical_block.to_le_bytes()); // blk_size
        put(24, &[u8::try_from(ratio.ilog2()).unwrap_or(0)]); // physical_block_exp
        put(26, &u16::try_from(ratio).unwrap_or(1).to_le_bytes()); // min_io_size, in blocks
        put(WRITEBACK, &[self.initial_writeback()]);
        put(34, &self.queues.to_le_bytes()); // num_queues
        if self.read_only {
            return ConfigSpace::new(bytes);
        }
        if let Some(granularity) = self.discard {
            let alignment = (granularity / SECTOR as u32).max(1);
            put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
            put(40, &MAX_DISCARD_SEG.to_le_bytes());
            put(44, &alignment.to_le_bytes()); // discard_sector_alignment
        }
        put(48, &MAX_WRITE_ZEROES_SECTORS.to_le_bytes());
        put(52, &MAX_WRITE_ZEROES_SEG.to_le_bytes());
        put(56, &[1]); // write_zeroes_may_unmap
        ConfigSpace::with_writable(bytes, WRITEBACK..WRITEBACK + 1)
    }
}
