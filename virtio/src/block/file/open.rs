//! Opening a file as a disk: what may be one, what it is created with, whom it is shared with.

use super::super::{Error, Properties, SECTOR, sys};
use super::{Direct, Holder, RawFile};
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat, open, stat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// How a raw file is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    read_only: bool,
    direct: bool,
    create: Option<u64>,
}

impl Options {
    /// Only reads. Any number of machines may do so at the same time.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Leaves the host's page cache out (`O_DIRECT`).
    #[must_use]
    pub fn direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// If the file does not exist, it is created with this many bytes, all zero and taking no
    /// space yet. One that exists stays as large as it is.
    #[must_use]
    pub fn create(mut self, size: u64) -> Self {
        self.create = Some(size);
        self
    }

    /// Opens the file at `path`. If that fails, no file was created or changed.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<RawFile, Error> {
        let path = path.as_ref();
        // Looked at before it is opened, for opening a device or a FIFO may already do something.
        match stat(path) {
            Ok(found) => check_kind(path, found.st_mode)?,
            Err(Errno::NOENT) if self.create.is_some() && !self.read_only => {
                return self.create_file(path, self.create.unwrap_or_default());
            }
            Err(error) => return Err(self.cannot_open(path, error)),
        }
        let file = self.open_file(path, OFlags::empty())?;
        self.adopt(path, file, false)
    }

    /// A file that the caller has opened, for reading and, if it is to be written, for writing.
    /// `path` is what messages call it.
    pub fn adopt_file(&self, path: impl AsRef<Path>, file: File) -> Result<RawFile, Error> {
        self.adopt(path.as_ref(), file, false)
    }

    fn create_file(&self, path: &Path, size: u64) -> Result<RawFile, Error> {
        if size == 0 || !size.is_multiple_of(SECTOR) || i64::try_from(size).is_err() {
            return Err(Error::Size {
                size,
                block: SECTOR as u32,
            });
        }
        let file = self.open_file(path, OFlags::CREATE | OFlags::EXCL)?;
        let made = set_len(&file, size).map_err(|source| Error::Create {
            path: path.into(),
            size,
            source,
        });
        let made = made.and_then(|()| self.adopt(path, file, true));
        if made.is_err() {
            // It was not there before. That it can't be removed is the smaller of two problems.
            let _ = std::fs::remove_file(path);
        }
        made
    }

    fn open_file(&self, path: &Path, more: OFlags) -> Result<File, Error> {
        let access = match self.read_only {
            true => OFlags::RDONLY,
            false => OFlags::RDWR,
        };
        let direct = match self.direct {
            true => OFlags::DIRECT,
            false => OFlags::empty(),
        };
        // Should it have become a FIFO or a terminal by now, neither must hold us.
        let flags = access | direct | more | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let fd = match open(path, flags, Mode::from_raw_mode(0o666)) {
            Err(Errno::INVAL) if self.direct => {
                return Err(Error::NoDirect { path: path.into() });
            }
            result => result.map_err(|error| self.cannot_open(path, error))?,
        };
        // Means nothing for files, and is taken back in case that it does for some.
        fcntl_getfl(&fd)
            .and_then(|flags| fcntl_setfl(&fd, flags - OFlags::NONBLOCK))
            .map_err(|error| self.cannot_open(path, error))?;
        Ok(fd.into())
    }

    fn adopt(&self, path: &Path, mut file: File, created: bool) -> Result<RawFile, Error> {
        let found = fstat(&file).map_err(|error| self.cannot_open(path, error))?;
        check_kind(path, found.st_mode)?;
        self.lock(path, &file, (found.st_dev, found.st_ino))?;
        // For a block device too the end is where its size says.
        let end = file.seek(SeekFrom::End(0));
        let size = end.map_err(|source| Error::Open {
            path: path.into(),
            read_only: self.read_only,
            source,
        })?;

        let direct = match self.direct {
            true => Some(Direct::new(file.as_fd()).map_err(|source| Error::Open {
                path: path.into(),
                read_only: self.read_only,
                source,
            })?),
            false => None,
        };
        // An aligned write of a block that is not whole would make the file longer.
        let block = direct.as_ref().map_or(SECTOR as u32, Direct::alignment);
        let usable = size - size % u64::from(block);
        if usable == 0 {
            let path = path.into();
            return Err(Error::Small { path, size, block });
        }
        if usable < size {
            let left = size - usable;
            log::warn!("{path:?}: its last {left} bytes are no whole block of {block}: left out");
        }
        let is_file = FileType::from_raw_mode(found.st_mode).is_file();
        let logical_block = if is_file { SECTOR as u32 } else { block };
        let physical_block = u32::try_from(found.st_blksize).unwrap_or(4096);
        Ok(RawFile {
            file,
            properties: Properties {
                size: usable,
                read_only: self.read_only,
                logical_block,
                physical_block: match physical_block.is_power_of_two() {
                    true => physical_block.clamp(logical_block, 64 << 10),
                    false => 4096,
                },
                discard: (!self.read_only).then_some(4096),
                identity: format!("{:x}-{:x}", found.st_dev, found.st_ino),
            },
            created,
            direct,
            // That it was made is a change too.
            changes: AtomicU64::new(created.into()),
            flushed: Mutex::default(),
            cannot_punch: AtomicBool::new(false),
            cannot_zero: AtomicBool::new(false),
        })
    }

    fn lock(&self, path: &Path, file: &File, identity: (u64, u64)) -> Result<(), Error> {
        match sys::try_lock(file.as_fd(), self.read_only) {
            Ok(true) => {}
            Ok(false) => {
                return Err(Error::InUse {
                    path: path.into(),
                    holder: Holder::find(identity, file.as_fd()),
                });
            }
            Err(error) => {
                log::warn!("{path:?} can't be locked, so others may write to it: {error}")
            }
        }
        Ok(())
    }

    fn cannot_open(&self, path: &Path, error: Errno) -> Error {
        Error::Open {
            path: path.into(),
            read_only: self.read_only,
            source: io::Error::from(error),
        }
    }
}

/// Makes a file longer, without the signal that comes of too much.
fn set_len(file: &File, size: u64) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(most) if most < size => Err(Errno::FBIG.into()),
        _ => file.set_len(size),
    }
}

/// Refuses what has no fixed number of bytes.
fn check_kind(path: &Path, mode: u32) -> Result<(), Error> {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile | FileType::BlockDevice => return Ok(()),
        FileType::Directory => "a directory",
        FileType::CharacterDevice => "a character device",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        _ => "something else",
    };
    Err(Error::Kind {
        path: path.into(),
        kind,
    })
}
