//! The host's end of a console: standard input and output, a pseudo-terminal, or a file.
//!
//! What a console leaves in the file system, a new file or a link to a pseudo-terminal, is its
//! [`Trace`]. A machine that can't be built must leave nothing; so a file made for it goes
//! again, and a link is made, only when the machine is about to run ([`Trace::keep`]).

use crate::spec::Stream;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::stdio;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use vmm::virtio::stream::{Input, Output};

/// Why a console's host end could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("-{option} file={path:?}")]
    File {
        option: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("-{option} pty={link:?}")]
    Pty {
        option: &'static str,
        link: PathBuf,
        source: io::Error,
    },
    #[error("-{option} pty={link:?}: it is in use, a link to the terminal {terminal:?}")]
    PtyInUse {
        option: &'static str,
        link: PathBuf,
        terminal: PathBuf,
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
    pub trace: Option<Trace>,
}

/// Opens what `-option` names. `typed` is what is typed where standard input is a terminal; the
/// console on stdio takes it.
pub fn open_stream(
    option: &'static str,
    stream: &Stream,
    typed: &mut Option<OwnedFd>,
) -> Result<Option<Opened>, Error> {
    match stream {
        Stream::Off => return Ok(None),
        Stream::Stdio => {
            stdio_stream(typed.take()).map_err(|source| Error::Stdio { option, source })
        }
        Stream::File(path) => file_stream(path).map_err(|source| Error::File {
            option,
            path: path.clone(),
            source,
        }),
        Stream::Pty(link) => pty_stream(option, link).map_err(|source| Error::Pty {
            option,
            link: link.clone(),
            source,
        }),
    }
    .map(Some)
}

fn stdio_stream(typed: Option<OwnedFd>) -> io::Result<Opened> {
    let input = match typed {
        Some(typed) => typed,
        None => own(stdio::stdin())?,
    };
    Ok(Opened {
        input: Some(Input::fd(input)?),
        output: Some(Output::fd(own(stdio::stdout())?)?),
        trace: None,
    })
}

/// A descriptor of our own for one of the standard three, which stay open.
fn own(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd, 3)?)
}

fn file_stream(path: &Path) -> io::Result<Opened> {
    // A FIFO that nobody reads must not hang us.
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let (file, trace) = match open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            let file = open(
                path,
                flags | OFlags::CREATE | OFlags::EXCL,
                Mode::from_raw_mode(0o666),
            )?;
            (file, Some(Trace::File(Some(path.into()))))
        }
        result => (result?, None),
    };
    Ok(Opened {
        output: Some(Output::fd(file)?),
        trace,
        ..Opened::default()
    })
}

fn pty_stream(option: &'static str, link: &Path) -> io::Result<Opened> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = OsString::from_vec(ptsname(&master, Vec::new())?.into_bytes());
    let slave = open(
        name.as_os_str(),
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut attributes = rustix::termios::tcgetattr(&slave)?;
    attributes.make_raw();
    rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &attributes)?;
    Ok(Opened {
        input: Some(Input::fd(own(&master)?)?),
        output: Some(Output::fd(master)?),
        trace: Some(Trace::Pty(Pty {
            option,
            link: link.into(),
            terminal: name.into(),
            _slave: slave,
        })),
    })
}

/// What a console leaves in the file system, in time and for as long as it should.
pub enum Trace {
    /// A file that did not exist before. Until it is kept, it goes when this does.
    File(Option<PathBuf>),
    /// A link, made when it is kept, that goes when this does.
    Pty(Pty),
}

impl Trace {
    /// The machine is about to run. Returns what there is to tell about it.
    pub fn keep(&mut self) -> Result<Option<String>, Error> {
        match self {
            Trace::File(path) => {
                *path = None;
                Ok(None)
            }
            Trace::Pty(pty) => pty.make_link().map(Some),
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Trace::File(Some(path)) = self {
            // Nobody could do anything about it.
            let _ = fs::remove_file(path);
        }
    }
}

/// A pseudo-terminal, and a symbolic link by which it is found.
pub struct Pty {
    option: &'static str,
    link: PathBuf,
    terminal: PathBuf,
    /// Keeps the pair alive, and readable as "nothing typed", while nobody has it open.
    _slave: OwnedFd,
}

impl Pty {
    /// Only a link to a terminal that is gone is replaced, as one of an earlier run that was
    /// killed; anything else there is the user's. That terminal may be ours by now: numbers are
    /// given out again.
    fn make_link(&self) -> Result<String, Error> {
        let error = |source| Error::Pty {
            option: self.option,
            link: self.link.clone(),
            source,
        };
        if let Ok(target) = fs::read_link(&self.link)
            && target.starts_with("/dev/pts")
        {
            if target != self.terminal && target.exists() {
                return Err(Error::PtyInUse {
                    option: self.option,
                    link: self.link.clone(),
                    terminal: target,
                });
            }
            fs::remove_file(&self.link).map_err(error)?;
        }
        symlink(&self.terminal, &self.link).map_err(error)?;
        Ok(format!(
            "{} is {}",
            self.link.display(),
            self.terminal.display()
        ))
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if fs::read_link(&self.link).is_ok_and(|target| target == self.terminal) {
            let _ = fs::remove_file(&self.link);
        }
    }
}
