//! The host's end of a console: standard input and output, a pseudo-terminal, or a file.

use crate::spec::Stream;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{OFlags, open};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::stdio;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use vmm::virtio::stream::{Input, Output};

/// Why a console's host end could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("-{option} file={path}")]
    File {
        option: &'static str,
        path: String,
        source: io::Error,
    },
    #[error("-{option} pty={link}")]
    Pty {
        option: &'static str,
        link: String,
        source: io::Error,
    },
    #[error("-{option} stdio")]
    Stdio {
        option: &'static str,
        source: io::Error,
    },
}

/// Both directions of a console, and what must live as long as it is used.
#[derive(Default)]
pub struct Opened {
    pub input: Option<Input>,
    pub output: Option<Output>,
    pub pty: Option<Pty>,
}

/// Opens what `-option` names. `typed` is what is typed where standard input is a terminal; the
/// console on stdio takes it.
pub fn open_stream(
    option: &'static str,
    stream: &Stream,
    typed: &mut Option<OwnedFd>,
) -> Result<Option<Opened>, Error> {
    match stream {
        Stream::Off => Ok(None),
        Stream::Stdio => {
            stdio_stream(typed.take()).map_err(|source| Error::Stdio { option, source })
        }
        Stream::File(path) => {
            let file = File::options().create(true).append(true).open(path);
            let output = file.and_then(|file| Output::fd(file.into()));
            let error = |source| Error::File {
                option,
                path: path.display().to_string(),
                source,
            };
            Ok(Some(Opened {
                output: Some(output.map_err(error)?),
                ..Opened::default()
            }))
        }
        Stream::Pty(link) => {
            let error = |source| Error::Pty {
                option,
                link: link.display().to_string(),
                source,
            };
            Pty::open(link).map_err(error).map(Some)
        }
    }
}

fn stdio_stream(typed: Option<OwnedFd>) -> io::Result<Option<Opened>> {
    let input = match typed {
        Some(typed) => typed,
        None => own(stdio::stdin())?,
    };
    Ok(Some(Opened {
        input: Some(Input::fd(input)?),
        output: Some(Output::fd(own(stdio::stdout())?)?),
        pty: None,
    }))
}

/// A descriptor of our own for one of the standard three, which stay open.
fn own(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd, 3)?)
}

/// A pseudo-terminal whose name stands behind a symbolic link; the link goes when this does.
pub struct Pty {
    link: PathBuf,
    name: OsString,
    /// Keeps the pair alive, and readable as "nothing typed", while nobody has it open.
    _slave: OwnedFd,
}

impl Pty {
    fn open(link: &Path) -> io::Result<Opened> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = OsString::from_vec(ptsname(&master, Vec::new())?.into_bytes());
        let slave = open(
            name.as_os_str(),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            0.into(),
        )?;
        let mut attributes = rustix::termios::tcgetattr(&slave)?;
        attributes.make_raw();
        rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &attributes)?;
        replace_link(&name, link)?;
        let pty = Pty {
            link: link.into(),
            name,
            _slave: slave,
        };
        let input = Input::fd(own(&master)?)?;
        Ok(Opened {
            input: Some(input),
            output: Some(Output::fd(master)?),
            pty: Some(pty),
        })
    }
}

/// Makes `link` point at `name`. Only a link to a terminal is replaced, as one of an earlier run
/// that was killed; anything else there is the user's.
fn replace_link(name: &OsStr, link: &Path) -> io::Result<()> {
    if fs::read_link(link).is_ok_and(|target| target.starts_with("/dev/pts")) {
        fs::remove_file(link)?;
    }
    symlink(name, link)
}

impl fmt::Display for Pty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.link.display(), self.name.display())
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if fs::read_link(&self.link).is_ok_and(|target| target.as_os_str() == self.name) {
            let _ = fs::remove_file(&self.link);
        }
    }
}
