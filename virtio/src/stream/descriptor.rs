//! Reads and writes of a descriptor that do not get stuck in it.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What a descriptor is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// How to use a descriptor without getting stuck in it, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// The file description is in non-blocking mode: it came so, or is one of our own.
    Nonblocking,
    /// A socket: each call says for itself that it must not wait.
    Socket,
    /// A regular file or block device, which waits for a disk but for no other process.
    Immediate,
    /// Poll first, then move at most so many bytes: a pipe with room takes `PIPE_BUF`, a
    /// terminal less.
    Polled(usize),
}

/// What a pipe takes as a whole once poll says that it has room.
const PIPE_BUF: usize = 4096;
/// What a terminal's driver takes soon: poll says yes from one byte of room on.
const TERMINAL_STEP: usize = 256;
/// The major number of `/dev/tty`, `/dev/console` and `/dev/ptmx`, which are other things each
/// time they are opened.
const TTYAUX_MAJOR: u32 = 5;

/// A descriptor and the manner in which it is used.
#[derive(Debug)]
pub(super) struct Descriptor {
    fd: OwnedFd,
    manner: Manner,
    access: Access,
}

impl Descriptor {
    /// Finds out how to use `fd`; an error if it is not open for that.
    pub(super) fn new(fd: OwnedFd, access: Access) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        let wrong = match access {
            Access::Read => OFlags::WRONLY,
            Access::Write => OFlags::RDONLY,
        };
        if flags & OFlags::RWMODE == wrong || flags.contains(OFlags::PATH) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                match access {
                    Access::Read => "the descriptor is not open for reading",
                    Access::Write => "the descriptor is not open for writing",
                },
            ));
        }
        let stat = rustix::fs::fstat(&fd)?;
        let (fd, manner) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket => (fd, Manner::Socket),
            FileType::RegularFile | FileType::BlockDevice => (fd, Manner::Immediate),
            _ if flags.contains(OFlags::NONBLOCK) => (fd, Manner::Nonblocking),
            FileType::Fifo => own_description(fd, flags, PIPE_BUF),
            FileType::CharacterDevice if rustix::termios::isatty(&fd) => {
                if rustix::fs::major(stat.st_rdev) == TTYAUX_MAJOR {
                    (fd, Manner::Polled(TERMINAL_STEP))
                } else {
                    own_description(fd, flags, TERMINAL_STEP)
                }
            }
            _ => (fd, Manner::Polled(PIPE_BUF)),
        };
        Ok(Descriptor { fd, manner, access })
    }

    /// For a pipe's end that the caller made and put into non-blocking mode.
    pub(super) fn nonblocking(fd: OwnedFd, access: Access) -> Self {
        Descriptor {
            fd,
            manner: Manner::Nonblocking,
            access,
        }
    }

    #[cfg(test)]
    pub(super) fn polled_for_test(fd: OwnedFd, access: Access) -> Self {
        Descriptor {
            fd,
            manner: Manner::Polled(PIPE_BUF),
            access,
        }
    }

    #[cfg(test)]
    pub(super) fn manner(&self) -> Manner {
        self.manner
    }

    /// One read(2), or `WouldBlock`.
    pub(super) fn read(&self, data: &mut [u8]) -> io::Result<usize> {
        let size = match self.manner {
            Manner::Socket => {
                return Ok(rustix::net::recv(&self.fd, data, RecvFlags::DONTWAIT)?.1);
            }
            Manner::Polled(_) if !self.is_ready()? => return Err(Errno::WOULDBLOCK.into()),
            _ => rustix::io::read(&self.fd, data)?,
        };
        Ok(size)
    }

    /// One write(2) of what can be taken now, or `WouldBlock`.
    pub(super) fn write(&self, data: &[u8]) -> io::Result<usize> {
        let size = match self.manner {
            Manner::Socket => {
                rustix::net::send(&self.fd, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?
            }
            Manner::Polled(step) => {
                if !self.is_ready()? {
                    return Err(Errno::WOULDBLOCK.into());
                }
                rustix::io::write(&self.fd, data.get(..step).unwrap_or(data))?
            }
            _ => rustix::io::write(&self.fd, data)?,
        };
        Ok(size)
    }

    /// Waits until the descriptor is ready (or failed: the next call tells), or `cancel` is
    /// readable. Tells whether it is worth another try.
    pub(super) fn wait(&self, cancel: BorrowedFd<'_>) -> io::Result<bool> {
        let mut fds = [
            PollFd::from_borrowed_fd(cancel, PollFlags::IN),
            PollFd::from_borrowed_fd(self.fd.as_fd(), self.interest()),
        ];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok(true),
            result => result?,
        };
        let [cancel, _] = fds;
        Ok(cancel.revents().is_empty())
    }

    /// Whether there is something to read, an end of it, or room to write.
    pub(super) fn is_ready(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, self.interest())];
        Ok(poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )? > 0)
    }

    fn interest(&self) -> PollFlags {
        match self.access {
            Access::Read => PollFlags::IN,
            Access::Write => PollFlags::OUT,
        }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens the pipe or terminal behind `fd` once more, for a file description whose `O_NONBLOCK`
/// is seen by nobody else. Where that can't be had (no /proc, a file of another user's, a pipe
/// whose other end is gone) the old one is used with care.
fn own_description(fd: OwnedFd, theirs: OFlags, step: usize) -> (OwnedFd, Manner) {
    // The same access: a FIFO that is open for both has no end, and should not get one.
    let access = theirs & OFlags::RWMODE;
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::open(
        format!("/proc/self/fd/{}", fd.as_raw_fd()),
        flags,
        Mode::empty(),
    ) {
        Ok(own) => (own, Manner::Nonblocking),
        Err(error) => {
            log::debug!(
                "descriptor {} is used in blocking mode: {error}",
                fd.as_raw_fd()
            );
            (fd, Manner::Polled(step))
        }
    }
}
