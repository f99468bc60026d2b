//! pvpanic: one port by which a guest says that its kernel has crashed.
//!
//! The protocol is QEMU's (docs/specs/pvpanic): reading gives the events that the host knows,
//! writing reports one.

use super::{read_each, write_each};
use crate::bus::{Action, BusDevice};

/// The kernel has panicked, and nobody in the guest takes care of it.
const PANICKED: u8 = 1 << 0;
/// The kernel has panicked, and a crash kernel takes over: the machine must go on.
const CRASH_LOADED: u8 = 1 << 1;

/// The device.
#[derive(Debug)]
pub struct Pvpanic;

impl BusDevice for Pvpanic {
    fn read(&self, offset: u64, data: &mut [u8]) {
        read_each(offset, data, |register| match register {
            0 => PANICKED | CRASH_LOADED,
            _ => 0xff,
        });
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        write_each(offset, data, |register, value| match register {
            0 if value & PANICKED != 0 => Action::Panicked,
            _ => Action::None,
        })
    }
}
