//! One pair of queues and the lane of the host behind it: all that is needed to move frames.
//!
//! ```text
//!   transmit queue --chain--> header checked --> NetBackend::send(header, slices of the chain)
//!   receive queue  --chains-> Window <---------- NetBackend::receive(header, slices of the window)
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

use super::Counters;
use super::backend::{NetBackend, Refusal};
use super::filter::Filter;
use super::header::{HEADER_LEN, Header, Offloads};
use super::window::Window;
use crate::io::Interest;
use crate::slices::Slices;
use crate::{Chain, Error, Io, Step};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use vm_memory::VolatileSlice;

/// How long one side may keep the other one waiting.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// Ethernet's header: two addresses and a type.
pub(super) const ETHERNET: usize = 14;
/// The tag of a VLAN may be added to that.
const VLAN: usize = 4;
/// The longest frame there is: a packet of 64 KiB to be segmented (5.1.6.3.1).
pub(super) const MAX_FRAME: usize = 65_536 + ETHERNET + VLAN;

/// How many frames are received in one turn.
const BURST: u32 = 64;
/// How often in a row there has to be another frame until it is looked for more than one at a time:
/// that look is a system call that a single frame does not need.
const STREAK: u32 = 8;

/// What holds for all pairs of a card.
pub(super) struct Settings {
    pub(super) filter: Filter,
    /// What the driver may leave to us.
    pub(super) from_driver: Offloads,
    /// What we may leave to the driver.
    pub(super) to_driver: Offloads,
    /// Whether a received frame may be spread over chains.
    pub(super) mergeable: bool,
    /// The longest packet, if frames are not segmented.
    pub(super) mtu: u16,
}

impl Settings {
    /// The longest frame that is to be expected.
    fn largest(&self) -> usize {
        if self.to_driver.intersects(Offloads::TSO4 | Offloads::TSO6) {
            MAX_FRAME
        } else {
            usize::from(self.mtu) + ETHERNET + VLAN
        }
    }
}

/// Whether frames can pass the host's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    /// It tells when it is up again.
    Down,
    /// For good.
    Gone,
}

/// How frames go to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// It took no more; the ring waits for it.
    Blocked,
    /// It has not taken any for too long.
    Dropping,
}

/// How much room the driver gives for frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// For any frame.
    Ample,
    /// Less, and more is waited for.
    Scarce,
    /// Less, and it has to do.
    Accepted,
}

/// A pair of queues, with what is behind them.
pub(super) struct Pair {
    number: u16,
    backend: Box<dyn NetBackend>,
    enabled: bool,
    link: Link,
    flow: Flow,
    room: Room,
    window: Window,
    slices: Slices,
    timer: Option<OwnedFd>,
    /// How many turns in a row have left frames behind.
    streak: u32,
    /// Failures that may still be logged.
    complaints: u32,
}

impl Pair {
    pub(super) fn new(number: u16, backend: Box<dyn NetBackend>) -> Self {
        Pair {
            number,
            backend,
            enabled: false,
            link: Link::Up,
            flow: Flow::Open,
            room: Room::Ample,
            window: Window::new(),
            slices: Slices::with_capacity(crate::sys::MAX_BUFFERS),
            timer: None,
            streak: 0,
            complaints: 10,
        }
    }

    /// The queue that frames are received on.
    fn receiveq(&self) -> u16 {
        2 * self.number
    }

    /// The queue that frames are sent on.
    fn transmitq(&self) -> u16 {
        2 * self.number + 1
    }

    /// The watch token of the backend; the timer's is the next.
    fn token(&self) -> u32 {
        2 * u32::from(self.number)
    }

    /// Whether the host's side is up, or nobody minds.
    pub(super) fn is_up(&self) -> bool {
        !self.enabled || self.link == Link::Up
    }

    /// The driver has taken its buffers back.
    pub(super) fn reset(&mut self) {
        self.window.clear();
        self.enabled = false;
    }

