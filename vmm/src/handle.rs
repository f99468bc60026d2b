//! Controlling a machine from other threads while it runs.

use crate::control::Control;
use crate::exits::Exits;
use crate::{Error, Outcome, State, Transport};
use std::fmt;
use std::sync::Arc;
use virtio::device::Kind;

/// A remote control for a [`Vm`](crate::Vm): clone it, keep it, send it to any thread.
///
/// It outlives the machine, whose memory, threads and descriptors it does not hold on to; what
/// [`report`](Self::report) says stays available.
///
/// Do not call [`pause`](Self::pause) or [`resume`](Self::resume) from within one of the
/// machine's own devices: they wait for its worker. All else may be called from anywhere.
#[derive(Clone)]
pub struct Handle {
    pub(crate) control: Arc<Control>,
}

impl Handle {
    /// What the machine is doing now.
    pub fn state(&self) -> State {
        self.control.gate.state()
    }

    /// Waits until the machine is in `state` or has [`Stopped`](State::Stopped), and tells which.
    pub fn wait_for(&self, state: State) -> State {
        self.control.gate.wait_for(state)
    }

    /// Stops the vCPUs where they are, then the devices. When this returns, no guest code runs,
    /// no device touches guest memory, and the state is [`Paused`](State::Paused).
    ///
    /// Nothing happens if the machine is paused already. An error if it does not run.
    pub fn pause(&self) -> Result<(), Error> {
        self.control.pause()
    }

    /// Undoes [`pause`](Self::pause): starts the devices, then the vCPUs.
    ///
    /// Nothing happens if the machine is running already. An error if it never started or is over.
    pub fn resume(&self) -> Result<(), Error> {
        self.control.resume()
    }

    /// Ends the machine without asking the guest, as pulling the plug would. Works in each
    /// state, also before [`run`](crate::Vm::run), and does not wait: `run` returns
    /// [`Outcome::Stopped`] soon. Use [`wait_for`](Self::wait_for) to wait for it elsewhere.
    pub fn stop(&self) {
        self.control.gate.end(Ok(Outcome::Stopped));
    }

    /// Presses the power button: a guest that listens switches itself off.
    ///
    /// An error if the machine has no button because it has no ACPI, or is not running.
    pub fn power_button(&self) -> Result<(), Error> {
        self.control.power_button()
    }

    /// Whether the guest has taken note of the last press of the power button: its kernel runs
    /// and has a driver for the button. Whether anybody in there acts on it is another matter.
    pub fn power_button_taken(&self) -> bool {
        self.control.power_button_taken()
    }

    /// What the machine has done so far; after the end, what it had done.
    pub fn report(&self) -> Report {
        self.control.report()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// What a machine has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// User exits of each vCPU.
    pub exits: Vec<Exits>,
    /// The virtio devices, in the order of [`Config::devices`](crate::Config::devices).
    pub devices: Vec<DeviceReport>,
}

impl Report {
    /// The user exits of all vCPUs together.
    pub fn total_exits(&self) -> Exits {
        self.exits
            .iter()
            .fold(Exits::default(), |sum, exits| sum + *exits)
    }

    /// The devices that the guest never started: it probably has no driver for them.
    pub fn unstarted(&self) -> impl Iterator<Item = &DeviceReport> {
        self.devices.iter().filter(|device| !device.started)
    }
}

/// What became of a virtio device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceReport {
    /// The name of the device, as messages call it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where its driver had to look for it.
    pub transport: Transport,
    /// Whether the guest has started it at least once (`DRIVER_OK`).
    pub started: bool,
}
