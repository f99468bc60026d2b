//! Guest memory: mappings of our own behind the traits of `vm-memory`.
//!
//! Guest memory is shared with a machine that writes it while we read. So it never is a Rust
//! reference: it is looked at through [`VolatileSlice`] and atomic loads and stores, and each
//! value is read once, checked, and used from the copy.
//!
//! The mapping is made here instead of by `vm-memory`, because where it lies matters: KVM can use
//! a 2 MiB page only where host and guest addresses agree modulo 2 MiB. A region that `mmap`
//! places as it likes costs a boot thousands of page faults; one that is placed well costs some
//! twenty.
//!
//! All of the unsafe code that has to do with guest memory is in this file: mapping it,
//! making slices of it, and the one system call that fills it and that no crate has for slices.
//!
//! What this does not do: a region's size and place are fixed, dirty pages are not tracked, and
//! nothing here knows where in the guest's address space RAM should be.

use std::ffi::c_void;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ptr::NonNull;
use std::sync::Arc;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion,
    GuestMemoryRegionBytes, GuestUsize, MemoryRegionAddress, VolatileSlice,
};

#[cfg(test)]
mod tests;

/// The guest's RAM: regions sorted by address. Handed around as `Arc<GuestMemory>`.
pub type GuestMemory = vm_memory::GuestRegionCollection<Region>;

/// The size of a huge page, to which regions are aligned.
const HUGE: usize = 2 << 20;

/// One stretch of guest RAM, mapped into this process until it is dropped.
#[derive(Debug)]
pub struct Region {
    mapping: Mapping,
    start: GuestAddress,
    backing: Option<FileOffset>,
}

impl Region {
    /// Zeroed memory that is this process's alone.
    ///
    /// `start` and `len` are multiples of the page size. A region of 2 MiB and more gets a host
    /// address that equals `start` modulo 2 MiB. Pages are huge where the host has them, are left
    /// out of core dumps, and cost nothing until they are touched.
    pub fn anonymous(start: GuestAddress, len: usize) -> io::Result<Region> {
        check_placement(start, len)?;
        let mapping = Mapping::anonymous(len, start)?;
        mapping.advise();
        Ok(Region {
            mapping,
            start,
            backing: None,
        })
    }

    /// The `len` bytes of `memfd` from `offset`, shared with everybody else who maps them.
    ///
    /// Placed as [`anonymous`](Self::anonymous) memory is; huge pages also need an `offset` that
    /// equals `start` modulo 2 MiB. The file has to be that large already, and has to stay so: a
    /// file that is cut short under its mapping ends the process with SIGBUS, so it should be
    /// sealed with `F_SEAL_SHRINK` before others get it.
    pub fn shared(
        start: GuestAddress,
        len: usize,
        memfd: Arc<File>,
        offset: u64,
    ) -> io::Result<Region> {
        check_placement(start, len)?;
        let size = memfd.metadata()?.len();
        if offset.checked_add(len as u64).is_none_or(|end| end > size) {
            return Err(invalid(format!(
                "memory of {len:#x} bytes at offset {offset:#x} exceeds its file of {size:#x} bytes"
            )));
        }
        let mapping = Mapping::file(len, start, &memfd, offset)?;
        mapping.advise();
        Ok(Region {
            mapping,
            start,
            backing: Some(FileOffset::from_arc(memfd, offset)),
        })
    }

    /// Where the region starts in this process, for KVM's memory slots.
    pub fn host_address(&self) -> *mut u8 {
        self.mapping.base.as_ptr()
    }
}

impl GuestMemoryRegion for Region {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.mapping.len as GuestUsize
    }

    fn start_addr(&self) -> GuestAddress {
        self.start
    }

    fn bitmap(&self) {}

    fn get_host_address(&self, addr: MemoryRegionAddress) -> vm_memory::GuestMemoryResult<*mut u8> {
        let slice = self.get_slice(addr, 1)?;
        Ok(slice.ptr_guard_mut().as_ptr())
    }

    fn file_offset(&self) -> Option<&FileOffset> {
        self.backing.as_ref()
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> vm_memory::GuestMemoryResult<VolatileSlice<'_, ()>> {
        let start = usize::try_from(offset.0).ok();
        match start.and_then(|start| start.checked_add(count).map(|end| (start, end))) {
            Some((start, end)) if end <= self.mapping.len => {
                // SAFETY: `start` is at most the length of the mapping, so that the sum stays
                // within it or points at its end.
                let pointer = unsafe { self.mapping.base.as_ptr().add(start) };
                // SAFETY: the `count` bytes lie inside of the mapping, which lives as long as
                // `self` does, and so longer than the slice, which borrows `self`. Nobody makes
                // references into the mapping: all access is volatile or atomic.
                Ok(unsafe { VolatileSlice::new(pointer, count) })
            }
            _ => Err(GuestMemoryError::InvalidBackendAddress),
        }
    }

    #[cfg(target_os = "linux")]
    fn is_hugetlbfs(&self) -> Option<bool> {
        Some(false)
    }
}

