//! The transmit half of a pair (virtio 1.2, 5.1.6.2).

use super::super::backend::Refusal;
use super::super::card::Settings;
use super::super::header::{HEADER_LEN, Header};
use super::host::{Host, Link};
use super::{ETHERNET, MAX_FRAME};
use crate::{Chain, Error, Io, Step};

/// How frames go to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Open,
    /// It took no more; the ring waits for it.
    Blocked,
    /// It has not taken any for too long.
    Dropping,
}

/// The queue that frames are sent on.
pub(super) struct Transmitq {
    queue: u16,
    pub(super) flow: Flow,
}

impl Transmitq {
    pub(super) fn new(queue: u16) -> Self {
        Transmitq {
            queue,
            flow: Flow::Open,
        }
    }

    pub(super) fn queue(&self) -> u16 {
        self.queue
    }

    /// The host is tried again.
    pub(super) fn activate(&mut self) {
        self.flow = Flow::Open;
    }

    /// The host has been waited for long enough, if it was.
    pub(super) fn give_up(&mut self) -> bool {
        let waited = self.flow == Flow::Blocked;
        if waited {
            self.flow = Flow::Dropping;
        }
        waited
    }

    /// Sends or drops what is in the ring, unless the host is waited for.
    pub(super) fn transmit(
        &mut self,
        host: &mut Host,
        settings: &Settings,
        io: &mut Io,
    ) -> Result<(), Error> {
        if self.flow == Flow::Blocked {
            return Ok(());
        }
        io.drain(self.queue, |chain| {
            if host.link != Link::Up || self.flow == Flow::Dropping {
                host.counters.drop_sent();
                return Ok(Step::Done(0));
            }
            Ok(self.send(chain, host, settings))
        })?;
        if self.flow == Flow::Open && host.link == Link::Up {
            self.flush(host);
        }
        if self.flow == Flow::Blocked {
            host.start_timer()?;
        }
        Ok(())
    }

    /// Has the host go on with what it took.
    fn flush(&mut self, host: &mut Host) {
        match host.backend.flush() {
            Ok(()) => {}
            Err(Refusal::Busy) => self.flow = Flow::Blocked,
            Err(refusal) => host.take(refusal),
        }
    }

    /// Sends one frame, or drops it.
    fn send(&mut self, chain: &mut Chain<'_>, host: &mut Host, settings: &Settings) -> Step {
        let mut reader = chain.reader();
        let mut bytes = [0; HEADER_LEN];
        let header = match reader.read_exact(&mut bytes) {
            Ok(()) => Header::from_bytes(bytes),
            Err(_) => {
                host.counters.drop_sent();
                return Step::Done(0);
            }
        };
        let len = reader.remaining();
        let header = match header.checked(len, settings.from_driver) {
            Some(header) if (ETHERNET..=MAX_FRAME).contains(&len) => header,
            _ => {
                host.counters.drop_sent();
                return Step::Done(0);
            }
        };
        let backend = &mut host.backend;
        let sent = host.slices.lend(reader.slices(), u32::MAX, |frame| {
            backend.send(&header, frame)
        });
        match sent {
            Ok(()) => host.counters.sent(),
            Err(Refusal::Busy) => {
                self.flow = Flow::Blocked;
                return Step::Stop;
            }
            Err(refusal) => {
                host.counters.drop_sent();
                host.take(refusal);
            }
        }
        Step::Done(0)
    }
}
