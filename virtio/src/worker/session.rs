//! One lane's period of activity, from `activate` to `quiesce`: waits, and calls for what is.

use super::crew::Crew;
use super::link::Link;
use super::signal::{Signal, Wanted};
use crate::poll::{Poll, Source};
use crate::{Device, Error, Event, Io, Lane};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Who serves the queues of a lane.
pub(super) enum Server {
    /// The first lane: the device itself.
    Device(Box<dyn Device>),
    /// A further one.
    Lane(Box<dyn Lane>),
}

impl Server {
    fn activate(&mut self, io: &mut Io) -> Result<(), Error> {
        match self {
            Server::Device(device) => device.activate(io),
            Server::Lane(lane) => lane.activate(io),
        }
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error> {
        match self {
            Server::Device(device) => device.handle(event, io),
            Server::Lane(lane) => lane.handle(event, io),
        }
    }

    fn quiesce(&mut self, io: &mut Io) -> Result<(), Error> {
        match self {
            Server::Device(device) => device.quiesce(io),
            Server::Lane(lane) => lane.quiesce(io),
        }
    }
}

/// What goes into a session, and comes out of it.
pub(super) type Part = (Server, Io);

/// How a lane came to stop serving.
enum Halt {
    /// It was asked to.
    Stopped,
    /// Another one has failed.
    Failed,
}

/// One lane at work.
pub(super) struct Session {
    server: Server,
    io: Io,
    link: Arc<Link>,
    signal: Arc<Signal>,
    crew: Arc<Crew>,
    ready: Vec<Source>,
}

impl Session {
    /// A session that waits by means of `poll`, where the signal and the doorbells are.
    pub(super) fn new(
        (server, mut io): Part,
        link: &Arc<Link>,
        poll: Poll,
        signal: &Arc<Signal>,
        crew: &Arc<Crew>,
    ) -> Self {
        io.attach(poll, Arc::clone(signal));
        io.join(Arc::clone(crew));
        Session {
            server,
            io,
            link: Arc::clone(link),
            signal: Arc::clone(signal),
            crew: Arc::clone(crew),
            ready: Vec::new(),
        }
    }

    /// Serves until it should end. At a stop, `go_on` is asked: it may take its time.
    pub(super) fn run(mut self, mut go_on: impl FnMut() -> bool) -> Option<Part> {
        self.guard(|session| {
            session.begin()?;
            loop {
                match session.turn(true)? {
                    ControlFlow::Continue(()) => {}
                    // Doorbells may have been rung together with the stop.
                    ControlFlow::Break(Halt::Stopped) if go_on() => session.io.set_all_due(),
                    ControlFlow::Break(_) => return Ok(()),
                }
            }
        })?;
        self.end()
    }

    /// Activates the lane.
    pub(super) fn activate(&mut self) -> Option<()> {
        self.guard(Session::begin)
    }

    /// Does what there is to be done, without waiting.
    pub(super) fn look(&mut self) -> Option<()> {
        match self.link.needs_reset() {
            true => Some(()),
            false => self.guard(|session| session.turn(false).map(|_| ())),
        }
    }

    /// Ends what the host may be doing, and all watches.
    pub(super) fn end(mut self) -> Option<Part> {
        self.guard(|session| session.server.quiesce(&mut session.io))?;
        self.io.detach();
        Some((self.server, self.io))
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.server.activate(&mut self.io)?;
        self.serve_queues()
    }

    /// Waits, if nothing is to be done, and calls the device for what is.
    fn turn(&mut self, block: bool) -> Result<ControlFlow<Halt>, Error> {
        let Session { server, io, .. } = self;
        self.ready.clear();
        io.wait(block, &mut self.ready)
            .map_err(|source| Error::Host {
                what: "waiting for events".to_owned(),
                source,
            })?;
        for source in &self.ready {
            match *source {
                Source::Doorbell(queue) => io.set_due(queue),
                // There may be several things, and the event tells once.
                Source::Wake => loop {
                    match self.signal.take() {
                        Wanted::FAILED => return Ok(ControlFlow::Break(Halt::Failed)),
                        Wanted::STOP => return Ok(ControlFlow::Break(Halt::Stopped)),
                        Wanted::CONFIG => server.handle(Event::ConfigWritten, io)?,
                        Wanted::SHARED => server.handle(Event::Shared, io)?,
                        _ => break,
                    }
                },
                // What was handled before may have ended this watch.
                Source::Host(token) if io.interest(token).is_some() => {
                    server.handle(Event::Fd(token), io)?;
                }
                Source::Host(_) => {}
            }
        }
        self.serve_queues()?;
        Ok(ControlFlow::Continue(()))
    }

    fn serve_queues(&mut self) -> Result<(), Error> {
        let Session { server, io, .. } = self;
        for queue in 0..io.queue_count() {
            if io.take_due(queue) {
                server.handle(Event::Queue(queue), io)?;
            }
        }
        Ok(())
    }

    /// Runs code of the lane. What its failure costs it costs all lanes.
    fn guard(&mut self, code: impl FnOnce(&mut Self) -> Result<(), Error>) -> Option<()> {
        let link = Arc::clone(&self.link);
        let settled = link.settle(|| code(self));
        if link.needs_reset() {
            self.crew.send(Wanted::FAILED);
        }
        settled
    }
}
