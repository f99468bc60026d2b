//! One request: the memory that a chain of descriptors names, to read from and to write to.
//!
//! A layout walks its descriptors and pushes them one by one. Here the rules are
//! kept that hold for a chain in any layout (virtio 1.2, 2.6.3, 2.7.4.2 and 2.8.17):
//!
//! - no more descriptors than the queue has, those of an indirect table included;
//! - all lengths together fit 32 bits, as those of the used ring do;
//! - what the device reads comes before what it writes;
//! - each byte is RAM. A buffer may cross from one region into the next: it becomes two slices.
//!
//! A descriptor of no bytes is tolerated: it counts, its address means nothing, and the request
//! is as long as the others make it. Whether that is too short is up to the device.
//!
//! Buffers that overlap each other or the ring are no concern of this module: guest memory may
//! change under our hands in any case.

use super::{QueueError, Token};
use crate::memory::GuestMemory;
use std::io::{self, ErrorKind, Read, Write};
use vm_memory::{
    ByteValued, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, ReadVolatile,
    VolatileMemoryError, VolatileSlice, WriteVolatile,
};

/// A range of bytes that was found to lie within one region of RAM.
#[derive(Debug, Clone, Copy)]
struct Segment {
    address: GuestAddress,
    len: u32,
}

/// The descriptors of one chain, gathered. A queue has one of these, and uses it over and over.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    readable: Vec<Segment>,
    writable: Vec<Segment>,
    readable_len: u32,
    writable_len: u32,
    descriptors: u16,
    /// Whether a writable descriptor was seen.
    writing: bool,
    limit: u16,
}

impl Buffers {
    /// Starts a chain of at most `limit` descriptors.
    pub(super) fn start(&mut self, limit: u16) {
        self.readable.clear();
        self.writable.clear();
        self.readable_len = 0;
        self.writable_len = 0;
        self.descriptors = 0;
        self.writing = false;
        self.limit = limit;
    }

    /// Adds a descriptor's buffer to the chain.
    pub(super) fn push(
        &mut self,
        memory: &GuestMemory,
        address: u64,
        len: u32,
        writable: bool,
    ) -> Result<(), QueueError> {
        if self.descriptors >= self.limit {
            return Err(QueueError::ChainTooLong { limit: self.limit });
        }
        self.descriptors += 1;
        if self.writing && !writable {
            return Err(QueueError::ReadableAfterWritable);
        }
        self.writing = writable;
        let sum = self.readable_len.checked_add(self.writable_len);
        if sum.and_then(|sum| sum.checked_add(len)).is_none() {
            return Err(QueueError::LengthOverflow);
        }
        let (segments, total) = if writable {
            (&mut self.writable, &mut self.writable_len)
        } else {
            (&mut self.readable, &mut self.readable_len)
        };
        *total = total.saturating_add(len);
        resolve(memory, address, len, segments).ok_or(QueueError::BadAddress { address, len })
    }
}

/// Cuts a buffer at the borders of regions. `None` if any of its bytes is not RAM.
fn resolve(
    memory: &GuestMemory,
    address: u64,
    len: u32,
    segments: &mut Vec<Segment>,
) -> Option<()> {
    let mut address = GuestAddress(address);
    let mut rest = u64::from(len);
    while rest > 0 {
        let (region, offset) = memory.to_region_addr(address)?;
        let len = rest.min(region.len().checked_sub(offset.0)?);
        segments.push(Segment {
            address,
            len: u32::try_from(len).ok()?,
        });
        rest = rest.checked_sub(len)?;
        if rest > 0 {
            address = GuestAddress(address.0.checked_add(len)?);
        }
    }
    Some(())
}

/// How far a chain's readable or writable part has been used.
#[derive(Debug, Default)]
struct Cursor {
    /// The segment that is next.
    segment: usize,
    /// How much of that one has been used.
    offset: u32,
    /// How much is left of all segments.
    remaining: u32,
}

impl Cursor {
    /// Goes on by `count` bytes, at most to the end.
    fn advance(&mut self, segments: &[Segment], count: usize) {
        let mut count = u32::try_from(count).unwrap_or(u32::MAX).min(self.remaining);
        self.remaining -= count;
        while let Some(segment) = segments.get(self.segment) {
            let left = segment.len.saturating_sub(self.offset);
            if count < left {
                self.offset += count;
                break;
            }
            count -= left;
            self.segment += 1;
            self.offset = 0;
        }
    }
}

