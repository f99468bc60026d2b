//! `-block` and `-disk`: what users write about a disk, and the disk that comes of it.
//!
//! ```text
//!   disk.img            disk.img:ro           mem:64M
//!   disk.img,ro=on,serial=scratch             path=disk.img,size=1G,direct=on
//!   file=disk.img,size=1G                     (as linuxkit has it)
//!   https://host/disk.img                     read-only
//!   path=disk.qcow2,format=qcow2,backing=on
//!   disk.img,queues=4,transport=pci,ring=packed
//! ```
//!
//! The format of a file is what `format` says, and `raw`
//! if it does not: what a guest writes to its disk has no say in it.

use crate::fields::{Attachment, Syntax, number, switch};
use crate::spec::ByteSize;
use crate::streams::Trace;
use std::path::PathBuf;
use vmm::VirtioDevice;
use vmm::virtio::block::qcow2::Backing;
use vmm::virtio::block::{self, Block, HttpDisk, MAX_QUEUES, MemoryDisk, Qcow2File, RawFile, http};
use vmm::virtio::transport::Rings;

const SYNTAX: Syntax = Syntax {
    known: "path (or file), format, backing, ro, size, direct, ca, serial, block_size, queues, \
            transport and ring",
    first: "path",
    aliases: &[("file", "path")],
};

/// Why a disk can't be had.
#[derive(Debug, thiserror::Error)]
#[error("-block {text:?}")]
pub struct Error {
    text: String,
    source: block::Error,
}

/// A disk, as the command line has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    text: String,
    place: Place,
    format: Format,
    /// Only images have backing files.
    backing: Option<Backing>,
    read_only: bool,
    direct: bool,
    size: Option<u64>,
    /// Whose word is taken for who a web server is.
    ca: Option<PathBuf>,
    serial: Option<String>,
    block_size: Option<u32>,
    queues: u16,
    attachment: Attachment,
}

/// Where the bytes of a disk are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Memory(u64),
    Url(String),
}

impl Place {
    /// A path, or a URL.
    fn named(text: &str) -> Self {
        if http::is_url(text) {
            Place::Url(text.to_owned())
        } else {
            Place::File(text.into())
        }
    }
}

/// What the bytes of a file mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Raw,
    Qcow2,
}

