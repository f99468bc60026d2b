//! The split ring layout (virtio 1.2, 2.7).
//!
//! ```text
//!   descriptor table   size * { addr: u64, len: u32, flags: u16, next: u16 }      driver writes
//!   available ring     flags, idx, ring[size] of heads, used_event                driver writes
//!   used ring          flags, idx, ring[size] of { id: u32, len: u32 }, avail_event   we write
//! ```
//!
//! Indices count up for ever and wrap at 65536; an entry's place is its index modulo the size.
//!
//! # What orders what
//!
//! 1. *Chains.* The driver writes descriptors and the ring entry, then `avail.idx`. We load
//!    `avail.idx` with Acquire, then read the others: what an index promises is there.
//! 2. *Results.* We write buffers and the used entry, then `used.idx` with Release: a driver that
//!    sees the index sees what it stands for.
//! 3. *Doorbells.* We write "ring the doorbell" (`used.flags` or `avail_event`), then load
//!    `avail.idx`. The driver stores `avail.idx`, then reads whether to ring. Each side stores one
//!    place and loads the other: without a full fence between, both loads may see the old values,
//!    and a chain waits with nobody to wake us. Acquire and Release do not order a store before
//!    a later load, so this takes `fence(SeqCst)`, as it does on the driver's side.
//! 4. *Interrupts.* The same, mirrored: we store `used.idx`, full fence, then load `used_event` or
//!    `avail.flags`; the driver asks for interrupts, full fence, then looks at `used.idx` again.
//!
//! The device's own indices are kept here and never read back from the used ring, which the
//! driver can write.

use super::area::Area;
use super::chain::Buffers;
use super::descriptor::{self, Descriptor, Table, VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT};
use super::{MAX_SIZE, Part, QueueConfig, QueueError, Token};
use crate::features;
use crate::memory::GuestMemory;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// Of the available ring: the driver wants no interrupt (2.7.6).
const VIRTQ_AVAIL_F_NO_INTERRUPT: u16 = 1;
/// Of the used ring: the device wants no doorbell (2.7.8).
const VIRTQ_USED_F_NO_NOTIFY: u16 = 1;

/// Where `flags` is in the available and in the used ring.
const FLAGS: usize = 0;
/// Where `idx` is in both.
const IDX: usize = 2;
/// Where the entries start in both.
const RING: usize = 4;
/// The size of a used entry; one of the available ring has 2 bytes.
const USED_ELEM: usize = 8;

/// A split ring, and where in it the device is.
#[derive(Debug)]
pub(super) struct Ring {
    descriptors: Area,
    avail: Area,
    used: Area,
    size: u16,
    indirect: bool,
    event_idx: bool,
    /// The index of the next chain to take.
    next_avail: u16,
    /// The driver's index when we last looked: up to there chains are known to be available.
    avail_idx: u16,
    /// The index of the next used entry to write.
    next_used: u16,
    /// The used index when we last decided about an interrupt.
    decided_used: u16,
    /// Whether `NO_NOTIFY` is set in the used ring.
    suppressed: bool,
}

impl Ring {
    pub(super) fn new(
        config: &QueueConfig,
        memory: &Arc<GuestMemory>,
        features: u64,
    ) -> Result<Ring, QueueError> {
        let size = config.size;
        let max = config.max_size.min(MAX_SIZE);
        if !is_size(size) || size > max {
            return Err(QueueError::Size { size, max });
        }
        let entries = usize::from(size);
        // Sizes and alignments: the table in 2.7. The two event fields are always there.
        let area = |part, address, len, alignment| Area::new(memory, part, address, len, alignment);
        Ok(Ring {
            descriptors: area(
                Part::Descriptors,
                config.desc,
                descriptor::SIZE * entries,
                16,
            )?,
            avail: area(Part::Driver, config.avail, RING + 2 * entries + 2, 2)?,
            used: area(Part::Device, config.used, RING + USED_ELEM * entries + 2, 4)?,
            size,
            indirect: features & features::INDIRECT_DESC != 0,
            event_idx: features & features::EVENT_IDX != 0,
            next_avail: 0,
            avail_idx: 0,
            next_used: 0,
            decided_used: 0,
            suppressed: false,
        })
    }

    /// Gathers the next chain, which stays available.
    pub(super) fn peek(
        &mut self,
        memory: &GuestMemory,
        buffers: &mut Buffers,
    ) -> Result<Option<Token>, QueueError> {
        if self.next_avail == self.avail_idx {
            self.avail_idx = self.load_avail_idx()?;
            if self.next_avail == self.avail_idx {
                return Ok(None);
            }
        }
        let entry = RING + 2 * self.slot(self.next_avail);
        // Relaxed: the load of `avail.idx` that promised this entry was an Acquire.
        let head = self.avail.load(entry, Ordering::Relaxed)?;
        if head >= self.size {
            return Err(QueueError::HeadOutOfRange {
                head,
                size: self.size,
            });
        }
        self.gather(head, memory, buffers)?;
        Ok(Some(Token { id: head, slots: 1 }))
    }

