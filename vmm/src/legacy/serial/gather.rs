//! Bytes that the kernel gathers while the guest prints.
//!
//! # The problem
//!
//! Each byte that a guest sends is an exit, and before user space opens the port Linux reads the
//! line status before each, which is another. KVM can put the writes into a ring in memory instead
//! and let the guest go on; but a byte in the ring is not seen until somebody looks, and nothing
//! happens in the guest because of it until then.
//!
//! # The design
//!
//! A thread that exists once a guest has earned [trust](super::habit) gathers for as long as that
//! lasts. It alone registers the port with the kernel and ends that, which takes milliseconds each:
//! a vCPU never waits for it, and what the guest writes meanwhile arrives by ring or by exit, just
//! as well. Three rules make it safe:
//!
//! - *Order*: whoever accesses a register first takes out what is in the ring, under the lock of
//!   the registers. Bytes take the same way as a write that came by exit. So whatever mode the
//!   guest switches the port to, it finds all as if each write had been an exit, and there is no
//!   moment at which the registration has to be over. Other devices don't care: their order
//!   relative to what is printed was never promised, and vCPUs need not drain after each exit.
//! - *Time*: the thread takes out what is there every [`TICK`], so no byte waits for longer, be it
//!   the last one before the guest halts. It stops gathering when nothing has been sent for
//!   [`SILENCE`] ticks: an idle machine has none, and a byte that breaks a silence is an exit.
//! - *Interrupts*: a guest that is interrupted when its bytes have gone looks for more to do before
//!   it leaves its handler, if it is Linux. One that just waits is found out by a tick that brings
//!   all that was sent since the last one: a crawl that is over after the first tick, and needs
//!   twice as many bytes to come about again.
//!
//! # What it does not do
//!
//! Spare the reads: KVM answers none by itself. A look for each byte remains until user space opens
//! the port; from then on Linux looks once or twice per FIFO.

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
            model = self.wait_for_trust(model);
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
                    model.habit.give_up();
                }
            }
        }
    }

    /// Waits until the guest is trusted, or the port is to end.
    fn wait_for_trust<'a>(&'a self, model: MutexGuard<'a, Model>) -> MutexGuard<'a, Model> {
        let idle =
            |model: &mut Model| !model.habit.is_trusted() && !self.ending.load(Ordering::SeqCst);
        self.trust_changed
            .wait_while(model, idle)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out bytes until the guest loses its trust or is silent, or the port is to end.
    fn attend<'a>(&'a self, mut model: MutexGuard<'a, Model>) -> MutexGuard<'a, Model> {
        let mut quiet = 0;
        while model.habit.is_trusted() && !self.ending.load(Ordering::SeqCst) {
            if quiet == SILENCE {
                model.habit.forget();
                break;
            }
            let waited = self.trust_changed.wait_timeout(model, TICK);
            model = waited.unwrap_or_else(PoisonError::into_inner).0;
            let seen = model.habit.take_sent();
            self.take_gathered(&mut model);
            let found = model.habit.take_sent();
            if model.habit.wants_interrupt() && found > 0 && seen == 0 {
                model.habit.refute();
            }
            quiet = if seen + found > 0 { 0 } else { quiet + 1 };
        }
        model
    }
}

#[cfg(test)]
mod tests;
