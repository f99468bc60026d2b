//! The packed ring layout (virtio 1.2, 2.8).
//!
//! ```text
//!   descriptor ring   size * { addr: u64, len: u32, id: u16, flags: u16 }      both write
//!   driver area       { offset and wrap: u16, flags: u16 }                     driver writes
//!   device area       the same                                                 we write
//! ```
//!
//! There is one ring. The driver writes chains into it in order; the device writes a used
//! descriptor for each chain that is complete, in the order of completion, at the place that is
//! next in *its* order, and skips as many descriptors as that chain had:
//!
//! ```text
//!            next_used        next_avail
//!      free  |   in flight    |   available, then free
//!    --------+----------------+--------------------------> ring
//! ```
//!
//! Whose a descriptor is tell two of its flags, together with a bit that each side flips whenever
//! it comes round: `AVAIL` differs from `USED` while the descriptor is available, and is the same
//! once it is used. So descriptors of the last round are never taken for those of this one.
//!
//! # What orders what
//!
//! 1. *Chains.* The driver writes all of a chain, and the flags of its first descriptor last. We
//!    load these flags with Acquire and read everything else afterwards: what they promise is
//!    there. They are the only flags of a chain that are asked whether it is available; a driver
//!    that lets others lag behind gives us what they hold, and this costs nobody but itself.
//! 2. *Results.* We write buffers, then identifier and length, then the flags with Release: a
//!    driver that sees the flags sees what they stand for. The rest of a chain's descriptors is
//!    left as it is.
//! 3. *Doorbells.* We write to the device area, then load the next descriptor's flags. The driver
//!    stores these flags, then reads whether to ring. Each side stores one place and loads the
//!    other, so both need a full fence in between, or both may see the past, and a chain waits
//!    with nobody to wake us.
//! 4. *Interrupts.* The same, mirrored: we store a used descriptor's flags, full fence, then load
//!    the driver area; the driver writes there, full fence, then looks at the descriptor again.
//!
//! The two fields of an area belong together: which descriptor an event is for, and that it is
//! for one. Each is read and written as one number of 32 bits, so that no order between them
//! has to be argued.
//!
//! Positions are kept here and never read back. The used position can't overtake chains that wait:
//! a chain is taken only if it fits beside those in flight, and each gives back what it took.
//!
//! `VIRTIO_F_IN_ORDER` is not here: devices complete chains as host I/O ends.

use super::area::Area;
use super::chain::Buffers;
use super::descriptor::{
    self, Descriptor, Table, VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE,
};
use super::{MAX_SIZE, Part, QueueConfig, QueueError, Token};
use crate::features;
use crate::memory::GuestMemory;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// How many identifiers there are. The driver chooses them, and the specification does not tie
/// them to the size of the queue.
pub(super) const IDS: usize = 1 << 16;

/// Of a descriptor: its `AVAIL` and `USED` bits (2.8.1).
const VIRTQ_DESC_F_AVAIL: u16 = 1 << 7;
const VIRTQ_DESC_F_USED: u16 = 1 << 15;

/// Where the fields of a used descriptor are.
const LEN: usize = 8;
const ID: usize = 12;
const FLAGS: usize = 14;

/// The size of an event suppression structure (2.8.14), which is one number here: offset in the
/// lower 15 bits, then the wrap bit; flags in bits 16 and 17.
const EVENT_SUPPRESS: usize = 4;
const RING_EVENT_FLAGS_ENABLE: u32 = 0;
const RING_EVENT_FLAGS_DISABLE: u32 = 1;
const RING_EVENT_FLAGS_DESC: u32 = 2;