    pub(super) fn consume(&mut self) {
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Writes a used entry that the driver does not know of yet.
    pub(super) fn stage_used(&mut self, id: u16, written: u32) -> Result<(), QueueError> {
        let entry = RING + USED_ELEM * self.slot(self.next_used);
        self.used.store_u32(entry, u32::from(id))?;
        self.used.store_u32(entry + 4, written)?;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(())
    }

    /// Announces what was staged.
    pub(super) fn publish_used(&mut self) -> Result<(), QueueError> {
        // Release: the buffers and the entries are visible before the index that announces them.
        self.used.store(IDX, self.next_used, Ordering::Release)
    }

    pub(super) fn has_available(&self) -> Result<bool, QueueError> {
        Ok(self.load_avail_idx()? != self.next_avail)
    }

    pub(super) fn suppress_doorbell(&mut self) -> Result<(), QueueError> {
        // With event indices there is nothing to write: the driver rings when its index passes
        // `avail_event`, which stays at an index that has been passed.
        if !self.event_idx && !mem::replace(&mut self.suppressed, true) {
            self.used
                .store(FLAGS, VIRTQ_USED_F_NO_NOTIFY, Ordering::Relaxed)?;
        }
        Ok(())
    }

    pub(super) fn enable_doorbell(&mut self) -> Result<(), QueueError> {
        if self.event_idx {
            let avail_event = RING + USED_ELEM * usize::from(self.size);
            self.used
                .store(avail_event, self.next_avail, Ordering::Relaxed)?;
        } else if mem::replace(&mut self.suppressed, false) {
            self.used.store(FLAGS, 0, Ordering::Relaxed)?;
        }
        // Our store is visible before the load of `avail.idx` that follows: the third of "what
        // orders what".
        fence(Ordering::SeqCst);
        Ok(())
    }

    pub(super) fn take_interrupt(&mut self) -> Result<bool, QueueError> {
        let old = mem::replace(&mut self.decided_used, self.next_used);
        if old == self.next_used {
            return Ok(false);
        }
        // The store of `used.idx` is visible before we load what the driver wants: the fourth.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let used_event = RING + 2 * usize::from(self.size);
            let event = self.avail.load(used_event, Ordering::Relaxed)?;
            Ok(passes(event, self.next_used, old))
        } else {
            let flags = self.avail.load(FLAGS, Ordering::Relaxed)?;
            Ok(flags & VIRTQ_AVAIL_F_NO_INTERRUPT == 0)
        }
    }

    /// Looks how far the driver is.
    fn load_avail_idx(&self) -> Result<u16, QueueError> {
        // Acquire: what the index promises is read after it.
        let to = self.avail.load(IDX, Ordering::Acquire)?;
        let from = self.next_avail;
        // There can't be more chains than descriptors. An index that went back looks like one
        // that is far ahead.
        if to.wrapping_sub(from) > self.size {
            return Err(QueueError::AvailIndexJump {
                from,
                to,
                size: self.size,
            });
        }
        Ok(to)
    }

    /// Checks and gathers the chain that starts at `head`: descriptors of the table, of which
    /// the last may be one that names an indirect table (2.7.5.3).
    fn gather(
        &self,
        head: u16,
        memory: &GuestMemory,
        buffers: &mut Buffers,
    ) -> Result<(), QueueError> {
        buffers.start(self.size);
        let read = |index: u16| {
            self.descriptors
                .descriptor(descriptor::SIZE * usize::from(index))
        };
        let Some(indirect) = follow(head, self.size, read, memory, buffers)? else {
            return Ok(());
        };
        let table = Table::open(memory, &indirect, self.indirect, self.size)?;
        let read = |index: u16| table.read(index);
        match follow(0, table.entries(), read, memory, buffers)? {
            None => Ok(()),
            Some(_) => Err(QueueError::NestedIndirect),
        }
    }

    /// Where the entry of an index is. The size is a power of two, so that wrapping is seamless.
    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }
}

/// Follows the descriptors of one table from `start` to the end of the chain, or to an indirect
/// descriptor, which it returns.
///
/// `buffers` takes no more descriptors than the queue has, which ends loops.
fn follow(
    start: u16,
    entries: u16,
    read: impl Fn(u16) -> Result<u128, QueueError>,
    memory: &GuestMemory,
    buffers: &mut Buffers,
) -> Result<Option<Descriptor>, QueueError> {
    let mut index = start;
    loop {
        let descriptor = Descriptor::split(read(index)?);
        if descriptor.has(VIRTQ_DESC_F_INDIRECT) {
            return Ok(Some(descriptor));
        }
        descriptor.push(memory, buffers)?;
        if !descriptor.has(VIRTQ_DESC_F_NEXT) {
            return Ok(None);
        }
        let next = descriptor.tag;
        if next >= entries {
            return Err(QueueError::NextOutOfRange { next, entries });
        }
        index = next;
    }
}

/// Whether a ring may have this many descriptors: so that 65536 indices go round a whole number
/// of times (2.7).
pub(super) fn is_size(size: u16) -> bool {
    size.is_power_of_two()
}

/// Whether an index that went from `old` to `new` has passed `event`: the entry with that very
/// index was written (2.7.7.1, 2.7.10.1: `vring_need_event`).
fn passes(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
