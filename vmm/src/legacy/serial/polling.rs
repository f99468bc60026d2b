//! Tells a guest that polls the port from one that waits for its interrupts.
//!
//! A guest that polls reads the line status before each byte that it sends, with the transmitter's
//! interrupt switched off, and expects nothing to happen when a byte has gone. So nothing happens
//! if we see the byte a little later. A guest that wants to be interrupted must be seen at once.
//!
//! [`Polling`] watches the accesses to the registers, in order, and believes that a guest polls
//! after [`PROOF`] bytes in a row. It stops believing as soon as the guest enables the
//! transmitter's interrupt, cuts the line (loopback), turns the data register into a divisor, or
//! sends more than a FIFO's worth without a look at the status. As finding out late and acting on
//! it has a price, a guest that changes its habits has to prove itself twice as long each time.

use super::registers::{
    DATA, DIVISOR_LATCH, IER, LCR, LOOPBACK, LSR, MCR, SEND_FIFO, THRE_INTERRUPT,
};

/// So many bytes, each after a look at the status, are a habit: most of a line.
const PROOF: u32 = 64;

/// What the accesses so far say about the guest.
#[derive(Debug)]
pub(super) struct Polling {
    /// Bytes in a row that were sent after a look, or since it polls: without one.
    count: u32,
    polls: bool,
    /// It has read the status and not sent anything since.
    looked: bool,
    /// It has sent something since [`take_activity`](Self::take_activity).
    active: bool,
    /// Bytes that are proof enough.
    proof: u32,
    divisor: bool,
    loopback: bool,
    interrupt: bool,
}

impl Default for Polling {
    fn default() -> Self {
        Polling {
            count: 0,
            polls: false,
            looked: false,
            active: false,
            proof: PROOF,
            divisor: false,
            loopback: false,
            interrupt: false,
        }
    }
}

impl Polling {
    pub(super) fn polls(&self) -> bool {
        self.polls
    }

    /// Whether the guest has sent anything since this was asked last.
    pub(super) fn take_activity(&mut self) -> bool {
        std::mem::take(&mut self.active)
    }

    /// It has been silent for long: what it did before says little about what it will do.
    pub(super) fn forget(&mut self) {
        self.polls = false;
        self.count = 0;
    }

    /// Never again believe that this guest polls.
    pub(super) fn give_up(&mut self) {
        self.forget();
        self.proof = u32::MAX;
    }

    pub(super) fn read(&mut self, register: u8) {
        if register == LSR {
            self.looked = true;
            if self.polls {
                self.count = 0;
            }
        }
    }

    pub(super) fn write(&mut self, register: u8, value: u8) {
        match register {
            DATA if !self.divisor && !self.loopback => self.sent(),
            IER if !self.divisor => self.interrupt = value & THRE_INTERRUPT != 0,
            LCR => self.divisor = value & DIVISOR_LATCH != 0,
            MCR => self.loopback = value & LOOPBACK != 0,
            _ => {}
        }
        if self.interrupt || self.divisor || self.loopback {
            self.refute();
        }
    }

    fn sent(&mut self) {
        self.active = true;
        let looked = std::mem::take(&mut self.looked);
        if self.polls {
            self.count += 1;
            if self.count > SEND_FIFO {
                self.refute();
            }
        } else if looked {
            self.count = self.count.saturating_add(1);
            if self.count >= self.proof && self.proof != u32::MAX {
                self.polls = true;
                self.count = 0;
            }
        } else {
            self.count = 0;
        }
    }

    fn refute(&mut self) {
        if self.polls {
            self.proof = self.proof.saturating_mul(2);
        }
        self.forget();
    }
}

#[cfg(test)]
mod tests;
