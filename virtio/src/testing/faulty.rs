//! A storage that fails when it is told to: with an error, by halves, slowly, or never.

use crate::block::{BlockStorage, Properties};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use vm_memory::VolatileSlice;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It fails with this errno.
    Error(i32),
    /// At most this many bytes are moved, from the first buffers.
    Short(usize),
    /// It waits until [`Faults::release`].
    Wait,
}

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `read_vectored_at`: offset and length.
    Read(u64, usize),
    /// `write_vectored_at`: offset and length.
    Write(u64, usize),
    /// `flush`
    Flush,
    /// `discard`: offset and length.
    Discard(u64, u64),
    /// `write_zeroes`: offset, length, and whether the range may be unmapped.
    WriteZeroes(u64, u64, bool),
}

/// The handle by which a test tells a [`Faulty`] what to do, and hears what it was asked.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    plan: VecDeque<Fault>,
    calls: Vec<Call>,
    waiting: bool,
    released: bool,
}

impl Faults {
    /// What happens to the next calls, one fault each. Calls after those are let through.
    pub fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().plan.extend(faults);
    }

    /// The calls so far, which are forgotten.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }

    /// Waits until a call waits.
    pub fn until_waiting(&self) {
        let (_, changed) = &*self.0;
        let wait = changed.wait_timeout_while(self.lock(), super::DEADLINE, |state| !state.waiting);
        let state = wait.unwrap_or_else(PoisonError::into_inner).0;
        assert!(state.waiting, "no call came to wait");
    }

    /// Lets all calls that wait, now or later, go on.
    pub fn release(&self) {
        self.lock().released = true;
        self.0.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call, and takes what is planned for it: an error, or how many bytes it may move.
    fn meet(&self, call: Call) -> io::Result<usize> {
        let mut state = self.lock();
        state.calls.push(call);
        match state.plan.pop_front() {
            None | Some(Fault::None) => Ok(usize::MAX),
            Some(Fault::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Short(count)) => Ok(count),
            Some(Fault::Wait) => {
                state.waiting = true;
                let (_, changed) = &*self.0;
                changed.notify_all();
                let wait = changed.wait_while(state, |state| !state.released);
                wait.unwrap_or_else(PoisonError::into_inner).waiting = false;
                Ok(usize::MAX)
            }
        }
    }
}

/// A storage that does what another one does, but for its faults.
#[derive(Debug)]
pub struct Faulty<S> {
    storage: S,
    faults: Faults,
}

impl<S: BlockStorage> Faulty<S> {
    /// The storage, and the handle for its faults.
    pub fn new(storage: S) -> (Self, Faults) {
        let faults = Faults::default();
        let handle = faults.clone();
        (Faulty { storage, faults }, handle)
    }
}

impl<S: BlockStorage> BlockStorage for Faulty<S> {
    fn properties(&self) -> Properties {
        self.storage.properties()
    }

    fn read_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let limit = self.faults.meet(Call::Read(offset, length(buffers)))?;
        self.storage
            .read_vectored_at(&first(buffers, limit), offset)
    }

    fn write_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let limit = self.faults.meet(Call::Write(offset, length(buffers)))?;
        self.storage
            .write_vectored_at(&first(buffers, limit), offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.faults.meet(Call::Flush)?;
        self.storage.flush()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.faults.meet(Call::Discard(offset, len))?;
        self.storage.discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        self.faults
            .meet(Call::WriteZeroes(offset, len, may_unmap))?;
        self.storage.write_zeroes(offset, len, may_unmap)
    }
}

fn length(buffers: &[VolatileSlice<'_>]) -> usize {
    buffers.iter().map(VolatileSlice::len).sum()
}

/// The first `limit` bytes of some buffers.
fn first<'m>(buffers: &[VolatileSlice<'m>], limit: usize) -> Vec<VolatileSlice<'m>> {
    let mut left = limit;
    let cut = |buffer: &VolatileSlice<'m>| {
        let slice = buffer.subslice(0, buffer.len().min(left)).ok()?;
        left -= slice.len();
        (!slice.is_empty()).then_some(slice)
    };
    buffers.iter().map_while(cut).collect()
}