impl GuestMemoryRegionBytes for Region {}

/// A stretch of guest memory that was checked once and is used often: a part of a ring.
///
/// It keeps the memory alive and gives out slices without looking the address up again.
#[derive(Debug)]
pub(crate) struct Window {
    base: NonNull<u8>,
    len: usize,
    /// Owns what `base` points into.
    _memory: Arc<GuestMemory>,
}

impl Window {
    /// The `len` bytes at `address`, if all of them lie within one region.
    pub(crate) fn new(
        memory: &Arc<GuestMemory>,
        address: GuestAddress,
        len: usize,
    ) -> Option<Self> {
        let (region, offset) = memory.to_region_addr(address)?;
        let slice = region.get_slice(offset, len).ok()?;
        let base = NonNull::new(slice.ptr_guard_mut().as_ptr())?;
        Some(Window {
            base,
            len,
            _memory: Arc::clone(memory),
        })
    }

    /// The whole of it.
    pub(crate) fn slice(&self) -> VolatileSlice<'_> {
        // SAFETY: `new` got these `len` bytes from a region of `_memory`. A collection of regions
        // has no way to lose one through a shared reference, and `_memory` is held for as long
        // as the slice, which borrows `self`. All access to guest memory is volatile or atomic.
        unsafe { VolatileSlice::new(self.base.as_ptr(), self.len) }
    }
}

// SAFETY: the pointer stands for memory that belongs to no thread: mappings are the process's,
// and `_memory`, which keeps it, is `Send` itself.
unsafe impl Send for Window {}
// SAFETY: as above; and a shared `Window` gives out nothing but volatile slices.
unsafe impl Sync for Window {}

/// Fills guest memory with random bytes of the host's kernel, from its start. Tells how many there
/// were; while the kernel has none yet, that is [`WouldBlock`](ErrorKind::WouldBlock).
pub(crate) fn fill_randomly(slice: &VolatileSlice<'_>) -> io::Result<usize> {
    loop {
        let memory = slice.ptr_guard_mut();
        // SAFETY: the pointer is good for writes of `slice.len()` bytes while the guard lives, and
        // the kernel writes no more than that. It is memory that nobody has a reference to.
        let count =
            unsafe { libc::getrandom(memory.as_ptr().cast(), slice.len(), libc::GRND_NONBLOCK) };
        // Negative: an error.
        if let Ok(count) = usize::try_from(count) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// An owned mapping. Its bytes are only ever reached through volatile slices.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Mapping {}
// SAFETY: a shared `Mapping` can't be unmapped, and its bytes are reached by volatile and atomic
// access alone, which any number of threads (and vCPUs) may do at the same time.
unsafe impl Sync for Mapping {}

#[cfg(not(miri))]
impl Mapping {
    /// Private zeroed memory, placed for `guest`.
    fn anonymous(len: usize, guest: GuestAddress) -> io::Result<Mapping> {
        Self::place(
            len,
            guest,
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
        )
    }

    /// Part of a file, placed for `guest`.
    fn file(len: usize, guest: GuestAddress, file: &File, offset: u64) -> io::Result<Mapping> {
        use rustix::mm::{MapFlags, ProtFlags};
        let mapping = Self::place(len, guest, ProtFlags::empty())?;
        // SAFETY: this replaces exactly the `len` bytes that `mapping` owns and that nobody has a
        // pointer to yet.
        unsafe {
            rustix::mm::mmap(
                mapping.base.as_ptr().cast::<c_void>(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE,
                file,
                offset,
            )
        }?;
        Ok(mapping)
    }

    /// Maps more than is wanted and gives back what is left and right of the well-placed part.
    fn place(
        len: usize,
        guest: GuestAddress,
        protection: rustix::mm::ProtFlags,
    ) -> io::Result<Mapping> {
        use rustix::mm::MapFlags;
        let slack = if len >= HUGE { HUGE } else { 0 };
        let total = len.checked_add(slack).ok_or(ErrorKind::OutOfMemory)?;
        // SAFETY: the kernel chooses the place, so that no existing mapping is touched.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                total,
                protection,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(ErrorKind::OutOfMemory)?;
        let mut mapping = Mapping { base, len: total };
        if slack > 0 {
            // Both are taken modulo 2 MiB, so the truncation of the guest's address does no harm.
            let head = (guest.0 as usize).wrapping_sub(base.as_ptr() as usize) % HUGE;
            mapping.trim(head, len);
        }
        Ok(mapping)
    }

    /// Keeps the `len` bytes from `head` and unmaps the rest. Both are multiples of the page size.
    fn trim(&mut self, head: usize, len: usize) {
        let tail = self.len.saturating_sub(head.saturating_add(len));
        let whole = self.base;
        // SAFETY: `head < HUGE`, and the mapping is HUGE bytes longer than `len`.
        self.base = unsafe { whole.add(head) };
        self.len = len;
        // SAFETY: `head + len` is at most the length of the whole mapping.
        let end = unsafe { self.base.add(len) };
        unmap(whole, head);
        unmap(end, tail);
    }

    /// Says what the memory is for. All of it is advice: a kernel without huge pages refuses the
    /// first, and the guest runs all the same.
    fn advise(&self) {
        use rustix::mm::Advice;
        for advice in [Advice::LinuxHugepage, Advice::LinuxDontDump] {
            // SAFETY: neither of the two changes what the memory contains.
            let advised =
                unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.len, advice) };
            if let Err(error) = advised {
                log::debug!("guest memory: {advice:?}: {error}");
            }
        }
    }
}

#[cfg(not(miri))]
impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.base, self.len);
    }
}

