//! What is looked at before an image is given to the library.
//!
//! imago reads the format; these are the limits that it does not have. A table's size comes from
//! the file, and so would the memory that it takes. A virtual disk longer than its L1 table, or
//! tables on top of each other, are no images that anything sane has made.

use super::super::{BlockStorage, RawFile};
use std::io;
use vm_memory::VolatileSlice;

/// `QFI\xfb`
const MAGIC: u32 = 0x5146_49fb;
/// The header of version 2, which that of version 3 begins with.
const V2_LENGTH: u32 = 72;
/// The least that version 3 has.
const V3_LENGTH: u32 = 104;
/// The most that QEMU reads of an L1 table.
const L1_BYTES: u64 = 32 << 20;
/// The most that QEMU reads of a refcount table.
const REFCOUNT_BYTES: u64 = 8 << 20;
/// Incompatible features by bit: what they mean.
const INCOMPATIBLE: [&str; 5] = [
    "it was not closed properly, and its refcounts may be wrong (dirty)",
    "it was found to be corrupt before",
    "its data is in another file",
    "its compression is not deflate",
    "it has extended L2 entries",
];

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Qcow2Error {
    /// Something else, or nothing.
    #[error("it begins with {found:#010x} instead of 0x514649fb, so it is no qcow2 image")]
    Magic {
        /// The first four bytes.
        found: u32,
    },
    /// A version that is not known.
    #[error("it has version {version} of the format; known are 2 and 3")]
    Version {
        /// As found.
        version: u32,
    },
    /// A number that is out of range.
    #[error("its {what} is {value}; possible are {least} to {most}")]
    Range {
        /// Which number.
        what: &'static str,
        /// As found.
        value: u64,
        /// The least that it may be.
        least: u64,
        /// The most that it may be.
        most: u64,
    },
    /// It can't be read without a key.
    #[error("it is encrypted (method {method}), which is not supported")]
    Encrypted {
        /// As found.
        method: u32,
    },
    /// A feature that whoever does not know it must not touch the image for.
    #[error("it has the incompatible feature {bit}: {meaning}")]
    Feature {
        /// The number of its bit.
        bit: u32,
        /// What that means.
        meaning: &'static str,
    },
    /// A table is where it can't be.
    #[error("its {what} of {len} bytes at {offset:#x} {problem}")]
    Table {
        /// Which table.
        what: &'static str,
        /// Where it should be.
        offset: u64,
        /// How long it should be.
        len: u64,
        /// What is wrong with that.
        problem: &'static str,
    },
    /// It has a backing file, and nobody has allowed that.
    #[error("it is backed by {name:?}, and backing files are not allowed for this disk")]
    BackingDenied {
        /// As the image has it.
        name: String,
    },
    /// A backing file that is not opened in any case.
    #[error("it is backed by {name:?}, which is {problem}")]
    BackingName {
        /// As the image has it.
        name: String,
        /// What is wrong with that.
        problem: &'static str,
    },
    /// The format of a backing file is never guessed.
    #[error("the format of its backing file {name:?} is {format:?}; it must say raw or qcow2")]
    BackingFormat {
        /// As the image has it.
        name: String,
        /// As the image has it; empty if it has none.
        format: String,
    },
    /// More backing files than anybody needs.
    #[error("there are more than {most} files behind the disk")]
    BackingDepth {
        /// As many as there may be.
        most: usize,
    },
    /// A file is, by way of others, its own backing file.
    #[error("it is backed by {name:?}, which is backed by it in turn")]
    BackingLoop {
        /// As the image has it.
        name: String,
    },
    /// Something that the library found.
    #[error("it can't be read as a qcow2 image")]
    Format(#[source] io::Error),
}

impl Qcow2Error {
    /// What the user may do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Qcow2Error::BackingDenied { .. } => Some(
                "if you trust the image: ,backing=on opens backing files in its folder, \
                 ,backing=any those elsewhere too",
            ),
            Qcow2Error::BackingName { problem, .. } if *problem == OUTSIDE => {
                Some("if you trust the image: ,backing=any opens backing files anywhere")
            }
            Qcow2Error::BackingFormat { .. } => {
                Some("qemu-img rebase -u -F FORMAT -b FILE tells an image the format")
            }
            Qcow2Error::Feature { bit: 0 | 1, .. } => Some("qemu-img check -r all may repair it"),
            _ => None,
        }
    }
}

/// What is wrong with a backing file that [`Beside`](super::Backing::Beside) does not cover.
pub(super) const OUTSIDE: &str = "outside of the folder of the image";

/// What is worth to know of a header that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The size of a cluster.
    pub(super) cluster: u64,
    /// Where the L1 table is, and how long.
    pub(super) l1: (u64, u64),
    /// Where the refcount table is, and how long.
    refcounts: (u64, u64),
}

