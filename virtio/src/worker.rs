//! One thread per *active* device: it waits, calls the device, decides what a failure costs,
//! and hands everything back when it is stopped.
//!
//! ```text
//!   Core                                     worker thread, named after the device
//!    | -- start(Parts { device, io }) ---->   activate, then handle(Queue(i)) for each queue
//!    |                                        loop: wait; handle(Queue | Fd | ConfigWritten)
//!    | -- stop() ------------------------>    quiesce
//!    | <------- Parts { device, io } -----    (joined: nothing touches guest memory any more)
//! ```
//!
//! Reset, pause and shutdown are all made of [`Worker::stop`]. Nothing is shared but a [`Link`]:
//! an event to wake the thread and the flag behind `DEVICE_NEEDS_RESET`. A device whose driver
//! never says `DRIVER_OK` costs no thread and no epoll.
//!
//! An event costs one system call (see `poll.rs`); a queue with more chains than one turn takes
//! is served again without sleeping, but other sources get their turn in between. A stop comes before
//! the next chain ([`Io::drain`]): it does not wait for all that is in the ring.
//!
//! # A host that does not answer
//!
//! A device may wait for the host inside of a call, as for a file on a network file system, and no
//! call into the host can be taken back. So a stop waits [`STOP_PATIENCE`] and no longer:
//!
//! - A pause that can't be had is undone, and is an error: the device goes on when the host does.
//! - A reset can't be refused to the driver, nor may it go on while the host may yet write into
//!   its memory: that costs the machine, with an error that names the device.
//! - The end of the machine leaves the thread behind, which keeps what it needs (the device and
//!   guest memory) until the host answers or the process ends.
//!
//! # Failure
//!
//! [`Link::settle`] decides: an `Err` costs the device, which shows `DEVICE_NEEDS_RESET` until
//! its driver resets it; the machine goes on. A panic is a bug of ours and costs the machine.
//!
//! It does not restart a device, does not limit its rate, and does not serve one device from
//! several threads.

#[cfg(test)]
mod tests;

use crate::poll::{Poll, Source};
use crate::{Device, Error, Event, Io, Irq};
use std::any::Any;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Told that a device has failed the machine, which has to end: which device, and how. Called on
/// the thread that panicked, or on the one that wants to stop the device; must not wait for either.
pub type Failed = Arc<dyn Fn(&str, Fault<'_>) + Send + Sync>;

/// How a device fails its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault<'a> {
    /// Its code panicked, and said this.
    Panicked(&'a str),
    /// It waits for the host, and so can't be reset.
    Stuck,
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Panicked(what) => write!(f, "panicked: {what}"),
            Fault::Stuck => f.write_str("waits for the host, and can't be reset"),
        }
    }
}

/// How long a device may take to stop.
pub const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// How many failures of one device are logged. A driver can bring about any number of them.
const LOGGED_FAILURES: u32 = 10;

/// What moves into a worker, and comes back.
pub struct Parts {
    /// The device.
    pub device: Box<dyn Device>,
    /// Its queues and watches.
    pub io: Io,
}

/// What a transport and the worker of its device share for as long as the device exists.
pub struct Link {
    name: String,
    irq: Arc<dyn Irq>,
    failed: Failed,
    doorbells: Vec<Arc<EventFd>>,
    needs_reset: AtomicBool,
    failures: AtomicU32,
}

impl Link {
    /// The link of a device with this many queues.
    pub fn new(name: &str, queues: usize, irq: Arc<dyn Irq>, failed: Failed) -> io::Result<Self> {
        let doorbells = (0..queues)
            .map(|_| event().map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Link {
            name: name.to_owned(),
            irq,
            failed,
            doorbells,
            needs_reset: AtomicBool::new(false),
            failures: AtomicU32::new(0),
        })
    }

    /// How messages call the device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the device interrupts its driver.
    pub fn irq(&self) -> &Arc<dyn Irq> {
        &self.irq
    }

    /// The doorbell of each queue.
    pub fn doorbells(&self) -> &[Arc<EventFd>] {
        &self.doorbells
    }

    /// Whether the device failed since its driver last reset it.
    pub fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// The driver has reset the device, and no worker has it.
    pub fn clear_needs_reset(&self) {
        self.needs_reset.store(false, Ordering::Release);
    }

    /// The device can't go on: `DEVICE_NEEDS_RESET` and a configuration interrupt (2.1.2). Only
    /// for use after `DRIVER_OK`.
    pub fn fail(&self, error: &Error) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before < LOGGED_FAILURES {
            let cause = std::error::Error::source(error);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            log::warn!(
                "{}: stopped until its driver resets it: {error}{cause}",
                self.name
            );
        }
        self.needs_reset.store(true, Ordering::Release);
        self.irq.config();
    }

    /// Runs code of the device and decides what its failure costs: an error the device, a panic
    /// the machine. `None`: it panicked, and its state is not to be trusted.
    pub fn settle(&self, code: impl FnOnce() -> Result<(), Error>) -> Option<()> {
        match catch_unwind(AssertUnwindSafe(code)) {
            Ok(Ok(())) => Some(()),
            Ok(Err(error)) => {
                self.fail(&error);
                Some(())
            }
            Err(panic) => {
                self.needs_reset.store(true, Ordering::Release);
                (self.failed)(&self.name, Fault::Panicked(message(&*panic)));
                None
            }
        }
    }

    /// The device can't be stopped, and its driver must not go on.
    pub fn fail_machine(&self) {
        self.needs_reset.store(true, Ordering::Release);
        (self.failed)(&self.name, Fault::Stuck);
    }
}

