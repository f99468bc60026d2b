//! Bytes from the guest to the host.

use super::sink::{Cancel, Sink, is_final};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the buffer holds at most, counting the batch that is being written.
const CAPACITY: usize = 256 << 10;
/// From here on the output is congested: a device that can make its driver wait should.
const CONGESTED: usize = CAPACITY / 2;
/// So much is written without waiting for the end of a line.
const CHUNK: usize = 4096;
/// An empty buffer that has grown larger than this is given back.
const KEEP: usize = 16 << 10;
/// So long without a byte is a pause, after which an unfinished line is written.
const PAUSE: Duration = Duration::from_millis(4);
/// A line that goes on without a pause is written after so many times `PAUSE`.
const PATIENT_PAUSES: u32 = 12;
/// How long a congested output may hold up a device before it starts to drop.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// The soonest that a timer can expire.
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1,
};
/// How long a drop without [`Output::finish`] waits for the host.
const GRACE: Duration = Duration::from_secs(1);
/// How long a writer thread has to notice that it is cancelled.
const CANCEL_GRACE: Duration = Duration::from_millis(100);

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
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                sink: Some(sink),
                patience: PATIENCE,
                ..State::default()
            }),
            pushed: Condvar::new(),
            ended: Condvar::new(),
            cancel,
            room: OnceLock::new(),
        });
        Output {
            handle: Arc::new(Handle { shared }),
        }
    }

    /// Takes bytes to be written, without ever waiting for the host. Returns how many were
    /// taken, from the front; the rest is dropped and counted.
    pub fn push(&self, bytes: &[u8]) -> usize {
        let shared = &self.handle.shared;
        let mut state = shared.lock();
        let room = if state.is_closed() {
            0
        } else {
            CAPACITY.saturating_sub(state.queued())
        };
        let (taken, rest) = bytes.split_at(bytes.len().min(room));
        state.count_dropped(rest.len());
        if taken.is_empty() {
            return 0;
        }
        state.pending.extend_from_slice(taken);
        state.line_ended |= taken.contains(&b'\n');
        if let Some(sink) = state.sink.take() {
            shared.start(&mut state, sink);
        }
        let wake = match state.writer {
            Writer::Busy => false,
            Writer::Idle => true,
            Writer::Gathering => state.is_due(),
        };
        if wake {
            state.writer = Writer::Busy;
            drop(state);
            shared.pushed.notify_one();
        }
        taken.len()
    }

    /// Counts bytes as dropped that the caller did not even try to push.
    pub(crate) fn count_dropped(&self, count: usize) {
        self.handle.shared.lock().count_dropped(count);
    }

    /// How many bytes were lost so far because the host was slow, full or gone.
    pub fn dropped(&self) -> u64 {
        self.handle.shared.lock().dropped
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
        let room = &self.handle.shared.room;
        if let Some(room) = room.get() {
            return Ok(room.as_fd());
        }
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        Ok(room.get_or_init(|| timer).as_fd())
    }

    /// Whether a device that can make its driver wait should do so until [`room`](Self::room)
    /// is readable. That is never longer than 100 ms: from then on the host counts as stuck, and
    /// the answer is no (so that output is dropped) until it has caught up.
    pub(crate) fn is_congested(&self) -> bool {
        let shared = &self.handle.shared;
        let mut state = shared.lock();
        if state.is_closed() || state.stuck || state.queued() < CONGESTED {
            return false;
        }
        if !state.room_wanted {
            state.room_wanted = shared.set_room_timer(state.patience);
        }
        state.room_wanted
    }

    /// For tests of what a slow host gets, which a busy machine must not make a stuck one.
    #[cfg(test)]
    pub(crate) fn wait_long_for_room(&self) {
        self.handle.shared.lock().patience = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
    }

    /// Whether the writer thread is gone.
    #[cfg(test)]
    pub(super) fn has_ended(&self) -> bool {
        self.handle.shared.lock().ended
    }

    /// To be called when [`room`](Self::room) is readable.
    pub(crate) fn room_event(&self) {
        let shared = &self.handle.shared;
        let mut state = shared.lock();
        // Fails if the timer was set anew since it was polled: then that is what counts.
        let expired = shared
            .room
            .get()
            .is_some_and(|r| rustix::io::read(r, &mut [0; 8]).is_ok());
        if expired && mem::take(&mut state.room_wanted) {
            state.stuck = state.queued() >= CONGESTED;
        }
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

struct Shared {
    state: Mutex<State>,
    /// Wakes the writer thread.
    pushed: Condvar,
    /// Wakes whoever waits for the writer thread to end.
    ended: Condvar,
    cancel: Option<Cancel>,
    /// A timer, see [`Output::room`].
    room: OnceLock<OwnedFd>,
}

/// What the writer thread does, as far as those that push need to know.
#[derive(Default)]
enum Writer {
    /// It will look at the buffer before it sleeps.
    #[default]
    Busy,
    /// It sleeps until there is a byte.
    Idle,
    /// It sleeps until the line ends or pauses.
    Gathering,
}

#[derive(Default)]
struct State {
    /// Pushed, and not yet taken by the writer thread.
    pending: Vec<u8>,
    /// The size of what the writer thread has taken and not yet written.
    taken: usize,
    /// Whether `pending` holds the end of a line.
    line_ended: bool,
    writer: Writer,
    /// Until the thread is started.
    sink: Option<Sink>,
    thread: Option<JoinHandle<()>>,
    /// No more bytes are taken; the writer thread ends when it has written the rest...
    closing: bool,
    /// ... or sooner, because nobody waits for it any more.
    abandoned: bool,
    /// There is no writer thread, and will be none.
    ended: bool,
    dropped: u64,
    /// A device waits for room.
    room_wanted: bool,
    /// Waiting for room was in vain, and there has been none since.
    stuck: bool,
    /// How long to wait for room.
    patience: Timespec,
}

impl State {
    fn queued(&self) -> usize {
        self.pending.len() + self.taken
    }

    fn is_closed(&self) -> bool {
        self.closing || self.ended
    }

    /// Whether the pending bytes should be written without further gathering.
    fn is_due(&self) -> bool {
        self.line_ended || self.closing || self.pending.len() >= CHUNK
    }

    fn count_dropped(&mut self, count: usize) {
        self.dropped = self.dropped.saturating_add(count as u64);
    }
}

impl Shared {
    // Nothing that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>, state: &mut State, sink: Sink) {
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || shared.run(sink));
        match thread {
            Ok(thread) => state.thread = Some(thread),
            Err(error) => {
                log::warn!("console output is lost, there is no thread to write it: {error}");
                self.end(state);
            }
        }
    }

    /// The writer thread.
    fn run(&self, sink: Sink) {
        super::block_sigpipe();
        let _ended = Ended(self);
        // Goes before `_ended` tells: who waits for that may rely on a closed descriptor.
        let mut sink = sink;
        let mut batch = Vec::new();
        while self.next_batch(&mut batch) {
            if !self.deliver(&batch, &mut sink) {
                break;
            }
        }
    }

    /// Waits for bytes worth a write and takes them all. False: there will be no more.
    fn next_batch(&self, batch: &mut Vec<u8>) -> bool {
        batch.clear();
        batch.shrink_to(KEEP);
        let mut state = self.lock();
        while state.pending.is_empty() {
            if state.closing {
                return false;
            }
            state.writer = Writer::Idle;
            state = self
                .pushed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.writer = Writer::Busy;
        }
        for _ in 0..PATIENT_PAUSES {
            if state.is_due() {
                break;
            }
            let before = state.pending.len();
            state.writer = Writer::Gathering;
            let waited = self.pushed.wait_timeout(state, PAUSE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.writer = Writer::Busy;
            if state.pending.len() == before {
                break;
            }
        }
        mem::swap(&mut state.pending, batch);
        state.taken = batch.len();
        state.line_ended = false;
        !state.abandoned
    }

    /// Writes a batch out. False: it is of no use to go on.
    fn deliver(&self, batch: &[u8], sink: &mut Sink) -> bool {
        let mut rest = batch;
        while !rest.is_empty() {
            let again = match sink.write(rest) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(size) => {
                    rest = rest.get(size..).unwrap_or_default();
                    Ok(self.leaves_buffer(size, 0))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    Ok(self.leaves_buffer(0, 0))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sink.wait().map(|again| again && self.leaves_buffer(0, 0))
                }
                Err(error) => Err(error),
            };
            match again {
                Ok(true) => {}
                // What is left of the batch is counted at the end of the thread.
                Ok(false) => return false,
                Err(error) => {
                    log::debug!("{} bytes of console output are lost: {error}", rest.len());
                    return self.leaves_buffer(0, rest.len()) && !is_final(&error);
                }
            }
        }
        sink.flush()
            .map_or_else(|error| !is_final(&error), |()| true)
    }

    /// Bytes that the writer thread had taken were written or lost. Tells whether it should go on.
    fn leaves_buffer(&self, written: usize, lost: usize) -> bool {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(written + lost);
        state.count_dropped(lost);
        if state.queued() < CONGESTED {
            self.announce_room(&mut state);
        }
        !state.abandoned
    }

    fn announce_room(&self, state: &mut State) {
        state.stuck = false;
        if mem::take(&mut state.room_wanted) {
            self.set_room_timer(AT_ONCE);
        }
    }

    fn set_room_timer(&self, value: Timespec) -> bool {
        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let time = Itimerspec {
            it_interval: never,
            it_value: value,
        };
        let set = |room| timerfd_settime(room, TimerfdTimerFlags::empty(), &time).is_ok();
        self.room.get().is_some_and(set)
    }

    /// There is no writer thread any more, or never was one.
    fn end(&self, state: &mut State) {
        state.ended = true;
        state.count_dropped(state.queued());
        state.pending = Vec::new();
        state.taken = 0;
        self.announce_room(state);
        self.ended.notify_all();
    }

    fn finish(&self, limit: Duration) -> bool {
        let mut state = self.lock();
        state.closing = true;
        let dropped_before = state.dropped;
        let unused = state.sink.take();
        if unused.is_some() {
            self.end(&mut state);
        }
        self.pushed.notify_one();
        state = self.wait_for_end(state, limit);
        if !state.ended {
            state.abandoned = true;
            if let Some(cancel) = &self.cancel {
                cancel.cancel();
                state = self.wait_for_end(state, CANCEL_GRACE);
            }
        }
        if !state.ended {
            // The thread is in a call that does not return; it keeps and counts its batch.
            let pending = mem::take(&mut state.pending);
            state.count_dropped(pending.len());
        }
        let complete = !state.abandoned && state.dropped == dropped_before;
        let thread = if state.ended {
            state.thread.take()
        } else {
            None
        };
        drop(state);
        if let Some(Err(_)) = thread.map(JoinHandle::join) {
            log::warn!("the embedder's console writer panicked");
        }
        complete
    }

    fn wait_for_end<'a>(
        &self,
        state: MutexGuard<'a, State>,
        limit: Duration,
    ) -> MutexGuard<'a, State> {
        let waited = self
            .ended
            .wait_timeout_while(state, limit, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Says that the writer thread ends, also when it does by a panic in the embedder's writer.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        self.0.end(&mut state);
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
        let state = self.handle.shared.lock();
        f.debug_struct("Output")
            .field("queued", &state.queued())
            .field("dropped", &state.dropped)
            .field("closed", &state.is_closed())
            .finish_non_exhaustive()
    }
}
