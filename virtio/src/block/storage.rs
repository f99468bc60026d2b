//! Where the bytes of a disk are: the trait that backends implement, those of embedders included.

use std::io;
use vm_memory::VolatileSlice;

/// What is fixed about a storage. A disk asks once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// The number of bytes. Those behind the last whole block are not offered to the guest.
    pub size: u64,
    /// Nothing can be written: the three calls that would are never made.
    pub read_only: bool,
    /// The smallest block that can be written, 512 or 4096.
    pub logical_block: u32,
    /// The block that is written best: a power of two, at least `logical_block`.
    pub physical_block: u32,
    /// The granularity of [`discard`](BlockStorage::discard) in bytes, if there is such a thing.
    pub discard: Option<u32>,
    /// What the guest reads as serial number; the first 20 bytes of it.
    pub identity: String,
}

impl Properties {
    /// A storage of so many bytes that can be written in sectors of 512, and knows no discard.
    pub fn new(size: u64) -> Self {
        Properties {
            size,
            read_only: false,
            logical_block: 512,
            physical_block: 4096,
            discard: None,
            identity: String::new(),
        }
    }
}

/// The bytes of a disk.
///
/// All calls are positioned and may wait for the host. They are made on the threads of the device
/// that has the storage, one for each queue, so several at a time: a storage that can't bear that
/// locks inside. It then has to keep in mind that waiting for a lock is waiting for the host.
///
/// # Memory
///
/// Buffers are guest memory, which the guest may change at any time: it can be copied and handed to
/// the kernel, but not be borrowed. Data that is looked at has to be copied first.
///
/// # Errors
///
/// An error fails one request, and the guest sees an I/O error.
/// [`Interrupted`](io::ErrorKind::Interrupted) and [`WouldBlock`](io::ErrorKind::WouldBlock) are
/// tried again.
///
/// # Ranges
///
/// They are not empty, lie within `size`, and are made of whole sectors of 512 bytes (not
/// necessarily of whole blocks: a driver may ignore the size of a block).
pub trait BlockStorage: Send + Sync + 'static {
    /// What is fixed. The same at each call.
    fn properties(&self) -> Properties;

    /// Fills `buffers`, one after the other, with what is at `offset`. Returns the number of bytes
    /// that were read; if these are not all, it is called again for the rest. 0 is an error: there
    /// are fewer bytes than there were.
    fn read_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Writes what is in `buffers`, one after the other, at `offset`. Returns the number of bytes
    /// that were written; if these are not all, it is called again for the rest.
    fn write_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Makes all that was written, zeroed and discarded so far survive a loss of power: by whatever
    /// thread, if only the call had returned.
    fn flush(&self) -> io::Result<()>;

    /// The guest does not need these bytes any more; what it reads there from now on is up to the
    /// storage. Called only if [`Properties::discard`] says so.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Ok(())
    }

    /// Zeroes bytes. The space that they take may be given back if the guest says `may_unmap`.
    /// Without a method of its own, a storage has zeroes written.
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        let _ = may_unmap;
        fill_with_zeroes(self, offset, len)
    }
}

/// Writes zeroes from a buffer, a MiB at a time.
pub(super) fn fill_with_zeroes<S: BlockStorage + ?Sized>(
    storage: &S,
    offset: u64,
    len: u64,
) -> io::Result<()> {
    const PIECE: u64 = 16 << 10;
    const PIECES: usize = 64;
    let mut zeroes = [0; PIECE as usize];
    let zeroes = VolatileSlice::from(zeroes.as_mut_slice());
    let pieces = [zeroes; PIECES];
    let mut done = 0;
    while done < len {
        let left = len - done;
        let count = if left < PIECE {
            let end = zeroes
                .subslice(0, left as usize)
                .map_err(io::Error::other)?;
            write_retrying(storage, &[end], offset + done)?
        } else {
            let whole = usize::try_from(left / PIECE).unwrap_or(PIECES).min(PIECES);
            let pieces = pieces.get(..whole).unwrap_or(&pieces);
            write_retrying(storage, pieces, offset + done)?
        };
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        done += count as u64;
    }
    Ok(())
}

fn write_retrying<S: BlockStorage + ?Sized>(
    storage: &S,
    buffers: &[VolatileSlice<'_>],
    offset: u64,
) -> io::Result<usize> {
    retrying(|| storage.write_vectored_at(buffers, offset))
}

/// Tries again what was interrupted. What "would block", though no storage should say so, is
/// tried again for a while.
pub(super) fn retrying(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    const PATIENCE: u32 = 1000;
    let mut tries = 0;
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < PATIENCE => {
                tries += 1;
                std::thread::yield_now();
            }
            result => return result,
        }
    }
}
