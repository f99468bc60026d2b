//! Coalesced writes: the kernel gathers them in a ring instead of leaving the guest for each.
//!
//! The problem: a guest that prints through a serial port makes an exit for every byte. With
//! `KVM_CAP_COALESCED_PIO`, a write to a registered port goes into a ring that is shared with the
//! kernel, and the guest goes on; KVM always could do so with addresses. Whoever handles the next
//! exit must take the writes out *before* it handles that exit, for they came first; and if a write
//! shows an effect by itself, somebody must look even if no exit comes (a prompt is followed by
//! silence).
//!
//! The design: the ring is one per VM, though it is mapped through a vCPU. [`CoalescedRing`] is a
//! handle that any thread may drain; a lock of the VM makes one thread at a time do it, so that the
//! order of the writes is kept. The page is the kernel's to write at any time: what is read from it
//! is copied and checked before it is used, and a drain ends after one ring's worth of entries.
//!
//! What it does not do: wait for writes. A full ring makes an ordinary exit of the next write.

use crate::error::Error;
use crate::event::IoAddress;
use crate::run_page::{PAGE_SIZE, RunPage};
use crate::vm::Inner;
use kvm_bindings::{kvm_coalesced_mmio, kvm_coalesced_mmio_ring};
use kvm_ioctls::IoEventAddress;
use std::mem::{offset_of, size_of};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};

/// Entries in the ring: what is left of a page behind the two indices.
const CAPACITY: u32 =
    ((PAGE_SIZE - size_of::<kvm_coalesced_mmio_ring>()) / size_of::<kvm_coalesced_mmio>()) as u32;

/// A range of ports whose writes are gathered, until this is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the registration"]
pub struct CoalescedPio {
    vm: Arc<Inner>,
    port: u16,
    len: u16,
}

impl CoalescedPio {
    pub(crate) fn new(vm: Arc<Inner>, port: u16, len: u16) -> Result<Self, Error> {
        let at = IoEventAddress::Pio(port.into());
        match vm.fd.register_coalesced_mmio(at, len.into()) {
            Ok(()) => Ok(Self { vm, port, len }),
            Err(errno) => Err(Error::Coalesce {
                at: IoAddress::Pio(port),
                len: len.into(),
                source: errno.into(),
            }),
        }
    }
}

/// Registers a range for as long as the VM is.
pub(crate) fn register(vm: &Inner, at: IoAddress, len: u32) -> Result<(), Error> {
    vm.fd
        .register_coalesced_mmio(at.into(), len)
        .map_err(|errno| Error::Coalesce {
            at,
            len,
            source: errno.into(),
        })
}

impl Drop for CoalescedPio {
    fn drop(&mut self) {
        let at = IoEventAddress::Pio(self.port.into());
        // It was registered with these values, so this can't fail; and nobody could be told.
        let _ = self.vm.fd.unregister_coalesced_mmio(at, self.len.into());
    }
}

/// A write that was gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoalescedWrite {
    /// Where to.
    pub at: IoAddress,
    bytes: [u8; 8],
    len: usize,
}

impl CoalescedWrite {
    /// What was written: at most 8 bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

impl From<kvm_coalesced_mmio> for CoalescedWrite {
    fn from(entry: kvm_coalesced_mmio) -> Self {
        // SAFETY: both members of the union are a u32, and any bytes are a valid one.
        let pio = unsafe { entry.__bindgen_anon_1.pio };
        let at = if pio == 0 {
            IoAddress::Mmio(entry.phys_addr)
        } else {
            // Ports have 16 bits; the kernel only gathers those that were registered.
            IoAddress::Pio(entry.phys_addr as u16)
        };
        Self {
            at,
            bytes: entry.data,
            len: (entry.len as usize).min(entry.data.len()),
        }
    }
}

/// The VM's ring of gathered writes. All handles of a VM are of the same ring.
#[derive(Debug, Clone)]
pub struct CoalescedRing {
    ring: Ring,
    vm: Arc<Inner>,
    /// Keeps the mapping that `ring` points into.
    _page: Arc<RunPage>,
}

impl CoalescedRing {
    /// The ring, if the page has one.
    pub(crate) fn new(page: &Arc<RunPage>, vm: &Arc<Inner>) -> Option<Self> {
        let ring = Ring(page.ring()?);
        Some(Self {
            ring,
            vm: Arc::clone(vm),
            _page: Arc::clone(page),
        })
    }

