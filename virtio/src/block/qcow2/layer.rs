//! A host file as imago sees it, and as the data path does.
//!
//! imago reads and writes metadata through [`Storage`]; data goes between guest memory and the file
//! without it.

use super::super::{BlockStorage, RawFile};
use super::header::Header;
use imago::Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::VolatileSlice;

/// How many clusters behind the end of the file something may be written. Clusters are handed out
/// one after the other, so that only those that are there for metadata in the cache, or for a writer
/// that crashed, can be skipped.
const AHEAD: u64 = 4096;

/// One file of an image. A clone is the same file.
#[derive(Debug, Clone)]
pub(super) struct Layer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: RawFile,
    /// Where the file ends.
    end: AtomicU64,
    /// A cluster that begins in the file is whole: what is missing of it is zeroes.
    cluster: u64,
    /// Where no data can be: the header and the L1 table.
    reserved: [Range<u64>; 2],
    helper: CommonStorageHelper,
}

impl Layer {
    /// The file of an image with this header, or of a new image.
    pub(super) fn image(file: RawFile, end: u64, header: Option<Header>) -> Layer {
        let reserved = header.map_or([0..0, 0..0], |header| {
            [0..header.cluster, header.l1.0..header.l1.0 + header.l1.1]
        });
        let cluster = header.map_or(super::NEW_CLUSTER, |header| header.cluster);
        Layer::new(file, end, cluster, reserved)
    }

    /// A raw backing file.
    pub(super) fn raw(file: RawFile, end: u64) -> Layer {
        Layer::new(file, end, super::super::SECTOR, [0..0, 0..0])
    }

    fn new(file: RawFile, end: u64, cluster: u64, reserved: [Range<u64>; 2]) -> Layer {
        Layer(Arc::new(Inner {
            file,
            end: AtomicU64::new(end),
            cluster,
            reserved,
            helper: CommonStorageHelper::default(),
        }))
    }

    /// The size of a cluster.
    pub(super) fn cluster(&self) -> u64 {
        self.0.cluster
    }

    pub(super) fn file(&self) -> &RawFile {
        &self.0.file
    }

    /// The file again, of which there must be no other clone.
    pub(super) fn into_file(self) -> io::Result<RawFile> {
        let inner = Arc::into_inner(self.0);
        let inner = inner.ok_or_else(|| io::Error::other("the new image is still in use"))?;
        Ok(inner.file)
    }

    /// Reads data, as much as there is at once.
    pub(super) fn read(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        self.check_place(offset, total(buffers))?;
        self.read_to_end(buffers, offset)
    }

    /// Writes all of the data.
    pub(super) fn write(&self, buffers: &mut [VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        let len = total(buffers);
        self.check_place(offset, len)?;
        self.check_growth(offset)?;
        let mut rest = buffers;
        let mut offset = offset;
        while !rest.is_empty() {
            let count = match self.0.file.write_vectored_at(rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            offset = offset.saturating_add(count as u64);
            rest = skip(rest, count)?;
        }
        self.0.end.fetch_max(offset, Ordering::Relaxed);
        Ok(())
    }

    /// Refuses data where the image says that something else is.
    fn check_place(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len);
        let mut reserved = self.0.reserved.iter();
        match reserved.any(|other| offset < other.end && other.start < end) {
            true => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the image has data at {offset:#x}, where its own tables are"),
            )),
            false => Ok(()),
        }
    }

    /// Reads what is in the file, and zeroes up to the end of the last cluster. Behind that there
    /// is nothing that a sound image names.
    fn read_to_end(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let count = self.0.file.read_vectored_at(buffers, offset)?;
        if count > 0 {
            return Ok(count);
        }
        self.check_end(offset)?;
        let left = usize::try_from(self.0.cluster - offset % self.0.cluster).unwrap_or(usize::MAX);
        fill_with_zeroes(buffers, left)
    }

    /// Refuses a cluster that begins behind the end of the file.
    pub(super) fn check_end(&self, offset: u64) -> io::Result<()> {
        let start = offset - offset % self.0.cluster;
        match start < self.0.end.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the image names {offset:#x}, which is behind the end of the file"),
            )),
        }
    }

    /// Refuses a write far behind the end of the file. An image can have a cluster there in reserve
    /// that nobody is told of before it is used; then the file would seem to reach as far, and
    /// the refcounts of a cluster next to it would take a table for all that is in between.
    fn check_growth(&self, offset: u64) -> io::Result<()> {
        let end = self.0.end.load(Ordering::Relaxed);
        let limit = end.saturating_add(AHEAD.saturating_mul(self.0.cluster));
        match offset <= limit {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the image has room at {offset:#x}, far behind the end of the file at {end:#x}"
                ),
            )),
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.file.properties().identity)
    }
}

impl Storage for Layer {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.end.load(Ordering::Relaxed))
    }

    // Nothing here needs care of the kind that makes these functions unsafe to call.
    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let mut offset = offset;
        for mut buffer in bufv.into_inner() {
            let mut rest = &mut *buffer;
            while !rest.is_empty() {
                let count = match self.read_to_end(&[VolatileSlice::from(&mut *rest)], offset) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                    result => result?,
                };
                offset = offset.saturating_add(count as u64);
                rest = rest.get_mut(count..).unwrap_or_default();
            }
        }
        Ok(())
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        let mut offset = offset;
        self.check_growth(offset)?;
        for buffer in bufv.into_inner() {
            self.0.file.write_all_at(&buffer, offset)?;
            offset = offset.saturating_add(buffer.len() as u64);
            self.0.end.fetch_max(offset, Ordering::Relaxed);
        }
        Ok(())
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.0.file.discard(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        // There is no buffer of ours.
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.file.flush()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.0.helper
    }
}

/// How long the buffers are together.
pub(super) fn total(buffers: &[VolatileSlice<'_>]) -> u64 {
    buffers.iter().map(|buffer| buffer.len() as u64).sum()
}

/// What is left of buffers behind their first `count` bytes.
fn skip<'b, 'm>(
    buffers: &'b mut [VolatileSlice<'m>],
    count: usize,
) -> io::Result<&'b mut [VolatileSlice<'m>]> {
    let mut whole = 0;
    let mut count = count;
    for buffer in buffers.iter_mut() {
        if buffer.len() > count {
            *buffer = buffer.offset(count).map_err(io::Error::other)?;
            break;
        }
        count -= buffer.len();
        whole += 1;
    }
    Ok(buffers.get_mut(whole..).unwrap_or_default())
}

/// Zeroes the first `most` bytes of buffers. Returns how many those were.
pub(super) fn fill_with_zeroes(buffers: &[VolatileSlice<'_>], most: usize) -> io::Result<usize> {
    const ZEROES: [u8; 4096] = [0; 4096];
    let mut done = 0;
    for buffer in buffers {
        let len = buffer.len().min(most - done);
        let mut rest = buffer.subslice(0, len).map_err(io::Error::other)?;
        while !rest.is_empty() {
            let count = rest.len().min(ZEROES.len());
            rest.copy_from(&ZEROES);
            rest = rest.offset(count).map_err(io::Error::other)?;
        }
        done += len;
    }
    Ok(done)
}
