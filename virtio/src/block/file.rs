//! A raw file, or a block device of the host's, as a disk: its bytes are the guest's.
//!
//! # The design
//!
//! * Data goes between guest memory and the file by positioned vectored calls. With
//!   [`Options::direct`] the host's page cache is left out; only what is not aligned for that goes
//!   through a buffer (`direct.rs`).
//! * The format is never guessed: what a guest writes to its disk must not decide how the host
//!   reads it the next time.
//! * A file is locked while it is open (`F_OFD_SETLK`, as QEMU does): any number of readers, or one
//!   writer. Where there are no locks, as on some network file systems, that is logged.
//! * A `fdatasync(2)` that has failed fails from then on. The kernel reports a lost page once and
//!   then takes it for clean, so that a second try would be told that all is well.
//! * The file is held by its descriptor. It may be renamed or removed; cut short, reads of what is
//!   gone fail; grown, it stays as large as it was for the guest.
//! * A discard punches a hole. Zeroes are a hole if the guest allows it, else a zeroed range; where
//!   the file system knows neither, zeroes are written, and discards do nothing.
//!
//! # What it does not do
//!
//! It does not resize a file that exists, and knows nothing of image formats.

mod direct;
mod holder;
mod open;
#[cfg(test)]
mod tests;

pub use holder::Holder;
pub use open::Options;

use super::storage::fill_with_zeroes;
use super::{BlockStorage, Properties, sys};
use direct::Direct;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, fdatasync};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use vm_memory::VolatileSlice;

/// A raw file as a disk.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    properties: Properties,
    /// Nobody had made it before.
    created: bool,
    direct: Option<Direct>,
    /// How often something may have been written.
    changes: AtomicU64,
    flushed: Mutex<Flushed>,
    cannot_punch: AtomicBool,
    cannot_zero: AtomicBool,
}

/// What flushes have come to. They are made one after the other: of two at a time, the kernel
/// would tell only one that data is lost.
#[derive(Debug, Default)]
struct Flushed {
    /// How many of the changes are safe.
    changes: u64,
    /// What was written may be lost: a flush has failed.
    lost: bool,
}

impl RawFile {
    /// How to open one.
    pub fn options() -> Options {
        Options::default()
    }

    /// Whether the file was made by opening it.
    pub fn was_created(&self) -> bool {
        self.created
    }

    /// Where the file ends now.
    pub(super) fn end(&self) -> io::Result<u64> {
        Ok(rustix::fs::seek(&self.file, SeekFrom::End(0))?)
    }

    /// Writes bytes of ours, which are no guest's, longer though the file may become.
    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let result = self.file.write_all_at(bytes, offset);
        self.count_change();
        result
    }

    /// To be called after each change, so that no flush can take it for flushed; and also after one
    /// that failed, for then a part may be there.
    fn count_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Gives a range back to the file system, after which it reads as zeroes. False: it can't.
    fn punch(&self, offset: u64, len: u64) -> io::Result<bool> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.allocate(how, offset, len, &self.cannot_punch)
    }

    fn allocate(
        &self,
        how: FallocateFlags,
        offset: u64,
        len: u64,
        cannot: &AtomicBool,
    ) -> io::Result<bool> {
        // A file system that can't says so each time: asking once is enough.
        if cannot.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let result = loop {
            match fallocate(&self.file, how, offset, len) {
                Err(Errno::INTR) => {}
                result => break result,
            }
        };
        self.count_change();
        match result {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                cannot.store(true, Ordering::Relaxed);
                Ok(false)
            }
            // A block device with blocks that are larger than the range.
            Err(Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl BlockStorage for RawFile {
    fn properties(&self) -> Properties {
        self.properties.clone()
    }

    fn read_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        match &self.direct {
            None => sys::preadv(self.file.as_fd(), buffers, offset),
            Some(direct) => direct.read(self.file.as_fd(), buffers, offset),
        }
    }

    fn write_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let result = match &self.direct {
            None => sys::pwritev(self.file.as_fd(), buffers, offset),
            Some(direct) => direct.write(self.file.as_fd(), buffers, offset),
        };
        self.count_change();
        result
    }

    fn flush(&self) -> io::Result<()> {
        let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        if flushed.lost {
            return Err(io::Error::other(
                "an earlier flush failed, so that data may be lost",
            ));
        }
        let changes = self.changes.load(Ordering::Acquire);
        // Nothing written, or flushed while this one waited for its turn.
        if flushed.changes == changes {
            return Ok(());
        }
        let result = loop {
            match fdatasync(&self.file) {
                Err(Errno::INTR) => {}
                result => break result,
            }
        };
        match result {
            Ok(()) => flushed.changes = changes,
            Err(_) => flushed.lost = true,
        }
        Ok(result?)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.punch(offset, len).map(|_| ())
    }

    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        if may_unmap && self.punch(offset, len)? {
            return Ok(());
        }
        let how = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        if self.allocate(how, offset, len, &self.cannot_zero)? {
            return Ok(());
        }
        fill_with_zeroes(self, offset, len)
    }
}
