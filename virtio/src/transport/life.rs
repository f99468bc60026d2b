//! Who has a device: the transport while it is idle, its worker while it is active.
//!
//! ```text
//!           DRIVER_OK                 pause
//!   Idle ---------------> Active ---------------> Paused
//!    ^  \ (can't start:     |   <---------------    |
//!    |   NEEDS_RESET)       |        resume         |
//!    +----------------------+-----------------------+
//!                 reset, FAILED
//! ```
//!
//! Every arrow that leaves Active is [`Worker::stop`]: device and queues come back, and no host I/O
//! touches guest memory any more. So a reset has happened when the register write that asked for it
//! is over.
//!
//! It knows no register and no status: what the driver may do when is [`Core`](super::Core)'s.

use crate::worker::{Link, Mode, Parts, STOP_PATIENCE, Stopped, Worker};
use crate::{Device, Error, Io, Queue};
use std::io;
use std::sync::Arc;

/// The life of a device behind its transport, as far as the machine has a say in it.
pub struct Life {
    link: Arc<Link>,
    mode: Mode,
    ever_started: bool,
    state: State,
}

/// Who has the device.
enum State {
    Idle(Box<dyn Device>),
    Active(Worker),
    Paused(Parts),
    /// It panicked, or the machine has ended.
    Gone,
}

impl Life {
    pub(super) fn new(device: Box<dyn Device>, link: &Arc<Link>, mode: Mode) -> Self {
        Life {
            link: Arc::clone(link),
            mode,
            ever_started: false,
            state: State::Idle(device),
        }
    }

    /// Whether a driver has ever said `DRIVER_OK`.
    pub fn ever_started(&self) -> bool {
        self.ever_started
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, State::Active(_))
    }

    /// The driver has said `DRIVER_OK`, with these features, and these queues or none that can be.
    pub(super) fn start(
        &mut self,
        features: u64,
        queues: Result<Vec<Option<Queue>>, Error>,
        io: impl Fn(Vec<Option<Queue>>) -> Io,
    ) -> Result<(), Error> {
        self.ever_started = true;
        let queues = queues?;
        let device = match std::mem::replace(&mut self.state, State::Gone) {
            State::Idle(device) => device,
            state => {
                self.state = state;
                return Err(Error::Host {
                    what: "starting the device".to_owned(),
                    source: io::Error::other("the device has ended"),
                });
            }
        };
        let mut lanes = Vec::new();
        let divided = self.link.settle(|| {
            lanes = device.lanes(features);
            Ok(())
        });
        if divided.is_none() {
            return Ok(());
        }
        let parts = Parts::new(device, lanes, queues, io);
        match Worker::start(parts, &self.link, self.mode) {
            Ok(worker) => self.state = State::Active(worker),
            Err(refused) => {
                let (parts, error) = *refused;
                self.state = State::Idle(parts.device);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The driver has reset the device, which forgets what the driver said.
    pub(super) fn reset(&mut self) {
        self.idle();
        let State::Idle(device) = &mut self.state else {
            return;
        };
        let reset = self.link.settle(|| {
            device.reset();
            Ok(())
        });
        if reset.is_none() {
            self.state = State::Gone;
        }
    }

    /// The driver wrote to the configuration space.
    pub(super) fn config_written(&self) {
        if let State::Active(worker) = &self.state {
            worker.config_written();
        }
    }

    /// Stops the device, keeping its queues. One that waits for the host can't be stopped, and goes
    /// on.
    pub fn pause(&mut self) -> Result<(), Error> {
        let State::Active(worker) = &mut self.state else {
            return Ok(());
        };
        if !worker.park() {
            return Err(stuck());
        }
        let State::Active(worker) = std::mem::replace(&mut self.state, State::Gone) else {
            return Ok(());
        };
        match worker.stop() {
            Stopped::Idle(parts) if self.link.needs_reset() => {
                self.state = State::Idle(parts.device);
            }
            Stopped::Idle(parts) => self.state = State::Paused(*parts),
            Stopped::Panicked => {}
            // It was idle, and then came to wait.
            Stopped::Stuck => {
                self.link.fail_machine();
                return Err(stuck());
            }
        }
        Ok(())
    }

    /// Puts a paused device back to work. If the host can't, it stays paused.
    pub fn resume(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Paused(parts) => match Worker::start(parts, &self.link, self.mode) {
                Ok(worker) => self.state = State::Active(worker),
                Err(refused) => {
                    let (parts, error) = *refused;
                    self.state = State::Paused(parts);
                    return Err(error);
                }
            },
            state => self.state = state,
        }
        Ok(())
    }

    /// Tells the device to stop, without waiting: [`stop`](Self::stop) then waits less.
    pub fn ask_to_stop(&mut self) {
        if let State::Active(worker) = &mut self.state {
            worker.ask_to_stop();
        }
    }

    /// Stops the device for good, lets it take what its driver has left in the rings
    /// ([`Device::finish`]) and drops it. One that waits for the host is left behind with its
    /// thread after [`STOP_PATIENCE`]; both go when the host answers, or with the process.
    pub fn stop(&mut self) {
        let mut parts = match std::mem::replace(&mut self.state, State::Gone) {
            State::Active(worker) => match worker.stop() {
                Stopped::Idle(parts) => *parts,
                Stopped::Panicked => return,
                Stopped::Stuck => {
                    let name = self.link.name();
                    log::warn!(
                        "{name}: left waiting for the host, which has not answered for a while"
                    );
                    return;
                }
            },
            State::Paused(parts) => parts,
            State::Idle(_) | State::Gone => return,
        };
        if !self.link.needs_reset() {
            self.link.settle(|| parts.device.finish(&mut parts.io));
        }
    }

    /// One turn of a device in [`Mode::Inline`].
    pub fn turn(&mut self) {
        if let State::Active(worker) = &mut self.state {
            worker.turn();
        }
    }

    /// Takes the device back from wherever it is.
    pub(super) fn idle(&mut self) {
        let device = match std::mem::replace(&mut self.state, State::Gone) {
            State::Idle(device) => Some(device),
            State::Active(worker) => match worker.stop() {
                Stopped::Idle(parts) => Some(parts.device),
                Stopped::Panicked => None,
                Stopped::Stuck => {
                    self.link.fail_machine();
                    None
                }
            },
            State::Paused(parts) => Some(parts.device),
            State::Gone => None,
        };
        self.state = device.map_or(State::Gone, State::Idle);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why a device can't be paused.
fn stuck() -> Error {
    Error::Host {
        what: format!(
            "waiting {} s for the device to be idle",
            STOP_PATIENCE.as_secs()
        ),
        source: io::ErrorKind::TimedOut.into(),
    }
}
