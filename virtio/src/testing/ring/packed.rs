//! The driver's side of a packed ring.

use super::{Descriptor, NEXT};
use crate::features;
use crate::memory::GuestMemory;
use crate::queue::QueueConfig;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use vm_memory::{Bytes, GuestAddress};

/// Descriptor flag: equals the driver's wrap counter while the descriptor is available.
pub const AVAIL: u16 = 1 << 7;
/// Descriptor flag: differs from [`AVAIL`] while the descriptor is available.
pub const USED: u16 = 1 << 15;

/// Event suppression: notify.
pub const ENABLE: u16 = 0;
/// Event suppression: do not notify.
pub const DISABLE: u16 = 1;
/// Event suppression: notify when a certain descriptor is passed.
pub const DESC: u16 = 2;

/// A packed ring as its driver sees it (virtio 1.2, 2.8). Each field can be written as a hostile
/// driver would; the [`Ring`](super::Ring) it belongs to then knows nothing of it.
#[derive(Debug)]
pub struct Packed {
    memory: Arc<GuestMemory>,
    size: u16,
    event_idx: bool,
    desc: u64,
    driver: u64,
    device: u64,
    /// Identifiers that belong to no chain.
    free_ids: Vec<u16>,
    /// How many descriptors each chain has, by its identifier.
    chains: HashMap<u16, u16>,
    /// How many descriptors belong to no chain.
    free: u16,
    next_avail: Place,
    next_used: Place,
    /// How many descriptors were made available since the last question whether to kick.
    unasked: u16,
}

/// A place in the ring, with the wrap counter of the side whose place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The descriptor.
    pub index: u16,
    /// The wrap counter, which starts as true.
    pub wrap: bool,
}

impl Place {
    const START: Place = Place {
        index: 0,
        wrap: true,
    };

    fn after(self, count: u16, size: u16) -> Place {
        let index = u32::from(self.index) + u32::from(count);
        let size = u32::from(size);
        Place {
            index: u16::try_from(index % size).expect("index below the size"),
            wrap: self.wrap ^ (index / size % 2 == 1),
        }
    }

    /// The two flags of a descriptor that is available here.
    pub fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// As the event suppression structures have it.
    pub fn off_wrap(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }
}

impl Packed {
    /// Lays out a ring where `place` says, given a length and an alignment.
    pub(super) fn new(
        memory: &Arc<GuestMemory>,
        place: &mut impl FnMut(usize, u64) -> u64,
        size: u16,
        features: u64,
    ) -> Packed {
        Packed {
            memory: Arc::clone(memory),
            size,
            event_idx: features & features::EVENT_IDX != 0,
            desc: place(16 * usize::from(size), 16),
            driver: place(4, 4),
            device: place(4, 4),
            free_ids: (0..size).rev().collect(),
            chains: HashMap::new(),
            free: size,
            next_avail: Place::START,
            next_used: Place::START,
            unasked: 0,
        }
    }

    /// Where the next chain will start.
    pub fn next_avail(&self) -> Place {
        self.next_avail
    }

    /// Where the next used descriptor will be.
    pub fn next_used(&self) -> Place {
        self.next_used
    }

    /// Writes a descriptor with exactly these flags. The identifier is
    /// [`Descriptor::next`].
    pub fn set_descriptor(&mut self, index: u16, descriptor: Descriptor) {
        self.set_but_flags(index, descriptor);
        self.set_flags(index, descriptor.flags);
    }

    /// Writes the flags of a descriptor.
    pub fn set_flags(&mut self, index: u16, flags: u16) {
        self.memory
            .store(
                flags.to_le(),
                GuestAddress(self.at(index) + 14),
                Ordering::Release,
            )
            .expect("descriptor in test RAM");
    }

    /// The flags of a descriptor.
    pub fn flags(&self, index: u16) -> u16 {
        let flags = self
            .memory
            .load(GuestAddress(self.at(index) + 14), Ordering::Acquire);
        u16::from_le(flags.expect("descriptor in test RAM"))
    }

    /// Makes these descriptors available one after the other, whatever they say: only the flags
    /// that tell whose they are are added. The first one's are written last.
    pub fn push_avail(&mut self, descriptors: &[Descriptor]) {
        let first = self.next_avail;
        for (index, descriptor) in (0..).zip(descriptors) {
            let place = first.after(index, self.size);
            let flags = descriptor.flags | place.available();
            self.set_but_flags(place.index, *descriptor);
            if index > 0 {
                self.set_flags(place.index, flags);
            }
        }
        let count = u16::try_from(descriptors.len()).expect("chain of a ring");
        self.next_avail = first.after(count, self.size);
        self.unasked = self.unasked.saturating_add(count);
        if let Some(head) = descriptors.first() {
            self.set_flags(first.index, head.flags | first.available());
        }
    }

