//! Opening an image: its file, and those behind it.

use super::super::{BlockStorage, Error, Properties, RawFile, SECTOR};
use super::header::{Header, OUTSIDE, Qcow2Error};
use super::layer::Layer;
use super::{BOUNCE, Qcow2File, State};
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

/// How many files there may be behind an image.
const DEPTH: usize = 16;

/// Which backing files are opened: an image names them, so that whoever made it chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// None: an image that has one is refused.
    #[default]
    Denied,
    /// Those in the folder of the image, or below it.
    Beside,
    /// Any file that can be opened.
    Anywhere,
}

/// How a qcow2 image is opened.
#[derive(Debug, Clone, Default)]
pub struct Qcow2Options {
    read_only: bool,
    create: Option<u64>,
    backing: Backing,
}

impl Qcow2Options {
    /// Only reads. Any number of machines may do so at the same time.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// If the file does not exist, an image of a disk with this many bytes is created. One that
    /// exists stays as it is.
    #[must_use]
    pub fn create(mut self, size: u64) -> Self {
        self.create = Some(size);
        self
    }

    /// Which backing files may be opened.
    #[must_use]
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// Opens the image at `path`. If that fails, no file was created or changed.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Qcow2File, Error> {
        let path = path.as_ref();
        let mut options = RawFile::options().read_only(self.read_only);
        if let Some(size) = self.create {
            check_size(size)?;
            // The rest of it is made below.
            options = options.create(SECTOR);
        }
        let file = options.open(path)?;
        if !file.was_created() {
            return self.open_image(path, file, false);
        }
        let made = self.create_image(path, file);
        if made.is_err() {
            // It was not there before. That it can't be removed is the smaller of two problems.
            let _ = fs::remove_file(path);
        }
        made
    }

    fn create_image(&self, path: &Path, file: RawFile) -> Result<Qcow2File, Error> {
        let size = self.create.unwrap_or_default();
        let layer = Layer::image(file, 0, None);
        Qcow2::<Layer>::create_builder(layer.clone())
            .size(size)
            .create()
            .map_err(|source| Error::Create {
                path: path.into(),
                size,
                source,
            })?;
        let file = layer.into_file().map_err(|source| Error::Create {
            path: path.into(),
            size,
            source,
        })?;
        self.open_image(path, file, true)
    }

    fn open_image(&self, path: &Path, file: RawFile, created: bool) -> Result<Qcow2File, Error> {
        let found = file.properties();
        let mut chain = Chain {
            backing: self.backing,
            seen: vec![found.identity.clone()],
        };
        let (image, top) = chain.open(path, file, !self.read_only)?;
        let image = FormatAccess::new(image);
        let size = image.size();
        if size < SECTOR {
            return Err(Error::Small {
                path: path.into(),
                size,
                block: SECTOR as u32,
            });
        }
        let cluster = image.inner().zero_granularity();
        let discard = cluster.and_then(|cluster| u32::try_from(cluster).ok());
        Ok(Qcow2File {
            properties: Properties {
                read_only: self.read_only,
                discard: discard.filter(|_| !self.read_only),
                identity: found.identity,
                ..Properties::new(size - size % SECTOR)
            },
            created,
            top,
            state: Mutex::new(State {
                image,
                bounce: vec![0; BOUNCE],
            }),
        })
    }
}

/// An image, and what was opened for it so far.
struct Chain {
    backing: Backing,
    /// Which files.
    seen: Vec<String>,
}

impl Chain {
    /// Opens an image, after those behind it.
    fn open(
        &mut self,
        path: &Path,
        file: RawFile,
        writable: bool,
    ) -> Result<(Qcow2<Layer>, Layer), Error> {
        let failed = |source| Error::Qcow2 {
            path: path.into(),
            source,
        };
        let end = file.end().map_err(Qcow2Error::Format).map_err(failed)?;
        let header = Header::read(&file, end).map_err(failed)?;
        let layer = Layer::image(file, end, Some(header));
        // To open it for writing may already change it.
        let looked_at = open_one(&layer, false).map_err(failed)?;
        let format = looked_at.implicit_backing_format().cloned();
        let behind = match looked_at.implicit_backing_file() {
            Some(name) => Some(self.open_backing(path, name, &format.unwrap_or_default())?),
            None => None,
        };
        drop(looked_at);
        let mut image = open_one(&layer, writable).map_err(failed)?;
        image.set_backing(behind);
        Ok((image, layer))
    }

