//! What a chain asks of a disk (virtio 1.2, 5.2.6).
//!
//! ```text
//!   readable: type u32, reserved u32, sector u64 | data to write, or ranges to discard
//!   writable: data to read                       | status u8, the last byte of all
//! ```
//!
//! Where one descriptor ends and the next begins means nothing. All that can be told from the
//! chain is checked before anything is done, so a request that is refused has changed nothing. One
//! without room for its status can't be refused either: that is an error of the device, which its
//! driver has to reset.

use super::config::{
    MAX_DISCARD_SECTORS, MAX_DISCARD_SEG, MAX_WRITE_ZEROES_SECTORS, MAX_WRITE_ZEROES_SEG,
};
use super::{F_DISCARD, F_FLUSH, F_WRITE_ZEROES, SECTOR};
use crate::{Chain, Error, Step};
use std::io;

/// The length of what `VIRTIO_BLK_T_GET_ID` gives.
pub(super) const ID_LEN: usize = 20;

/// The size of `struct virtio_blk_discard_write_zeroes`.
const RANGE: usize = 16;

// Request types.
const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;

/// The flag of a range to zero: it may be unmapped.
const UNMAP: u32 = 1;

/// What the driver is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    /// `VIRTIO_BLK_S_OK`
    Ok = 0,
    /// `VIRTIO_BLK_S_IOERR`
    IoErr = 1,
    /// `VIRTIO_BLK_S_UNSUPP`
    Unsupp = 2,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Read from this byte on.
    In {
        offset: u64,
    },
    /// Write from this byte on.
    Out {
        offset: u64,
    },
    Flush,
    GetId,
    /// Discard the spans.
    Discard,
    /// Zero the spans.
    WriteZeroes,
}

impl Operation {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Operation::In { .. } => "reading",
            Operation::Out { .. } => "writing",
            Operation::Flush => "flushing",
            Operation::GetId => "telling the serial number",
            Operation::Discard => "discarding",
            Operation::WriteZeroes => "writing zeroes",
        }
    }
}

/// A range of bytes to discard or to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) unmap: bool,
}

/// What requests are measured by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Where they come from.
    pub(super) queue: u16,
    /// In bytes.
    pub(super) capacity: u64,
    pub(super) read_only: bool,
    /// Those that were negotiated.
    pub(super) features: u64,
}

impl Rules {
    /// The first byte of `len` at `sector`, if all of them are whole sectors on the disk.
    fn range(&self, sector: u64, len: u64) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR)?;
        let end = offset.checked_add(len)?;
        (end <= self.capacity && len.is_multiple_of(SECTOR)).then_some(offset)
    }

    /// Refuses what would write to a disk that can't be written, or needs a feature that the
    /// driver did not take.
    fn may_write(&self, feature: u64) -> Result<(), Status> {
        if self.read_only {
            return Err(Status::IoErr);
        }
        match self.features & feature == feature {
            true => Ok(()),
            false => Err(Status::Unsupp),
        }
    }
}

/// One request, fully checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    queue: u16,
    /// What to do, or why not.
    pub(super) operation: Result<Operation, Status>,
    /// How many bytes are writable besides the status.
    pub(super) room: u32,
}

impl Request {
    /// Reads a chain; the ranges that a discard names go to `spans`.
    pub(super) fn parse(
        chain: &mut Chain<'_>,
        rules: &Rules,
        spans: &mut Vec<Span>,
    ) -> Result<Request, Error> {
        let Some(room) = chain.writable_len().checked_sub(1) else {
            return Err(no_status(rules.queue));
        };
        Ok(Request {
            queue: rules.queue,
            operation: operation(chain, room, rules, spans),
            room,
        })
    }

