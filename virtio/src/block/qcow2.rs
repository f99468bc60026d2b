//! A qcow2 image as a disk, by way of the library imago.
//!
//! # The design
//!
//! * That a file is an image is said by whoever opens it, and never guessed. What an image says is
//!   hostile: its header is checked before the library allocates by it (`header.rs`).
//! * imago only maps: it tells where in which file some bytes of the disk are, and makes room for
//!   them. The data then goes between guest memory and that file by the calls that a raw file has
//!   too, without a copy and, but for clusters that are new, without an allocation. Clusters that
//!   are compressed, and only they, pass through a buffer that the disk has for that.
//! * A backing file can be any file that we may read, and an image is likely to come from somebody
//!   else. So they are refused unless the user allows them ([`Backing`]), are opened by us
//!   and not by the library, for reading, in the format that the image names, 16 at most.
//! * All files are locked while the disk is open, as raw files are.
//! * A request that meets something corrupt fails, and the others don't: data is not read or
//!   written where the header and the L1 table are, nor behind the end of the file.
//!
//! # Durability
//!
//! Metadata stays in the library's cache until a flush, which writes refcounts before the entries
//! that rely on them, and then has the host write all of it. A process that is killed leaves a
//! consistent image, in which clusters may have leaked. There is no barrier between the two
//! kinds of metadata: after a loss of power in the middle of a flush, `qemu-img check` may have
//! refcounts to repair. What was flushed before is not touched by that.
//!
//! # What it does not do
//!
//! Encryption, snapshots (they are kept, and can't be made), external data files, extended L2
//! entries, other compression than deflate, direct I/O. It does not mark an image as corrupt.
//! Discarded clusters are used again, but not given back to the host's file system. The tables that
//! imago caches are not limited by us: 128 of them, a cluster each, so 8 MiB with clusters of 64 KiB.

mod header;
mod layer;
mod open;

pub use header::Qcow2Error;
pub use open::{Backing, Qcow2Options};

use super::storage::fill_with_zeroes;
use super::{BlockStorage, Properties};
use imago::{FormatAccess, Mapping};
use layer::{Layer, total};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vm_memory::VolatileSlice;

/// The size of a cluster of new images, as `qemu-img` has it.
const NEW_CLUSTER: u64 = 64 << 10;
/// Through this goes what is compressed.
const BOUNCE: usize = 64 << 10;
/// How many buffers are served at once. What is left is left to the next call.
const BATCH: usize = 64;

/// A qcow2 image as a disk.
#[derive(Debug)]
pub struct Qcow2File {
    properties: Properties,
    created: bool,
    /// The file of the image itself, not those behind it.
    top: Layer,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    image: FormatAccess<Layer>,
    bounce: Vec<u8>,
}

impl Qcow2File {
    /// How to open one.
    pub fn options() -> Qcow2Options {
        Qcow2Options::default()
    }

    /// Whether the file was made by opening it.
    pub fn was_created(&self) -> bool {
        self.created
    }

    /// How much of a write may be mapped at once. imago wants what follows a cluster of the disk to
    /// follow it in the file too, and has refcounts for any place where an image says that it is:
    /// one far behind the end of the file would cost as much as the file may become.
    fn check_write(&self, image: &FormatAccess<Layer>, offset: u64, len: u64) -> io::Result<u64> {
        match image.get_mapping(offset, len)?.0 {
            Mapping::Raw {
                storage, offset, ..
            } => storage.check_end(offset).map(|()| len),
            // There may be a cluster in reserve for it, and it is not told where.
            Mapping::Zero { explicit: true, .. } => {
                let cluster = self.top.cluster();
                Ok(len.min(cluster - offset % cluster))
            }
            _ => Ok(len),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockStorage for Qcow2File {
    fn properties(&self) -> Properties {
        self.properties.clone()
    }

    fn read_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut state = self.lock();
        let State { image, bounce } = &mut *state;
        let mut batch = Batch::new(buffers);
        let (mapping, len) = image.get_mapping(offset, total(batch.slices()))?;
        batch.truncate(len)?;
        match mapping {
            Mapping::Raw {
                storage, offset, ..
            } => storage.read(batch.slices(), offset),
            Mapping::Zero { .. } => layer::fill_with_zeroes(batch.slices(), usize::MAX),
            Mapping::Special { .. } => {
                let len = usize::try_from(len).unwrap_or(BOUNCE);
                let bounce = bounce.get_mut(..len.min(BOUNCE)).unwrap_or_default();
                image.read(&mut *bounce, offset)?;
                scatter(bounce, batch.slices())
            }
            // The end of the disk, which is not within the range.
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let state = self.lock();
        let mut batch = Batch::new(buffers);
        let wanted = self.check_write(&state.image, offset, total(batch.slices()))?;
        let place = state.image.prepare_data_mapping(offset, wanted, true)?;
        let len = place.length();
        batch.truncate(len)?;
        // Should that fail, the clusters that were taken for it are given back.
        place.storage().write(batch.slices_mut(), place.offset())?;
        state.image.commit_data_mapping(place)?;
        usize::try_from(len).map_err(io::Error::other)
    }

    fn flush(&self) -> io::Result<()> {
        let state = self.lock();
        if !self.properties.read_only {
            state.image.flush()?;
        }
        self.top.file().flush()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.lock().image.discard_to_any(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        let mut state = self.lock();
        let result = match may_unmap {
            true => state.image.discard_to_zero(offset, len),
            false => state.image.write_zeroes(offset, len),
        };
        drop(state);
        match result {
            // Version 2 has no clusters that are zero.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                fill_with_zeroes(self, offset, len)
            }
            result => result,
        }
    }
}

/// The first buffers of a request, which can be cut short without an allocation.
struct Batch<'m> {
    slices: [VolatileSlice<'m>; BATCH],
    count: usize,
}

impl<'m> Batch<'m> {
    fn new(buffers: &[VolatileSlice<'m>]) -> Self {
        let nothing = VolatileSlice::from(<&mut [u8]>::default());
        let mut batch = Batch {
            slices: [nothing; BATCH],
            count: buffers.len().min(BATCH),
        };
        for (place, buffer) in batch.slices.iter_mut().zip(buffers) {
            *place = *buffer;
        }
        batch
    }

    fn slices(&self) -> &[VolatileSlice<'m>] {
        self.slices.get(..self.count).unwrap_or(&self.slices)
    }

    fn slices_mut(&mut self) -> &mut [VolatileSlice<'m>] {
        let count = self.count.min(BATCH);
        self.slices.split_at_mut(count).0
    }

    /// Leaves out what is behind the first `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        let mut count = 0;
        for slice in self.slices_mut() {
            if left == 0 {
                break;
            }
            *slice = slice
                .subslice(0, slice.len().min(left))
                .map_err(io::Error::other)?;
            left -= slice.len();
            count += 1;
        }
        self.count = count;
        Ok(())
    }
}

/// Copies bytes to buffers, one after the other. Returns how many there was room for.
fn scatter(bytes: &[u8], buffers: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let mut rest = bytes;
    for buffer in buffers {
        let (now, later) = rest.split_at(rest.len().min(buffer.len()));
        buffer.copy_from(now);
        rest = later;
    }
    Ok(bytes.len() - rest.len())
}