/// A packed ring, and where in it the device is.
#[derive(Debug)]
pub(super) struct Ring {
    descriptors: Area,
    driver: Area,
    device: Area,
    size: u16,
    indirect: bool,
    event_idx: bool,
    /// Where the next chain will start.
    next_avail: Position,
    /// Where the next used descriptor goes.
    next_used: Position,
    /// Where the flags of the first staged descriptor go, and what they are.
    staged: Option<(usize, u16)>,
    /// How many descriptors belong to chains that were taken and not yet used.
    in_flight: u16,
    /// How many descriptors were used since we last decided about an interrupt.
    undecided: u32,
    /// What the device area says; `None` before we have written it.
    suppression: Option<u32>,
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
        // Sizes and alignments: the table in 2.8.10.1.
        let len = descriptor::SIZE * usize::from(size);
        let area = |part, address| Area::new(memory, part, address, EVENT_SUPPRESS, 4);
        Ok(Ring {
            descriptors: Area::new(memory, Part::Descriptors, config.desc, len, 16)?,
            driver: area(Part::Driver, config.avail)?,
            device: area(Part::Device, config.used)?,
            size,
            indirect: features & features::INDIRECT_DESC != 0,
            event_idx: features & features::EVENT_IDX != 0,
            next_avail: Position::START,
            next_used: Position::START,
            staged: None,
            in_flight: 0,
            undecided: 0,
            suppression: None,
        })
    }

    /// Gathers the next chain, which stays available.
    pub(super) fn peek(
        &mut self,
        memory: &GuestMemory,
        buffers: &mut Buffers,
    ) -> Result<Option<Token>, QueueError> {
        let flags = self.next_flags()?;
        if !self.next_avail.is_available(flags) {
            return Ok(None);
        }
        let token = self.gather(flags, memory, buffers)?;
        // Else the driver has overwritten what is in flight, and used descriptors would in turn
        // overwrite what waits.
        let free = self.size.saturating_sub(self.in_flight);
        if token.slots > free {
            return Err(QueueError::DescriptorsInFlight {
                len: token.slots,
                free,
            });
        }
        Ok(Some(token))
    }

    pub(super) fn consume(&mut self, token: &Token) {
        self.next_avail.advance(token.slots, self.size);
        // At most the size of the queue: `peek` has seen to it.
        self.in_flight = self.in_flight.saturating_add(token.slots);
    }

    /// Writes a used descriptor that the driver does not know of yet: it looks for them in order,
    /// so it is enough that the first one's flags are not written.
    pub(super) fn stage_used(&mut self, token: &Token, written: u32) -> Result<(), QueueError> {
        let slot = self.next_used.offset();
        self.descriptors.store_u32(slot + LEN, written)?;
        self.descriptors
            .store(slot + ID, token.id, Ordering::Relaxed)?;
        let write = if written > 0 { VIRTQ_DESC_F_WRITE } else { 0 };
        let flags = self.next_used.used() | write;
        if self.staged.is_none() {
            self.staged = Some((slot + FLAGS, flags));
        } else {
            // Relaxed: the driver looks at these flags behind those of the first.
            self.descriptors
                .store(slot + FLAGS, flags, Ordering::Relaxed)?;
        }
        self.next_used.advance(token.slots, self.size);
        self.in_flight = self.in_flight.saturating_sub(token.slots);
        self.undecided = self.undecided.saturating_add(token.slots.into());
        Ok(())
    }

    /// Announces what was staged.
    pub(super) fn publish_used(&mut self) -> Result<(), QueueError> {
        match self.staged.take() {
            // Release: the buffers and all other fields are visible before the flags.
            Some((slot, flags)) => self.descriptors.store(slot, flags, Ordering::Release),
            None => Ok(()),
        }
    }

    pub(super) fn has_available(&self) -> Result<bool, QueueError> {
        Ok(self.next_avail.is_available(self.next_flags()?))
    }

    pub(super) fn suppress_doorbell(&mut self) -> Result<(), QueueError> {
        self.set_suppression(RING_EVENT_FLAGS_DISABLE << 16)
    }

    pub(super) fn enable_doorbell(&mut self) -> Result<(), QueueError> {
        let when = if self.event_idx {
            RING_EVENT_FLAGS_DESC << 16 | u32::from(self.next_avail.event())
        } else {
            RING_EVENT_FLAGS_ENABLE << 16
        };
        self.set_suppression(when)?;
        // Our store is visible before the load of the next flags that follows: the third of
        // "what orders what".
        fence(Ordering::SeqCst);
        Ok(())
    }

    pub(super) fn take_interrupt(&mut self) -> Result<bool, QueueError> {
        let used = mem::take(&mut self.undecided);
        if used == 0 {
            return Ok(false);
        }
        // The store of the used flags is visible before we load what the driver wants: the fourth.
        fence(Ordering::SeqCst);
        let wish = self.driver.load_u32(0)?;
        Ok(match wish >> 16 & 3 {
            RING_EVENT_FLAGS_DISABLE => false,
            RING_EVENT_FLAGS_DESC if self.event_idx => {
                self.next_used.has_passed(wish as u16, used, self.size)
            }
            // Also for what makes no sense: an interrupt too many does no harm.
            _ => true,
        })
    }

    /// The flags of the descriptor that is the next to become available.
    fn next_flags(&self) -> Result<u16, QueueError> {
        // Acquire: what the flags promise is read after them.
        self.descriptors
            .load(self.next_avail.offset() + FLAGS, Ordering::Acquire)
    }

    fn set_suppression(&mut self, value: u32) -> Result<(), QueueError> {
        if self.suppression != Some(value) {
            self.device.store_u32(0, value)?;
            self.suppression = Some(value);
        }
        Ok(())
    }

    /// Checks and gathers the chain whose first descriptor has these flags: either descriptors
    /// that follow each other in the ring, or a single one that names an indirect table.
    fn gather(
        &self,
        flags: u16,
        memory: &GuestMemory,
        buffers: &mut Buffers,
    ) -> Result<Token, QueueError> {
        buffers.start(self.size);
        let mut position = self.next_avail;
        let mut first = Some(flags);
        let mut slots = 0;
        loop {
            let bits = self.descriptors.descriptor(position.offset())?;
            let mut descriptor = Descriptor::packed(bits);
            // The flags that said "available" are those that count, not what is there by now.
            descriptor.flags = first.take().unwrap_or(descriptor.flags);
            slots += 1;
            if descriptor.has(VIRTQ_DESC_F_INDIRECT) {
                if slots > 1 {
                    return Err(QueueError::IndirectInList);
                }
                self.gather_indirect(&descriptor, memory, buffers)?;
            } else {
                // Takes no more descriptors than the queue has, which ends this loop.
                descriptor.push(memory, buffers)?;
                if descriptor.has(VIRTQ_DESC_F_NEXT) {
                    position.advance(1, self.size);
                    continue;
                }
            }
            let id = descriptor.tag;
            return Ok(Token { id, slots });
        }
    }

    /// All entries of the table, one after the other. Of their flags only `WRITE` means anything
    /// (2.8.7).
    fn gather_indirect(
        &self,
        indirect: &Descriptor,
        memory: &GuestMemory,
        buffers: &mut Buffers,
    ) -> Result<(), QueueError> {
        let table = Table::open(memory, indirect, self.indirect, self.size)?;
        (0..table.entries())
            .try_for_each(|index| Descriptor::packed(table.read(index)?).push(memory, buffers))
    }
}