    /// Takes out what was gathered, in order, and returns how many writes that was: at most as
    /// many as the ring holds, however fast the guest adds more. Do this after every exit, before
    /// you handle it. `each` must not drain the ring itself. An entry leaves the ring after `each`
    /// has seen it, so that whoever finds the ring empty finds all of it done.
    pub fn drain(&self, each: impl FnMut(&CoalescedWrite)) -> Result<usize, Error> {
        // The lock guards an order, not a value: a drain that panicked left whole entries.
        let _guard = self
            .vm
            .draining
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `_page` keeps the mapping that `ring` points to, and every drain of this VM holds
        // the lock, so that only this thread takes entries.
        unsafe { self.ring.drain(each) }
    }

    /// Whether nothing is to be taken out: a glance without a lock.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // SAFETY: as in `drain`; the indices are read as atomics.
        let (first, last) = unsafe { self.ring.indices() };
        first.load(Ordering::Acquire) == last.load(Ordering::Acquire)
    }
}

/// A pointer to a ring that the kernel fills.
#[derive(Debug, Clone, Copy)]
struct Ring(NonNull<kvm_coalesced_mmio_ring>);

// SAFETY: only a pointer; its methods are unsafe, and say what must hold on any thread.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// # Safety
    ///
    /// The pointer must be to a page that stays mapped for `'a`.
    unsafe fn indices<'a>(self) -> (&'a AtomicU32, &'a AtomicU32) {
        let base = self.0.as_ptr().cast::<u8>();
        // SAFETY: both are aligned words at the start of the page, and all of this process uses
        // them as atomics. What the kernel writes there it writes as whole words.
        unsafe {
            let first = base.add(offset_of!(kvm_coalesced_mmio_ring, first));
            let last = base.add(offset_of!(kvm_coalesced_mmio_ring, last));
            (
                AtomicU32::from_ptr(first.cast()),
                AtomicU32::from_ptr(last.cast()),
            )
        }
    }

    /// # Safety
    ///
    /// The pointer must be to a page that stays mapped meanwhile, and nobody else may take entries.
    unsafe fn drain(self, mut each: impl FnMut(&CoalescedWrite)) -> Result<usize, Error> {
        // SAFETY: the caller's promise.
        let (first, last) = unsafe { self.indices() };
        let entries = self.0.as_ptr().cast::<u8>();
        for taken in 0..CAPACITY as usize {
            // Acquire: the kernel writes the entry before it moves `last` past it.
            let (f, l) = (first.load(Ordering::Relaxed), last.load(Ordering::Acquire));
            if f >= CAPACITY || l >= CAPACITY {
                return Err(Error::CoalescedRing {
                    first: f,
                    last: l,
                    limit: CAPACITY,
                });
            }
            if f == l {
                return Ok(taken);
            }
            let offset = offset_of!(kvm_coalesced_mmio_ring, coalesced_mmio)
                + f as usize * size_of::<kvm_coalesced_mmio>();
            // SAFETY: f < CAPACITY, so the entry lies within the page; 8-byte alignment follows
            // from the page's, and any bytes are a valid entry. It is copied once, and the copy
            // used: what the kernel does to the page later does not matter.
            let entry = unsafe {
                entries
                    .add(offset)
                    .cast::<kvm_coalesced_mmio>()
                    .read_volatile()
            };
            each(&entry.into());
            // Release: the kernel may fill the entry again only after it was copied, and who looks
            // without the lock must find done what is no longer there.
            first.store((f + 1) % CAPACITY, Ordering::Release);
        }
        Ok(CAPACITY as usize)
    }
}

#[cfg(test)]
mod tests;
