//! Where the loader puts its own things: conventional memory, below the firmware area.
//!
//! All of it is dead as soon as the kernel has set up its own tables, which is why e820 calls it
//! plain RAM.
//!
//! ```text
//! 0x00500  GDT
//! 0x06000  PVH: hvm_start_info, module list, memory map
//! 0x07000  Linux: boot_params, "the zero page"
//! 0x08000  a page of stack, growing down from its end
//! 0x09000  page tables: PML4, then page-directory-pointer tables and page directories as needed
//! 0x20000  command line
//! 0x9fc00  end: what a PC's firmware keeps for itself begins
//! ```

use std::ops::Range;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const PAGE: u64 = 4 * KIB;

/// First address that a page table entry or a 32-bit field cannot reach.
pub(crate) const FOUR_GIB: u64 = 4 * GIB;

pub(crate) const GDT: u64 = 0x500;
pub(crate) const START_INFO: u64 = 0x6000;
pub(crate) const MODULE_LIST: u64 = 0x6040;
pub(crate) const MEMORY_MAP: u64 = 0x6080;
pub(crate) const ZERO_PAGE: u64 = 0x7000;
pub(crate) const STACK_TOP: u64 = 0x8ff0;
pub(crate) const PAGE_TABLES: Range<u64> = 0x9000..0x2_0000;
pub(crate) const COMMAND_LINE: Range<u64> = 0x2_0000..0x3_0000;

/// The extended BIOS data area, video memory and the BIOS: never reported as RAM, never written by
/// the loader. The machine may put its ACPI tables there.
pub(crate) const FIRMWARE: Range<u64> = 0x9_fc00..MIB;
