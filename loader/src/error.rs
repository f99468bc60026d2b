//! What can go wrong, in two layers: which file or which part of the machine, and inside it what is
//! wrong with the bytes.

use std::fmt;
use std::io;

use vm_memory::GuestMemoryError;

/// Why a payload could not be loaded. The message names what was being done; the chain of
/// `source()` says why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened.
    #[error("cannot open the {role} {file:?}")]
    Open {
        /// What it was to be.
        role: Role,
        /// Its path.
        file: String,
        /// The host's answer.
        source: io::Error,
    },
    /// Only regular files have a length that can be checked before reading.
    #[error("the {role} {file:?} is {kind}, not a regular file")]
    NotRegular {
        /// What it was to be.
        role: Role,
        /// Its path or descriptor.
        file: String,
        /// What it is instead.
        kind: &'static str,
    },
    /// The file's content is unfit.
    #[error("cannot load the {role} {file:?}")]
    Image {
        /// What it was to be.
        role: Role,
        /// Its path or descriptor.
        file: String,
        /// What is wrong with it.
        source: ImageError,
    },
    /// The kernel would cut the command line short.
    #[error("command line too long, length: {length} bytes, limit of this kernel: {limit}")]
    CommandLineLength {
        /// Bytes, the machine's own arguments included, without the terminating NUL.
        length: usize,
        /// What the kernel takes.
        limit: u64,
    },
    /// See [`Payload::cmdline`](crate::Payload::cmdline) for what a command line may hold.
    #[error(
        "command line: byte {byte:#04x} at offset {offset} is neither printable ASCII nor a tab"
    )]
    CommandLineByte {
        /// The offending byte.
        byte: u8,
        /// Where it is.
        offset: usize,
    },
    /// The boot data lives in the first MiB.
    #[error("guest memory: there is no RAM at {address:#x}, the first MiB must be RAM throughout")]
    NoLowMemory {
        /// First address without RAM.
        address: u64,
    },
    /// A range that the machine keeps for itself is where boot data goes.
    #[error(
        "guest memory: reserved range {start:#x}..{end:#x} overlaps the boot data below {limit:#x}"
    )]
    ReservedLow {
        /// First byte reserved.
        start: u64,
        /// One after the last.
        end: u64,
        /// End of the boot data's area.
        limit: u64,
    },
    /// Neither boot protocol carries more.
    #[error("guest memory: the memory map has {count} ranges, limit: {limit}")]
    MemoryMapLength {
        /// Ranges of RAM and reserved ranges.
        count: usize,
        /// Room for them.
        limit: usize,
    },
    /// The initrd is so far up that the page tables would not fit.
    #[error("guest memory: no room for the page table of address {address:#x}")]
    PageTables {
        /// The address that was to be mapped.
        address: u64,
    },
    /// Guest memory refused a write.
    #[error("cannot write {what} to guest memory at {address:#x}")]
    Write {
        /// What was being written.
        what: &'static str,
        /// Where.
        address: u64,
        /// Why not.
        source: GuestMemoryError,
    },
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The kernel image.
    Kernel,
    /// The initial RAM disk.
    Initrd,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Kernel => "kernel",
            Role::Initrd => "initrd",
        })
    }
}

/// What is wrong with the content of a kernel or an initrd.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Nothing in it. For an initrd too this is an error: it is hardly ever what was meant.
    #[error("the file is empty")]
    Empty,
    /// Neither a bzImage nor an ELF file.
    #[error("format not known: first bytes {first}: {looks_like}")]
    UnknownFormat {
        /// The first bytes in hexadecimal.
        first: String,
        /// What they remind of.
        looks_like: &'static str,
    },
    /// The image promises more than the file holds.
    #[error("the file ends early, {what} needs {needed} bytes, the file has {size}")]
    TooShort {
        /// The part that is cut off.
        what: &'static str,
        /// Up to where the part goes.
        needed: u64,
        /// The size of the file.
        size: u64,
    },
    /// Reading failed, or the file became shorter meanwhile.
    #[error("cannot read {length} bytes at offset {offset}")]
    Read {
        /// Where in the file.
        offset: u64,
        /// How much.
        length: u64,
        /// The host's answer.
        source: io::Error,
    },
    /// Reading straight into guest memory failed, or the file became shorter meanwhile.
    #[error("cannot read {length} bytes at offset {offset} into guest memory at {address:#x}")]
    ReadIntoGuest {
        /// Where in the file.
        offset: u64,
        /// How much.
        length: u64,
        /// Where to.
        address: u64,
        /// Why not.
        source: GuestMemoryError,
    },
    /// A number in a header breaks a rule.
    #[error("{field} is {value:#x}: {rule}")]
    Field {
        /// Its name in the specification.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it should have held.
        rule: &'static str,
    },
    /// A number in a header exceeds another one.
    #[error("{field} is {value:#x}, limit: {limit:#x} ({limit_is})")]
    Limit {
        /// Its name in the specification.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// The most it may hold.
        limit: u64,
        /// Where the limit comes from.
        limit_is: &'static str,
    },
    /// A piece of the image wants to be where it cannot.
    #[error("{what} wants {start:#x}..{end:#x}, which is not free RAM above 1 MiB")]
    NotFree {
        /// The piece.
        what: &'static str,
        /// Its first address.
        start: u64,
        /// One after its last.
        end: u64,
    },
    /// The guest's RAM is too small.
    #[error(
        "needs {size} bytes of RAM in one piece between {from:#x} and {limit:#x}, the largest free piece has {free}: \
         needs {} more MiB", size.saturating_sub(*free).div_ceil(1 << 20)
    )]
    NoRoom {
        /// Bytes needed.
        size: u64,
        /// Lowest address allowed.
        from: u64,
        /// One after the highest address allowed.
        limit: u64,
        /// Bytes in the largest free piece in there.
        free: u64,
    },
    /// An ELF file that cannot be entered.
    #[error(
        "the ELF file has no PVH entry (no note XEN_ELFNOTE_PHYS32_ENTRY): a Linux kernel needs CONFIG_PVH=y"
    )]
    NoPvhNote,
}
