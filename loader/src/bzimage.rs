//! bzImage: Linux' own format, entered in 64-bit mode.
//!
//! Documentation/arch/x86/boot.rst is the specification. The file is a boot sector, real-mode setup
//! code, and the protected-mode kernel. Only the last goes into guest memory: the setup code would
//! ask a BIOS what the zero page tells here. From the setup code we take the setup header, whose
//! numbers are checked here and nowhere else.
//!
//! What it does not do: the 16-bit and 32-bit entries, images older than protocol 2.12 (Linux 3.8),
//! loading the kernel above 4 GiB (there is always enough RAM below), following `setup_data` or
//! `kernel_info`.

use std::ops::Range;

use linux_loader::bootparam::{
    LOADED_HIGH, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_KERNEL_64, setup_header,
};
use vm_memory::ByteValued;

use crate::error::ImageError;
use crate::file::{ImageFile, check_extent};
use crate::format::HEAD;
use crate::layout::{FOUR_GIB, MIB};
use crate::memory_map::MemoryMap;

const SECTOR: u64 = 512;
/// Where the setup header is, in the file and in `boot_params`.
const SETUP_HEADER: usize = 0x1f1;
const BOOT_FLAG: u16 = 0xaa55;
/// First protocol with `xloadflags`, which says whether there is a 64-bit entry.
const VERSION_XLOADFLAGS: u16 = 0x020c;
/// First protocol with `kernel_info_offset`, the last field that the header has.
const VERSION_KERNEL_INFO: u16 = 0x020f;
/// Boot sector and setup code fill a real-mode segment up to its stack and heap, at 0x8000.
const MAX_SETUP: u64 = 0x8000;
/// The 64-bit entry, from where the protected-mode kernel is.
const ENTRY_64: u64 = 0x200;

/// Where a kernel can find its initrd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InitrdLimits {
    /// The end of the usual place, at most 4 GiB.
    pub(crate) below: u64,
    /// Whether the kernel also looks at the upper halves of address and size.
    pub(crate) above_4g: bool,
}

/// A bzImage whose header is sound.
#[derive(Debug)]
pub(crate) struct BzImage {
    pub(crate) header: setup_header,
    /// Where the protected-mode kernel starts in the file, and how long it is.
    pub(crate) code: Range<u64>,
    /// What `uname -r` and more would say.
    pub(crate) version: Option<String>,
}

impl BzImage {
    /// Reads the setup code and checks the header in it. `head` is the beginning of the file,
    /// [`HEAD`] bytes at least if it has them.
    pub(crate) fn parse(file: &ImageFile, mut head: Vec<u8>) -> Result<Self, ImageError> {
        check_extent("the setup header", 0, HEAD as u64, file.len)?;
        let mut header = setup_header::default();
        for (to, from) in header
            .as_mut_slice()
            .iter_mut()
            .zip(head.iter().skip(SETUP_HEADER))
        {
            *to = *from;
        }
        check_protocol(&header)?;
        let code = code_range(&header, file.len)?;
        check_placement(&header, code.end - code.start)?;
        check_payload(&header, code.end - code.start)?;
        // At most 256 sectors.
        let setup = code.start as usize;
        if let Some(rest @ 1..) = setup.checked_sub(head.len()) {
            head.extend(file.read("the setup code", head.len() as u64, rest)?);
        }
        head.truncate(setup);
        let version = version(&header, &head);
        if header.version < VERSION_KERNEL_INFO {
            header.kernel_info_offset = 0;
        }
        Ok(BzImage {
            header,
            code,
            version,
        })
    }

    /// Chooses where the kernel goes: `pref_address`, or the next suitable place above it.
    ///
    /// Never below: Linux moves itself up to its preferred address if it finds itself lower, RAM or
    /// not.
    pub(crate) fn place(&self, map: &mut MemoryMap) -> Result<Range<u64>, ImageError> {
        let (from, size) = (self.header.pref_address, u64::from(self.header.init_size));
        // Both checked: from is below 4 GiB, size fits 32 bits.
        let preferred = from..from + size;
        if self.header.relocatable_kernel == 0 {
            map.take(
                "pref_address of a kernel that is not relocatable",
                &preferred,
            )?;
            return Ok(preferred);
        }
        map.take_lowest(
            size,
            u64::from(self.header.kernel_alignment),
            &(from..FOUR_GIB),
        )
    }