    /// Writes the driver's event suppression structure.
    pub fn set_driver_event(&mut self, off_wrap: u16, flags: u16) {
        self.memory
            .store(
                (u32::from(flags) << 16 | u32::from(off_wrap)).to_le(),
                GuestAddress(self.driver),
                Ordering::Release,
            )
            .expect("driver area in test RAM");
    }

    /// The device's event suppression structure: offset with wrap counter, and flags.
    pub fn device_event(&self) -> (u16, u16) {
        let event = self
            .memory
            .load(GuestAddress(self.device), Ordering::Acquire);
        let event = u32::from_le(event.expect("device area in test RAM"));
        (event as u16, (event >> 16) as u16)
    }

    pub(super) fn config(&self) -> QueueConfig {
        QueueConfig {
            max_size: self.size,
            size: self.size,
            ready: true,
            desc: self.desc,
            avail: self.driver,
            used: self.device,
        }
    }

    /// Puts a chain into free descriptors and makes it available. The identifier, which is
    /// returned, is in the last one.
    pub(super) fn offer(&mut self, descriptors: &[Descriptor]) -> u16 {
        let count = u16::try_from(descriptors.len()).expect("chain of a ring");
        assert!(count <= self.free, "no free descriptors");
        let id = self.free_ids.pop().expect("a free identifier");
        let mut descriptors = descriptors.to_vec();
        for descriptor in &mut descriptors {
            // What it holds before the last one means nothing.
            descriptor.next = if descriptor.flags & NEXT == 0 {
                id
            } else {
                0x5555
            };
        }
        self.free -= count;
        self.chains.insert(id, count);
        self.push_avail(&descriptors);
        id
    }

    /// The used descriptor at a place, if it is one.
    fn used_at(&self, place: Place) -> Option<(u16, u32)> {
        let expected = if place.wrap { AVAIL | USED } else { 0 };
        if self.flags(place.index) & (AVAIL | USED) != expected {
            return None;
        }
        let len: u32 = self
            .memory
            .read_obj(GuestAddress(self.at(place.index) + 8))
            .expect("descriptor in test RAM");
        let id: u16 = self
            .memory
            .read_obj(GuestAddress(self.at(place.index) + 12))
            .expect("descriptor in test RAM");
        Some((u16::from_le(id), u32::from_le(len)))
    }

    pub(super) fn used(&mut self) -> Option<(u16, u32)> {
        let (id, len) = self.used_at(self.next_used)?;
        // A chain that a test wrote by hand is not known, and took one descriptor.
        let count = match self.chains.remove(&id) {
            Some(count) => {
                self.free_ids.push(id);
                self.free += count;
                count
            }
            None => 1,
        };
        self.next_used = self.next_used.after(count, self.size);
        Some((id, len))
    }

    pub(super) fn used_waiting(&self) -> u16 {
        let (mut place, mut waiting) = (self.next_used, 0);
        while let Some((id, _)) = self.used_at(place) {
            place = place.after(self.chains.get(&id).copied().unwrap_or(1), self.size);
            waiting += 1;
        }
        waiting
    }

    pub(super) fn must_kick(&mut self) -> bool {
        let added = std::mem::take(&mut self.unasked);
        if added == 0 {
            return false;
        }
        // The flags are visible before we look whether to ring (2.8.21.2).
        fence(Ordering::SeqCst);
        match self.device_event() {
            (_, ENABLE) => true,
            (off_wrap, DESC) => {
                assert!(self.event_idx, "the device takes what was not negotiated");
                // In 16 bits, as if the ring had 65536 places of which the last `size` are used.
                let new = self.next_avail.index;
                let mut event = off_wrap & 0x7fff;
                if (off_wrap >> 15 != 0) != self.next_avail.wrap {
                    event = event.wrapping_sub(self.size);
                }
                new.wrapping_sub(event).wrapping_sub(1) < added
            }
            (_, DISABLE) => false,
            (_, flags) => panic!("event flags {flags:#x} of the device"),
        }
    }

    pub(super) fn enable_interrupts(&mut self) -> bool {
        let flags = if self.event_idx { DESC } else { ENABLE };
        self.set_driver_event(self.next_used.off_wrap(), flags);
        // The wish is visible before we look for what it came too late for.
        fence(Ordering::SeqCst);
        self.used_at(self.next_used).is_some()
    }

    pub(super) fn disable_interrupts(&mut self) {
        self.set_driver_event(0, DISABLE);
    }

    /// Everything but the flags, whose store makes the rest visible.
    fn set_but_flags(&self, index: u16, descriptor: Descriptor) {
        let bits = u128::from(descriptor.address)
            | u128::from(descriptor.len) << 64
            | u128::from(descriptor.next) << 96;
        self.memory
            .write_slice(&bits.to_le_bytes()[..14], GuestAddress(self.at(index)))
            .expect("descriptor in test RAM");
    }

    /// Where a descriptor is.
    fn at(&self, index: u16) -> u64 {
        self.desc + 16 * u64::from(index)
    }
}
