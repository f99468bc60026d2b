//! One pair of queues and the lane of the host behind it: all that is needed to move frames.
//!
//! ```text
//!   transmitq --chain--> header checked --> NetBackend::send(header, slices of the chain)
//!   receiveq  --chains-> Window <---------- NetBackend::receive(header, slices of the window)
//! ```
//!
//! # When a side does not keep up
//!
//! - The driver has no buffers: the host is not listened to any more, and keeps or drops frames
//!   as it likes. This costs no processor time, and goes on when the driver gives buffers.
//! - The driver has few buffers: a frame of 64 KiB may not fit, and how long the next one is
//!   nobody knows. More buffers are waited for, [`PATIENCE`] long. Then what doesn't fit is dropped.
//! - The host takes no frames: they are left in the ring [`PATIENCE`] long, so that a burst is no
//!   loss; TCP behind a stream of 64 KiB segments would suffer. Then frames are dropped until there is room:
//!   whoever sends in the guest must not wait for a host that has stopped.
//! - The host's link is down or gone: frames are dropped, and the driver reads that in the status.

mod host;
mod receiveq;
mod transmitq;

use super::backend::NetBackend;
use super::card::Settings;
use super::counters::PairCounters;
use crate::io::Interest;
use crate::{Error, Event, Io};
use host::{Host, Link};
use receiveq::Receiveq;
use rustix::event::PollFlags;
use std::sync::Arc;
use std::time::Duration;
use transmitq::{Flow, Transmitq};

/// How long one side may keep the other one waiting.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// Ethernet's header: two addresses and a type.
const ETHERNET: usize = 14;
/// The most that is in front of a packet: the tag of a VLAN may be added to that.
pub(super) const MAX_HEADER: usize = ETHERNET + 4;
/// The longest frame there is: a packet of 64 KiB to be segmented (5.1.6.3.1).
pub(super) const MAX_FRAME: usize = 65_536 + MAX_HEADER;

/// The token under which the host's descriptor is watched.
pub(super) const HOST: u32 = 0;
/// The token of the timer.
pub(super) const TIMER: u32 = 1;

/// A pair of queues, with what is behind them.
pub(super) struct Pair {
    number: u16,
    enabled: bool,
    settings: Arc<Settings>,
    host: Host,
    receiveq: Receiveq,
    transmitq: Transmitq,
}

impl Pair {
    pub(super) fn new(
        number: u16,
        backend: Box<dyn NetBackend>,
        settings: Arc<Settings>,
        counters: Arc<PairCounters>,
    ) -> Self {
        Pair {
            number,
            enabled: false,
            settings,
            host: Host::new(number, backend, counters),
            receiveq: Receiveq::new(2 * number),
            transmitq: Transmitq::new(2 * number + 1),
        }
    }

    /// Those that it follows.
    pub(super) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Whether the host's side is up.
    pub(super) fn is_up(&self) -> bool {
        self.host.link == Link::Up
    }

    /// The driver has taken its buffers back.
    pub(super) fn reset(&mut self) {
        self.receiveq.reset();
        self.enabled = false;
    }

    /// The driver is ready, or the machine goes on. What the driver does not use is switched off.
    pub(super) fn activate(&mut self, settings: Arc<Settings>, io: &mut Io) -> Result<(), Error> {
        self.host.watch_timer(io)?;
        self.receiveq.activate();
        self.transmitq.activate();
        self.enabled = self.number < settings.in_use;
        self.host.enable(self.enabled);
        if self.enabled {
            self.host.set_offloads(settings.to_driver);
        }
        self.settings = settings;
        self.watch(io)
    }

    /// Nobody serves it. Unless the driver uses it, no frame is to get lost here.
    pub(super) fn leave_unused(&mut self, settings: &Settings) {
        if self.number >= settings.in_use {
            self.host.enable(false);
        }
    }

    /// Nothing is listened to any more. Buffers are kept: they hold nothing, and nothing is written
    /// to them meanwhile.
    pub(super) fn quiesce(&mut self, io: &mut Io) {
        io.unwatch(HOST);
        io.unwatch(TIMER);
    }

    /// The driver has ordered something.
    pub(super) fn follow(&mut self, settings: Arc<Settings>, io: &mut Io) -> Result<(), Error> {
        let before = (self.enabled, self.settings.to_driver);
        let now = (self.number < settings.in_use, settings.to_driver);
        self.settings = settings;
        self.enabled = now.0;
        if before.0 != now.0 {
            self.host.enable(now.0);
        }
        if now.0 && before != now {
            self.host.set_offloads(now.1);
        }
        if now.0 && !before.0 {
            // What the driver has put there before is not announced again.
            self.receive(io, false)?;
            self.transmit(io)?;
        }
        self.watch(io)
    }

    pub(super) fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error> {
        match event {
            Event::Fd(TIMER) => self.timer_event(io)?,
            _ if !self.enabled => return Ok(()),
            Event::Fd(HOST) => self.host_event(io)?,
            Event::Queue(queue) if queue == self.receiveq.queue() => self.receive(io, false)?,
            Event::Queue(queue) if queue == self.transmitq.queue() => self.transmit(io)?,
            _ => return Ok(()),
        }
        self.watch(io)
    }

    /// The host has something to say.
    fn host_event(&mut self, io: &mut Io) -> Result<(), Error> {
        if self.host.link == Link::Down || self.transmitq.flow != Flow::Open {
            let now = self.host.readiness();
            if now.intersects(PollFlags::OUT) {
                self.host.link = Link::Up;
                self.transmitq.flow = Flow::Open;
                self.transmit(io)?;
            }
            self.host.look_for_the_end(now);
        }
        self.receive(io, true)
    }

    /// Nobody has come in time.
    fn timer_event(&mut self, io: &mut Io) -> Result<(), Error> {
        if !self.host.is_time_over() || !self.enabled {
            return Ok(());
        }
        if self.transmitq.give_up() {
            self.transmit(io)?;
        }
        if self.receiveq.give_up() {
            self.receive(io, false)?;
        }
        Ok(())
    }

    fn transmit(&mut self, io: &mut Io) -> Result<(), Error> {
        self.transmitq.transmit(&mut self.host, &self.settings, io)
    }

    /// `called`: the host says that there is something.
    fn receive(&mut self, io: &mut Io, called: bool) -> Result<(), Error> {
        self.receiveq
            .receive(&mut self.host, &self.settings, io, called)
    }

    /// Waits for what this pair can go on with.
    fn watch(&mut self, io: &mut Io) -> Result<(), Error> {
        let mut interest = Interest::empty();
        if self.enabled && self.host.link != Link::Gone {
            interest.set(Interest::READ, self.receiveq.has_room());
            let wants = self.host.link == Link::Down || self.transmitq.flow != Flow::Open;
            interest.set(Interest::WRITE, wants);
        }
        if interest.is_empty() {
            io.unwatch(HOST);
            return Ok(());
        }
        io.watch(HOST, self.host.backend.descriptor(), interest)
    }
}