/// The memory from a cursor on, in pieces that are contiguous in this process.
fn slices<'m>(
    memory: &'m GuestMemory,
    segments: &'m [Segment],
    cursor: &Cursor,
) -> impl Iterator<Item = VolatileSlice<'m>> + use<'m> {
    let mut skip = cursor.offset;
    let rest = segments.get(cursor.segment..).unwrap_or_default();
    rest.iter().map_while(move |segment| {
        let skip = std::mem::take(&mut skip);
        let address = GuestAddress(segment.address.0.checked_add(u64::from(skip))?);
        let len = segment.len.checked_sub(skip)?;
        // The range was found in this very memory, which loses no regions.
        memory.get_slice(address, len as usize).ok()
    })
}

/// One request of the driver's. It borrows what the queue gathered, and lives for one call.
#[derive(Debug)]
pub struct Chain<'q> {
    memory: &'q GuestMemory,
    buffers: &'q Buffers,
    token: Token,
    read: Cursor,
    write: Cursor,
}

impl<'q> Chain<'q> {
    pub(super) fn new(memory: &'q GuestMemory, buffers: &'q Buffers, token: Token) -> Self {
        let read = Cursor {
            remaining: buffers.readable_len,
            ..Cursor::default()
        };
        let write = Cursor {
            remaining: buffers.writable_len,
            ..Cursor::default()
        };
        Chain {
            memory,
            buffers,
            token,
            read,
            write,
        }
    }

    /// What the device keeps to complete the chain after [`Step::Later`](super::Step::Later).
    pub fn token(&self) -> Token {
        self.token.again()
    }

    /// The number of bytes that the device may read.
    pub fn readable_len(&self) -> u32 {
        self.buffers.readable_len
    }

    /// The number of bytes that the device may write.
    pub fn writable_len(&self) -> u32 {
        self.buffers.writable_len
    }

    /// The number of bytes that were written: what [`Step::Done`](super::Step::Done) asks for.
    pub fn written(&self) -> u32 {
        self.buffers
            .writable_len
            .saturating_sub(self.write.remaining)
    }

    /// The readable part, from where the last reader stopped.
    pub fn reader(&mut self) -> Reader<'_> {
        Reader {
            memory: self.memory,
            segments: &self.buffers.readable,
            cursor: &mut self.read,
        }
    }

    /// The writable part, from where the last writer stopped.
    pub fn writer(&mut self) -> Writer<'_> {
        Writer {
            memory: self.memory,
            segments: &self.buffers.writable,
            total: self.buffers.writable_len,
            cursor: &mut self.write,
        }
    }
}

/// Reads what the driver put into a chain.
///
/// Errors are [`UnexpectedEof`](ErrorKind::UnexpectedEof): the chain is shorter than what was
/// asked for.
#[derive(Debug)]
pub struct Reader<'c> {
    memory: &'c GuestMemory,
    segments: &'c [Segment],
    cursor: &'c mut Cursor,
}

impl Reader<'_> {
    /// The number of bytes that have not been read.
    pub fn remaining(&self) -> usize {
        self.cursor.remaining as usize
    }

    /// What has not been read, for vectored host I/O. [`advance`](Self::advance) by what the
    /// host took.
    pub fn slices(&self) -> impl Iterator<Item = VolatileSlice<'_>> {
        slices(self.memory, self.segments, self.cursor)
    }

    /// Skips `count` bytes, at most to the end.
    pub fn advance(&mut self, count: usize) {
        self.cursor.advance(self.segments, count);
    }

    /// Fills `buffer`. If there is less to read than that, nothing is read.
    pub fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if buffer.len() > self.remaining() || self.read(buffer)? < buffer.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads a plain object, such as a [`Le32`](vm_memory::Le32) or a device's request header.
    pub fn read_obj<T: ByteValued>(&mut self) -> io::Result<T> {
        let mut object = T::zeroed();
        self.read_exact(object.as_mut_slice())?;
        Ok(object)
    }

    /// Hands what has not been read to `target`, straight from guest memory, until that takes no
    /// more. Returns how much it took.
    pub fn write_to(&mut self, target: &mut impl WriteVolatile) -> io::Result<usize> {
        let (count, result) = transfer(self.slices(), |slice| target.write_volatile(slice));
        self.advance(count);
        result
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        for slice in self.slices() {
            match buffer.get_mut(count..) {
                Some(rest) if !rest.is_empty() => count += slice.copy_to(rest),
                _ => break,
            }
        }
        self.advance(count);
        Ok(count)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        Reader::read_exact(self, buffer)
    }
}

