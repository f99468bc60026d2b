//! A Linux kernel, its initrd and its command line into guest memory, and the first register state
//! as data.
//!
//! The problem: everything in an image is somebody else's, and a kernel is entered in a state that
//! a firmware would have made. The design: [`load`] looks at the file's magic, checks every number
//! of its header, decides where everything goes, only then reads the files straight into guest
//! memory, writes the tables that the boot protocol asks for, and returns [`Boot`], which is plain
//! data.
//!
//! ```text
//!  Payload -> file (open, measure) -> format -> kernel: bzimage | elf (parse, check)
//!                                                  |
//!             memory_map (what is RAM, what is free: every placement takes from it)
//!                                                  |
//!             read kernel and initrd; cmdline; zero_page | pvh; cpu (GDT, page tables)
//!                                                  |
//!                                                 Boot
//! ```
//!
//! Two formats: a bzImage through its 64-bit entry in long mode, and an ELF vmlinux by its PVH
//! note.
//!
//! What it does not do: KVM (this crate knows nothing of it), devices, ACPI tables (the machine
//! writes them, and says so in [`Platform`]), unpacking, kernels for other processors.

#![forbid(unsafe_code)]
// Tests give memory as a list of ranges, which is sometimes a list of one.
#![cfg_attr(test, allow(clippy::single_range_in_vec_init))]

mod bzimage;
mod cmdline;
mod cpu;
mod elf;
mod error;
mod file;
mod format;
mod guest;
mod kernel;
mod layout;
mod memory_map;
mod pvh;
mod registers;
#[cfg(test)]
mod testing;
mod zero_page;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use bzimage::InitrdLimits;
pub use error::{Error, ImageError, Role};
use file::ImageFile;
use kernel::Kernel;
use layout::{COMMAND_LINE, FOUR_GIB, MIB, PAGE};
use memory_map::MemoryMap;
pub use registers::{Registers, Segment, Table};
use zero_page::Facts;

/// What to boot. Plain data; nothing is opened before [`check`] or [`load`].
#[derive(Debug, Clone, Default)]
pub struct Payload {
    /// bzImage, or ELF vmlinux with a PVH note.
    pub kernel: Source,
    /// Initial RAM disk: anything the kernel takes, it is not looked into. At least one byte, less
    /// than 4 GiB.
    pub initrd: Option<Source>,
    /// Arguments for the kernel: printable ASCII and tabs. Its length, together with what the
    /// machine adds, may equal the kernel's `cmdline_size` (2047 for an ELF kernel), not exceed it.
    pub cmdline: String,
}

impl Payload {
    /// A kernel, as yet without initrd and arguments.
    pub fn linux(kernel: impl Into<Source>) -> Self {
        Payload {
            kernel: kernel.into(),
            ..Payload::default()
        }
    }

    /// The same with an initrd.
    #[must_use]
    pub fn initrd(self, initrd: impl Into<Source>) -> Self {
        Payload {
            initrd: Some(initrd.into()),
            ..self
        }
    }

    /// The same with these arguments for the kernel.
    #[must_use]
    pub fn cmdline(self, cmdline: impl Into<String>) -> Self {
        Payload {
            cmdline: cmdline.into(),
            ..self
        }
    }
}

/// Where a file comes from. Either way it must be a regular one.
#[derive(Debug, Clone)]
pub enum Source {
    /// A path, opened when it is needed.
    Path(PathBuf),
    /// An open file, for instance a memfd. Read from its beginning; its offset is neither used nor
    /// moved, so several VMs may share it.
    File(Arc<File>),
}

impl Default for Source {
    /// The empty path, which cannot be opened.
    fn default() -> Self {
        Source::Path(PathBuf::new())
    }
}

impl From<&str> for Source {
    fn from(path: &str) -> Self {
        Source::Path(path.into())
    }
}

impl From<String> for Source {
    fn from(path: String) -> Self {
        Source::Path(path.into())
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Source::Path(path.into())
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Source::Path(path)
    }
}

impl From<File> for Source {
    fn from(file: File) -> Self {
        Source::File(Arc::new(file))
    }
}

impl From<Arc<File>> for Source {
    fn from(file: Arc<File>) -> Self {
        Source::File(file)
    }
}

/// What the machine tells the loader about itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Platform<'a> {
    /// Where the ACPI root pointer is, if the machine has written one.
    pub rsdp: Option<GuestAddress>,
    /// Ranges of RAM that the machine has filled and the guest must not use (ACPI tables): reported
    /// as reserved, nothing is loaded there. Not below 0x9fc00; 0x9fc00..0x100000 is reserved
    /// anyway.
    pub reserved: &'a [Range<u64>],
    /// Arguments of the machine's, joined to the user's (before a `--`, behind which init's
    /// arguments are).
    pub cmdline_extra: &'a str,
}

/// A payload that is ready to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boot {
    /// How the first vCPU starts.
    pub registers: Registers,
    /// The addresses that the kernel occupies or needs before it knows its memory map.
    pub kernel: Range<u64>,
    /// The addresses of the initrd.
    pub initrd: Option<Range<u64>>,
    /// The command line as the kernel gets it.
    pub cmdline: String,
    /// What the kernel calls itself, if the image says so: "6.12.0 (user@host) #1 SMP …".
    pub version: Option<String>,
}

