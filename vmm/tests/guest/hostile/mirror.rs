//! The host's side of the card that is maltreated: it sends back what it gets, header included, and
//! has a frame of its own a thousand times a second, so that a buffer to receive in is used soon.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vm_memory::VolatileSlice;
use vmm::virtio::net::{Header, NetBackend, Offloads, Properties, Refusal};

/// How many frames it keeps.
const FRAMES: usize = 256;
const PERIOD: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};
/// Its own frame. Nobody sends one to this address.
const CHATTER: [u8; 60] = [0xff; 60];

pub struct Mirror {
    frames: VecDeque<(Header, Vec<u8>)>,
    /// Readable once in a while, which is how frames come.
    clock: OwnedFd,
}

impl Mirror {
    pub fn new() -> Mirror {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let clock = timerfd_create(TimerfdClockId::Monotonic, flags).unwrap();
        let always = Itimerspec {
            it_interval: PERIOD,
            it_value: PERIOD,
        };
        timerfd_settime(&clock, TimerfdTimerFlags::empty(), &always).unwrap();
        Mirror {
            frames: VecDeque::new(),
            clock,
        }
    }
}

impl NetBackend for Mirror {
    fn properties(&self) -> Properties {
        Properties::new().offloads(Offloads::all()).mtu(1500)
    }

    /// What an earlier driver has sent is gone.
    fn enable(&mut self, _enabled: bool) -> std::io::Result<()> {
        self.frames.clear();
        Ok(())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.clock.as_fd()
    }

    fn send(&mut self, header: &Header, frame: &[VolatileSlice<'_>]) -> Result<(), Refusal> {
        let mut bytes = Vec::new();
        for slice in frame {
            let start = bytes.len();
            bytes.resize(start + slice.len(), 0);
            slice.copy_to(&mut bytes[start..]);
        }
        if self.frames.len() == FRAMES {
            self.frames.pop_front();
        }
        self.frames.push_back((*header, bytes));
        Ok(())
    }

    fn is_pending(&self) -> bool {
        !self.frames.is_empty()
    }

    fn receive(
        &mut self,
        header: &mut Header,
        room: &[VolatileSlice<'_>],
    ) -> Result<usize, Refusal> {
        let frame = match self.frames.pop_front() {
            Some((sent, frame)) => {
                *header = sent;
                frame
            }
            None => {
                rustix::io::read(&self.clock, &mut [0; 8]).map_err(|_| Refusal::Busy)?;
                CHATTER.to_vec()
            }
        };
        let mut left = frame.as_slice();
        for slice in room {
            let count = left.len().min(slice.len());
            slice.copy_from(&left[..count]);
            left = &left[count..];
        }
        Ok(frame.len())
    }
}
