//! How a lane's thread is reached while it waits: what is wanted of it, and the event that wakes it.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

bitflags::bitflags! {
    /// What is wanted of a lane.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Wanted: u8 {
        /// It should stop before the next chain.
        const STOP = 1;
        /// It should see what the driver wrote to the configuration space.
        const CONFIG = 2;
        /// It should end: a lane has failed, and with it the device.
        const FAILED = 4;
        /// It should see what another lane has changed of what all share.
        const SHARED = 8;
    }
}

impl Wanted {
    const HALT: Wanted = Wanted::STOP.union(Wanted::FAILED);
}

/// What is wanted, and the event that wakes for it.
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

    /// What wakes the lane.
    pub(super) fn event(&self) -> &EventFd {
        &self.event
    }

    /// Whether the lane is to stop, which comes before the next chain.
    pub(crate) fn is_stop_wanted(&self) -> bool {
        let wanted = Wanted::from_bits_retain(self.wanted.load(Ordering::Relaxed));
        wanted.intersects(Wanted::HALT)
    }

    pub(super) fn send(&self, what: Wanted) {
        self.wanted.fetch_or(what.bits(), Ordering::Release);
        ring(&self.event);
    }

    /// On the lane's side: takes the most urgent of what is wanted, and leaves the rest for when the
    /// lane goes on. So who takes a stop has nothing else to do first.
    pub(super) fn take(&self) -> Wanted {
        [Wanted::FAILED, Wanted::STOP, Wanted::CONFIG, Wanted::SHARED]
            .into_iter()
            .map(|what| self.remove(what))
            .find(|taken| !taken.is_empty())
            .unwrap_or(Wanted::empty())
    }

    /// Takes a stop back. False: the lane has taken it already. In both cases it looks again at
    /// what else is wanted.
    pub(super) fn withdraw_stop(&self) -> bool {
        let withdrawn = !self.remove(Wanted::STOP).is_empty();
        ring(&self.event);
        withdrawn
    }

    /// Whoever removes a wish has it alone.
    fn remove(&self, what: Wanted) -> Wanted {
        let before = self.wanted.fetch_and(!what.bits(), Ordering::AcqRel);
        Wanted::from_bits_retain(before) & what
    }
}

/// Rings a doorbell.
pub(crate) fn ring(event: &EventFd) {
    // It fails only when the counter is about to overflow, and then it is signalled already.
    let _ = event.write(1);
}

pub(super) fn event() -> io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_comes_first_and_what_else_is_wanted_is_not_lost() {
        let signal = Signal::new().unwrap();
        signal.send(Wanted::CONFIG);
        assert!(!signal.is_stop_wanted());
        signal.send(Wanted::STOP);
        assert!(signal.is_stop_wanted());
        assert_eq!(signal.take(), Wanted::STOP);
        assert!(!signal.withdraw_stop(), "it was taken");
        assert_eq!(signal.take(), Wanted::CONFIG);
        assert_eq!(signal.take(), Wanted::empty());
    }

    #[test]
    fn a_stop_that_is_withdrawn_is_not_wanted_but_a_failure_stays() {
        let signal = Signal::new().unwrap();
        signal.send(Wanted::STOP);
        signal.send(Wanted::FAILED);
        assert!(signal.withdraw_stop());
        assert!(signal.is_stop_wanted());
        signal.send(Wanted::STOP);
        assert_eq!(signal.take(), Wanted::FAILED);
        assert!(signal.withdraw_stop(), "nobody has taken it");
    }
}
