//! The pages that a vCPU shares with the kernel.
//!
//! `KVM_GET_VCPU_MMAP_SIZE` bytes of a vCPU's descriptor hold, on x86: `struct kvm_run`, a page of
//! data for port I/O, and the VM's ring of coalesced writes. kvm-ioctls maps them too, but lends
//! them out as one `&mut kvm_run`, which may not coexist with a signal handler that writes
//! `immediate_exit`, nor with another vCPU that fills the ring. So we map them once more, and only
//! ever make pointers, atomics, and short-lived slices of the data that an exit lends out.

use crate::error::Error;
use kvm_bindings::{KVM_COALESCED_MMIO_PAGE_OFFSET, kvm_coalesced_mmio_ring, kvm_run};
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU8;

pub(crate) const PAGE_SIZE: usize = 4096;
/// Where the ring begins: all before it belongs to the vCPU.
const RING_OFFSET: usize = KVM_COALESCED_MMIO_PAGE_OFFSET as usize * PAGE_SIZE;

/// A mapping of those pages, unmapped on drop.
#[derive(Debug)]
pub(crate) struct RunPage {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, so it can be used and unmapped from
// any of them.
unsafe impl Send for RunPage {}
// SAFETY: through `&RunPage`, safe code gets at atomics and at raw pointers only; whoever
// dereferences those pointers argues for it at that place.
unsafe impl Sync for RunPage {}

impl RunPage {
    /// Maps `len` bytes (what `KVM_GET_VCPU_MMAP_SIZE` said) of a vCPU.
    pub(crate) fn map(vcpu: &impl AsRawFd, len: usize) -> Result<Self, Error> {
        if len < size_of::<kvm_run>() {
            return Err(Error::RunPage {
                found: len,
                expected: size_of::<kvm_run>(),
            });
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory that
        // exists.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                0,
            )
        };
        NonNull::new(base.cast())
            .filter(|_| base != libc::MAP_FAILED)
            .map(|base| Self { base, len })
            .ok_or_else(|| Error::Call {
                call: "mmap of a vCPU",
                source: io::Error::last_os_error(),
            })
    }

    /// The structure at the start. Valid for reads and writes while `self` lives; the kernel writes
    /// to it, but only while the vCPU is in `KVM_RUN`.
    pub(crate) fn run(&self) -> *mut kvm_run {
        self.base.as_ptr().cast()
    }

    /// The flag that makes `KVM_RUN` return at once. Any thread and the signal handler may write it
    /// at any time.
    pub(crate) fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: the byte lies within the mapping (checked in `map`), which lives as long as
        // `self`; in this process it is only ever accessed through this atomic, and the kernel only
        // reads it.
        unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(offset_of!(kvm_run, immediate_exit))) }
    }

    /// `len` bytes at `offset`, if they lie behind `kvm_run` and before the ring: where the data of
    /// port I/O is.
    pub(crate) fn data(&self, offset: u64, len: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(len)?;
        if offset < size_of::<kvm_run>() || end > self.len.min(RING_OFFSET) {
            return None;
        }
        // SAFETY: offset <= end <= len, so the result points into the mapping.
        Some(unsafe { self.base.add(offset) })
    }

    /// The ring of coalesced writes, if KVM shares it: one page, valid while `self` lives,
    /// page-aligned. The kernel may write to it at any time.
    pub(crate) fn ring(&self) -> Option<NonNull<kvm_coalesced_mmio_ring>> {
        if self.len < RING_OFFSET + PAGE_SIZE {
            return None;
        }
        // SAFETY: a page at RING_OFFSET lies within the mapping.
        Some(unsafe { self.base.add(RING_OFFSET) }.cast())
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: we made this mapping, nobody unmapped it, and every pointer into it borrows from
        // `self` or from an owner of it. The result can only be an error of arguments.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod fake;