    /// The driver is ready, or the machine goes on.
    pub(super) fn activate(&mut self, io: &mut Io) -> Result<(), Error> {
        let timer = match self.timer.take() {
            Some(timer) => timer,
            None => timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
            )
            .map_err(|error| Error::Host {
                what: "making a timer".to_owned(),
                source: error.into(),
            })?,
        };
        self.flow = Flow::Open;
        self.room = Room::Ample;
        let token = self.token() + 1;
        let timer = self.timer.insert(timer);
        io.watch(token, timer.as_fd(), Interest::READ)
    }

    /// Nothing is listened to any more. Buffers are kept.
    pub(super) fn quiesce(&mut self, io: &mut Io) {
        io.unwatch(self.token());
        io.unwatch(self.token() + 1);
    }

    /// Tells the host which frames the driver takes.
    pub(super) fn set_offloads(&mut self, accepted: Offloads) {
        if self.link != Link::Gone
            && let Err(error) = self.backend.set_offloads(accepted)
        {
            self.lose(error);
        }
    }

    /// Makes use of the pair, or not any more.
    pub(super) fn enable(&mut self, enabled: bool, io: &mut Io) -> Result<(), Error> {
        if self.link != Link::Gone
            && let Err(error) = self.backend.enable(enabled)
        {
            self.lose(error);
        }
        self.enabled = enabled;
        self.watch(io)
    }

    /// Buffers to receive into.
    pub(super) fn receive_event(&mut self, io: &mut Io, world: &World<'_>) -> Result<(), Error> {
        if self.enabled {
            self.receive(io, world, false)?;
            self.watch(io)?;
        }
        Ok(())
    }

    /// Frames to send.
    pub(super) fn transmit_event(&mut self, io: &mut Io, world: &World<'_>) -> Result<(), Error> {
        if self.enabled {
            self.transmit(io, world)?;
            self.watch(io)?;
        }
        Ok(())
    }

    /// The host has something to say.
    pub(super) fn host_event(&mut self, io: &mut Io, world: &World<'_>) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        if self.link == Link::Down || self.flow != Flow::Open {
            let now = self.readiness();
            if now.intersects(PollFlags::OUT) {
                self.link = Link::Up;
                self.flow = Flow::Open;
                self.transmit(io, world)?;
            }
            self.look_for_the_end(now);
        }
        self.receive(io, world, true)?;
        self.watch(io)
    }

    /// Nobody has come in time.
    pub(super) fn timer_event(&mut self, io: &mut Io, world: &World<'_>) -> Result<(), Error> {
        let Some(timer) = &self.timer else {
            return Ok(());
        };
        // Only to make it unreadable; it fails if the time has not come.
        if rustix::io::read(timer, &mut [0; 8]).is_err() || !self.enabled {
            return Ok(());
        }
        if self.flow == Flow::Blocked {
            self.flow = Flow::Dropping;
            self.transmit(io, world)?;
        }
        if self.room == Room::Scarce {
            self.room = Room::Accepted;
            self.receive(io, world, false)?;
        }
        self.watch(io)
    }

    fn transmit(&mut self, io: &mut Io, world: &World<'_>) -> Result<(), Error> {
        if self.flow == Flow::Blocked {
            return Ok(());
        }
        let queue = self.transmitq();
        io.drain(queue, |chain| {
            if self.link != Link::Up || self.flow == Flow::Dropping {
                world.counters.drop_sent();
                return Ok(Step::Done(0));
            }
            Ok(self.send(chain, world))
        })?;
        if self.flow == Flow::Open && self.link == Link::Up {
            self.flush();
        }
        if self.flow == Flow::Blocked {
            self.start_timer()?;
        }
        Ok(())
    }

    /// Has the host go on with what it took.
    fn flush(&mut self) {
        match self.backend.flush() {
            Ok(()) => {}
            Err(Refusal::Busy) => self.flow = Flow::Blocked,
            Err(refusal) => self.take(refusal),
        }
    }

    /// Sends one frame, or drops it.
    fn send(&mut self, chain: &mut Chain<'_>, world: &World<'_>) -> Step {
        let mut reader = chain.reader();
        let mut bytes = [0; HEADER_LEN];
        let header = match reader.read_exact(&mut bytes) {
            Ok(()) => Header::from_bytes(bytes),
            Err(_) => {
                world.counters.drop_sent();
                return Step::Done(0);
            }
        };
        let len = reader.remaining();
        let header = match header.checked(len, world.settings.from_driver) {
            Some(header) if (ETHERNET..=MAX_FRAME).contains(&len) => header,
            _ => {
                world.counters.drop_sent();
                return Step::Done(0);
            }
        };
        let backend = &mut self.backend;
        let sent = self.slices.lend(reader.slices(), u32::MAX, |frame| {
            backend.send(&header, frame)
        });
        match sent {
            Ok(()) => world.counters.sent(),
            Err(Refusal::Busy) => {
                self.flow = Flow::Blocked;
                return Step::Stop;
            }
            Err(refusal) => {
                world.counters.drop_sent();
                self.take(refusal);
            }
        }
        Step::Done(0)
    }

    /// Receives frames while there are any, there is room, and it is this pair's turn. `called`: the
    /// host says that there is something.
    fn receive(&mut self, io: &mut Io, world: &World<'_>, called: bool) -> Result<(), Error> {
        let queue = self.receiveq();
        let burst = if self.streak < STREAK { 1 } else { BURST };
        let mut received = 0;
        // The driver is told at the end of what it gets, and of what is given back unused.
        while (received < burst || self.backend.is_pending())
            && self.link != Link::Gone
            && self.make_room(io, world)?
        {
            match self.receive_one(io, world) {
                Ok(true) => received += 1,
                // Those that nobody wants take time too.
                Ok(false) => received += 1,
                Err(Failure::Device(error)) => return Err(error),
                Err(Failure::Host(Refusal::Lost(_))) => {
                    world.counters.drop_received();
                    received += 1;
                }
                Err(Failure::Host(Refusal::Busy)) => break,
                Err(Failure::Host(refusal)) => self.take(refusal),
            }
            if self.link == Link::Down {
                break;
            }
        }
        // For the next one: whether the host is listened to depends on that, and with chains left in
        // the ring the driver does not ring.
        self.make_room(io, world)?;
        io.interrupt(queue)?;
        if received == 0 && called && self.link == Link::Up {
            // What has called us may be an end that reads don't tell.
            let now = self.readiness();
            self.look_for_the_end(now);
        }
        self.streak = match received {
            0 | 1 if burst > 1 => 0,
            _ if received == burst => self.streak.saturating_add(1),
            0 => 0,
            _ => self.streak,
        };
        Ok(())
    }

    /// Takes chains until a frame has room. Tells whether the next one is to be read now.
    fn make_room(&mut self, io: &mut Io, world: &World<'_>) -> Result<bool, Error> {
        let largest = world.settings.largest();
        let mergeable = world.settings.mergeable;
        let window = &mut self.window;
        if !window.has_room(largest, mergeable) {
            io.take(2 * self.number, |chain| {
                // Some to spare: this drain writes to the ring each time.
                if window.has_room(2 * largest, mergeable) {
                    return Ok(Step::Stop);
                }
                if (chain.writable_len() as usize) < HEADER_LEN {
                    return Ok(Step::Done(0));
                }
                window.add(chain);
                Ok(Step::Later)
            })?;
        }
        if self.window.has_room(largest, mergeable) {
            self.room = Room::Ample;
        } else if self.window.is_empty() {
            return Ok(false);
        } else if self.room == Room::Ample {
            self.room = Room::Scarce;
            self.start_timer()?;
        }
        Ok(self.room != Room::Scarce)
    }

    /// Receives one frame. Tells whether the driver gets it.
    fn receive_one(&mut self, io: &mut Io, world: &World<'_>) -> Result<bool, Failure> {
        let Settings {
            filter,
            to_driver,
            mergeable,
            ..
        } = world.settings;
        let mut header = Header::default();
        let backend = &mut self.backend;
        let read = |room: &[VolatileSlice<'_>]| backend.receive(&mut header, room);
        let len = self
            .window
            .read(io.memory(), *mergeable, &mut self.slices, read)
            .map_err(Failure::Host)?;
        let chains = self.window.chains_for(len, *mergeable);
        let is_frame = (ETHERNET..=MAX_FRAME).contains(&len);
        let (Some(chains), Some(mut header), true) =
            (chains, header.accepted(*to_driver), is_frame)
        else {
            world.counters.drop_received();
            return Ok(false);
        };
        if !filter.is_open() {
            let to = self.window.destination(io.memory());
            if !to.is_some_and(|to| filter.passes(to)) {
                return Ok(false);
            }
        }
        header.num_buffers = chains;
        self.window
            .write_header(io.memory(), header)
            .and_then(|()| io.complete_together(self.receiveq(), self.window.take(len)))
            .map_err(Failure::Device)?;
        world.counters.received();
        Ok(true)
    }

    /// Waits for what this pair can go on with.
    fn watch(&mut self, io: &mut Io) -> Result<(), Error> {
        let mut interest = Interest::empty();
        if self.enabled && self.link != Link::Gone {
            let wants = match self.room {
                Room::Ample | Room::Accepted => !self.window.is_empty(),
                Room::Scarce => false,
            };
            interest.set(Interest::READ, wants);
            let wants = self.link == Link::Down || self.flow != Flow::Open;
            interest.set(Interest::WRITE, wants);
        }
        if interest.is_empty() {
            io.unwatch(self.token());
            return Ok(());
        }
        io.watch(self.token(), self.backend.descriptor(), interest)
    }

    fn start_timer(&self) -> Result<(), Error> {
        let set = || {
            let timer = self.timer.as_ref().ok_or(io::ErrorKind::NotFound)?;
            let once = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec::try_from(PATIENCE).map_err(io::Error::other)?,
            };
            timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
            Ok(())
        };
        set().map_err(|source| Error::Host {
            what: "setting a timer".to_owned(),
            source,
        })
    }

    /// What the host's descriptor has to say right now.
    fn readiness(&self) -> PollFlags {
        let descriptor = self.backend.descriptor();
        let mut asked = [PollFd::new(&descriptor, PollFlags::IN | PollFlags::OUT)];
        let at_once = Timespec::default();
        match poll(&mut asked, Some(&at_once)) {
            Ok(_) => asked
                .iter()
                .fold(PollFlags::empty(), |all, one| all | one.revents()),
            Err(_) => PollFlags::empty(),
        }
    }

    /// A descriptor that is done would call us for ever.
    fn look_for_the_end(&mut self, now: PollFlags) {
        let over = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        if now.intersects(over) && self.link != Link::Gone {
            self.lose(io::ErrorKind::BrokenPipe.into());
        }
    }

    /// Decides what a refusal means for the link.
    fn take(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Busy => {}
            Refusal::Lost(error) => self.complain("a frame is lost", &error),
            Refusal::Down => self.link = Link::Down,
            Refusal::Gone(error) => self.lose(error),
        }
    }

    fn lose(&mut self, error: io::Error) {
        self.link = Link::Gone;
        self.complain("the link is down for good", &error);
    }

    fn complain(&mut self, what: &str, error: &io::Error) {
        if self.complaints > 0 {
            self.complaints -= 1;
            log::warn!("net, pair {}: {what}: {error}", self.number);
        }
    }
}

/// The pair that a watch token belongs to, and whether it is that of its timer.
pub(super) fn of_token(token: u32) -> (u16, bool) {
    ((token / 2) as u16, token % 2 == 1)
}

/// Why a frame was not received.
enum Failure {
    Host(Refusal),
    Device(Error),
}

/// What a pair looks at and does not have.
pub(super) struct World<'a> {
    pub(super) settings: &'a Settings,
    pub(super) counters: &'a Counters,
}
