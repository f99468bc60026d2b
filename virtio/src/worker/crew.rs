//! The lanes of an active device: those at work, as the worker knows them, and those asleep.
//!
//! It is shared by the worker, which stops lanes, and by the lanes themselves: one of them that has
//! changed what all have in common [tells](Crew::tell) the others, and so wakes those that have
//! something to do now. A lane that comes while the worker stops them all is told that at once.

use super::Mode;
use super::link::Link;
use super::session::{Part, Server, Session};
use super::signal::{Signal, Wanted};
use crate::poll::{Poll, Source};
use crate::{Error, Io, Lane};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// From a thread: the number of the lane, and what has become of it.
pub(super) type Report = (usize, State);

/// The lanes of an active device.
pub(crate) struct Crew {
    link: Arc<Link>,
    mode: Mode,
    reports: Sender<Report>,
    roster: Mutex<Roster>,
}

/// Who is there.
pub(super) struct Roster {
    /// The lanes at work. A lane's number is its place.
    pub(super) members: Vec<Member>,
    pub(super) asleep: Vec<(Box<dyn Lane>, Io)>,
    pub(super) halt: Halt,
}

/// What the worker wants of all lanes, those included that come later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halt {
    No,
    Park,
    End,
}

/// A lane at work, from outside.
pub(super) struct Member {
    pub(super) signal: Arc<Signal>,
    pub(super) state: State,
    pub(super) thread: Option<Thread>,
}

/// Where a lane is.
pub(super) enum State {
    /// On its thread, or having a turn.
    Serving,
    /// On its thread, which waits for an order.
    Parked,
    /// Here: it has turns when it is given them.
    Inline(Box<Session>),
    /// It has ended. `None`: it panicked.
    Over(Option<Part>),
}

pub(super) struct Thread {
    pub(super) handle: thread::JoinHandle<()>,
    /// Hung up, it tells the thread to end when it is to stop.
    orders: Option<Sender<Order>>,
}

/// What a thread waits for.
enum Order {
    Begin(usize, Box<Session>),
    GoOn,
}

/// What a lane needs of the host.
pub(super) struct Ready {
    signal: Arc<Signal>,
    poll: Poll,
    thread: Option<Thread>,
}

impl Crew {
    /// Nobody at work, and these lanes asleep.
    pub(super) fn new(
        link: &Arc<Link>,
        mode: Mode,
        reports: Sender<Report>,
        asleep: Vec<(Box<dyn Lane>, Io)>,
    ) -> Self {
        Crew {
            link: Arc::clone(link),
            mode,
            reports,
            roster: Mutex::new(Roster {
                members: Vec::new(),
                asleep,
                halt: Halt::No,
            }),
        }
    }

