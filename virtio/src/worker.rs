//! The threads of an *active* device: they wait, call the device, decide what a failure costs, and
//! hand everything back when they are stopped.
//!
//! ```text
//!   Core                                     one thread per lane, named after the device
//!    | -- start(Parts) ------------------>   activate, then handle(Queue(i)) for each queue
//!    |                                        loop: wait; handle(Queue | Fd | ConfigWritten)
//!    | -- stop() ------------------------>    quiesce
//!    | <-- Parts { device, io, lanes } ---    (joined: nothing touches guest memory any more)
//! ```
//!
//! A device has one lane, itself, unless it [says otherwise](crate::Device::lanes). A lane has
//! some of the queues and a thread (`session.rs`) that knows no other lane: no lock, no queue and no
//! epoll is shared. What they have in common is the [`Link`] and that they start and stop
//! together. A device whose driver never says `DRIVER_OK` costs no thread and no epoll, a lane whose
//! queues it does not enable neither.
//!
//! Reset, pause and shutdown are all made of [`Worker::stop`]. An event costs one system call (see
//! `poll.rs`); a queue with more chains than one turn takes is served again without sleeping, but
//! other sources get their turn in between. A stop comes before the next chain ([`Io::drain`]): it
//! does not wait for all that is in the ring.
//!
//! # Starting
//!
//! All threads are there before the first lane is activated: a host that has no more of them gets
//! nothing half done, and everything is handed back as it was.
//!
//! # A host that does not answer
//!
//! A device may wait for the host inside of a call, as for a file on a network file system, and no
//! call into the host can be taken back. So a stop waits [`STOP_PATIENCE`] and no longer, for
//! all lanes together:
//!
//! - A pause first [parks](Worker::park) all lanes, which undoes nothing. If one can't be had,
//!   the others go on, and so will that one when the host does; the pause is an error.
//! - A reset can't be refused to the driver, nor may it go on while the host may yet write into
//!   its memory: that costs the machine, with an error that names the device.
//! - The end of the machine leaves the thread behind, which keeps what it needs (its lane and
//!   guest memory) until the host answers or the process ends.
//!
//! # Failure
//!
//! [`Link::settle`] decides: an `Err` in a lane costs the device, all lanes of which end and which
//! shows `DEVICE_NEEDS_RESET` until its driver resets it; the machine goes on. A panic is a bug
//! of ours and costs the machine.
//!
//! It does not restart a device, does not limit its rate, and does not move a queue from one thread
//! to another.

mod link;
mod session;
mod signal;
#[cfg(test)]
mod tests;

pub use link::{Failed, Fault, Link};
pub(crate) use signal::{Signal, ring};

use crate::poll::{Poll, Source};
use crate::{Device, Error, Io, Lane, Queue};
use session::{Part, Server, Session};
use signal::Wanted;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a device may take to stop.
pub const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// What moves into a worker, and comes back.
pub struct Parts {
    /// The device.
    pub device: Box<dyn Device>,
    /// Its queues and watches.
    pub io: Io,
    /// Its further lanes, each with its own.
    pub lanes: Vec<(Box<dyn Lane>, Io)>,
}

impl Parts {
    /// A device and its lanes, each with those of the queues that it claims and an `io` for them.
    /// The device has the rest. A lane for which there is nothing is dropped.
    pub fn new(
        device: Box<dyn Device>,
        lanes: Vec<Box<dyn Lane>>,
        mut queues: Vec<Option<Queue>>,
        io: impl Fn(Vec<Option<Queue>>) -> Io,
    ) -> Self {
        let mut busy = Vec::new();
        for lane in lanes {
            let claimed = lane.queues();
            let take = |(number, queue): (u16, &mut Option<Queue>)| {
                claimed.contains(&number).then(|| queue.take()).flatten()
            };
            let own: Vec<_> = (0..).zip(&mut queues).map(take).collect();
            if own.iter().any(Option::is_some) {
                busy.push((lane, io(own)));
            }
        }
        let io = io(queues);
        Parts {
            device,
            io,
            lanes: busy,
        }
    }
}

/// A device at work. Dropping it tells it to stop; only [`Worker::stop`] waits for that.
pub struct Worker {
    /// One for each lane, the device itself first.
    members: Vec<Member>,
    /// From the threads: the number of the lane, and what has become of it.
    reports: Receiver<(usize, State)>,
    /// When it was first asked to stop.
    asked: Option<Instant>,
}

/// A lane, from outside.
struct Member {
    signal: Arc<Signal>,
    state: State,
    thread: Option<Thread>,
}

