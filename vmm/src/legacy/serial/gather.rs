//! Bytes that the kernel gathers while the guest polls the port.
//!
//! # The problem
//!
//! Linux prints on a port that nobody has opened byte by byte: read the line status, write the
//! byte. Each of the two leaves the guest. KVM can put the writes into a ring in memory instead
//! and let the guest go on, which halves the exits; but a byte in the ring is not seen until
//! somebody looks, and nothing happens in the guest because of it until then.
//!
//! # The design
//!
//! A thread that exists once a guest has shown that it [polls](super::polling) gathers for as long
//! as it does so. It alone registers the port with the kernel and ends that, which takes
//! milliseconds each: a vCPU never waits for it, and what the guest writes meanwhile arrives by
//! ring or by exit, just as well. Three rules make it safe:
//!
//! - *Order*: whoever accesses a register first takes out what is in the ring, under the lock of
//!   the registers. Bytes take the same way as a write that came by exit. So whatever mode the
//!   guest switches the port to, it finds all as if each write had been an exit, and there is no
//!   moment at which the registration has to be over. Other devices don't care: their order
//!   relative to what is printed was never promised, and vCPUs need not drain after each exit.
//! - *Time*: the thread takes out what is there every [`TICK`], so no byte waits for longer, be it
//!   the last one before the guest halts. It stops gathering when nothing has been sent for
//!   [`SILENCE`]: an idle machine has no ticks, and a byte that breaks a silence is an exit.
//! - *Interrupts*: only a guest that has switched the transmitter's interrupt off is gathered.
//!   When it switches it on, the bytes that still get into the ring interrupt it when gathering
//!   has ended: late by the milliseconds that this takes, once.
//!
//! # What it does not do
//!
//! Spare the reads: KVM answers none by itself. A line's cost of an exit per byte stays until user
//! space opens the port. From then on the guest fills a FIFO at a time, with interrupts.

use super::{Model, Port};
use kvm::{CoalescedPio, CoalescedRing, IoAddress};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

/// How long a byte can be in the ring.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// After so many ticks without a byte, none is expected.
pub(super) const SILENCE: u32 = 100;

/// Who gathers what is written to the data register.
pub trait Gather: Send + Sync {
    /// Gathers until the result is dropped. May take a while, as may the drop.
    fn start(&self) -> Result<Box<dyn Send>, kvm::Error>;
    /// Takes out what was gathered, in order. Cheap if that is nothing.
    fn drain(&self, each: &mut dyn FnMut(u8));
}

/// Gathering by KVM.
pub struct Coalesced {
    vm: kvm::Vm,
    ring: CoalescedRing,
    port: u16,
}

impl Coalesced {
    /// For the data register at `port`. The ring must have no other user.
    pub fn new(vm: kvm::Vm, ring: CoalescedRing, port: u16) -> Self {
        Coalesced { vm, ring, port }
    }
}

impl Gather for Coalesced {
    fn start(&self) -> Result<Box<dyn Send>, kvm::Error> {
        let registration: CoalescedPio = self.vm.coalesce_pio(self.port, 1)?;
        Ok(Box::new(registration))
    }

    fn drain(&self, each: &mut dyn FnMut(u8)) {
        if self.ring.is_empty() {
            return;
        }
        let taken = self.ring.drain(|write| {
            if write.at == IoAddress::Pio(self.port) {
                write.data().iter().for_each(|byte| each(*byte));
            }
        });
        if let Err(error) = taken {
            log::debug!("serial port: {error}");
        }
    }
}

impl Port {
    /// The thread.
    pub(super) fn gather(&self, gather: &dyn Gather) {
        let mut model = self.lock();
        loop {
            model = self.wait_for_habit(model);
            if self.ending.load(Ordering::SeqCst) {
                return;
            }
            drop(model);
            let registration = gather.start();
            model = self.lock();
            match registration {
                Ok(registration) => {
                    model = self.attend(model);
                    // Without the lock: this waits for the kernel.
                    drop(model);
                    drop(registration);
                    model = self.lock();
                    self.take_gathered(&mut model);
                }
                Err(error) => {
                    log::debug!("each byte sent by the serial port is an exit: {error}");
                    model.polling.give_up();
                }
            }
        }
    }

    /// Waits until the guest polls, or the port is to end.
    fn wait_for_habit<'a>(&'a self, model: MutexGuard<'a, Model>) -> MutexGuard<'a, Model> {
        let idle =
            |model: &mut Model| !model.polling.polls() && !self.ending.load(Ordering::SeqCst);
        self.habit_changed
            .wait_while(model, idle)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out bytes until the guest changes its habits or is silent, or the port is to end.
    fn attend<'a>(&'a self, mut model: MutexGuard<'a, Model>) -> MutexGuard<'a, Model> {
        let mut quiet = 0;
        while model.polling.polls() && !self.ending.load(Ordering::SeqCst) {
            if quiet == SILENCE {
                model.polling.forget();
                break;
            }
            let waited = self.habit_changed.wait_timeout(model, TICK);
            model = waited.unwrap_or_else(PoisonError::into_inner).0;
            self.take_gathered(&mut model);
            quiet = if model.polling.take_activity() {
                0
            } else {
                quiet + 1
            };
        }
        model
    }
}

#[cfg(test)]
mod tests;
