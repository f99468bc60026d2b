//! Bytes from the guest to the host, for those that have some. Where they wait, and who writes them, is
//! in `writer.rs`.

use super::sink::{Cancel, Sink};
use super::writer::Shared;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a drop without [`Output::finish`] waits for the host.
const GRACE: Duration = Duration::from_secs(1);

/// Bytes from the guest to the host: a bounded buffer that a thread of its own writes out.
///
/// A clone is another handle to the same output. The last one to go finishes it, as
/// [`finish`](Self::finish) with a second does.
///
/// # What it costs
///
/// A push is a lock and a copy: some 40 ns for a byte. The first byte after silence and the end of a line
/// wake the writer thread, a futex call each; all other bytes make no system call. The host sees
/// one write(2) per line, per pause of 4 ms or per 4 KiB, whichever comes first; no byte waits
/// longer than 50 ms. Memory: nothing before the first byte, 256 KiB when the host is stuck.
///
/// # What it does not do
///
/// Report errors: when the host is slow, full or gone, bytes are [`dropped`](Self::dropped) and
/// counted, and the guest never knows.
#[derive(Clone)]
pub struct Output {
    handle: Arc<Handle>,
}

impl Output {
    /// Writes to a terminal, pipe, socket, file or device.
    ///
    /// # Errors
    ///
    /// If the descriptor is not open for writing.
    pub fn fd(fd: OwnedFd) -> io::Result<Self> {
        let cancel = Cancel::new()?;
        Ok(Self::new(
            Sink::descriptor(fd, cancel.clone())?,
            Some(cancel),
        ))
    }

    /// Writes to an object of the embedder's, from a thread of this library's.
    ///
    /// A `write` that does not return keeps that thread for as long, and nobody waits for it.
    pub fn writer(writer: impl Write + Send + 'static) -> Self {
        Self::new(Sink::Writer(Box::new(writer)), None)
    }

    /// Writes to memory, for tests.
    pub fn capture() -> (Self, Captured) {
        let captured = Captured::default();
        (Self::writer(captured.clone()), captured)
    }

    fn new(sink: Sink, cancel: Option<Cancel>) -> Self {
        let shared = Arc::new(Shared::new(sink, cancel));
        Output {
            handle: Arc::new(Handle { shared }),
        }
    }

    /// Takes bytes to be written, without ever waiting for the host. Returns how many were
    /// taken, from the front; the rest is dropped and counted.
    pub fn push(&self, bytes: &[u8]) -> usize {
        self.handle.shared.push(bytes)
    }

    /// Counts bytes as dropped that the caller did not even try to push.
    pub(crate) fn count_dropped(&self, count: usize) {
        self.handle.shared.count_dropped(count);
    }

    /// How many bytes were lost so far because the host was slow, full or gone.
    pub fn dropped(&self) -> u64 {
        self.handle.shared.dropped()
    }

    /// Writes out what is buffered and ends the output: later bytes are dropped. Waits up to
    /// `limit` for the host, and tells whether it took all that was still buffered; what it did
    /// not is dropped, and counted.
    ///
    /// Afterwards the thread is gone and the descriptor closed; but for a thread that is inside a
    /// call that can't be interrupted (see [the module](super)), which ends when that returns.
    pub fn finish(&self, limit: Duration) -> bool {
        self.handle.shared.finish(limit)
    }

    /// The descriptor that becomes readable some time after [`is_congested`](Self::is_congested)
    /// said yes: as soon as there is room, or when it was in vain to wait.
    pub(crate) fn room(&self) -> io::Result<BorrowedFd<'_>> {
        self.handle.shared.room()
    }

    /// Whether a device that can make its driver wait should do so until [`room`](Self::room)
    /// is readable. That is never longer than 100 ms: from then on the host counts as stuck, and
    /// the answer is no (so that output is dropped) until it has caught up.
    pub(crate) fn is_congested(&self) -> bool {
        self.handle.shared.is_congested()
    }

    /// For tests of what a slow host gets, which a busy machine must not make a stuck one.
    #[cfg(test)]
    pub(crate) fn wait_long_for_room(&self) {
        self.handle.shared.wait_long_for_room();
    }

    /// Whether the writer thread is gone.
    #[cfg(test)]
    pub(super) fn has_ended(&self) -> bool {
        self.handle.shared.has_ended()
    }

    /// To be called when [`room`](Self::room) is readable.
    pub(crate) fn room_event(&self) {
        self.handle.shared.room_event();
    }
}

/// The last handle to go finishes the output. The writer thread only has the [`Shared`] half.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.finish(GRACE);
    }
}

/// What was written to an [`Output::capture`]. A clone sees the same bytes.
#[derive(Debug, Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// The bytes so far. All of them are there after [`Output::finish`].
    pub fn bytes(&self) -> Vec<u8> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Write for Captured {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.handle.shared.describe(f.debug_struct("Output"))
    }
}
