//! Two ports that reset the machine.

use super::{read_each, write_each};
use crate::bus::{Action, BusDevice};

/// The reset control register of Intel's chipsets, port 0xcf9.
///
/// A reset begins when bit 2 goes from 0 to 1. As the machine ends at that, the bit is never set
/// when it is written.
#[derive(Debug)]
pub struct ResetControl;

impl ResetControl {
    const RESET_CPU: u8 = 1 << 2;
}

impl BusDevice for ResetControl {
    fn read(&self, offset: u64, data: &mut [u8]) {
        read_each(
            offset,
            data,
            |register| if register == 0 { 0 } else { 0xff },
        );
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        write_each(offset, data, |register, value| {
            if register == 0 && value & Self::RESET_CPU != 0 {
                Action::Reset
            } else {
                Action::None
            }
        })
    }
}

/// System control port A, port 0x92: bit 0 resets, bit 1 is the A20 gate, which stays open.
#[derive(Debug)]
pub struct FastReset;

impl FastReset {
    const RESET: u8 = 1 << 0;
    const A20: u8 = 1 << 1;
}

impl BusDevice for FastReset {
    fn read(&self, offset: u64, data: &mut [u8]) {
        read_each(
            offset,
            data,
            |register| if register == 0 { Self::A20 } else { 0xff },
        );
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        write_each(offset, data, |register, value| {
            if register == 0 && value & Self::RESET != 0 {
                Action::Reset
            } else {
                Action::None
            }
        })
    }
}