/// A device at work. Dropping it tells it to stop; only [`Worker::stop`] waits for that.
pub struct Worker {
    signal: Arc<Signal>,
    run: Run,
    /// When it was first asked to stop.
    asked: Option<Instant>,
}

enum Run {
    Thread(Thread),
    Inline(Box<Session>),
    Stopped,
}

/// A worker's thread, and where it leaves what it was started with.
struct Thread {
    handle: thread::JoinHandle<()>,
    parts: Receiver<Option<Parts>>,
}

/// How a stop went.
pub enum Stopped {
    /// The device and its queues: no host I/O touches guest memory any more.
    Idle(Box<Parts>),
    /// It panicked; there is nothing left of it.
    Panicked,
    /// It waits for the host. It has been told to stop, and will when the host lets it.
    Stuck(Worker),
}

/// Where a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// On a thread of its own.
    Thread,
    /// On the thread that calls [`Worker::turn`]. For tests that must repeat exactly.
    Inline,
}

impl Worker {
    /// Puts a device to work. If the host can't (descriptors, threads), the device comes back.
    pub fn start(
        parts: Parts,
        link: &Arc<Link>,
        mode: Mode,
    ) -> Result<Worker, Box<(Parts, Error)>> {
        let Parts { device, mut io } = parts;
        let (signal, poll) = match prepare(link) {
            Ok(prepared) => prepared,
            Err(source) => {
                let what = format!("preparing to wait for {} queues", link.doorbells.len());
                return Err(Box::new((
                    Parts { device, io },
                    Error::Host { what, source },
                )));
            }
        };
        io.attach(poll, Arc::clone(&signal));
        let parts = Parts { device, io };
        let session = Session {
            parts,
            link: Arc::clone(link),
            signal: Arc::clone(&signal),
            ready: Vec::new(),
        };
        let run = match mode {
            Mode::Thread => spawn(session)?,
            Mode::Inline => {
                let mut session = Box::new(session);
                match session.guard(Session::activate) {
                    Some(()) => Run::Inline(session),
                    None => Run::Stopped,
                }
            }
        };
        Ok(Worker {
            signal,
            run,
            asked: None,
        })
    }

    /// Stops the device and returns it with its queues once it is idle, or tells that this can't be
    /// had in time.
    pub fn stop(mut self) -> Stopped {
        self.ask_to_stop();
        self.halt()
    }

    /// Tells the device to stop, without waiting for it. From now on its patience is spent: several
    /// devices can be stopped in the time of one.
    pub fn ask_to_stop(&mut self) {
        self.asked.get_or_insert_with(Instant::now);
        if let Run::Thread(_) = self.run {
            self.signal.send(STOP);
        }
    }

    /// Takes back that the device should stop, if it has not noticed yet. Otherwise it is stopping,
    /// which is waited for again.
    pub fn go_on(mut self) -> Result<Worker, Stopped> {
        self.asked = None;
        let before = self.signal.wanted.fetch_and(!STOP, Ordering::AcqRel);
        if before & STOP != 0 {
            // What it has left for the sake of the stop it takes up again.
            ring(&self.signal.event);
            return Ok(self);
        }
        Err(self.stop())
    }

    /// The driver wrote to the configuration space.
    pub fn config_written(&self) {
        self.signal.send(CONFIG_WRITTEN);
    }

    /// One turn of an inline worker, without waiting. A thread takes its turns itself.
    pub fn turn(&mut self) {
        if let Run::Inline(session) = &mut self.run
            && !session.link.needs_reset()
            && session
                .guard(|session| session.turn(false).map(|_| ()))
                .is_none()
        {
            self.run = Run::Stopped;
        }
    }