impl From<Registers> for Boot {
    /// For loaders of other things.
    fn from(registers: Registers) -> Self {
        Boot {
            registers,
            ..Boot::default()
        }
    }
}

/// A payload whose files are open and whose headers are sound: all that can be known about it
/// without guest memory.
#[derive(Debug)]
pub struct Opened {
    kernel: Kernel,
    initrd: Option<ImageFile>,
    cmdline: String,
}

/// Opens the files of a payload and reads the kernel's header: are they regular, is the header
/// sound, does the command line fit it.
///
/// # Errors
/// Everything that is wrong, all at once.
pub fn open(payload: &Payload) -> Result<Opened, Vec<Error>> {
    let kernel = Kernel::open(&payload.kernel);
    let initrd = payload.initrd.as_ref().map(open_initrd).transpose();
    let limit = kernel.as_ref().ok().map(Kernel::cmdline_limit);
    let fits = cmdline::assemble(&payload.cmdline, "")
        .and_then(|cmdline| limit.map_or(Ok(()), |limit| cmdline::check_length(&cmdline, limit)));
    match (kernel, fits, initrd) {
        (Ok(kernel), Ok(()), Ok(initrd)) => Ok(Opened {
            kernel,
            initrd,
            cmdline: payload.cmdline.clone(),
        }),
        (kernel, fits, initrd) => Err([kernel.err(), fits.err(), initrd.err()]
            .into_iter()
            .flatten()
            .collect()),
    }
}

impl Opened {
    /// Puts the payload into guest memory.
    ///
    /// RAM is what `memory` has regions for, the first MiB included. It must be fresh, that is read
    /// as zero, except where `platform` says that the machine has written: what the payload leaves
    /// zero is not written. After an error guest memory may be partly written.
    ///
    /// # Errors
    /// Too little memory for the payload, too long a command line together with the machine's
    /// part, or a file that changed since it was opened. No file makes this function panic, hang,
    /// or write outside of the places that were found free for it.
    pub fn load<M: GuestMemoryBackend>(
        &self,
        memory: &M,
        platform: &Platform<'_>,
    ) -> Result<Boot, Error> {
        let kernel = &self.kernel;
        let mut map = MemoryMap::new(memory, platform.reserved)?;
        let cmdline = cmdline::assemble(&self.cmdline, platform.cmdline_extra)?;
        cmdline::check_length(&cmdline, kernel.cmdline_limit())?;

        let kernel_range = kernel.place(&mut map)?;
        let place = |file: &ImageFile| place_initrd(file, kernel.initrd_limits(), &mut map);
        let initrd_range = self.initrd.as_ref().map(place).transpose()?;

        kernel.read_into(memory, &kernel_range)?;
        if let (Some(file), Some(range)) = (&self.initrd, &initrd_range) {
            let read = file.read_into(0, file.len, memory, range.start);
            read.map_err(|error| file.error(error))?;
        }
        let line = [cmdline.as_bytes(), b"\0"].concat();
        guest::write(memory, "the command line", COMMAND_LINE.start, &line)?;

        let facts = Facts {
            memory_map: map.entries(),
            command_line: COMMAND_LINE.start,
            initrd: initrd_range.clone(),
            rsdp: platform.rsdp.map_or(0, |address| address.0),
        };
        let registers = kernel.registers(memory, &kernel_range, &facts)?;
        Ok(Boot {
            registers,
            kernel: kernel_range,
            initrd: initrd_range,
            cmdline,
            version: kernel.version(),
        })
    }
}

/// Opens a payload and puts it into guest memory: [`open`], then [`Opened::load`].
///
/// # Errors
/// Theirs.
pub fn load<M: GuestMemoryBackend>(
    payload: &Payload,
    memory: &M,
    platform: &Platform<'_>,
) -> Result<Boot, Vec<Error>> {
    let opened = open(payload)?;
    opened.load(memory, platform).map_err(|error| vec![error])
}

/// Everything that [`open`] would find wrong with a payload. Empty if all is well.
pub fn check(payload: &Payload) -> Vec<Error> {
    open(payload).err().unwrap_or_default()
}

fn open_initrd(source: &Source) -> Result<ImageFile, Error> {
    let file = ImageFile::open(Role::Initrd, source)?;
    if file.len >= FOUR_GIB {
        let limit_is = "the boot protocols' 32-bit size";
        let error = ImageError::Limit {
            field: "file size",
            value: file.len,
            limit: FOUR_GIB - 1,
            limit_is,
        };
        return Err(file.error(error));
    }
    Ok(file)
}

/// As high as allowed, so that the kernel has room to unpack itself below; above 4 GiB only if need
/// be.
fn place_initrd(
    file: &ImageFile,
    limits: InitrdLimits,
    map: &mut MemoryMap,
) -> Result<Range<u64>, Error> {
    let low = map.take_highest(file.len, PAGE, &(MIB..limits.below));
    let place = match low {
        Err(low) if limits.above_4g => map
            .take_highest(file.len, PAGE, &(FOUR_GIB..u64::MAX))
            .map_err(|_| low),
        low => low,
    };
    place.map_err(|error| file.error(error))
}

#[cfg(test)]
mod tests;
