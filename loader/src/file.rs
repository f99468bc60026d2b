//! Files of a payload: opened without ever blocking, measured, read once into guest memory.
//!
//! A file is never mapped: if somebody cut it short under a mapping the process would get SIGBUS,
//! while `read(2)` merely returns less. A path is opened here, so its descriptor is ours and reads
//! go straight into guest memory. A descriptor of the embedder's may be shared with other VMs that
//! load at the same time; its offset is neither used nor moved, at the price of one copy through a
//! buffer (positioned reads into volatile memory do not exist in safe code).

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryError, Permissions, ReadVolatile,
    VolatileMemoryError, VolatileSlice,
};

use crate::Source;
use crate::error::{Error, ImageError, Role};

/// An open regular file.
#[derive(Debug)]
pub(crate) struct ImageFile {
    role: Role,
    /// For messages: the path, or the number of the descriptor.
    name: String,
    descriptor: Descriptor,
    /// As of opening. A file that shrinks afterwards gives a read error, one that grows is read up
    /// to here.
    pub(crate) len: u64,
}

#[derive(Debug)]
enum Descriptor {
    Own(File),
    Shared(Arc<File>),
}

impl ImageFile {
    pub(crate) fn open(role: Role, source: &Source) -> Result<Self, Error> {
        let (descriptor, name) = match source {
            Source::Path(path) => {
                let name = path.display().to_string();
                // NONBLOCK: a FIFO without a writer must not hang us before we can see that it is
                // one.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
                let file =
                    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| Error::Open {
                        role,
                        file: name.clone(),
                        source: error.into(),
                    })?;
                (Descriptor::Own(file.into()), name)
            }
            Source::File(file) => (
                Descriptor::Shared(file.clone()),
                format!("descriptor {}", file.as_raw_fd()),
            ),
        };
        let metadata = descriptor.file().metadata().map_err(|source| Error::Open {
            role,
            file: name.clone(),
            source,
        })?;
        if let Some(kind) = irregular(metadata.file_type()) {
            return Err(Error::NotRegular {
                role,
                file: name,
                kind,
            });
        }
        if metadata.len() == 0 {
            return Err(Error::Image {
                role,
                file: name,
                source: ImageError::Empty,
            });
        }
        Ok(ImageFile {
            role,
            name,
            descriptor,
            len: metadata.len(),
        })
    }

    /// Says which file it is that has this wrong with it.
    pub(crate) fn error(&self, source: ImageError) -> Error {
        Error::Image {
            role: self.role,
            file: self.name.clone(),
            source,
        }
    }

    /// Reads `length` bytes into a buffer. The caller bounds `length`.
    pub(crate) fn read(
        &self,
        what: &'static str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, ImageError> {
        self.check_extent(what, offset, length as u64)?;
        let mut buffer = vec![0; length];
        let result = self.descriptor.file().read_exact_at(&mut buffer, offset);
        result.map_err(|source| ImageError::Read {
            offset,
            length: length as u64,
            source,
        })?;
        Ok(buffer)
    }

    /// Reads `length` bytes into guest memory at `address`.
    pub(crate) fn read_into<M: GuestMemoryBackend>(
        &self,
        offset: u64,
        length: u64,
        memory: &M,
        address: u64,
    ) -> Result<(), ImageError> {
        let failed = |source| ImageError::ReadIntoGuest {
            offset,
            length,
            address,
            source,
        };
        let count =
            usize::try_from(length).map_err(|_| failed(GuestMemoryError::GuestAddressOverflow))?;
        let result = match &self.descriptor {
            Descriptor::Own(file) => {
                let mut file = file;
                let seek = file
                    .seek(SeekFrom::Start(offset))
                    .map_err(GuestMemoryError::IOError);
                seek.and_then(|_| fill(memory, address, count, &mut file))
            }
            Descriptor::Shared(file) => {
                fill(memory, address, count, &mut Positioned::new(file, offset))
            }
        };
        result.map_err(failed)
    }

    /// Says that the file is too short before anything is read from it.
    pub(crate) fn check_extent(
        &self,
        what: &'static str,
        offset: u64,
        length: u64,
    ) -> Result<(), ImageError> {
        check_extent(what, offset, length, self.len)
    }
}

/// Whether `offset..offset + length` lies within a file of `size` bytes.
pub(crate) fn check_extent(
    what: &'static str,
    offset: u64,
    length: u64,
    size: u64,
) -> Result<(), ImageError> {
    let needed = offset.saturating_add(length);
    if needed > size {
        return Err(ImageError::TooShort { what, needed, size });
    }
    Ok(())
}

/// Reads exactly `count` bytes, region by region.
///
/// Not `Bytes::read_exact_volatile_from`: that one calls `read` once a region, and after a short
/// one (more than 2 GiB, for one) would go on in the next region, or give up.
fn fill<M: GuestMemoryBackend>(
    memory: &M,
    address: u64,
    count: usize,
    from: &mut impl ReadVolatile,
) -> Result<(), GuestMemoryError> {
    for slice in GuestMemory::get_slices(memory, GuestAddress(address), count, Permissions::Write)?
    {
        from.read_exact_volatile(&mut slice?)?;
    }
    Ok(())
}

impl Descriptor {
    fn file(&self) -> &File {
        match self {
            Descriptor::Own(file) => file,
            Descriptor::Shared(file) => file,
        }
    }
}

fn irregular(kind: std::fs::FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_fifo() {
        Some("a FIFO")
    } else if kind.is_socket() {
        Some("a socket")
    } else if kind.is_char_device() || kind.is_block_device() {
        Some("a device")
    } else {
        Some("something else")
    }
}

/// Reads by position, leaving the descriptor's own offset alone.
struct Positioned<'a> {
    file: &'a File,
    offset: u64,
    buffer: Vec<u8>,
}

impl<'a> Positioned<'a> {
    /// Small enough to stay in the CPU's second-level cache between the two copies.
    const BUFFER: usize = 256 << 10;

    fn new(file: &'a File, offset: u64) -> Self {
        Positioned {
            file,
            offset,
            buffer: vec![0; Self::BUFFER],
        }
    }
}

impl ReadVolatile for Positioned<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        target: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let length = target.len().min(self.buffer.len());
        let Some(buffer) = self.buffer.get_mut(..length) else {
            return Ok(0);
        };
        let count = loop {
            match self.file.read_at(buffer, self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(VolatileMemoryError::IOError)?,
            }
        };
        target.copy_from(buffer.get(..count).unwrap_or_default());
        self.offset += count as u64;
        Ok(count)
    }
}