/// Where a lane is.
enum State {
    /// On its thread.
    Serving,
    /// On its thread, which waits for an order.
    Parked,
    /// Here: it has turns when it is given them.
    Inline(Box<Session>),
    /// It has ended. `None`: it panicked.
    Over(Option<Part>),
}

struct Thread {
    handle: thread::JoinHandle<()>,
    /// Hung up, it tells the thread to end when it is to stop.
    orders: Option<Sender<Order>>,
}

/// What a thread waits for.
enum Order {
    Begin(Box<Session>),
    GoOn,
}

/// How a stop went.
pub enum Stopped {
    /// The device and its queues: no host I/O touches guest memory any more.
    Idle(Box<Parts>),
    /// It panicked; what is left of it is not to be trusted.
    Panicked,
    /// It waits for the host. It has been told to stop, and will when the host lets it.
    Stuck,
}

/// Where a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// On threads of its own, one for each lane.
    Thread,
    /// On the thread that calls [`Worker::turn`]. For tests that must repeat exactly.
    Inline,
}

impl Worker {
    /// Puts a device to work. If the host can't (descriptors, threads), everything comes back as it
    /// was.
    pub fn start(
        parts: Parts,
        link: &Arc<Link>,
        mode: Mode,
    ) -> Result<Worker, Box<(Parts, Error)>> {
        let (sender, reports) = channel();
        let (waits, threads) = match prepare(&parts, link, mode, &sender) {
            Ok(prepared) => prepared,
            Err(error) => return Err(Box::new((parts, error))),
        };
        let (signals, polls): (Vec<_>, Vec<_>) = waits.into_iter().unzip();
        let signals: Arc<[_]> = signals.into();
        let Parts { device, io, lanes } = parts;
        let lanes = lanes.into_iter().map(|(lane, io)| (Server::Lane(lane), io));
        let all = std::iter::once((Server::Device(device), io)).chain(lanes);
        let mut members = Vec::with_capacity(signals.len());
        for (((part, poll), signal), thread) in all.zip(polls).zip(&*signals).zip(threads) {
            let session = Session::new(part, link, poll, signal, &signals);
            members.push(Member::start(Box::new(session), signal, thread));
        }
        Ok(Worker {
            members,
            reports,
            asked: None,
        })
    }

    /// Stops the device and returns it with its queues once all of it is idle, or tells that this
    /// can't be had in time.
    pub fn stop(mut self) -> Stopped {
        self.ask_to_stop();
        let deadline = self.asked.unwrap_or_else(Instant::now) + STOP_PATIENCE;
        for member in &mut self.members {
            member.end_inline();
        }
        if !self.wait(deadline, |state| matches!(state, State::Over(_))) {
            return Stopped::Stuck;
        }
        let (mut first, mut lanes) = (None, Vec::new());
        for member in std::mem::take(&mut self.members) {
            if let Some(thread) = member.thread {
                // It has nothing left to do. It catches its panics.
                let _ = thread.handle.join();
            }
            match member.state {
                State::Over(Some((Server::Device(device), io))) => first = Some((device, io)),
                State::Over(Some((Server::Lane(lane), io))) => lanes.push((lane, io)),
                _ => return Stopped::Panicked,
            }
        }
        match first {
            Some((device, io)) => Stopped::Idle(Box::new(Parts { device, io, lanes })),
            None => Stopped::Panicked,
        }
    }

    /// Tells the device to stop, without waiting for it. From now on its patience is spent: several
    /// devices can be stopped in the time of one.
    pub fn ask_to_stop(&mut self) {
        self.asked.get_or_insert_with(Instant::now);
        for member in &mut self.members {
            if let Some(thread) = &mut member.thread {
                thread.orders = None;
                member.signal.send(Wanted::STOP);
            }
        }
    }