    /// Opens the backing file that the image at `path` names.
    fn open_backing(
        &mut self,
        path: &Path,
        name: &str,
        format: &str,
    ) -> Result<FormatAccess<Layer>, Error> {
        let failed = |source| Error::Qcow2 {
            path: path.into(),
            source,
        };
        let place = self.find_backing(path, name).map_err(failed)?;
        if !matches!(format, "raw" | "qcow2") {
            return Err(failed(Qcow2Error::BackingFormat {
                name: name.into(),
                format: format.into(),
            }));
        }
        if let Ok(found) = fs::metadata(&place) {
            let identity = format!("{:x}-{:x}", found.dev(), found.ino());
            if self.seen.contains(&identity) {
                return Err(failed(Qcow2Error::BackingLoop { name: name.into() }));
            }
            self.seen.push(identity);
        }
        if self.seen.len() > DEPTH + 1 {
            return Err(failed(Qcow2Error::BackingDepth { most: DEPTH }));
        }
        let file = RawFile::options().read_only(true).open(&place)?;
        if format == "qcow2" {
            let (image, _) = self.open(&place, file, false)?;
            return Ok(FormatAccess::new(image));
        }
        let raw = file.end().and_then(|end| {
            let layer = Layer::raw(file, end);
            Raw::open_image(layer, false)
        });
        let raw = raw.map_err(|source| Error::Open {
            path: place,
            read_only: true,
            source,
        })?;
        Ok(FormatAccess::new(raw))
    }

    /// Where a backing file is, if it may be opened.
    fn find_backing(&self, path: &Path, name: &str) -> Result<PathBuf, Qcow2Error> {
        if self.backing == Backing::Denied {
            return Err(Qcow2Error::BackingDenied { name: name.into() });
        }
        let refused = |problem| Qcow2Error::BackingName {
            name: name.into(),
            problem,
        };
        if name.is_empty() || name.contains('\0') {
            return Err(refused("no name of a file"));
        }
        // As QEMU tells them apart: what has a colon before its first slash is no path.
        let first = name.split('/').next().unwrap_or(name);
        if first.contains(':') {
            return Err(refused("a protocol of QEMU's or a URL, and no file"));
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let place = folder.join(name);
        if self.backing == Backing::Anywhere {
            return Ok(place);
        }
        if Path::new(name)
            .components()
            .any(|part| part == Component::ParentDir)
        {
            return Err(refused(OUTSIDE));
        }
        // Links count as what they lead to. What does not exist is found when it is opened.
        match (folder.canonicalize(), place.canonicalize()) {
            (Ok(folder), Ok(place)) if place.starts_with(&folder) => Ok(place),
            (Ok(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(place),
            _ => Err(refused(OUTSIDE)),
        }
    }
}

/// Opens an image alone. The library opens no other file.
fn open_one(layer: &Layer, writable: bool) -> Result<Qcow2<Layer>, Qcow2Error> {
    Qcow2::<Layer>::builder(layer.clone())
        .write(writable)
        .backing(None)
        .data_file(None)
        .open(DenyImplicitOpenGate::default())
        .map_err(Qcow2Error::Format)
}

/// Refuses what no image of ours can hold: its L1 table may have 32 MiB.
fn check_size(size: u64) -> Result<(), Error> {
    match size > 0 && size.is_multiple_of(SECTOR) && i64::try_from(size).is_ok() {
        true => Ok(()),
        false => Err(Error::Size {
            size,
            block: SECTOR as u32,
        }),
    }
}
