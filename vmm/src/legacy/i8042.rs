//! The keyboard controller, of which only the reset line is left.
//!
//! Kernels reset a PC by asking this controller to pulse the line (command 0xfe). They wait for
//! its input buffer to be empty before, so the status register must be there: floating at 0xff it
//! would cost 65,536 polls.
//!
//! There is no keyboard, and ACPI says so. A kernel without ACPI looks for itself: it drains the
//! output buffer first. Here the buffer never runs dry, at which Linux concludes after 16 bytes
//! that there is no controller; one that looked sane would be asked a hundred things more. The
//! A20 gate is open for good.

use super::{read_each, write_each};
use crate::arch::layout::I8042_PORTS;
use crate::bus::{Action, BusDevice};

const DATA: u64 = 0;
const STATUS: u64 = 4;
const COMMAND: u64 = 4;

/// The port that takes commands.
pub const COMMAND_PORT: u64 = I8042_PORTS.start + COMMAND;
/// The command that resets the machine.
pub const RESET: u8 = 0xfe;

/// Output buffer full (always), system flag: self-test passed, keyboard not locked. Bit 1, input
/// buffer full, is clear: commands are welcome.
const STATUS_VALUE: u8 = 1 << 0 | 1 << 2 | 1 << 4;

/// Commands 0xf0 to 0xff pulse those output lines whose bit is 0; line 0 is the reset.
const PULSE: u8 = 0xf0;
const KEEP_RESET: u8 = 1 << 0;

/// The controller.
#[derive(Debug)]
pub struct I8042;

impl BusDevice for I8042 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        read_each(offset, data, |register| match register {
            DATA => 0,
            STATUS => STATUS_VALUE,
            _ => 0xff,
        });
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        write_each(offset, data, |register, value| {
            if register == COMMAND && value & PULSE == PULSE && value & KEEP_RESET == 0 {
                Action::Reset
            } else {
                Action::None
            }
        })
    }
}