    /// Keeps all lanes from serving, until [`stop`](Self::stop). If that can't be had in time, they
    /// all go on as if nothing had happened: false.
    pub fn park(&mut self) -> bool {
        for member in &self.members {
            if member.thread.is_some() {
                member.signal.send(Wanted::STOP);
            }
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        let parked = self.wait(deadline, |state| !matches!(state, State::Serving));
        if !parked {
            self.go_on();
        }
        parked
    }

    /// Takes back that the lanes should park.
    fn go_on(&mut self) {
        for index in 0..self.members.len() {
            let taken = |member: &Member| !member.signal.withdraw_stop();
            if !self.members.get(index).is_some_and(taken) {
                continue;
            }
            // It has noticed. If it has not said so yet, it is about to.
            while let Some(State::Serving) = self.members.get(index).map(|member| &member.state)
                && let Ok(report) = self.reports.recv()
            {
                self.note(report);
            }
            if let Some(member) = self.members.get_mut(index) {
                member.go_on();
            }
        }
    }

    /// The driver wrote to the configuration space.
    pub fn config_written(&self) {
        for member in &self.members {
            member.signal.send(Wanted::CONFIG);
        }
    }

    /// One turn of each lane of an inline worker, without waiting. Threads take their turns
    /// themselves.
    pub fn turn(&mut self) {
        for member in &mut self.members {
            if let State::Inline(session) = &mut member.state
                && session.look().is_none()
            {
                member.state = State::Over(None);
            }
        }
    }

    /// Waits until all lanes are as they should be. False: the time is over.
    fn wait(&mut self, deadline: Instant, is_so: impl Fn(&State) -> bool) -> bool {
        while !self.members.iter().all(|member| is_so(&member.state)) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) => self.note(report),
                Err(_) => return false,
            }
        }
        true
    }

    fn note(&mut self, (index, state): (usize, State)) {
        if let Some(member) = self.members.get_mut(index) {
            member.state = state;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

impl Member {
    /// Activates a lane, on its thread if it has one.
    fn start(mut session: Box<Session>, signal: &Arc<Signal>, thread: Option<Thread>) -> Self {
        let state = match &thread {
            Some(Thread {
                orders: Some(orders),
                ..
            }) => match orders.send(Order::Begin(session)) {
                Ok(()) => State::Serving,
                Err(_) => State::Over(None),
            },
            _ => match session.activate() {
                Some(()) => State::Inline(session),
                None => State::Over(None),
            },
        };
        Member {
            signal: Arc::clone(signal),
            state,
            thread,
        }
    }

    fn end_inline(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Over(None)) {
            State::Inline(session) => State::Over(session.end()),
            state => state,
        };
    }

    fn go_on(&mut self) {
        if let (State::Parked, Some(thread)) = (&self.state, &self.thread)
            && let Some(orders) = &thread.orders
            && orders.send(Order::GoOn).is_ok()
        {
            self.state = State::Serving;
        }
    }
}

type Wait = (Arc<Signal>, Poll);

/// What the lanes need of the host, before anything is done with them.
fn prepare(
    parts: &Parts,
    link: &Link,
    mode: Mode,
    reports: &Sender<(usize, State)>,
) -> Result<(Vec<Wait>, Vec<Option<Thread>>), Error> {
    let lanes = parts.lanes.iter();
    let names = lanes.clone().map(|(lane, _)| {
        let queue = lane.queues().start;
        format!("{}/{queue}", link.name())
    });
    let waits = std::iter::once(&parts.io)
        .chain(lanes.map(|(_, io)| io))
        .map(|io| waiting(io, link))
        .collect::<Result<_, _>>()
        .map_err(|source| Error::Host {
            what: format!("preparing to wait for {} queues", link.doorbells().len()),
            source,
        })?;
    let threads = std::iter::once(link.name().to_owned())
        .chain(names)
        .enumerate()
        .map(|(index, name)| match mode {
            Mode::Thread => spawn(name, index, reports.clone()).map(Some),
            Mode::Inline => Ok(None),
        })
        .collect::<Result<_, _>>()
        .map_err(|source| Error::Host {
            what: "starting a thread".to_owned(),
            source,
        })?;
    Ok((waits, threads))
}

fn waiting(io: &Io, link: &Link) -> io::Result<Wait> {
    let signal = Signal::new()?;
    let poll = Poll::new()?;
    poll.add_event(Source::Wake, signal.event())?;
    for (queue, doorbell) in (0..).zip(link.doorbells()) {
        if io.has_queue(queue) {
            poll.add_event(Source::Doorbell(queue), doorbell)?;
        }
    }
    Ok((Arc::new(signal), poll))
}

/// A thread that waits for its session. It ends if none comes.
fn spawn(name: String, index: usize, reports: Sender<(usize, State)>) -> io::Result<Thread> {
    let (sender, orders) = channel();
    let handle = thread::Builder::new().name(name).spawn(move || {
        let Ok(Order::Begin(session)) = orders.recv() else {
            return;
        };
        // Nobody takes what is left when the machine has ended meanwhile: then it goes with this
        // thread.
        let part = session.run(|| {
            let _ = reports.send((index, State::Parked));
            orders.recv().is_ok()
        });
        let _ = reports.send((index, State::Over(part)));
    })?;
    Ok(Thread {
        handle,
        orders: Some(sender),
    })
}
