//! The entropy device (virtio 1.2, 5.4): random bytes of the host's kernel, written straight into
//! the driver's buffers.
//!
//! The driver decides how much it asks for and how often, the host pays. So a request is answered
//! with at most 64 KiB, and a bucket of bytes is filled again once per period: by default 1 MiB
//! per 100 ms, far more than any guest needs, and a small part of what a processor can do. When
//! the bucket is empty, chains are left in the ring until a timer says that it is full; nothing
//! sleeps. A driver that resets the device gets no more by that.
//!
//! It mixes nothing in, and does not wait for a host whose own pool is not ready: that counts as an
//! empty bucket.

#[cfg(test)]
mod tests;

use crate::io::Interest;
use crate::memory::fill_randomly;
use crate::{ConfigSpace, Device, Error, Event, Io, Kind, Spec, Step, queue::Writer};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use vm_memory::VolatileSlice;

/// `requestq`.
const REQUESTQ: u16 = 0;
/// For drivers that keep some requests in stock; Linux has one under way.
const QUEUE_SIZE: u16 = 64;
/// The most that one request gets: a chain may claim 4 GiB, and the device's thread has to be soon
/// back to see whether it should stop. Linux asks for 64 bytes.
const REQUEST_LIMIT: usize = 64 << 10;
/// What the bucket holds, and how long it takes until it is full again.
const BUCKET: usize = 1 << 20;
const PERIOD: Duration = Duration::from_millis(100);
/// The watch token of the timer.
const FULL_AGAIN: u32 = 0;

/// Fills a piece of guest memory and tells how much of it.
type Source = fn(&VolatileSlice<'_>) -> io::Result<usize>;

/// An entropy device.
pub struct Rng {
    spec: Spec,
    source: Source,
    capacity: usize,
    period: Duration,
    /// What the bucket holds. The timer runs while that is less than its capacity.
    left: usize,
    timer: Option<OwnedFd>,
}

impl Default for Rng {
    fn default() -> Self {
        let spec = Spec {
            kind: Kind::Rng,
            name: "rng".to_owned(),
            features: 0,
            queues: vec![QUEUE_SIZE],
            config: Arc::new(ConfigSpace::new(Vec::new())),
        };
        Rng {
            spec,
            source: fill_randomly,
            capacity: BUCKET,
            period: PERIOD,
            left: BUCKET,
            timer: None,
        }
    }
}

impl Rng {
    /// A device with the usual limits.
    pub fn new() -> Rng {
        Rng::default()
    }

    /// Gives the driver at most `bytes` per `period`; at least one byte, and per millisecond.
    #[must_use]
    pub fn rate(mut self, bytes: usize, period: Duration) -> Self {
        self.capacity = bytes.max(1);
        self.left = self.capacity;
        self.period = period.max(Duration::from_millis(1));
        self
    }

    fn serve(&mut self, io: &mut Io) -> Result<(), Error> {
        io.drain(REQUESTQ, |chain| {
            let mut writer = chain.writer();
            let wanted = writer.remaining().min(REQUEST_LIMIT);
            if wanted == 0 {
                return Ok(Step::Done(0));
            }
            if self.left == 0 {
                return Ok(Step::Stop);
            }
            if self.left == self.capacity {
                self.start_timer().map_err(failed("setting a timer"))?;
            }
            let granted = wanted.min(self.left);
            match fill(&mut writer, granted, self.source) {
                Ok(()) => self.left -= granted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.left = 0;
                    return Ok(Step::Stop);
                }
                Err(error) => return Err(failed("getting random bytes")(error)),
            }
            Ok(Step::Done(chain.written()))
        })
    }

    fn start_timer(&self) -> io::Result<()> {
        let timer = self.timer.as_ref().ok_or(ErrorKind::NotFound)?;
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(self.period).map_err(io::Error::other)?,
        };
        timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

/// Fills the room from its start, up to `limit` bytes. Less than that is fine, nothing is not.
fn fill(writer: &mut Writer<'_>, limit: usize, source: Source) -> io::Result<()> {
    let mut filled = 0;
    for slice in writer.slices() {
        let room = slice.len().min(limit - filled);
        let part = slice.subslice(0, room).map_err(io::Error::other)?;
        match source(&part) {
            Ok(count) => filled += count,
            Err(_) if filled > 0 => break,
            Err(error) => return Err(error),
        }
        if filled == limit {
            break;
        }
    }
    writer.advance(filled);
    Ok(())
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Host {
        what: doing.to_owned(),
        source,
    }
}

impl Device for Rng {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn activate(&mut self, io: &mut Io) -> Result<(), Error> {
        let timer = match self.timer.take() {
            Some(timer) => timer,
            None => timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
            )
            .map_err(|error| failed("making a timer")(error.into()))?,
        };
        let timer = self.timer.insert(timer);
        io.watch(FULL_AGAIN, timer.as_fd(), Interest::READ)
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error> {
        if let (Event::Fd(FULL_AGAIN), Some(timer)) = (event, &self.timer)
            // Only to make it unreadable; it fails if the time has not come.
            && rustix::io::read(timer, &mut [0; 8]).is_ok()
        {
            self.left = self.capacity;
        }
        self.serve(io)
    }

    fn quiesce(&mut self, io: &mut Io) -> Result<(), Error> {
        io.unwatch(FULL_AGAIN);
        Ok(())
    }
}