impl Disk {
    /// Reads the value of `-block` or `-disk`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut disk = Disk {
            text: text.to_owned(),
            place: Place::File(PathBuf::new()),
            format: Format::Raw,
            backing: None,
            read_only: false,
            direct: false,
            size: None,
            ca: None,
            serial: None,
            block_size: None,
            queues: 1,
            attachment: Attachment::default(),
        };
        let fields = SYNTAX.parse(text)?;
        if let Some(first) = &fields.first {
            disk.place_or_shorthand(first)?;
        }
        for (key, value) in &fields.pairs {
            disk.set(key, value)?;
        }
        disk.check()?;
        let writable = fields.has("ro") && !disk.read_only;
        if writable && matches!(disk.place, Place::Url(_)) {
            return Err("a disk on a web server can't be written: ro=off is not possible".into());
        }
        Ok(disk)
    }

    /// Refuses keys that mean nothing beside each other.
    fn check(&self) -> Result<(), String> {
        let image = self.format == Format::Qcow2;
        let secure = matches!(&self.place, Place::Url(url) if http::is_secure(url));
        if self.ca.is_some() && !secure {
            return Err("ca= is for disks on web servers with https://".into());
        }
        match &self.place {
            Place::File(path) if path.as_os_str().is_empty() => Err("the path is missing".into()),
            Place::File(_) if image && self.direct => {
                Err("direct=on is for raw files and not for format=qcow2".into())
            }
            Place::File(_) if !image && self.backing.is_some() => {
                Err("backing= is for format=qcow2: raw files have no backing files".into())
            }
            Place::File(_) => Ok(()),
            Place::Memory(_) if image || self.backing.is_some() => {
                Err("a disk in memory has no format".into())
            }
            Place::Memory(_) if self.read_only || self.direct || self.size.is_some() => {
                Err("a disk in memory has neither ro, direct nor size=: mem:SIZE says all".into())
            }
            Place::Memory(_) => Ok(()),
            Place::Url(_) if image || self.backing.is_some() => {
                Err("a disk on a web server is raw".into())
            }
            Place::Url(_) if self.direct || self.size.is_some() => {
                Err("a disk on a web server has neither direct nor size=".into())
            }
            Place::Url(_) => Ok(()),
        }
    }

    /// What stands first without a key: a path or a URL, which may end in `:ro`, or `mem:SIZE`.
    fn place_or_shorthand(&mut self, text: &str) -> Result<(), String> {
        if let Some(size) = text.strip_prefix("mem:") {
            self.place = Place::Memory(ByteSize::parse(size)?.bytes());
            return Ok(());
        }
        let path = text.strip_suffix(":ro");
        self.read_only = path.is_some();
        self.place = Place::named(path.unwrap_or(text));
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "path" => self.place = Place::named(value),
            "format" => {
                self.format = match value {
                    "raw" => Format::Raw,
                    "qcow2" => Format::Qcow2,
                    _ => return Err(format!("format={value}: it is raw or qcow2")),
                }
            }
            "backing" => {
                self.backing = Some(match value {
                    "off" => Backing::Denied,
                    "on" => Backing::Beside,
                    "any" => Backing::Anywhere,
                    _ => return Err(format!("backing={value}: it is on, any or off")),
                })
            }
            "ro" => self.read_only = switch(key, value)? || self.read_only,
            "direct" => self.direct = switch(key, value)?,
            "size" => self.size = Some(ByteSize::parse(value)?.bytes()),
            "ca" => self.ca = Some(value.into()),
            "serial" => self.serial = Some(value.to_owned()),
            "block_size" => {
                let size = value.parse().ok().filter(|size| matches!(size, 512 | 4096));
                self.block_size = Some(size.ok_or("block_size is 512 or 4096")?);
            }
            "queues" => self.queues = number(key, value, 1, MAX_QUEUES)?,
            _ => {
                let set = self.attachment.set(key, value);
                return set.unwrap_or_else(|| Err(SYNTAX.unknown(key)));
            }
        }
        Ok(())
    }

    /// What tells the disk from others: as it was written, without keys.
    pub fn name(&self) -> &str {
        self.text.split(',').next().unwrap_or_default()
    }

    /// Opens the disk, creating its file if there is none and it has a size. That file goes again
    /// with its trace, until that is kept. Its rings are its own, or else these.
    pub fn open(
        &self,
        number: usize,
        rings: Rings,
    ) -> Result<(VirtioDevice, Option<Trace>), Error> {
        let failed = |source| Error {
            text: self.text.clone(),
            source,
        };
        let (block, trace) = self.build().map_err(failed)?;
        let block = block.name(&format!("disk{number}"));
        Ok((self.attachment.attach(block, rings), trace))
    }

    fn build(&self) -> Result<(Block, Option<Trace>), block::Error> {
        let mut trace = None;
        let mut block = match &self.place {
            Place::Memory(size) => Block::new(MemoryDisk::new(*size)?),
            Place::Url(url) => {
                let mut options = HttpDisk::options();
                if let Some(ca) = &self.ca {
                    options = options.ca(ca);
                }
                Block::new(options.open(url)?)
            }
            Place::File(path) if self.format == Format::Qcow2 => {
                let mut options = Qcow2File::options()
                    .read_only(self.read_only)
                    .backing(self.backing.unwrap_or_default());
                if let Some(size) = self.size {
                    options = options.create(size);
                }
                let file = options.open(path)?;
                trace = file.was_created().then(|| Trace::File(Some(path.clone())));
                Block::new(file)
            }
            Place::File(path) => {
                let mut options = RawFile::options()
                    .read_only(self.read_only)
                    .direct(self.direct);
                if let Some(size) = self.size {
                    options = options.create(size);
                }
                let file = options.open(path)?;
                trace = file.was_created().then(|| Trace::File(Some(path.clone())));
                Block::new(file)
            }
        };
        if let Some(size) = self.block_size {
            block = block.block_size(size)?;
        }
        if let Some(serial) = &self.serial {
            block = block.serial(serial)?;
        }
        Ok((block.queues(self.queues)?, trace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(text: &str) -> Disk {
        Disk::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_path_alone_is_a_disk() {
        for (text, path, read_only) in [
            ("disk.img", "disk.img", false),
            ("disk.img:ro", "disk.img", true),
            ("/a b/c=d", "/a b/c=d", false),
            ("a,,b.img:ro", "a,b.img", true),
            ("disk.img,ro=on", "disk.img", true),
            ("path=disk.img:ro", "disk.img:ro", false),
            ("path=x=y", "x=y", false),
            ("file=disk.img", "disk.img", false),
        ] {
            let disk = disk(text);
            assert_eq!(disk.place, Place::File(path.into()), "{text}");
            assert_eq!(disk.read_only, read_only, "{text}");
        }
    }

    #[test]
    fn a_url_is_a_disk() {
        for (text, url) in [
            ("http://host/d", "http://host/d"),
            ("HTTPS://host/d?a=b:ro", "HTTPS://host/d?a=b"),
            ("path=http://host/d:ro,ro=on", "http://host/d:ro"),
            ("http://host/a,,b,serial=s", "http://host/a,b"),
        ] {
            assert_eq!(disk(text).place, Place::Url(url.into()), "{text}");
        }
        assert_eq!(disk("http/d").place, Place::File("http/d".into()));
    }

    #[test]
    fn a_server_that_is_not_there_is_an_error_with_the_reason() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/d", listener.local_addr().unwrap());
        drop(listener);
        let error = disk(&url).open(0, Rings::Any).map(|_| ()).unwrap_err();
        let text = crate::say::chain(&error);
        assert!(text.contains(&url) && text.contains("refused"), "{text}");
    }

    #[test]
    fn keys_are_read() {
        let disk = disk("path=d,format=raw,ro=off,size=1G,direct=on,serial=s1,block_size=4096");
        assert_eq!((disk.size, disk.direct), (Some(1 << 30), true));
        assert_eq!(
            (disk.serial.as_deref(), disk.block_size),
            (Some("s1"), Some(4096))
        );
        assert!(!disk.read_only);
        assert_eq!(disk.queues, 1);
        assert_eq!(super::Disk::parse("d,queues=16").unwrap().queues, 16);
        assert_eq!(
            super::Disk::parse("mem:64M").unwrap().place,
            Place::Memory(64 << 20)
        );
        assert_eq!(super::Disk::parse("d,size=5").unwrap().size, Some(5 << 20));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "path is missing"),
            ("path=", "path is missing"),
            (":ro", "path is missing"),
            ("ro=on", "path is missing"),
            ("d,rw", "known keys are path"),
            ("d,", "known keys are path"),
            ("d,mode=fast", "unknown key \"mode\"; known keys are path"),
            ("colour=red", "unknown key \"colour\""),
            ("d,path=e", "path is given twice"),
            ("file=d,path=e", "path is given twice"),
            ("d,ro=on,ro=off", "ro is given twice"),
            ("d,ro=yes", "on or off"),
            ("d,format=vmdk", "raw or qcow2"),
            ("d,format=", "raw or qcow2"),
            ("d,format=qcow2,direct=on", "direct=on is for raw files"),
            ("d,format=qcow2,backing=yes", "on, any or off"),
            ("d,backing=on", "backing= is for format=qcow2"),
            ("mem:1M,format=qcow2", "no format"),
            ("d,size=big", "a size is"),
            ("d,block_size=1024", "512 or 4096"),
            ("d,queues=0", "1 to 16"),
            ("d,queues=17", "1 to 16"),
            ("d,queues=all", "1 to 16"),
            ("d,ring=round", "ring=round: rings are split or packed"),
            ("d,transport=isa", "transport=isa: "),
            ("mem:", "a size is"),
            ("mem:-1", "a size is"),
            ("mem:1M,ro=on", "disk in memory"),
            ("mem:1M,size=2M", "disk in memory"),
            ("https://host/d,size=1G", "web server"),
            ("path=http://host/d,direct=on", "web server"),
            ("http://host/d,ro=off", "can't be written"),
            (
                "http://host/d,ca=c.pem",
                "ca= is for disks on web servers with https://",
            ),
            (
                "d,ca=c.pem",
                "ca= is for disks on web servers with https://",
            ),
            (
                "mem:1M,ca=c.pem",
                "ca= is for disks on web servers with https://",
            ),
        ] {
            let error = Disk::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn an_image_is_one_because_the_option_says_so() {
        for (text, format, backing) in [
            ("d.qcow2", Format::Raw, None),
            ("d,format=raw", Format::Raw, None),
            ("d,format=qcow2", Format::Qcow2, None),
            (
                "d,backing=off,format=qcow2",
                Format::Qcow2,
                Some(Backing::Denied),
            ),
            (
                "d,format=qcow2,backing=on",
                Format::Qcow2,
                Some(Backing::Beside),
            ),
            (
                "d,format=qcow2,backing=any",
                Format::Qcow2,
                Some(Backing::Anywhere),
            ),
        ] {
            let disk = disk(text);
            assert_eq!((disk.format, disk.backing), (format, backing), "{text}");
        }

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        let text = format!("{},size=4M", path.display());
        let (device, trace) = disk(&format!("{text},format=qcow2"))
            .open(0, Rings::Any)
            .unwrap();
        trace.unwrap().keep().unwrap();
        drop(device);
        assert!(std::fs::read(&path).unwrap().starts_with(b"QFI\xfb"));
        // Without the option these are the bytes of a disk, header and all; and a raw file that has
        // no header is no image.
        assert!(disk(&text).open(0, Rings::Any).is_ok());
        std::fs::write(&path, [0; 4096]).unwrap();
        assert!(
            disk(&format!("{text},format=qcow2"))
                .open(0, Rings::Any)
                .is_err()
        );
    }

    #[test]
    fn a_file_made_for_a_machine_that_never_runs_goes_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        let text = format!("{},size=1M", path.display());
        let (device, trace) = disk(&text).open(0, Rings::Any).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
        drop(device);
        drop(trace);
        assert!(!path.exists());

        let (_device, trace) = disk(&text).open(0, Rings::Any).unwrap();
        trace.unwrap().keep().unwrap();
        assert!(path.exists());
        // The same again: it is in use.
        let error = disk(&text).open(1, Rings::Any).map(|_| ()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("in use by"), "{source}");
        assert_eq!(error.to_string(), format!("-block {text:?}"));
    }
}
