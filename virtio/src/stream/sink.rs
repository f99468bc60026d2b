//! Where the writer thread puts bytes.

use super::descriptor::{Access, Descriptor};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How often a `Write` of the embedder's that says `WouldBlock` is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// A host descriptor, or an object of the embedder's.
pub(super) enum Sink {
    Descriptor {
        descriptor: Descriptor,
        cancel: Cancel,
    },
    Writer(Box<dyn Write + Send>),
}

impl Sink {
    pub(super) fn descriptor(fd: OwnedFd, cancel: Cancel) -> io::Result<Self> {
        Ok(Sink::Descriptor {
            descriptor: Descriptor::new(fd, Access::Write)?,
            cancel,
        })
    }

    /// Writes a part of `data`, or says `WouldBlock`.
    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Descriptor { descriptor, .. } => descriptor.write(data),
            Sink::Writer(writer) => writer.write(data),
        }
    }

    /// The end of a batch: an embedder's writer may have a buffer of its own.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Descriptor { .. } => Ok(()),
            Sink::Writer(writer) => writer.flush(),
        }
    }

    /// After `WouldBlock`: waits for room. Tells whether it is worth another try.
    pub(super) fn wait(&mut self) -> io::Result<bool> {
        match self {
            Sink::Descriptor { descriptor, cancel } => descriptor.wait(cancel.0.as_fd()),
            Sink::Writer(_) => {
                std::thread::sleep(RETRY);
                Ok(true)
            }
        }
    }
}

/// Ends the wait of a [`Sink`] for good, from another thread.
#[derive(Clone)]
pub(super) struct Cancel(Arc<OwnedFd>);

impl Cancel {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Cancel(Arc::new(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?)))
    }

    pub(super) fn cancel(&self) {
        // Can only fail when it was called 2^64 times before.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// Whether an error means that nobody will ever read what is written, in contrast to a disk
/// that is full for now.
pub(super) fn is_final(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
    ) || error.raw_os_error() == Some(Errno::BADF.raw_os_error())
}
