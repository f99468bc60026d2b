//! Power management of a hardware-reduced ACPI machine: power-off and the power button.
//!
//! | offset | register | access |
//! | --- | --- | --- |
//! | 0 | sleep control (ACPI 4.8.3.7): type in bits 2 to 4, bit 5 goes to sleep | write |
//! | 1 | sleep status: bit 7, awake again; written as 1 to clear | read, write |
//! | 2 | events of the generic event device (ACPI 5.6.9); reading clears them | read |
//!
//! The only sleeping state is S5, power-off. A reset is asked for elsewhere, see
//! [`reset`](super::reset).

use super::{read_each, write_each};
use crate::bus::{Action, BusDevice};
use crate::control::PowerButton;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Offset of the sleep control register.
pub const SLEEP_CONTROL: u64 = 0;
/// Offset of the sleep status register.
pub const SLEEP_STATUS: u64 = 1;
/// Offset of the event register.
pub const EVENTS: u64 = 2;

/// The sleep type that the tables give for S5.
pub const SLEEP_TYPE_S5: u8 = 5;
/// The event: the power button was pressed.
pub const EVENT_POWER_BUTTON: u8 = 1 << 0;

const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;
const SLEEP_ENABLE: u8 = 1 << 5;
const WAKE_STATUS: u8 = 1 << 7;

/// The registers, and the line of the event device.
pub struct Pm {
    events: AtomicU8,
    awake: AtomicBool,
    interrupt: Box<dyn Fn() + Send + Sync>,
}

impl Pm {
    /// `interrupt` raises the line of the event device, once (it is edge triggered).
    pub fn new(interrupt: impl Fn() + Send + Sync + 'static) -> Self {
        Pm {
            events: AtomicU8::new(0),
            awake: AtomicBool::new(false),
            interrupt: Box::new(interrupt),
        }
    }

    fn sleep(&self, control: u8) -> Action {
        if control & SLEEP_ENABLE == 0 {
            return Action::None;
        }
        if control >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK == SLEEP_TYPE_S5 {
            return Action::Shutdown;
        }
        // No such state: whoever waits for the end of the sleep finds that it is over.
        self.awake.store(true, Ordering::SeqCst);
        Action::None
    }
}

/// From any thread; what follows a press is up to the guest.
impl PowerButton for Pm {
    fn press(&self) {
        // The event first: the guest may look before this thread goes on.
        self.events.fetch_or(EVENT_POWER_BUTTON, Ordering::SeqCst);
        (self.interrupt)();
    }

    fn taken(&self) -> bool {
        self.events.load(Ordering::SeqCst) & EVENT_POWER_BUTTON == 0
    }
}

impl BusDevice for Pm {
    fn read(&self, offset: u64, data: &mut [u8]) {
        read_each(offset, data, |register| match register {
            SLEEP_STATUS if self.awake.load(Ordering::SeqCst) => WAKE_STATUS,
            SLEEP_CONTROL | SLEEP_STATUS => 0,
            EVENTS => self.events.swap(0, Ordering::SeqCst),
            _ => 0xff,
        });
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        write_each(offset, data, |register, value| match register {
            SLEEP_CONTROL => self.sleep(value),
            SLEEP_STATUS if value & WAKE_STATUS != 0 => {
                self.awake.store(false, Ordering::SeqCst);
                Action::None
            }
            _ => Action::None,
        })
    }
}

impl fmt::Debug for Pm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pm")
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}
