//! The receive half of a pair (virtio 1.2, 5.1.6.3 and 5.1.6.4).

use super::super::backend::Refusal;
use super::super::card::Settings;
use super::super::header::{HEADER_LEN, Header};
use super::super::window::Window;
use super::host::{Host, Link};
use super::{ETHERNET, MAX_FRAME};
use crate::{Error, Io, Step};
use vm_memory::VolatileSlice;

/// How many frames are received in one turn.
const BURST: u32 = 64;
/// How often in a row there has to be another frame until it is looked for more than one at a time:
/// that look is a system call that a single frame does not need.
const STREAK: u32 = 8;

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

/// The queue that frames are received on.
pub(super) struct Receiveq {
    queue: u16,
    room: Room,
    window: Window,
    /// How many turns in a row have left frames behind.
    streak: u32,
}

/// Why a frame was not received.
enum Failure {
    Host(Refusal),
    Device(Error),
}

impl Receiveq {
    pub(super) fn new(queue: u16) -> Self {
        Receiveq {
            queue,
            room: Room::Ample,
            window: Window::new(),
            streak: 0,
        }
    }

    pub(super) fn queue(&self) -> u16 {
        self.queue
    }

    /// The driver has taken its buffers back.
    pub(super) fn reset(&mut self) {
        self.window.clear();
    }

    /// Room for large frames is waited for again.
    pub(super) fn activate(&mut self) {
        self.room = Room::Ample;
    }

    /// Room has been waited for long enough, if it was.
    pub(super) fn give_up(&mut self) -> bool {
        let waited = self.room == Room::Scarce;
        if waited {
            self.room = Room::Accepted;
        }
        waited
    }

    /// Whether the host is to be listened to.
    pub(super) fn has_room(&self) -> bool {
        self.room != Room::Scarce && !self.window.is_empty()
    }

    /// Receives frames while there are any, there is room, and it is this pair's turn. `called`: the
    /// host says that there is something.
    pub(super) fn receive(
        &mut self,
        host: &mut Host,
        settings: &Settings,
        io: &mut Io,
        called: bool,
    ) -> Result<(), Error> {
        let burst = if self.streak < STREAK { 1 } else { BURST };
        let mut received = 0;
        // The driver is told at the end of what it gets, and of what is given back unused.
        while (received < burst || host.backend.is_pending())
            && host.link != Link::Gone
            && self.make_room(host, settings, io)?
        {
            match self.receive_one(host, settings, io) {
                Ok(true) => received += 1,
                // Those that nobody wants take time too.
                Ok(false) => received += 1,
                Err(Failure::Device(error)) => return Err(error),
                Err(Failure::Host(Refusal::Lost(_))) => {
                    host.counters.drop_received();
                    received += 1;
                }
                Err(Failure::Host(Refusal::Busy)) => break,
                Err(Failure::Host(refusal)) => host.take(refusal),
            }
            if host.link == Link::Down {
                break;
            }
        }
        // For the next one: whether the host is listened to depends on that, and with chains left in
        // the ring the driver does not ring.
        self.make_room(host, settings, io)?;
        io.interrupt(self.queue)?;
        if received == 0 && called && host.link == Link::Up {
            // What has called us may be an end that reads don't tell.
            let now = host.readiness();
            host.look_for_the_end(now);
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
    fn make_room(&mut self, host: &Host, settings: &Settings, io: &mut Io) -> Result<bool, Error> {
        let largest = settings.largest();
        let mergeable = settings.mergeable;
        let window = &mut self.window;
        if !window.has_room(largest, mergeable) {
            io.take(self.queue, |chain| {
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
            host.start_timer()?;
        }
        Ok(self.room != Room::Scarce)
    }

    /// Receives one frame. Tells whether the driver gets it.
    fn receive_one(
        &mut self,
        host: &mut Host,
        settings: &Settings,
        io: &mut Io,
    ) -> Result<bool, Failure> {
        let mut header = Header::default();
        let backend = &mut host.backend;
        let read = |room: &[VolatileSlice<'_>]| backend.receive(&mut header, room);
        let len = self
            .window
            .read(io.memory(), settings.mergeable, &mut host.slices, read)
            .map_err(Failure::Host)?;
        let chains = self.window.chains_for(len, settings.mergeable);
        let is_frame = (ETHERNET..=MAX_FRAME).contains(&len);
        let (Some(chains), Some(mut header), true) =
            (chains, header.accepted(settings.to_driver), is_frame)
        else {
            host.counters.drop_received();
            return Ok(false);
        };
        if !settings.filter.is_open() {
            let to = self.window.destination(io.memory());
            if !to.is_some_and(|to| settings.filter.passes(to)) {
                return Ok(false);
            }
        }
        header.num_buffers = chains;
        self.window
            .write_header(io.memory(), header)
            .and_then(|()| io.complete_together(self.queue, self.window.take(len)))
            .map_err(Failure::Device)?;
        host.counters.received();
        Ok(true)
    }
}
