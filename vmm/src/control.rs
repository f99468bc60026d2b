//! Pausing, resuming and ending a machine: its vCPUs and its devices, in the right order.
//!
//! vCPUs come first when things stop, for they are what gives devices work; devices come first
//! when things start, so that no doorbell rings with nobody at home. Whoever changes what the
//! devices do holds the lock on them all the while, so a pause, a resume and the end of the
//! machine cannot mix; asking for the end ([`Gate::end`]) takes no such lock and so always works,
//! and makes a pause that waits for vCPUs give up.

use crate::exits::Counters;
use crate::gate::Gate;
use crate::handle::{DeviceReport, Report};
use crate::state::{State, Step};
use crate::{Error, Outcome};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A device that does things by itself, not only when a vCPU accesses it.
pub(crate) trait ActiveDevice: Send + Sync {
    /// Stop touching guest memory. Only after all vCPUs hold.
    fn pause(&self) -> Result<(), Error>;
    /// Go on. Only while all vCPUs hold.
    fn resume(&self) -> Result<(), Error>;
    /// Begin to stop, without waiting for that. Only after all vCPUs have ended.
    fn ask_to_stop(&self) {}
    /// Stop for good, every thread joined but one that the host does not let go. Only after all vCPUs
    /// have ended.
    fn stop(&self);
    fn report(&self) -> DeviceReport;
}

/// The button that asks the guest to switch itself off.
pub(crate) trait PowerButton: Send + Sync {
    fn press(&self);
    /// Whether the guest has seen the last press.
    fn taken(&self) -> bool;
}

/// What runs beside the vCPUs.
#[derive(Default)]
pub(crate) struct Devices {
    pub(crate) active: Vec<Arc<dyn ActiveDevice>>,
    /// Absent without ACPI.
    pub(crate) power_button: Option<Arc<dyn PowerButton>>,
}

enum Fleet {
    Afloat(Devices),
    /// The machine is over, its devices are freed; this is what they had to say.
    Sunk(Vec<DeviceReport>),
}

/// The part of a machine that handles, vCPU threads and workers share.
pub(crate) struct Control {
    /// By itself, so that a worker that has failed can end the machine without holding on to it.
    pub(crate) gate: Arc<Gate>,
    counters: Box<[Counters]>,
    fleet: Mutex<Fleet>,
}

impl Control {
    pub(crate) fn new(cpus: usize) -> Self {
        Control {
            gate: Arc::new(Gate::new(cpus)),
            counters: (0..cpus).map(|_| Counters::default()).collect(),
            fleet: Mutex::new(Fleet::Afloat(Devices::default())),
        }
    }

    /// The devices exist. Before the machine starts.
    pub(crate) fn set_devices(&self, devices: Devices) {
        *self.lock() = Fleet::Afloat(devices);
    }

    pub(crate) fn counters(&self) -> &[Counters] {
        &self.counters
    }

    pub(crate) fn pause(&self) -> Result<(), Error> {
        let fleet = self.lock();
        if self.gate.state() == State::Paused && !self.gate.is_ending() {
            return Ok(());
        }
        self.gate.hold()?;
        if let Fleet::Afloat(devices) = &*fleet
            && let Err(error) = devices.pause()
        {
            self.gate.release()?;
            return Err(error);
        }
        self.gate.advance(Step::Pause)
    }

    pub(crate) fn resume(&self) -> Result<(), Error> {
        let fleet = self.lock();
        if self.gate.state() == State::Paused
            && let Fleet::Afloat(devices) = &*fleet
        {
            devices.resume()?;
        }
        self.gate.release()
    }

    pub(crate) fn power_button(&self) -> Result<(), Error> {
        let fleet = self.lock();
        let state = self.gate.state();
        match &*fleet {
            Fleet::Afloat(devices) if state != State::Created => match &devices.power_button {
                Some(button) => {
                    button.press();
                    Ok(())
                }
                None => Err(Error::NoPowerButton),
            },
            _ => Err(Error::State {
                step: "press the power button of",
                state,
            }),
        }
    }

    pub(crate) fn power_button_taken(&self) -> bool {
        match &*self.lock() {
            Fleet::Afloat(devices) => devices
                .power_button
                .as_ref()
                .is_some_and(|button| button.taken()),
            Fleet::Sunk(_) => false,
        }
    }

    pub(crate) fn report(&self) -> Report {
        Report {
            exits: self.counters.iter().map(Counters::read).collect(),
            devices: match &*self.lock() {
                Fleet::Afloat(devices) => devices.report(),
                Fleet::Sunk(reports) => reports.clone(),
            },
        }
    }

    /// All vCPUs have ended: ends the devices and frees them. Again: nothing.
    pub(crate) fn sink(&self) {
        let mut fleet = self.lock();
        if let Fleet::Afloat(devices) = &*fleet {
            // All at once, so that several that wait for the host take as long as one.
            devices
                .active
                .iter()
                .for_each(|device| device.ask_to_stop());
            devices.active.iter().for_each(|device| device.stop());
            *fleet = Fleet::Sunk(devices.report());
        }
    }

    /// The machine is over. Tells why it ended.
    pub(crate) fn finish(&self) -> Result<Outcome, Error> {
        self.gate.advance(Step::Stop)?;
        self.gate.take_cause().unwrap_or(Ok(Outcome::Stopped))
    }

    fn lock(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Devices {
    /// All or none.
    fn pause(&self) -> Result<(), Error> {
        for (paused, device) in self.active.iter().enumerate() {
            if let Err(error) = device.pause() {
                for device in self.active.iter().take(paused) {
                    // Its error would hide the first one, which is the cause.
                    let _ = device.resume();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// All or none.
    fn resume(&self) -> Result<(), Error> {
        for (resumed, device) in self.active.iter().enumerate() {
            if let Err(error) = device.resume() {
                for device in self.active.iter().take(resumed) {
                    let _ = device.pause();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn report(&self) -> Vec<DeviceReport> {
        self.active.iter().map(|device| device.report()).collect()
    }
}

#[cfg(test)]
mod tests;
