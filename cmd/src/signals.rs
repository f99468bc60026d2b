//! The signals that steer a machine, as something to poll.
//!
//! They are blocked and read from a descriptor, so no handler runs in a vCPU's thread or any
//! other, and nothing about them is asynchronous.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The descriptor from which the signals are read.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks `signals` in this thread and in all that it starts from now on. Threads that exist
    /// already would still get them.
    pub fn block(signals: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let set: SigSet = signals.into_iter().collect();
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals(SignalFd::with_flags(&set, flags)?))
    }

    /// The next signal that has come, if there is one.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        let Some(info) = self.0.read_signal()? else {
            return Ok(None);
        };
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        Ok(Signal::try_from(number).ok())
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