/// Unmaps a range that the caller owns and that nothing points into any more.
#[cfg(not(miri))]
fn unmap(base: NonNull<u8>, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: only called from `Mapping`, on memory that it owns and is giving up: slices borrow
    // the `Mapping`, so that none is left.
    if let Err(error) = unsafe { rustix::mm::munmap(base.as_ptr().cast(), len) } {
        log::warn!("unmapping {len:#x} bytes of guest memory: {error}");
    }
}

/// Miri interprets no system calls for mappings: there the heap does.
#[cfg(miri)]
impl Mapping {
    fn anonymous(len: usize, _guest: GuestAddress) -> io::Result<Mapping> {
        let layout = Self::layout(len).ok_or(ErrorKind::OutOfMemory)?;
        // SAFETY: the layout is not empty: `check_placement` refuses a length of 0.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or(ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }

    fn file(_: usize, _: GuestAddress, _: &File, _: u64) -> io::Result<Mapping> {
        Err(ErrorKind::Unsupported.into())
    }

    fn advise(&self) {}

    fn layout(len: usize) -> Option<std::alloc::Layout> {
        std::alloc::Layout::from_size_align(len, page_size()).ok()
    }
}

#[cfg(miri)]
impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated with this very layout.
            unsafe { std::alloc::dealloc(self.base.as_ptr(), layout) };
        }
    }
}

/// What holds for each region, wherever its memory comes from.
fn check_placement(start: GuestAddress, len: usize) -> io::Result<()> {
    let page = page_size();
    if len == 0 || !len.is_multiple_of(page) {
        return Err(invalid(format!(
            "memory of {len:#x} bytes is not a multiple of {page:#x} bytes"
        )));
    }
    if !start.0.is_multiple_of(page as u64) {
        return Err(invalid(format!(
            "memory at {:#x} does not start on a page",
            start.0
        )));
    }
    // The last address of a region has to exist; that it may be u64::MAX helps nobody.
    if start.0.checked_add(len as u64).is_none() {
        return Err(invalid(format!(
            "memory of {len:#x} bytes at {:#x} exceeds 64 address bits",
            start.0
        )));
    }
    // `VolatileSlice` and pointer arithmetic want objects to fit an isize.
    if isize::try_from(len).is_err() {
        return Err(ErrorKind::OutOfMemory.into());
    }
    Ok(())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(not(miri))]
fn page_size() -> usize {
    // SAFETY: takes a number, touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(miri)]
fn page_size() -> usize {
    4096
}