/// Writes what the driver gets from a chain.
///
/// Errors are [`WriteZero`](ErrorKind::WriteZero): the chain has no room for what was offered.
#[derive(Debug)]
pub struct Writer<'c> {
    memory: &'c GuestMemory,
    segments: &'c [Segment],
    total: u32,
    cursor: &'c mut Cursor,
}

impl Writer<'_> {
    /// The number of bytes for which there is room.
    pub fn remaining(&self) -> usize {
        self.cursor.remaining as usize
    }

    /// The number of bytes that were written by all writers of this chain.
    pub fn written(&self) -> u32 {
        self.total.saturating_sub(self.cursor.remaining)
    }

    /// The room that is left, for vectored host I/O. [`advance`](Self::advance) by what the host
    /// put there.
    pub fn slices(&self) -> impl Iterator<Item = VolatileSlice<'_>> {
        slices(self.memory, self.segments, self.cursor)
    }

    /// The room that is left, as guest addresses: for a device that keeps the chain. Each range is
    /// RAM, and can be looked up in this memory again.
    pub fn ranges(&self) -> impl Iterator<Item = (GuestAddress, u32)> {
        let mut skip = self.cursor.offset;
        let rest = self.segments.get(self.cursor.segment..).unwrap_or_default();
        rest.iter().map_while(move |segment| {
            let skip = std::mem::take(&mut skip);
            let address = segment.address.0.checked_add(u64::from(skip))?;
            Some((GuestAddress(address), segment.len.checked_sub(skip)?))
        })
    }

    /// Counts `count` bytes as written, at most to the end.
    pub fn advance(&mut self, count: usize) {
        self.cursor.advance(self.segments, count);
    }

    /// Writes all of `bytes`. If there is no room for all, nothing is written.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.remaining() || self.write(bytes)? < bytes.len() {
            return Err(ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    /// Writes a plain object, such as a [`Le32`](vm_memory::Le32).
    pub fn write_obj<T: ByteValued>(&mut self, object: T) -> io::Result<()> {
        self.write_all(object.as_slice())
    }

    /// Fills the room that is left from `source`, straight into guest memory, until that has no
    /// more. Returns how much there was.
    pub fn read_from(&mut self, source: &mut impl ReadVolatile) -> io::Result<usize> {
        let (count, result) = transfer(self.slices(), |slice| source.read_volatile(slice));
        self.advance(count);
        result
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut count: usize = 0;
        for slice in self.slices() {
            match bytes.get(count..) {
                Some(rest) if !rest.is_empty() => {
                    slice.copy_from(rest);
                    count += slice.len().min(rest.len());
                }
                _ => break,
            }
        }
        self.advance(count);
        Ok(count)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Writer::write_all(self, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Moves bytes between slices and the host until one of them has no more. An error after some
/// bytes have moved is left to the next call, as with `read(2)`.
fn transfer<'m>(
    slices: impl Iterator<Item = VolatileSlice<'m>>,
    mut step: impl FnMut(&mut VolatileSlice<'m>) -> Result<usize, VolatileMemoryError>,
) -> (usize, io::Result<usize>) {
    let mut count: usize = 0;
    for mut slice in slices {
        match step(&mut slice) {
            Ok(moved) => {
                count += moved;
                if moved < slice.len() {
                    break;
                }
            }
            Err(_) if count > 0 => break,
            Err(VolatileMemoryError::IOError(error)) => return (0, Err(error)),
            Err(error) => return (0, Err(io::Error::other(error))),
        }
    }
    (count, Ok(count))
}