    /// Who is there now. Not to be kept while code of a lane runs.
    pub(super) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets what lanes with these queues need of the host: for all, or for none.
    pub(super) fn prepare<'p>(
        &self,
        lanes: impl Iterator<Item = (Option<&'p dyn Lane>, &'p Io)>,
    ) -> Result<Vec<Ready>, Error> {
        lanes
            .map(|(lane, io)| {
                let name = match lane {
                    None => self.link.name().to_owned(),
                    Some(lane) => format!("{}/{}", self.link.name(), lane.queues().start),
                };
                let (signal, poll) = self.waiting(io).map_err(|source| Error::Host {
                    what: format!("preparing to wait for the queues of {name}"),
                    source,
                })?;
                let thread = match self.mode {
                    Mode::Inline => None,
                    Mode::Thread => {
                        let thread = spawn(name, self.reports.clone());
                        Some(thread.map_err(|source| Error::Host {
                            what: "starting a thread".to_owned(),
                            source,
                        })?)
                    }
                };
                Ok(Ready {
                    signal,
                    poll,
                    thread,
                })
            })
            .collect()
    }

    fn waiting(&self, io: &Io) -> io::Result<(Arc<Signal>, Poll)> {
        let signal = Signal::new()?;
        let poll = Poll::new()?;
        poll.add_event(Source::Wake, signal.event())?;
        for (queue, doorbell) in (0..).zip(self.link.doorbells()) {
            if io.has_queue(queue) {
                poll.add_event(Source::Doorbell(queue), doorbell)?;
            }
        }
        Ok((Arc::new(signal), poll))
    }

    /// Puts a lane to work.
    pub(super) fn begin(self: &Arc<Self>, part: Part, ready: Ready) {
        let Ready {
            signal,
            poll,
            thread,
        } = ready;
        let mut session = Box::new(Session::new(part, &self.link, poll, &signal, self));
        let mut roster = self.roster();
        let number = roster.members.len();
        let mut member = Member {
            signal,
            state: State::Serving,
            thread,
        };
        if let Some(thread) = &member.thread {
            if !thread.order(Order::Begin(number, session)) {
                member.state = State::Over(None);
            }
            match roster.halt {
                Halt::No => {}
                Halt::Park => member.signal.send(Wanted::STOP),
                Halt::End => member.ask_to_end(),
            }
            if self.link.needs_reset() {
                member.signal.send(Wanted::FAILED);
            }
            roster.members.push(member);
        } else {
            roster.members.push(member);
            drop(roster);
            let state = match session.activate() {
                Some(()) => State::Inline(session),
                None => State::Over(None),
            };
            self.roster().note((number, state));
        }
    }

    /// Puts lanes to work that need not sleep any more: all of them, or none.
    fn wake(self: &Arc<Self>) -> Result<(), Error> {
        let is_awake = |(lane, _): &mut (Box<dyn Lane>, Io)| !lane.is_asleep();
        let awake: Vec<_> = {
            let mut roster = self.roster();
            roster.asleep.extract_if(.., is_awake).collect()
        };
        match self.prepare(awake.iter().map(|(lane, io)| (Some(&**lane), io))) {
            Ok(ready) => {
                for ((lane, io), ready) in awake.into_iter().zip(ready) {
                    self.begin((Server::Lane(lane), io), ready);
                }
                Ok(())
            }
            Err(error) => {
                self.roster().asleep.extend(awake);
                Err(error)
            }
        }
    }

    /// Lanes have to look at what they share: all but the one with this signal.
    pub(crate) fn tell(self: &Arc<Self>, but: &Arc<Signal>) -> Result<(), Error> {
        // Those that wake look anyway.
        let awake = self.roster().members.len();
        self.wake()?;
        for member in self.roster().members.iter().take(awake) {
            if !Arc::ptr_eq(&member.signal, but) {
                member.signal.send(Wanted::SHARED);
            }
        }
        Ok(())
    }

    /// Sends all lanes at work the same.
    pub(super) fn send(&self, what: Wanted) {
        for member in &self.roster().members {
            member.signal.send(what);
        }
    }

    /// Has all lanes without a thread do something, those included that come meanwhile.
    pub(super) fn each_inline(&self, mut act: impl FnMut(Box<Session>) -> State) {
        let mut number = 0;
        loop {
            let state = match self.roster().members.get_mut(number) {
                Some(member) => std::mem::replace(&mut member.state, State::Serving),
                None => return,
            };
            let state = match state {
                State::Inline(session) => act(session),
                state => state,
            };
            self.roster().note((number, state));
            number += 1;
        }
    }
}

impl Roster {
    pub(super) fn note(&mut self, (number, state): Report) {
        if let Some(member) = self.members.get_mut(number) {
            member.state = state;
        }
    }

    /// Takes back that lanes should park. Those that say so have not said yet that they have.
    pub(super) fn go_on(&mut self, reports: &Receiver<Report>) {
        self.halt = Halt::No;
        for number in 0..self.members.len() {
            let taken = |member: &Member| !member.signal.withdraw_stop();
            if !self.members.get(number).is_some_and(taken) {
                continue;
            }
            // It has taken it. If it has not said so yet, it is about to: no call comes between, and
            // nothing that waits for this roster.
            while let Some(State::Serving) = self.members.get(number).map(|member| &member.state)
                && let Ok(report) = reports.recv()
            {
                self.note(report);
            }
            if let Some(member) = self.members.get_mut(number) {
                member.go_on();
            }
        }
    }
}

impl Member {
    /// Tells it to end as soon as it can.
    pub(super) fn ask_to_end(&mut self) {
        if let Some(thread) = &mut self.thread {
            thread.orders = None;
            self.signal.send(Wanted::STOP);
        }
    }

    fn go_on(&mut self) {
        if let (State::Parked, Some(thread)) = (&self.state, &self.thread)
            && thread.order(Order::GoOn)
        {
            self.state = State::Serving;
        }
    }
}

impl Thread {
    /// False: it has ended.
    fn order(&self, order: Order) -> bool {
        let orders = self.orders.as_ref();
        orders.is_some_and(|orders| orders.send(order).is_ok())
    }
}

/// A thread that waits for its session. It ends if none comes.
fn spawn(name: String, reports: Sender<Report>) -> io::Result<Thread> {
    let (sender, orders) = channel();
    let handle = thread::Builder::new().name(name).spawn(move || {
        let Ok(Order::Begin(number, session)) = orders.recv() else {
            return;
        };
        // Nobody takes what is left when the machine has ended meanwhile: then it goes with this
        // thread.
        let part = session.run(|| {
            let _ = reports.send((number, State::Parked));
            orders.recv().is_ok()
        });
        let _ = reports.send((number, State::Over(part)));
    })?;
    Ok(Thread {
        handle,
        orders: Some(sender),
    })
}
