//! Why there is no disk.

use super::file::Holder;
use super::qcow2::Qcow2Error;
use std::io;
use std::path::PathBuf;

/// Why a disk can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file can't be opened.
    #[error("cannot open {path:?} for {}", if *.read_only { "reading" } else { "reading and writing" })]
    Open {
        /// Which file.
        path: PathBuf,
        /// Whether it was to be read only.
        read_only: bool,
        /// Why not.
        source: io::Error,
    },
    /// The file can't be made.
    #[error("cannot create {path:?} with {size} bytes")]
    Create {
        /// Which file.
        path: PathBuf,
        /// How large it should become.
        size: u64,
        /// Why not.
        source: io::Error,
    },
    /// It is there, but it is not something with a fixed number of bytes.
    #[error("{path:?} is {kind}, neither a regular file nor a block device")]
    Kind {
        /// Which file.
        path: PathBuf,
        /// What it is instead.
        kind: &'static str,
    },
    /// Somebody else has it, and one of the two wants to write.
    #[error("{path:?} is in use by {holder}")]
    InUse {
        /// Which file.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// There is not even one block in it.
    #[error("{path:?} has {size} bytes, which is less than a block of {block}")]
    Small {
        /// Which file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The size of a block.
        block: u32,
    },
    /// A size that no file can have, or that is not made of whole blocks.
    #[error("a disk of {size} bytes: the size must be a multiple of {block}, and at most 2^63 - 1")]
    Size {
        /// As asked for.
        size: u64,
        /// The size of a block.
        block: u32,
    },
    /// The file system has no direct I/O.
    #[error("{path:?} is on a file system without direct I/O")]
    NoDirect {
        /// Which file.
        path: PathBuf,
    },
    /// It is no qcow2 image that can be used.
    #[error("cannot use {path:?} as a qcow2 image")]
    Qcow2 {
        /// Which file; it may be one behind the disk.
        path: PathBuf,
        /// Why not.
        source: Qcow2Error,
    },
    /// Not a serial number.
    #[error(
        "serial number {serial:?}: it must have 1 to 20 printable ASCII characters and no blanks"
    )]
    Serial {
        /// As asked for.
        serial: String,
    },
    /// Not the size of a block.
    #[error("a block of {size} bytes: the size must be 512 or 4096, and here at least {at_least}")]
    BlockSize {
        /// As asked for.
        size: u32,
        /// The smallest block that the storage can write.
        at_least: u32,
    },
    /// Not a number of queues.
    #[error("{queues} queues: a disk has 1 to {max}")]
    Queues {
        /// As asked for.
        queues: u16,
        /// The limit.
        max: u16,
    },
    /// A web server does not have it, or not in a way that can be used.
    #[cfg(feature = "http")]
    #[error("cannot use {url:?}")]
    Http {
        /// Where.
        url: String,
        /// Why not.
        source: Box<super::http::Failure>,
    },
    /// The host has no memory for it.
    #[error("a disk of {size} bytes in memory can't be had")]
    Memory {
        /// How large it should be.
        size: u64,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// What the user may do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
        match self {
            Error::Open {
                read_only: false,
                source,
                ..
            } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem) => {
                Some("a disk that may not be written can be used read-only: add ,ro=on")
            }
            Error::Open {
                read_only: false,
                source,
                ..
            } if source.kind() == NotFound => {
                Some("a disk that does not exist is created when it is given a size: ,size=1G")
            }
            Error::InUse { .. } => {
                Some("a disk can be shared only if everybody opens it read-only")
            }
            Error::Qcow2 { source, .. } => source.hint(),
            #[cfg(feature = "http")]
            Error::Http { source, .. }
                if matches!(**source, super::http::Failure::UnknownAuthority) =>
            {
                Some(
                    "a server's own authority is trusted when its certificate (PEM) is given: ,ca=FILE",
                )
            }
            _ => None,
        }
    }
}
