//! The probe's guest memory: a few pages from the heap, in one region.
//!
//! This crate takes guest memory from its caller, of any type, and depends on none. The probe has
//! no caller that gives it any, and needs only 64 KiB: whole pages of the heap do.

use super::programs;
use std::cell::UnsafeCell;
use vm_memory::bitmap::BS;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes,
    GuestRegionCollection, GuestUsize, MemoryRegionAddress, VolatileSlice,
};

pub(super) type Memory = GuestRegionCollection<Region>;

const PAGE_SIZE: u64 = 4096;
const PAGES: usize = 16;
const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const PML4: u64 = 0x3000;
const PDPT: u64 = 0x4000;
const PD: u64 = 0x5000;
/// Where the program is.
pub(super) const CODE: u64 = 0x6000;
/// 8 bytes for each exception vector, then the breakpoint's handler.
const HANDLERS: u64 = 0x7000;
const BREAKPOINT_HANDLER: u64 = HANDLERS + 8 * VECTORS as u64;
/// The stack grows down from here.
pub(super) const STACK: u64 = 0x9000;
/// Two pages for the program to work on.
pub(super) const DATA: u64 = 0x9000;

const VECTORS: u8 = 32;
const BREAKPOINT: u8 = 3;
/// Selectors of the flat segments.
pub(super) const CODE_SELECTOR: u16 = 0x08;
pub(super) const DATA_SELECTOR: u16 = 0x10;
/// Page table bits.
const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;

/// The tables' places, for the registers that point to them.
pub(super) const CR3: u64 = PML4;
pub(super) const GDT_TABLE: (u64, u16) = (GDT, 3 * 8 - 1);
pub(super) const IDT_TABLE: (u64, u16) = (IDT, VECTORS as u16 * 16 - 1);

/// Lays out what 64-bit mode needs, and the program.
pub(super) fn build(program: &[u8]) -> Result<Memory, String> {
    let memory = Memory::from_regions(vec![Region::new()]).map_err(|e| e.to_string())?;
    fill(&memory, program).map_err(|e| e.to_string())?;
    Ok(memory)
}

fn fill(memory: &Memory, program: &[u8]) -> Result<(), GuestMemoryError> {
    let put = |value: u64, at: u64| memory.write_obj(value, GuestAddress(at));
    // Flat, present, ring 0: 64-bit code and data.
    put(0x00af_9b00_0000_ffff, GDT + u64::from(CODE_SELECTOR))?;
    put(0x00cf_9300_0000_ffff, GDT + u64::from(DATA_SELECTOR))?;
    // One page of 2 MiB, mapped to itself.
    put(PDPT | PRESENT_WRITABLE, PML4)?;
    put(PD | PRESENT_WRITABLE, PDPT)?;
    put(LARGE_PAGE | PRESENT_WRITABLE, PD)?;
    for vector in 0..VECTORS {
        let handler = HANDLERS + 8 * u64::from(vector);
        memory.write_slice(&programs::exception_handler(vector), GuestAddress(handler))?;
        let handler = if vector == BREAKPOINT {
            BREAKPOINT_HANDLER
        } else {
            handler
        };
        // A present 64-bit interrupt gate of ring 0; the handlers lie below 64 KiB.
        let gate = handler | u64::from(CODE_SELECTOR) << 16 | 0x8e00 << 32;
        put(gate, IDT + 16 * u64::from(vector))?;
    }
    memory.write_slice(
        programs::BREAKPOINT_HANDLER,
        GuestAddress(BREAKPOINT_HANDLER),
    )?;
    memory.write_slice(program, GuestAddress(CODE))
}

/// Page-aligned memory from the heap.
#[derive(Debug)]
pub(super) struct Region {
    pages: Box<[Page]>,
}

#[derive(Debug)]
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE_SIZE as usize]>);

// SAFETY: the bytes are only accessed through volatile slices and by the guest, never as a Rust
// reference, so sharing the page between threads makes no reference that could be invalidated.
unsafe impl Sync for Page {}

impl Region {
    fn new() -> Self {
        let zeroed = || Page(UnsafeCell::new([0; PAGE_SIZE as usize]));
        Self {
            pages: std::iter::repeat_with(zeroed).take(PAGES).collect(),
        }
    }
}

impl GuestMemoryRegion for Region {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.pages.len() as u64 * PAGE_SIZE
    }

    fn start_addr(&self) -> GuestAddress {
        GuestAddress(0)
    }

    fn bitmap(&self) -> BS<'_, ()> {}

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_>, GuestMemoryError> {
        let fits = offset
            .0
            .checked_add(count as u64)
            .is_some_and(|end| end <= self.len());
        if !fits {
            return Err(GuestMemoryError::InvalidBackendAddress);
        }
        let base = self.pages.as_ptr().cast::<u8>().cast_mut();
        // SAFETY: offset + count is within the allocation, which lives as long as `self`, may be
        // written through a shared reference (UnsafeCell), and is accessed as volatile only.
        Ok(unsafe { VolatileSlice::new(base.add(offset.0 as usize), count) })
    }
}

impl GuestMemoryRegionBytes for Region {}
