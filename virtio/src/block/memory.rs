//! A disk in memory: gone with the machine, and without a system call.
//!
//! Its bytes are a file without a name (`memfd`), so that what the guest discards is given back to
//! the host. Pages that were never written take no memory.

use super::{BlockStorage, Error, Properties, SECTOR};
use crate::memory::Region;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use std::fs::File;
use std::io;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryRegion, MemoryRegionAddress, VolatileSlice};

/// The size of a page, which is what can be given back.
const PAGE: u64 = 4096;

/// A disk in memory.
#[derive(Debug)]
pub struct MemoryDisk {
    memfd: Arc<File>,
    region: Region,
    size: u64,
}

impl MemoryDisk {
    /// A disk of `size` bytes, all zero; a multiple of 512.
    pub fn new(size: u64) -> Result<MemoryDisk, Error> {
        let pages = size.checked_next_multiple_of(PAGE);
        let len = pages.filter(|len| size > 0 && *len <= i64::MAX as u64);
        let (Some(pages), true) = (len, size.is_multiple_of(SECTOR)) else {
            return Err(Error::Size {
                size,
                block: SECTOR as u32,
            });
        };
        let failed = |source| Error::Memory { size, source };
        let memfd = memfd_create(c"disk", MemfdFlags::CLOEXEC);
        let memfd = File::from(memfd.map_err(|error| failed(error.into()))?);
        memfd.set_len(pages).map_err(failed)?;
        let memfd = Arc::new(memfd);
        let len = usize::try_from(pages).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        let region = Region::shared(GuestAddress(0), len, Arc::clone(&memfd), 0);
        Ok(MemoryDisk {
            memfd,
            region: region.map_err(failed)?,
            size,
        })
    }

    /// A disk with these bytes, to which zeroes are added up to a whole sector.
    pub fn with_contents(bytes: &[u8]) -> Result<MemoryDisk, Error> {
        let size = (bytes.len() as u64).max(1).next_multiple_of(SECTOR);
        let disk = MemoryDisk::new(size)?;
        let place = disk.slice(0, bytes.len());
        let place = place.map_err(|source| Error::Memory { size, source })?;
        place.copy_from(bytes);
        Ok(disk)
    }

    /// A copy of the bytes at `offset`, as many as there are up to `len`.
    pub fn contents(&self, offset: u64, len: usize) -> Vec<u8> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(left)];
        if let Ok(place) = self.slice(offset, bytes.len()) {
            place.copy_to(&mut bytes);
        }
        bytes
    }

    fn slice(&self, offset: u64, len: usize) -> io::Result<VolatileSlice<'_>> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.region
            .get_slice(MemoryRegionAddress(offset), len)
            .map_err(io::Error::other)
    }
}

impl BlockStorage for MemoryDisk {
    fn properties(&self) -> Properties {
        Properties {
            discard: Some(PAGE as u32),
            ..Properties::new(self.size)
        }
    }

    fn read_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        for buffer in buffers {
            let place = self.slice(offset + done as u64, buffer.len())?;
            place.copy_to_volatile_slice(*buffer);
            done += buffer.len();
        }
        Ok(done)
    }

    fn write_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        for buffer in buffers {
            let place = self.slice(offset + done as u64, buffer.len())?;
            buffer.copy_to_volatile_slice(place);
            done += buffer.len();
        }
        Ok(done)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.slice(offset, usize::try_from(len).unwrap_or(usize::MAX))?;
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&*self.memfd, how, offset, len)?)
    }

    fn write_zeroes(&self, offset: u64, len: u64, _may_unmap: bool) -> io::Result<()> {
        // A page that is given back is a page of zeroes.
        self.discard(offset, len)
    }
}