/// Whether a ring may have this many descriptors: any number but none.
pub(super) fn is_size(size: u16) -> bool {
    size != 0
}

/// A place in the ring, and in which of two rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    /// Below the size of the ring.
    index: u16,
    /// The wrap counter (2.8.1).
    wrap: bool,
}

impl Position {
    const START: Position = Position {
        index: 0,
        wrap: true,
    };

    /// Goes on by `count` descriptors of a ring of `size`; not more than once round.
    fn advance(&mut self, count: u16, size: u16) {
        // Both are at most 32768, and so the sum is below 65536.
        let index = self.index.saturating_add(count);
        if index >= size {
            self.wrap = !self.wrap;
        }
        self.index = index.checked_sub(size).unwrap_or(index);
    }

    /// Where the descriptor is in the ring.
    fn offset(self) -> usize {
        descriptor::SIZE * usize::from(self.index)
    }

    /// Whether a descriptor with these flags was made available in this round.
    fn is_available(self, flags: u16) -> bool {
        let avail = flags & VIRTQ_DESC_F_AVAIL != 0;
        let used = flags & VIRTQ_DESC_F_USED != 0;
        avail == self.wrap && used != self.wrap
    }

    /// The flags that mark a descriptor as used in this round.
    fn used(self) -> u16 {
        if self.wrap {
            VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED
        } else {
            0
        }
    }

    /// The lower half of an event suppression structure that names this place.
    fn event(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }

    /// Whether `event` names one of the last `count` descriptors of a ring of `size` before this
    /// place. An event beyond the ring counts as passed: the driver made a mistake, and may be
    /// waiting.
    fn has_passed(self, event: u16, count: u32, size: u16) -> bool {
        let index = event & 0x7fff;
        if index >= size {
            return true;
        }
        // How far the event is behind, 1 to twice the size: as of a place that was not reached in
        // this round, it is of the one before the last.
        let round = u32::from(size);
        let behind = match (event >> 15 != 0) == self.wrap {
            true if index < self.index => 0,
            true => 2 * round,
            false => round,
        };
        behind + u32::from(self.index) - u32::from(index) <= count
    }
}
