//! I/O past the host's page cache (`O_DIRECT`), which takes whole aligned blocks only.
//!
//! A driver that keeps to the size of a block sends nothing else, and its requests go to the
//! file as they are. All others go through a buffer: what is read is cut out of whole blocks, and
//! what is written is first put into them. Such writes are not atomic, and one at a time.

use crate::block::sys;
use crate::memory::Region;
use rustix::fs::{AtFlags, StatxFlags, statx};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};
use vm_memory::{GuestAddress, GuestMemoryRegion, MemoryRegionAddress, VolatileSlice};

/// The size of the buffer.
const BOUNCE: usize = 64 << 10;
/// What every device and file system is content with.
const SAFE: u32 = 4096;

/// How a file wants its direct I/O, and the buffer for what is not like that.
#[derive(Debug)]
pub(super) struct Direct {
    /// Of file offsets and lengths.
    alignment: u32,
    /// Of memory.
    memory_alignment: u32,
    bounce: Mutex<Region>,
}

impl Direct {
    pub(super) fn new(file: BorrowedFd<'_>) -> io::Result<Self> {
        let (alignment, memory_alignment) = alignments(file);
        Ok(Direct {
            alignment,
            memory_alignment,
            bounce: Mutex::new(Region::anonymous(GuestAddress(0), BOUNCE)?),
        })
    }

    /// Of what has to be a multiple.
    pub(super) fn alignment(&self) -> u32 {
        self.alignment
    }

    pub(super) fn read(
        &self,
        file: BorrowedFd<'_>,
        buffers: &[VolatileSlice<'_>],
        offset: u64,
    ) -> io::Result<usize> {
        if self.is_aligned(buffers, offset) {
            return sys::preadv(file, buffers, offset);
        }
        let bounce = self.bounce.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = Piece::new(buffers, offset, self.alignment);
        let blocks = slice(&bounce, 0, piece.blocks)?;
        let read = sys::preadv(file, &[blocks], piece.start)?;
        let count = read.saturating_sub(piece.skip).min(piece.len);
        let mut from = slice(&bounce, piece.skip, count)?;
        for buffer in buffers {
            from.copy_to_volatile_slice(*buffer);
            let copied = from.len().min(buffer.len());
            from = from.offset(copied).map_err(io::Error::other)?;
        }
        Ok(count)
    }

    pub(super) fn write(
        &self,
        file: BorrowedFd<'_>,
        buffers: &[VolatileSlice<'_>],
        offset: u64,
    ) -> io::Result<usize> {
        if self.is_aligned(buffers, offset) {
            return sys::pwritev(file, buffers, offset);
        }
        let bounce = self.bounce.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = Piece::new(buffers, offset, self.alignment);
        let blocks = slice(&bounce, 0, piece.blocks)?;
        if piece.len < piece.blocks {
            // Around what is written, the blocks stay as they are.
            let mut read = 0;
            while read < piece.blocks {
                let rest = blocks.offset(read).map_err(io::Error::other)?;
                match sys::preadv(file, &[rest], piece.start + read as u64)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => read += count,
                }
            }
        }
        let mut to = slice(&bounce, piece.skip, piece.len)?;
        for buffer in buffers {
            buffer.copy_to_volatile_slice(to);
            let copied = to.len().min(buffer.len());
            to = to.offset(copied).map_err(io::Error::other)?;
        }
        let written = sys::pwritev(file, &[blocks], piece.start)?;
        Ok(written.saturating_sub(piece.skip).min(piece.len))
    }

    fn is_aligned(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> bool {
        let in_memory = self.memory_alignment as usize;
        let lengths = self.alignment as usize;
        offset.is_multiple_of(self.alignment.into())
            && buffers.iter().all(|buffer| {
                let address = buffer.ptr_guard().as_ptr() as usize;
                address.is_multiple_of(in_memory) && buffer.len().is_multiple_of(lengths)
            })
    }
}

/// As much of a request as fits the buffer, and the whole blocks around it.
struct Piece {
    /// Where the blocks start in the file.
    start: u64,
    /// How long they are.
    blocks: usize,
    /// Where in them the piece starts.
    skip: usize,
    /// How long it is.
    len: usize,
}

impl Piece {
    fn new(buffers: &[VolatileSlice<'_>], offset: u64, alignment: u32) -> Self {
        let block = u64::from(alignment);
        let start = offset - offset % block;
        let skip = (offset - start) as usize;
        let wanted: usize = buffers.iter().map(VolatileSlice::len).sum();
        let len = wanted.min(BOUNCE.saturating_sub(skip));
        Piece {
            start,
            blocks: (skip + len)
                .next_multiple_of(alignment as usize)
                .min(BOUNCE),
            skip,
            len,
        }
    }
}

fn slice(bounce: &Region, offset: usize, len: usize) -> io::Result<VolatileSlice<'_>> {
    bounce
        .get_slice(MemoryRegionAddress(offset as u64), len)
        .map_err(io::Error::other)
}

/// What the file asks for, if the kernel can tell (Linux 6.1), or what is enough for any.
fn alignments(file: BorrowedFd<'_>) -> (u32, u32) {
    let sane = |value: u32| value.is_power_of_two() && value <= SAFE;
    match statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(found)
            if found.stx_mask & StatxFlags::DIOALIGN.bits() != 0
                && sane(found.stx_dio_offset_align)
                && sane(found.stx_dio_mem_align) =>
        {
            (found.stx_dio_offset_align.max(512), found.stx_dio_mem_align)
        }
        _ => (SAFE, SAFE),
    }
}