    fn halt(mut self) -> Stopped {
        match std::mem::replace(&mut self.run, Run::Stopped) {
            Run::Thread(thread) => {
                let asked = self.asked.unwrap_or_else(Instant::now);
                let left = STOP_PATIENCE.saturating_sub(asked.elapsed());
                match thread.parts.recv_timeout(left) {
                    Ok(parts) => {
                        // It has nothing left to do. It catches its panics.
                        let _ = thread.handle.join();
                        parts.map_or(Stopped::Panicked, |parts| Stopped::Idle(Box::new(parts)))
                    }
                    Err(RecvTimeoutError::Disconnected) => Stopped::Panicked,
                    Err(RecvTimeoutError::Timeout) => {
                        self.run = Run::Thread(thread);
                        Stopped::Stuck(self)
                    }
                }
            }
            Run::Inline(session) => session
                .end()
                .map_or(Stopped::Panicked, |parts| Stopped::Idle(Box::new(parts))),
            Run::Stopped => Stopped::Panicked,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

const STOP: u8 = 1;
const CONFIG_WRITTEN: u8 = 2;

/// How the transport reaches the thread: what it wants, and the event that wakes it.
pub(crate) struct Signal {
    event: EventFd,
    wanted: AtomicU8,
}

impl Signal {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Signal {
            event: event()?,
            wanted: AtomicU8::new(0),
        })
    }

    /// Whether the transport wants a stop, which comes before the next chain.
    pub(crate) fn is_stop_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) & STOP != 0
    }

    fn send(&self, what: u8) {
        self.wanted.fetch_or(what, Ordering::Release);
        ring(&self.event);
    }
}

/// Rings a doorbell.
pub(crate) fn ring(event: &EventFd) {
    // It fails only when the counter is about to overflow, and then it is signalled already.
    let _ = event.write(1);
}

fn event() -> io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
}

fn prepare(link: &Link) -> io::Result<(Arc<Signal>, Poll)> {
    let signal = Signal::new()?;
    let poll = Poll::new()?;
    poll.add_event(Source::Wake, &signal.event)?;
    for (queue, doorbell) in (0..).zip(&link.doorbells) {
        poll.add_event(Source::Doorbell(queue), doorbell)?;
    }
    Ok((Arc::new(signal), poll))
}

fn spawn(session: Session) -> Result<Run, Box<(Parts, Error)>> {
    // What a closure owns is lost when no thread can be had for it; what is in a slot is not.
    let name = session.link.name.clone();
    let slot = Arc::new(Mutex::new(Some(session)));
    let take =
        |slot: &Mutex<Option<Session>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let taken = Arc::clone(&slot);
    let (sender, parts): (SyncSender<Option<Parts>>, _) = sync_channel(1);
    let thread = thread::Builder::new().name(name).spawn(move || {
        let parts = take(&taken).and_then(Session::run);
        // Nobody takes them when the machine has ended meanwhile: then they go with this thread.
        let _ = sender.send(parts);
    });
    match thread {
        Ok(handle) => Ok(Run::Thread(Thread { handle, parts })),
        Err(source) => match take(&slot) {
            Some(mut session) => {
                session.parts.io.detach();
                let what = "starting a thread".to_owned();
                Err(Box::new((session.parts, Error::Host { what, source })))
            }
            None => Ok(Run::Stopped),
        },
    }
}

/// One period of activity of a device.
struct Session {
    parts: Parts,
    link: Arc<Link>,
    signal: Arc<Signal>,
    ready: Vec<Source>,
}

impl Session {
    fn run(mut self) -> Option<Parts> {
        self.guard(|session| {
            session.activate()?;
            while session.turn(true)?.is_continue() {}
            Ok(())
        })?;
        self.end()
    }

    fn activate(&mut self) -> Result<(), Error> {
        self.parts.device.activate(&mut self.parts.io)?;
        self.serve_queues()
    }

    /// Waits, if nothing is to be done, and calls the device for what is.
    fn turn(&mut self, block: bool) -> Result<ControlFlow<()>, Error> {
        let Parts { device, io } = &mut self.parts;
        self.ready.clear();
        io.wait(block, &mut self.ready)
            .map_err(|source| Error::Host {
                what: "waiting for events".to_owned(),
                source,
            })?;
        for source in &self.ready {
            match *source {
                Source::Doorbell(queue) => io.set_due(queue),
                Source::Wake => {
                    let wanted = self.signal.wanted.swap(0, Ordering::Acquire);
                    if wanted & STOP != 0 {
                        return Ok(ControlFlow::Break(()));
                    }
                    if wanted & CONFIG_WRITTEN != 0 {
                        device.handle(Event::ConfigWritten, io)?;
                    }
                }
                // What was handled before may have ended this watch.
                Source::Host(token) if io.interest(token).is_some() => {
                    device.handle(Event::Fd(token), io)?;
                }
                Source::Host(_) => {}
            }
        }
        self.serve_queues()?;
        Ok(ControlFlow::Continue(()))
    }

    fn serve_queues(&mut self) -> Result<(), Error> {
        let Parts { device, io } = &mut self.parts;
        for queue in 0..io.queue_count() {
            if io.take_due(queue) {
                device.handle(Event::Queue(queue), io)?;
            }
        }
        Ok(())
    }

    fn end(mut self) -> Option<Parts> {
        self.guard(|session| session.parts.device.quiesce(&mut session.parts.io))?;
        self.parts.io.detach();
        Some(self.parts)
    }

    fn guard(&mut self, code: impl FnOnce(&mut Self) -> Result<(), Error>) -> Option<()> {
        let link = Arc::clone(&self.link);
        link.settle(|| code(self))
    }
}

/// What a panic said, if it said it in words.
fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => words,
        (_, Some(words)) => words,
        _ => "panic without a message",
    }
}
