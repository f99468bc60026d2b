//! The zero page: `struct boot_params`, through which Linux' 64-bit entry learns what a BIOS would
//! have told.
//!
//! It starts as zeros and gets the image's setup header, nothing else of the image ("the sentinel":
//! a loader that copies the whole first page is recognized by the kernel, and mistrusted). Fields
//! that the loader must write are written whatever the image holds there.

use std::ops::Range;

use linux_loader::bootparam::{KASLR_FLAG, boot_e820_entry, boot_params, setup_header};
use vm_memory::GuestMemoryBackend;

use crate::error::Error;
use crate::guest::write_object;
use crate::layout::ZERO_PAGE;
use crate::memory_map::Entry;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// "0xff: undefined", for loaders without an assigned number.
const TYPE_OF_LOADER: u8 = 0xff;

/// What the zero page tells besides the setup header.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) memory_map: &'a [Entry],
    /// Address of the NUL-terminated line.
    pub(crate) command_line: u64,
    pub(crate) initrd: Option<Range<u64>>,
    pub(crate) rsdp: u64,
}

pub(crate) fn write<M: GuestMemoryBackend>(
    memory: &M,
    header: &setup_header,
    facts: &Facts<'_>,
) -> Result<(), Error> {
    write_object(memory, "boot_params", ZERO_PAGE, &build(header, facts))
}

fn build(header: &setup_header, facts: &Facts<'_>) -> boot_params {
    let mut params = boot_params {
        hdr: *header,
        ..boot_params::default()
    };
    params.hdr.type_of_loader = TYPE_OF_LOADER;
    params.hdr.ext_loader_type = 0;
    params.hdr.ext_loader_ver = 0;
    // The kernel's decompressor sets it for the kernel proper; from an image it would be a lie.
    params.hdr.loadflags &= !KASLR_FLAG;
    // A list that the loader may append to. We have nothing to add, and an address from the image
    // is not to be followed.
    params.hdr.setup_data = 0;

    (params.hdr.cmd_line_ptr, params.ext_cmd_line_ptr) = halves(facts.command_line);
    let initrd = facts.initrd.clone().unwrap_or_default();
    (params.hdr.ramdisk_image, params.ext_ramdisk_image) = halves(initrd.start);
    (params.hdr.ramdisk_size, params.ext_ramdisk_size) = halves(initrd.end - initrd.start);
    params.acpi_rsdp_addr = facts.rsdp;

    let mut table = params.e820_table;
    let mut count = 0;
    for (slot, entry) in table.iter_mut().zip(facts.memory_map) {
        *slot = boot_e820_entry {
            addr: entry.range.start,
            size: entry.range.end - entry.range.start,
            r#type: if entry.usable {
                E820_RAM
            } else {
                E820_RESERVED
            },
        };
        count += 1;
    }
    params.e820_table = table;
    params.e820_entries = count;
    params
}

/// Low half for the original field, high half for the `ext_` one.
fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}
