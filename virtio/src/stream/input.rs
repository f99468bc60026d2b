//! Bytes from the host to the guest.

use super::descriptor::{Access, Descriptor};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How many bytes of an embedder's `Read` are on their way into the pipe.
const PUMP_STEP: usize = 4096;

/// Bytes from the host to the guest: a descriptor to poll, and a read that does not wait.
///
/// Nothing is read ahead: what the guest has no room for stays in the terminal, pipe or socket,
/// whose other end then waits. Wait for the descriptor ([`AsFd`]) with poll(2), since epoll
/// refuses regular files; then [`read`](Self::read). After the end of the input, stop polling:
/// the descriptor stays readable.
///
/// Costs one read(2) per call; two where the descriptor can't be read without blocking, which is
/// rare (see [the module](super)).
#[derive(Debug)]
pub struct Input {
    descriptor: Descriptor,
}

impl Input {
    /// Reads from a terminal, pipe, socket, file or device.
    ///
    /// # Errors
    ///
    /// If the descriptor is not open for reading.
    pub fn fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Input {
            descriptor: Descriptor::new(fd, Access::Read)?,
        })
    }

    /// Reads from an object of the embedder's, by means of a thread and a pipe.
    ///
    /// The thread reads ahead as much as the pipe holds (64 KiB), then waits for the guest. It
    /// ends with the first end or error of `reader`; and after the `Input` is dropped, when the
    /// read that it is in returns, since a `Read` can't be interrupted.
    ///
    /// # Errors
    ///
    /// If the pipe or the thread can't be had.
    pub fn reader(reader: impl Read + Send + 'static) -> io::Result<Self> {
        let (ours, pump_end) = pipe_with(PipeFlags::CLOEXEC)?;
        // The two ends are two file descriptions: this is not seen by the pump.
        rustix::io::ioctl_fionbio(&ours, true)?;
        let pump_end = File::from(pump_end);
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || pump(reader, pump_end))?;
        Ok(Input {
            descriptor: Descriptor::nonblocking(ours, Access::Read),
        })
    }

    /// Reads what is there, up to the size of `data`, which should not be empty.
    ///
    /// `Ok(0)` is the end of the input, which a terminal or peer that hung up is as well.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing is there; anything else will be there at the next call too.
    pub fn read(&self, data: &mut [u8]) -> io::Result<usize> {
        if data.is_empty() {
            return Err(Errno::WOULDBLOCK.into());
        }
        loop {
            match self.descriptor.read(data) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_hangup(&error) => return Ok(0),
                // A FIFO that no writer has opened yet, or Ctrl-D in a terminal's line mode:
                // more may come.
                Ok(0) if !self.descriptor.is_ready()? => return Err(Errno::WOULDBLOCK.into()),
                result => return result,
            }
        }
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::IO | Errno::CONNRESET | Errno::NOTCONN)
    )
}

/// The thread behind [`Input::reader`]: back-pressure is that the pipe is full.
fn pump(mut reader: impl Read, mut pipe: File) {
    super::block_sigpipe();
    let mut data = [0; PUMP_STEP];
    loop {
        let size = match reader.read(&mut data) {
            Ok(0) => return,
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                log::warn!("console input ends: {error}");
                return;
            }
        };
        // Fails when the Input is gone.
        if pipe
            .write_all(data.get(..size).unwrap_or_default())
            .is_err()
        {
            return;
        }
    }
}
