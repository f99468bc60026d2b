//! Tells a guest that looks at the port while it sends from one that only waits.
//!
//! A driver sends a byte, or as many as the FIFO holds, and looks at the line status or the
//! interrupt identification before it sends more. Linux looks again at once, be it that it polls
//! (the console) or from within its interrupt handler (the terminal): such a guest does not notice
//! if we see its bytes only when it looks. A driver that leaves its handler after each burst is
//! different: it waits until it is interrupted, and so we must see its bytes by ourselves.
//!
//! [`Habit`] watches the accesses to the registers, in order, and trusts the guest after [`PROOF`]
//! bytes of which each burst was preceded by a look. It stops trusting when the guest
//!
//! - sends more than a FIFO's worth without a look,
//! - turns the data register into a divisor, or cuts the line (loopback),
//! - is [found waiting](Habit::refute) for its interrupt.
//!
//! As trust has a price when it turns out to be wrong, the proof has to be twice as long each time.

use super::registers::{
    DATA, DIVISOR_LATCH, IER, IIR, LCR, LOOPBACK, LSR, MCR, SEND_FIFO, THRE_INTERRUPT,
};
use std::mem;

/// So many bytes make a habit: most of a line.
const PROOF: u32 = 64;

/// What the accesses so far say about the guest.
#[derive(Debug)]
pub(super) struct Habit {
    trusted: bool,
    /// Bytes that prove it so far.
    proven: u32,
    /// Bytes that are proof enough.
    proof: u32,
    /// Bytes since the last look.
    burst: u32,
    /// Bytes since [`take_sent`](Self::take_sent).
    sent: u32,
    divisor: bool,
    loopback: bool,
    interrupt: bool,
}

impl Default for Habit {
    fn default() -> Self {
        Habit {
            trusted: false,
            proven: 0,
            proof: PROOF,
            // It has not looked yet.
            burst: SEND_FIFO,
            sent: 0,
            divisor: false,
            loopback: false,
            interrupt: false,
        }
    }
}

impl Habit {
    /// Whether this guest looks at the port by itself.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Whether the guest wants to be interrupted when a byte has gone.
    pub(super) fn wants_interrupt(&self) -> bool {
        self.interrupt
    }

    /// How many bytes the guest has sent since this was asked last.
    pub(super) fn take_sent(&mut self) -> u32 {
        mem::take(&mut self.sent)
    }

    /// It has been silent for long: what it did before says little about what it will do.
    pub(super) fn forget(&mut self) {
        self.trusted = false;
        self.proven = 0;
    }

    /// It has not behaved as it used to.
    pub(super) fn refute(&mut self) {
        if self.trusted {
            self.proof = self.proof.saturating_mul(2);
        }
        self.forget();
    }

    /// Never trust this guest.
    pub(super) fn give_up(&mut self) {
        self.forget();
        self.proof = u32::MAX;
    }

    pub(super) fn read(&mut self, register: u8) {
        if matches!(register, LSR | IIR) {
            self.burst = 0;
        }
    }

    pub(super) fn write(&mut self, register: u8, value: u8) {
        match register {
            DATA if !self.divisor && !self.loopback => self.send(),
            IER if !self.divisor => self.interrupt = value & THRE_INTERRUPT != 0,
            LCR => self.divisor = value & DIVISOR_LATCH != 0,
            MCR => self.loopback = value & LOOPBACK != 0,
            _ => {}
        }
        if self.divisor || self.loopback {
            self.refute();
        }
    }

    fn send(&mut self) {
        self.sent = self.sent.saturating_add(1);
        self.burst = self.burst.saturating_add(1);
        if self.burst > SEND_FIFO {
            self.refute();
        } else if !self.trusted && self.proof != u32::MAX {
            self.proven = self.proven.saturating_add(1);
            self.trusted = self.proven >= self.proof;
        }
    }
}

#[cfg(test)]
mod tests;
