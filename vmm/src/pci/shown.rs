//! Configuration space as memory: the guest reads it without an exit.
//!
//! # The problem
//!
//! While it boots, Linux asks some 200 times for the configuration of each function, mostly for what
//! it was told before. Each of that is an exit.
//!
//! # The design
//!
//! ECAM is memory that the guest can't write. A write is an exit as before, by ECAM or by the
//! ports, and goes to the function; what it reads as then is copied here while the function is locked, so that of two writes the later one is seen. Words are
//! stored whole, as a function would give them.
//!
//! Nothing in a function's configuration space changes but by writes to it, nor does reading do
//! anything, with one exception: the window to BAR 0. Linux does not use it. Before a first write to
//! it is done, the memory goes away for good; then each read is an exit.
//!
//! Most of it is ones, for functions that aren't there: a MiB of the host's, but Linux looks for each
//! of 31 devices, and filling a page costs less than an exit.

use super::{Address, CONFIG_SIZE};
use crate::arch::layout::PCI_ECAM;
use crate::memory;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Once};
use virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// Ends that the guest sees the memory.
pub(crate) type Hide = Box<dyn Fn() + Send + Sync>;

/// What the guest reads.
pub(crate) struct Shown {
    memory: Arc<GuestMemory>,
    hide: Hide,
    hidden: Once,
}

impl Shown {
    /// The memory, which knows its address: to be given to the guest, as memory that it can't write.
    pub(crate) fn memory() -> Result<Arc<GuestMemory>, memory::Error> {
        memory::alone(PCI_ECAM)
    }

    /// What is in this memory until `hide` has returned.
    pub(crate) fn new(memory: Arc<GuestMemory>, hide: Hide) -> Self {
        Shown {
            memory,
            hide,
            hidden: Once::new(),
        }
    }

    /// Fills all of it with what is read from the bus.
    pub(super) fn fill(&self, read: impl Fn(Address, &mut [u8])) {
        let mut page = [0; CONFIG_SIZE as usize];
        for slot in 0..=u8::MAX {
            read(Address { slot, offset: 0 }, &mut page);
            let to = GuestAddress(address(slot, 0));
            check(to, self.memory.write_slice(&page, to));
        }
    }

    /// Something was written to `len` bytes of a function, which now reads as `read` says.
    pub(super) fn update(&self, at: Address, len: usize, mut read: impl FnMut(u16, &mut [u8])) {
        if self.hidden.is_completed() {
            return;
        }
        let end = usize::from(at.offset).saturating_add(len);
        for offset in (at.offset & !3..CONFIG_SIZE as u16).step_by(4) {
            if usize::from(offset) >= end {
                break;
            }
            let mut word = [0; 4];
            read(offset, &mut word);
            let to = GuestAddress(address(at.slot, offset));
            let word = u32::from_ne_bytes(word);
            check(to, self.memory.store(word, to, Ordering::Relaxed));
        }
    }

    /// From now on, each read is an exit.
    pub(super) fn hide(&self) {
        self.hidden.call_once(|| (self.hide)());
    }
}

fn address(slot: u8, offset: u16) -> u64 {
    PCI_ECAM.start + u64::from(slot) * CONFIG_SIZE + u64::from(offset)
}

/// The memory has room for every function, so this does not fail.
fn check(to: GuestAddress, stored: Result<(), GuestMemoryError>) {
    if let Err(error) = stored {
        log::error!(
            "what PCI functions show at {:#x} is outdated: {error}",
            to.0
        );
    }
}

#[cfg(test)]
mod tests;
