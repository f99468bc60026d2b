//! PVH start info: what an ELF kernel gets instead of a zero page.
//!
//! The layout is Xen's public `arch-x86/hvm/start_info.h`, version 1. A module list of one entry is
//! the initrd.

use std::ops::Range;

use linux_loader::start_info::{
    XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_MEMMAP_TYPE_RESERVED, XEN_HVM_START_MAGIC_VALUE,
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::GuestMemoryBackend;

use crate::error::Error;
use crate::guest::write_object;
use crate::layout::{MEMORY_MAP, MODULE_LIST, START_INFO};
use crate::zero_page::Facts;

/// `COMMAND_LINE_SIZE` of Linux on x86, less the terminating NUL. PVH itself knows no limit; beyond
/// it Linux cuts silently.
pub(crate) const COMMAND_LINE_LIMIT: u64 = 2047;

pub(crate) fn write<M: GuestMemoryBackend>(memory: &M, facts: &Facts<'_>) -> Result<(), Error> {
    let mut start_info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        cmdline_paddr: facts.command_line,
        rsdp_paddr: facts.rsdp,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: facts.memory_map.len() as u32,
        ..hvm_start_info::default()
    };
    if let Some(Range { start, end }) = facts.initrd {
        let module = hvm_modlist_entry {
            paddr: start,
            size: end - start,
            ..hvm_modlist_entry::default()
        };
        write_object(memory, "the PVH module list", MODULE_LIST, &module)?;
        start_info.nr_modules = 1;
        start_info.modlist_paddr = MODULE_LIST;
    }
    let mut address = MEMORY_MAP;
    for entry in facts.memory_map {
        let entry = hvm_memmap_table_entry {
            addr: entry.range.start,
            size: entry.range.end - entry.range.start,
            type_: if entry.usable {
                XEN_HVM_MEMMAP_TYPE_RAM
            } else {
                XEN_HVM_MEMMAP_TYPE_RESERVED
            },
            reserved: 0,
        };
        write_object(memory, "the PVH memory map", address, &entry)?;
        address += size_of::<hvm_memmap_table_entry>() as u64;
    }
    write_object(memory, "hvm_start_info", START_INFO, &start_info)
}