impl Header {
    /// Reads and checks the header of a file with this many bytes.
    pub(super) fn read(file: &RawFile, file_len: u64) -> Result<Header, Qcow2Error> {
        let mut bytes = [0; V3_LENGTH as usize];
        read(file, &mut bytes, 0)?;
        let header = Header::check(&bytes, file_len)?;
        // The header is in the first cluster, so that there is no image without a block for that.
        // imago would make one in place of the header.
        let mut entry = [0; 8];
        read(file, &mut entry, header.refcounts.0)?;
        if u64::from_be_bytes(entry) < header.cluster {
            let problem = "has no block for the header";
            return Err(table("refcount table", header.refcounts, problem));
        }
        Ok(header)
    }

    fn check(bytes: &[u8; V3_LENGTH as usize], file_len: u64) -> Result<Header, Qcow2Error> {
        let found = u32_at(bytes, 0);
        if found != MAGIC {
            return Err(Qcow2Error::Magic { found });
        }
        let version = u32_at(bytes, 4);
        if !matches!(version, 2 | 3) {
            return Err(Qcow2Error::Version { version });
        }
        let bits = within("cluster_bits", u32_at(bytes, 20).into(), 9, 21)?;
        let cluster = 1 << bits;
        let size = within("size", u64_at(bytes, 24), 1, i64::MAX as u64)?;
        let method = u32_at(bytes, 32);
        if method != 0 {
            return Err(Qcow2Error::Encrypted { method });
        }
        if version == 3 {
            if let bit @ 0..64 = u64_at(bytes, 72).trailing_zeros() {
                let meaning = INCOMPATIBLE.get(bit as usize).copied();
                let meaning = meaning.unwrap_or("nobody knows what that is");
                return Err(Qcow2Error::Feature { bit, meaning });
            }
            within("refcount_order", u32_at(bytes, 96).into(), 0, 6)?;
            let length = u32_at(bytes, 100).into();
            within("header_length", length, V3_LENGTH.into(), cluster)?;
        }
        if u64_at(bytes, 8) != 0 {
            let place = u64_at(bytes, 8);
            let end = cluster.saturating_sub(u32_at(bytes, 16).into());
            within("backing_file_offset", place, V2_LENGTH.into(), end)?;
            within("backing_file_size", u32_at(bytes, 16).into(), 1, 1023)?;
        }

        // An entry of the L1 table is for a table of cluster / 8 entries, a cluster each.
        let per_entry = u128::from(cluster) * u128::from(cluster / 8);
        let needed = u128::from(size).div_ceil(per_entry);
        let needed = u64::try_from(needed).unwrap_or(u64::MAX);
        let entries = within("l1_size", u32_at(bytes, 36).into(), needed, L1_BYTES / 8)?;
        let l1 = (u64_at(bytes, 40), entries * 8);
        check_table("L1 table", l1, cluster, file_len)?;
        let most = (REFCOUNT_BYTES / cluster).max(1);
        let clusters = u32_at(bytes, 56).into();
        let clusters = within("refcount_table_clusters", clusters, 1, most)?;
        let refcounts = (u64_at(bytes, 48), clusters * cluster);
        check_table("refcount table", refcounts, cluster, file_len)?;
        if l1.0 < refcounts.0 + refcounts.1 && refcounts.0 < l1.0 + l1.1 {
            return Err(table("L1 table", l1, "is where the refcount table is"));
        }
        Ok(Header {
            cluster,
            l1,
            refcounts,
        })
    }
}

/// Fills a buffer. What is too short to do so has zeroes.
fn read(file: &RawFile, bytes: &mut [u8], offset: u64) -> Result<(), Qcow2Error> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_vectored_at(&[VolatileSlice::from(rest)], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Qcow2Error::Format(error)),
        }
    }
    Ok(())
}

fn check_table(
    what: &'static str,
    place: (u64, u64),
    cluster: u64,
    file_len: u64,
) -> Result<(), Qcow2Error> {
    let (offset, len) = place;
    if !offset.is_multiple_of(cluster) {
        return Err(table(what, place, "does not begin with a cluster"));
    }
    if offset < cluster {
        return Err(table(what, place, "is where the header is"));
    }
    if offset.checked_add(len).is_none_or(|end| end > file_len) {
        return Err(table(what, place, "is not within the file"));
    }
    Ok(())
}

fn table(what: &'static str, (offset, len): (u64, u64), problem: &'static str) -> Qcow2Error {
    Qcow2Error::Table {
        what,
        offset,
        len,
        problem,
    }
}

fn within(what: &'static str, value: u64, least: u64, most: u64) -> Result<u64, Qcow2Error> {
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => Err(Qcow2Error::Range {
            what,
            value,
            least,
            most,
        }),
    }
}

/// A field of the header, all of which is big-endian.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u32::from_be_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u64::from_be_bytes(*field))
}