    /// Writes the status. What was written of the data before it is there already.
    pub(super) fn complete(&self, chain: &mut Chain<'_>, status: Status) -> Result<Step, Error> {
        let data = chain.written().min(self.room);
        let mut writer = chain.writer();
        writer.advance(self.room.saturating_sub(data) as usize);
        writer
            .write_all(&[status as u8])
            .map_err(|_| no_status(self.queue))?;
        // The length in the used ring counts from the first writable byte on (2.7.8.2), so a
        // status behind data that was not written is not part of it.
        let written = if data == self.room {
            data.saturating_add(1)
        } else {
            data
        };
        Ok(Step::Done(written))
    }
}

fn no_status(queue: u16) -> Error {
    Error::Request {
        queue,
        what: "no room for the status",
    }
}

fn operation(
    chain: &mut Chain<'_>,
    room: u32,
    rules: &Rules,
    spans: &mut Vec<Span>,
) -> Result<Operation, Status> {
    let mut header = [0; 16];
    let mut reader = chain.reader();
    reader.read_exact(&mut header).map_err(|_| Status::IoErr)?;
    let data = reader.remaining();
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let sector = u64::from_le_bytes(sector);

    let only = |right: bool| if right { Ok(()) } else { Err(Status::IoErr) };
    match u32::from_le_bytes([t0, t1, t2, t3]) {
        T_IN => {
            only(data == 0)?;
            let offset = rules.range(sector, room.into()).ok_or(Status::IoErr)?;
            Ok(Operation::In { offset })
        }
        T_OUT => {
            rules.may_write(0)?;
            only(room == 0)?;
            let offset = rules.range(sector, data as u64).ok_or(Status::IoErr)?;
            Ok(Operation::Out { offset })
        }
        T_FLUSH => {
            rules.may_write(F_FLUSH)?;
            only(data == 0 && room == 0)?;
            Ok(Operation::Flush)
        }
        T_GET_ID => {
            only(data == 0 && room > 0)?;
            Ok(Operation::GetId)
        }
        T_DISCARD => {
            rules.may_write(F_DISCARD)?;
            only(room == 0)?;
            read_spans(chain, rules, &DISCARD, spans)?;
            Ok(Operation::Discard)
        }
        T_WRITE_ZEROES => {
            rules.may_write(F_WRITE_ZEROES)?;
            only(room == 0)?;
            read_spans(chain, rules, &WRITE_ZEROES, spans)?;
            Ok(Operation::WriteZeroes)
        }
        // Not least SCSI commands, the barrier of old, and zones.
        _ => Err(Status::Unsupp),
    }
}

/// What the ranges of a request may be.
struct Limits {
    ranges: u32,
    sectors: u32,
    flags: u32,
}

const DISCARD: Limits = Limits {
    ranges: MAX_DISCARD_SEG,
    sectors: MAX_DISCARD_SECTORS,
    flags: 0,
};

const WRITE_ZEROES: Limits = Limits {
    ranges: MAX_WRITE_ZEROES_SEG,
    sectors: MAX_WRITE_ZEROES_SECTORS,
    flags: UNMAP,
};

fn read_spans(
    chain: &mut Chain<'_>,
    rules: &Rules,
    limits: &Limits,
    spans: &mut Vec<Span>,
) -> Result<(), Status> {
    spans.clear();
    let mut reader = chain.reader();
    let ranges = reader.remaining() / RANGE;
    let whole = reader.remaining().is_multiple_of(RANGE);
    if !whole || ranges == 0 || ranges > limits.ranges as usize {
        return Err(Status::IoErr);
    }
    for _ in 0..ranges {
        let mut range = [0; RANGE];
        let read: io::Result<()> = reader.read_exact(&mut range);
        read.map_err(|_| Status::IoErr)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = range;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        if flags & !limits.flags != 0 {
            return Err(Status::Unsupp);
        }
        if count == 0 || count > limits.sectors {
            return Err(Status::IoErr);
        }
        let len = u64::from(count) * SECTOR;
        let offset = rules.range(sector, len).ok_or(Status::IoErr)?;
        spans.push(Span {
            offset,
            len,
            unmap: flags & UNMAP != 0,
        });
    }
    Ok(())
}