    pub(crate) fn entry(&self, load_address: u64) -> u64 {
        load_address + ENTRY_64
    }

    pub(crate) fn initrd_limits(&self) -> InitrdLimits {
        InitrdLimits {
            // "The maximum address that may be occupied by the initrd", the address itself
            // included.
            below: (u64::from(self.header.initrd_addr_max) + 1).min(FOUR_GIB),
            above_4g: self.header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G != 0,
        }
    }
}

fn field(field: &'static str, value: impl Into<u64>, rule: &'static str) -> ImageError {
    ImageError::Field {
        field,
        value: value.into(),
        rule,
    }
}

fn check_protocol(header: &setup_header) -> Result<(), ImageError> {
    if header.boot_flag != BOOT_FLAG {
        return Err(field(
            "boot_flag",
            header.boot_flag,
            "not a bzImage, it must be 0xaa55",
        ));
    }
    if header.version < VERSION_XLOADFLAGS {
        return Err(field(
            "version",
            header.version,
            "too old, protocol 2.12 (Linux 3.8) or later is needed",
        ));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(field(
            "loadflags",
            header.loadflags,
            "not a bzImage, LOADED_HIGH must be set",
        ));
    }
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(field(
            "xloadflags",
            header.xloadflags,
            "the kernel has no 64-bit entry, XLF_KERNEL_64 must be set",
        ));
    }
    Ok(())
}

/// Where the protected-mode kernel is in the file.
fn code_range(header: &setup_header, file_len: u64) -> Result<Range<u64>, ImageError> {
    // "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
    let setup_sects = match header.setup_sects {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let start = (setup_sects + 1) * SECTOR;
    if start > MAX_SETUP {
        return Err(field(
            "setup_sects",
            header.setup_sects,
            "boot sector and setup code must fit 64 sectors",
        ));
    }
    check_extent("the setup code", 0, start, file_len)?;
    if header.syssize == 0 {
        return Err(field("syssize", 0u64, "there is no protected-mode kernel"));
    }
    // Counted in 16-byte paragraphs, the last of which some linkers leave incomplete.
    let size = u64::from(header.syssize) * 16;
    check_extent("the protected-mode kernel", start, size - 15, file_len)?;
    let end = (start + size).min(file_len);
    if end - start < ENTRY_64 {
        return Err(field(
            "syssize",
            header.syssize,
            "the kernel ends before its 64-bit entry at 0x200",
        ));
    }
    Ok(start..end)
}

fn check_placement(header: &setup_header, code_len: u64) -> Result<(), ImageError> {
    let (align, pref) = (u64::from(header.kernel_alignment), header.pref_address);
    if !align.is_power_of_two() {
        return Err(field(
            "kernel_alignment",
            align,
            "it must be a power of two",
        ));
    }
    if pref & (align - 1) != 0 {
        return Err(field(
            "pref_address",
            pref,
            "it must be a multiple of kernel_alignment",
        ));
    }
    if !(MIB..FOUR_GIB).contains(&pref) {
        return Err(field(
            "pref_address",
            pref,
            "it must be between 1 MiB and 4 GiB",
        ));
    }
    if u64::from(header.init_size) < code_len {
        return Err(field(
            "init_size",
            header.init_size,
            "the kernel is larger than the memory that it asks for",
        ));
    }
    Ok(())
}

fn check_payload(header: &setup_header, code_len: u64) -> Result<(), ImageError> {
    let end = u64::from(header.payload_offset) + u64::from(header.payload_length);
    if end > code_len {
        let field = "payload_offset + payload_length";
        return Err(ImageError::Limit {
            field,
            value: end,
            limit: code_len,
            limit_is: "end of the kernel",
        });
    }
    Ok(())
}

/// The string that `kernel_version` points to, if it is one: printable, and ended within the setup
/// code.
fn version(header: &setup_header, setup: &[u8]) -> Option<String> {
    let offset = usize::from(header.kernel_version);
    if offset == 0 {
        return None;
    }
    let text = setup.get(offset + SECTOR as usize..)?;
    let text = text.get(..text.iter().position(|byte| *byte == 0)?)?;
    let printable = !text.is_empty() && text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    printable.then(|| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests;
