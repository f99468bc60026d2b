//! Devices that a PC always had, as far as a kernel of today still looks for them.
//!
//! | device | why it is here |
//! | --- | --- |
//! | [`serial`] | the console that every kernel has |
//! | [`rtc`] | a kernel without it polls "update in progress" for a second: 40,000 exits |
//! | [`i8042`], [`reset`], [`reset_vector`] | ways to reset that kernels try |
//! | [`pm`] | power-off and power button of ACPI |
//! | [`pvpanic`] | tells a crash from a power-off |
//!
//! Timers, interrupt controllers and port 0x61 are in KVM. There is no PCI, VGA or floppy here:
//! their ports read as ones, which is how a kernel knows.
//!
//! All of them have registers of one byte. A wider access is one to each register in turn, as the
//! bus of a PC splits it; what lies beyond the device reads as ones.

pub mod i8042;
pub mod pm;
pub mod pvpanic;
pub mod reset;
pub mod reset_vector;
pub mod rtc;
pub mod serial;

use crate::arch::layout;
use crate::bus::{Action, Bus, Error};
use std::sync::{Arc, Mutex};

/// Puts the devices that every machine has on its port bus.
pub fn attach(ports: &mut Bus, pm: &Arc<pm::Pm>) -> Result<(), Error> {
    ports.insert(layout::I8042_PORTS, Arc::new(i8042::I8042))?;
    ports.insert(layout::RTC_PORTS, Arc::new(Mutex::new(rtc::Rtc::new())))?;
    ports.insert(layout::FAST_RESET_PORT, Arc::new(reset::FastReset))?;
    ports.insert(layout::PVPANIC_PORT, Arc::new(pvpanic::Pvpanic))?;
    ports.insert(layout::PM_PORTS, Arc::clone(pm) as _)?;
    ports.insert(layout::RESET_PORT, Arc::new(reset::ResetControl))
}

/// Reads the registers from `offset` on, a byte each.
fn read_each(offset: u64, data: &mut [u8], mut register: impl FnMut(u64) -> u8) {
    data.fill(0xff);
    for (byte, offset) in data.iter_mut().zip(offset..=u64::MAX) {
        *byte = register(offset);
    }
}

/// Writes the registers from `offset` on, a byte each. The first action that one of them asks
/// for ends the write: the machine does not live to see the rest.
fn write_each(offset: u64, data: &[u8], mut register: impl FnMut(u64, u8) -> Action) -> Action {
    data.iter()
        .zip(offset..=u64::MAX)
        .map(|(value, offset)| register(offset, *value))
        .find(|action| *action != Action::None)
        .unwrap_or(Action::None)
}

#[cfg(test)]
mod tests;
