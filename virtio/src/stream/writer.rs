//! The buffer of an output, and the thread that writes it to the host.

use super::sink::{Cancel, Sink, is_final};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io, mem};

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
/// The soonest that a timer can expire.
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1,
};
/// How long a congested output may hold up a device before it starts to drop.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// How long a writer thread has to notice that it is cancelled.
const CANCEL_GRACE: Duration = Duration::from_millis(100);

/// What the handles of an output and its writer thread share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the writer thread.
    pushed: Condvar,
    /// Wakes whoever waits for the writer thread to end.
    ended: Condvar,
    cancel: Option<Cancel>,
    /// A timer that tells a device of room, if one has ever asked.
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
    /// No thread yet: the first byte starts it.
    pub(super) fn new(sink: Sink, cancel: Option<Cancel>) -> Self {
        Shared {
            state: Mutex::new(State {
                sink: Some(sink),
                patience: PATIENCE,
                ..State::default()
            }),
            pushed: Condvar::new(),
            ended: Condvar::new(),
            cancel,
            room: OnceLock::new(),
        }
    }

    /// See [`Output::push`](super::Output::push).
    pub(super) fn push(self: &Arc<Self>, bytes: &[u8]) -> usize {
        let mut state = self.lock();
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
            self.start(&mut state, sink);
        }
        let wake = match state.writer {
            Writer::Busy => false,
            Writer::Idle => true,
            Writer::Gathering => state.is_due(),
        };
        if wake {
            state.writer = Writer::Busy;
            drop(state);
            self.pushed.notify_one();
        }
        taken.len()
    }

    pub(super) fn count_dropped(&self, count: usize) {
        self.lock().count_dropped(count);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// The timer that tells of room.
    pub(super) fn room(&self) -> io::Result<BorrowedFd<'_>> {
        let room = &self.room;
        if let Some(room) = room.get() {
            return Ok(room.as_fd());
        }
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        Ok(room.get_or_init(|| timer).as_fd())
    }

    /// Whether a device that can make its driver wait should do so until the timer tells.
    pub(super) fn is_congested(&self) -> bool {
        let mut state = self.lock();
        if state.is_closed() || state.stuck || state.queued() < CONGESTED {
            return false;
        }
        if !state.room_wanted {
            state.room_wanted = self.set_room_timer(state.patience);
        }
        state.room_wanted
    }

    /// The timer has told.
    pub(super) fn room_event(&self) {
        let mut state = self.lock();
        // Fails if the timer was set anew since it was polled: then that is what counts.
        let expired = self
            .room
            .get()
            .is_some_and(|r| rustix::io::read(r, &mut [0; 8]).is_ok());
        if expired && mem::take(&mut state.room_wanted) {
            state.stuck = state.queued() >= CONGESTED;
        }
    }

    #[cfg(test)]
    pub(super) fn wait_long_for_room(&self) {
        self.lock().patience = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
    }

    #[cfg(test)]
    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    pub(super) fn describe(&self, mut to: fmt::DebugStruct<'_, '_>) -> fmt::Result {
        let state = self.lock();
        to.field("queued", &state.queued())
            .field("dropped", &state.dropped)
            .field("closed", &state.is_closed())
            .finish_non_exhaustive()
    }

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

    /// See [`Output::finish`](super::Output::finish).
    pub(super) fn finish(&self, limit: Duration) -> bool {
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
