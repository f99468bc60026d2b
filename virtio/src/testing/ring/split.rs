//! The driver's side of a split ring.

use super::Descriptor;
use crate::features;
use crate::memory::GuestMemory;
use crate::queue::QueueConfig;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use vm_memory::{Bytes, GuestAddress};

/// A split ring as its driver sees it (virtio 1.2, 2.7). Each field can be written as a hostile
/// driver would; the [`Ring`](super::Ring) it belongs to then knows nothing of it.
#[derive(Debug)]
pub struct Split {
    memory: Arc<GuestMemory>,
    size: u16,
    event_idx: bool,
    desc: u64,
    avail: u64,
    used: u64,
    /// Descriptors that belong to no chain.
    free: Vec<u16>,
    /// The descriptors of each chain, by its head.
    chains: HashMap<u16, Vec<u16>>,
    /// The index of the next available entry to write.
    next_avail: u16,
    /// The available index at the last question whether to kick.
    asked: u16,
    /// The index of the next used entry to read.
    next_used: u16,
}

impl Split {
    /// Lays out a ring where `place` says, given a length and an alignment.
    pub(super) fn new(
        memory: &Arc<GuestMemory>,
        place: &mut impl FnMut(usize, u64) -> u64,
        size: u16,
        features: u64,
    ) -> Split {
        let entries = usize::from(size);
        Split {
            memory: Arc::clone(memory),
            size,
            event_idx: features & features::EVENT_IDX != 0,
            desc: place(16 * entries, 16),
            avail: place(6 + 2 * entries, 2),
            used: place(6 + 8 * entries, 4),
            free: (0..size).rev().collect(),
            chains: HashMap::new(),
            next_avail: 0,
            asked: 0,
            next_used: 0,
        }
    }

    /// Writes a descriptor of the table.
    pub fn set_descriptor(&mut self, index: u16, descriptor: Descriptor) {
        let address = self.desc + 16 * u64::from(index);
        let bytes = descriptor.to_bytes();
        self.memory
            .write_slice(&bytes, GuestAddress(address))
            .expect("descriptor in test RAM");
    }

    /// Writes an entry of the available ring.
    pub fn set_avail(&mut self, slot: u16, head: u16) {
        self.store(self.avail + 4 + 2 * u64::from(slot), head);
    }

    /// Writes the index of the available ring.
    pub fn set_avail_idx(&mut self, index: u16) {
        self.next_avail = index;
        self.store(self.avail + 2, index);
    }

    /// The index of the available ring as it was written last.
    pub fn avail_idx(&self) -> u16 {
        self.next_avail
    }

    /// Makes the chain at `head` available, whatever is there.
    pub fn push_avail(&mut self, head: u16) {
        self.set_avail(self.next_avail % self.size, head);
        self.set_avail_idx(self.next_avail.wrapping_add(1));
    }

    /// Writes the flags of the available ring.
    pub fn set_avail_flags(&mut self, flags: u16) {
        self.store(self.avail, flags);
    }

    /// Writes the used index after which the driver wants an interrupt.
    pub fn set_used_event(&mut self, index: u16) {
        self.store(self.avail + 4 + 2 * u64::from(self.size), index);
    }

    /// Writes the index of the used ring, which is the device's.
    pub fn set_used_idx(&mut self, index: u16) {
        self.store(self.used + 2, index);
    }

    /// The index of the used ring.
    pub fn used_idx(&self) -> u16 {
        self.load(self.used + 2)
    }

    /// The flags of the used ring.
    pub fn used_flags(&self) -> u16 {
        self.load(self.used)
    }

    /// The available index after which the device wants the doorbell.
    pub fn avail_event(&self) -> u16 {
        self.load(self.used + 4 + 8 * u64::from(self.size))
    }

    pub(super) fn config(&self) -> QueueConfig {
        QueueConfig {
            max_size: self.size,
            size: self.size,
            ready: true,
            desc: self.desc,
            avail: self.avail,
            used: self.used,
        }
    }

    /// Puts a chain into free descriptors and makes it available. In `descriptors`, `next` is an
    /// index in that slice.
    pub(super) fn offer(&mut self, descriptors: &[Descriptor]) -> u16 {
        assert!(descriptors.len() <= self.free.len(), "no free descriptors");
        let indices = self.free.split_off(self.free.len() - descriptors.len());
        for (index, descriptor) in indices.iter().zip(descriptors) {
            let next = indices.get(usize::from(descriptor.next)).copied();
            let next = next.expect("a chain's next descriptor is in the chain");
            self.set_descriptor(
                *index,
                Descriptor {
                    next,
                    ..*descriptor
                },
            );
        }
        let head = *indices.first().expect("a chain has a descriptor");
        self.chains.insert(head, indices);
        self.push_avail(head);
        head
    }

    pub(super) fn used(&mut self) -> Option<(u16, u32)> {
        if self.used_idx() == self.next_used {
            return None;
        }
        let entry = self.used + 4 + 8 * u64::from(self.next_used % self.size);
        let id: u32 = self
            .memory
            .read_obj(GuestAddress(entry))
            .expect("used ring in test RAM");
        let len: u32 = self
            .memory
            .read_obj(GuestAddress(entry + 4))
            .expect("used ring in test RAM");
        self.next_used = self.next_used.wrapping_add(1);
        let id = u16::try_from(u32::from_le(id)).expect("used identifier of 16 bits");
        self.free
            .extend(self.chains.remove(&id).unwrap_or_default());
        Some((id, u32::from_le(len)))
    }

    pub(super) fn used_waiting(&self) -> u16 {
        self.used_idx().wrapping_sub(self.next_used)
    }

    pub(super) fn must_kick(&mut self) -> bool {
        let (old, new) = (self.asked, self.next_avail);
        self.asked = new;
        if old == new {
            return false;
        }
        // The index is visible before we look whether to ring (2.7.13.4).
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.avail_event();
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.used_flags() & 1 == 0
        }
    }

    pub(super) fn enable_interrupts(&mut self) -> bool {
        if self.event_idx {
            self.set_used_event(self.next_used);
        } else {
            self.set_avail_flags(0);
        }
        // The wish is visible before we look for what it came too late for.
        fence(Ordering::SeqCst);
        self.used_idx() != self.next_used
    }

    pub(super) fn disable_interrupts(&mut self) {
        // With event indices, the one that has been passed is left where it is.
        if !self.event_idx {
            self.set_avail_flags(1);
        }
    }

    fn store(&self, address: u64, value: u16) {
        let address = GuestAddress(address);
        self.memory
            .store(value.to_le(), address, Ordering::Release)
            .expect("ring in test RAM");
    }

    fn load(&self, address: u64) -> u16 {
        let value = self.memory.load(GuestAddress(address), Ordering::Acquire);
        u16::from_le(value.expect("ring in test RAM"))
    }
}
