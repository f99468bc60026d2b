//! The host's side of a pair, as both of its queues see it.

use super::super::backend::{NetBackend, Refusal};
use super::super::counters::PairCounters;
use super::super::header::Offloads;
use super::{PATIENCE, TIMER};
use crate::io::Interest;
use crate::slices::Slices;
use crate::{Error, Io};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// How many failures of one pair are logged.
const COMPLAINTS: u32 = 10;

/// Whether frames can pass the host's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// It tells when it is up again.
    Down,
    /// For good.
    Gone,
}

/// The host's side.
pub(super) struct Host {
    number: u16,
    pub(super) backend: Box<dyn NetBackend>,
    pub(super) link: Link,
    pub(super) counters: Arc<PairCounters>,
    /// What a frame is made of during a call.
    pub(super) slices: Slices,
    timer: Option<OwnedFd>,
    /// Failures that may still be logged.
    complaints: u32,
}

impl Host {
    pub(super) fn new(
        number: u16,
        backend: Box<dyn NetBackend>,
        counters: Arc<PairCounters>,
    ) -> Self {
        Host {
            number,
            backend,
            link: Link::Up,
            counters,
            slices: Slices::with_capacity(crate::sys::MAX_BUFFERS),
            timer: None,
            complaints: COMPLAINTS,
        }
    }

    /// Tells the host which frames the driver takes.
    pub(super) fn set_offloads(&mut self, accepted: Offloads) {
        if self.link != Link::Gone
            && let Err(error) = self.backend.set_offloads(accepted)
        {
            self.lose(error);
        }
    }

    /// Tells the host whether frames may come this way.
    pub(super) fn enable(&mut self, enabled: bool) {
        if self.link != Link::Gone
            && let Err(error) = self.backend.enable(enabled)
        {
            self.lose(error);
        }
    }

    /// From now on the timer calls.
    pub(super) fn watch_timer(&mut self, io: &mut Io) -> Result<(), Error> {
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
        let timer = self.timer.insert(timer);
        io.watch(TIMER, timer.as_fd(), Interest::READ)
    }

    /// Has the timer call once [`PATIENCE`] is at its end.
    pub(super) fn start_timer(&self) -> Result<(), Error> {
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

    /// Whether the timer has called with reason. It does not call again then.
    pub(super) fn is_time_over(&self) -> bool {
        let timer = self.timer.as_ref();
        timer.is_some_and(|timer| rustix::io::read(timer, &mut [0; 8]).is_ok())
    }

    /// What the host's descriptor has to say right now.
    pub(super) fn readiness(&self) -> PollFlags {
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
    pub(super) fn look_for_the_end(&mut self, now: PollFlags) {
        let over = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        if now.intersects(over) && self.link != Link::Gone {
            self.lose(io::ErrorKind::BrokenPipe.into());
        }
    }

    /// Decides what a refusal means for the link.
    pub(super) fn take(&mut self, refusal: Refusal) {
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
