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
//! epoll is shared. What they have in common is the [`Link`] and that they stop together. A device
//! whose driver never says `DRIVER_OK` costs no thread and no epoll; neither does a lane whose
//! queues it does not enable, or one that [sleeps](crate::Lane::is_asleep) until another one wakes
//! it (`crew.rs`).
//!
//! Reset, pause and shutdown are all made of [`Worker::stop`]. An event costs one system call (see
//! `poll.rs`); a queue with more chains than one turn takes is served again without sleeping, but
//! other sources get their turn in between. A stop comes before the next chain ([`Io::drain`]): it
//! does not wait for all that is in the ring.
//!
//! # Starting
//!
//! All threads are there before the first lane is activated, and those of lanes that wake together
//! before the first of these: a host that has no more of them gets nothing half done, and everything
//! is handed back as it was.
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

mod crew;
mod link;
mod session;
mod signal;
#[cfg(test)]
mod tests;

pub(crate) use crew::Crew;
pub use link::{Failed, Fault, Link};
pub(crate) use signal::{Signal, ring};

use crate::{Device, Error, Io, Lane, Queue};
use crew::{Halt, Member, Report, State};
use session::Server;
use signal::Wanted;
use std::mem::take;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
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
            let claim = |(number, queue): (u16, &mut Option<Queue>)| {
                claimed.contains(&number).then(|| queue.take()).flatten()
            };
            let own: Vec<_> = (0..).zip(&mut queues).map(claim).collect();
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
    crew: Arc<Crew>,
    reports: Receiver<Report>,
    /// When it was first asked to stop.
    asked: Option<Instant>,
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
        let Parts { device, io, lanes } = parts;
        let (asleep, awake): (Vec<_>, Vec<_>) =
            lanes.into_iter().partition(|(lane, _)| lane.is_asleep());
        let crew = Arc::new(Crew::new(link, mode, sender, asleep));
        let further = awake.iter().map(|(lane, io)| (Some(&**lane), io));
        match crew.prepare(std::iter::once((None, &io)).chain(further)) {
            Ok(ready) => {
                let awake = awake.into_iter().map(|(lane, io)| (Server::Lane(lane), io));
                let all = std::iter::once((Server::Device(device), io)).chain(awake);
                for (part, ready) in all.zip(ready) {
                    crew.begin(part, ready);
                }
                Ok(Worker {
                    crew,
                    reports,
                    asked: None,
                })
            }
            Err(error) => {
                let mut lanes = awake;
                lanes.append(&mut crew.roster().asleep);
                Err(Box::new((Parts { device, io, lanes }, error)))
            }
        }
    }

    /// Stops the device and returns it with its queues once all of it is idle, or tells that this
    /// can't be had in time.
    pub fn stop(mut self) -> Stopped {
        self.ask_to_stop();
        let deadline = self.asked.unwrap_or_else(Instant::now) + STOP_PATIENCE;
        self.crew.each_inline(|session| State::Over(session.end()));
        if !self.wait(deadline, |state| matches!(state, State::Over(_))) {
            return Stopped::Stuck;
        }
        let (members, mut lanes) = {
            let mut roster = self.crew.roster();
            (take(&mut roster.members), take(&mut roster.asleep))
        };
        let mut first = None;
        for member in members {
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
        let mut roster = self.crew.roster();
        roster.halt = Halt::End;
        roster.members.iter_mut().for_each(Member::ask_to_end);
    }

    /// Keeps all lanes from serving, until [`stop`](Self::stop). If that can't be had in time, they
    /// all go on as if nothing had happened: false.
    pub fn park(&mut self) -> bool {
        {
            let mut roster = self.crew.roster();
            roster.halt = Halt::Park;
            for member in &roster.members {
                if member.thread.is_some() {
                    member.signal.send(Wanted::STOP);
                }
            }
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        let parked = self.wait(deadline, |state| !matches!(state, State::Serving));
        if !parked {
            self.crew.roster().go_on(&self.reports);
        }
        parked
    }

    /// The driver wrote to the configuration space.
    pub fn config_written(&self) {
        self.crew.send(Wanted::CONFIG);
    }

    /// One turn of each lane of an inline worker, without waiting. Threads take their turns
    /// themselves.
    pub fn turn(&mut self) {
        self.crew.each_inline(|mut session| match session.look() {
            Some(()) => State::Inline(session),
            None => State::Over(None),
        });
    }

    /// Waits until all lanes are as they should be. False: the time is over.
    fn wait(&mut self, deadline: Instant, is_so: impl Fn(&State) -> bool) -> bool {
        let are_so = |crew: &Crew| {
            let roster = crew.roster();
            roster.members.iter().all(|member| is_so(&member.state))
        };
        while !are_so(&self.crew) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) => self.crew.roster().note(report),
                Err(_) => return false,
            }
        }
        true
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ask_to_stop();
        // Sessions without a thread hold the crew that holds them.
        let members = take(&mut self.crew.roster().members);
        drop(members);
    }
}
