//! Where vCPUs are told to run, to hold, or to end; and where it is kept why they ended.
//!
//! # The problem
//!
//! A vCPU is inside `KVM_RUN`, maybe for ever: a guest that spins, or that halts with
//! interrupts off, never comes out by itself. A signal gets it out, but a signal that arrives
//! just before the vCPU enters `KVM_RUN` would be lost.
//!
//! # The protocol
//!
//! ```text
//!   who asks                            vCPU thread
//!   1. write the request                loop:
//!   2. signal the vCPU thread             a. KVM_RUN; if it says "interrupted",
//!      (the handler sets                  b. clear immediate_exit,
//!      immediate_exit of its own vCPU)    c. read the request: Seat::turn
//! ```
//!
//! If the handler runs before b, the request was written before c reads it. If it runs after b,
//! the next `KVM_RUN` returns at once, and c comes again. So a vCPU need not look at the request
//! after any other exit, and nothing is ever polled or waited for with a timeout.
//!
//! A vCPU holds only after `KVM_RUN` was interrupted, and so has no half-done access: "the kernel
//! side will first finish incomplete operations and then check for pending signals", says KVM's
//! documentation. An access of several parts comes back as another exit, which the loop serves
//! before it enters again; the flag is still set then, so `KVM_RUN` is re-entered with
//! `immediate_exit` until it is interrupted, without the guest running on.
//!
//! The first vCPU (or worker, or caller of `stop`) that ends the machine stops all others, and
//! only its reason is kept: what the others report while things fall apart is not the cause.
//!
//! # What this does not do
//!
//! It knows no devices (see `control`), no KVM, and no threads: who enters may be a test.

use crate::state::{State, Step};
use crate::{Error, Outcome};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Why a machine ended.
pub(crate) type Cause = Result<Outcome, Error>;

/// Gets one vCPU out of the guest.
pub(crate) type Kick = Box<dyn Fn() + Send + Sync>;

/// What the vCPUs have been asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Run,
    Hold,
    End,
}

pub(crate) struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    state: State,
    request: Request,
    /// How many vCPUs the machine has, whether they have entered already or not.
    cpus: usize,
    /// How many of them hold.
    holding: usize,
    kicks: Vec<(u32, Kick)>,
    cause: Option<Cause>,
}

impl Gate {
    pub(crate) fn new(cpus: usize) -> Self {
        Gate {
            inner: Mutex::new(Inner {
                state: State::Created,
                request: Request::Run,
                cpus,
                holding: 0,
                kicks: Vec::with_capacity(cpus),
                cause: None,
            }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.lock().state
    }

    /// Waits until the machine is in `state`, or has stopped; tells which.
    pub(crate) fn wait_for(&self, state: State) -> State {
        let mut inner = self.lock();
        while inner.state != state && inner.state != State::Stopped {
            inner = self.wait(inner);
        }
        inner.state
    }

    /// Takes `step` in the table of states.
    pub(crate) fn advance(&self, step: Step) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.state = inner.next(step)?;
        self.changed.notify_all();
        Ok(())
    }

    /// A vCPU takes its place. `kick` must work from now until the seat is dropped, and may be
    /// without effect later.
    pub(crate) fn enter(&self, cpu: u32, kick: Kick) -> Seat<'_> {
        self.lock().kicks.push((cpu, kick));
        Seat { gate: self, cpu }
    }

    /// Asks all vCPUs to hold and waits until they do. The state stays what it was.
    pub(crate) fn hold(&self) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.next(Step::Pause)?;
        inner.ask(Request::Hold);
        while inner.request == Request::Hold && inner.holding < inner.cpus {
            inner = self.wait(inner);
        }
        match inner.request {
            Request::End => Err(inner.refuse(Step::Pause)),
            Request::Run | Request::Hold => Ok(()),
        }
    }

    /// Lets held vCPUs go on: the machine is running, unless it is about to end.
    pub(crate) fn release(&self) -> Result<(), Error> {
        let mut inner = self.lock();
        let state = inner.next(Step::Resume)?;
        if inner.request == Request::Hold {
            inner.state = state;
            inner.request = Request::Run;
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Ends the machine for this reason, unless it is ending for another one already.
    pub(crate) fn end(&self, cause: Cause) {
        let mut inner = self.lock();
        if inner.cause.is_none() {
            inner.cause = Some(cause);
            inner.ask(Request::End);
            self.changed.notify_all();
        }
    }

    /// Whether somebody asked for the end.
    pub(crate) fn is_ending(&self) -> bool {
        self.lock().request == Request::End
    }

    /// Why the machine ended; once, at the end.
    pub(crate) fn take_cause(&self) -> Option<Cause> {
        self.lock().cause.take()
    }

    // Every change under the lock is a single assignment: a panic in between leaves sense.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        self.changed
            .wait(inner)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn next(&self, step: Step) -> Result<State, Error> {
        self.state.after(step).ok_or_else(|| self.refuse(step))
    }

    fn refuse(&self, step: Step) -> Error {
        let ending = self.request == Request::End && step != Step::Start;
        Error::State {
            step: step.name(),
            state: if ending { State::Stopped } else { self.state },
        }
    }

    /// Steps 1 and 2 of the protocol. An end is final.
    fn ask(&mut self, request: Request) {
        if self.request == Request::End {
            return;
        }
        self.request = request;
        self.kicks.iter().for_each(|(_, kick)| kick());
    }
}

/// A vCPU's place at the gate, which it leaves on drop.
///
/// A thread that leaves because it panicked ends the machine.
pub(crate) struct Seat<'a> {
    gate: &'a Gate,
    cpu: u32,
}

/// What a vCPU does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Run,
    End,
}

impl Seat<'_> {
    /// Step c of the protocol: to be called before the vCPU runs for the first time, and after
    /// each interruption. Blocks while the vCPU has to hold.
    pub(crate) fn turn(&self) -> Turn {
        let mut inner = self.gate.lock();
        if inner.request == Request::Hold {
            inner.holding += 1;
            self.gate.changed.notify_all();
            while inner.request == Request::Hold {
                inner = self.gate.wait(inner);
            }
            inner.holding -= 1;
        }
        match inner.request {
            Request::Run | Request::Hold => Turn::Run,
            Request::End => Turn::End,
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.gate.end(Err(Error::VcpuPanicked { cpu: self.cpu }));
        }
        self.gate.lock().kicks.retain(|(cpu, _)| *cpu != self.cpu);
    }
}

#[cfg(test)]
mod tests;
