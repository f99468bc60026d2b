//! The serial port: a 16550A whose registers are vm-superio's.
//!
//! What the guest sends goes to an [`Output`], which never makes a vCPU wait and gathers bytes
//! into lines. What the host sends comes from an [`Input`], by one thread that exists only if
//! there is an input:
//!
//! ```text
//!  Input --poll, read--> thread --lock--> receive FIFO --> guest
//!                          ^                                 |
//!                          +------ FIFO is empty again ------+
//! ```
//!
//! Nothing is read from the host that has no room in the FIFO, so the terminal or pipe holds the
//! sender up. The thread waits for the FIFO to be *empty*: waking it for each byte that the guest
//! takes would cost a system call a byte.
//!
//! Baud rate, parity and the modem lines are remembered and mean nothing. There is one port.

use super::{read_each, write_each};
use crate::bus::{Action, BusDevice};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::convert::Infallible;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use virtio::stream::{Input, Output};
use vm_superio::Trigger;
use vm_superio::serial::NoEvents;

const REGISTERS: u64 = 8;
/// Read from the host in one go: as much as the receive FIFO holds.
const CHUNK: usize = 64;

/// The port, and the thread that feeds it. Dropping it ends the thread.
pub struct Serial {
    port: Arc<Port>,
    feeder: Option<JoinHandle<()>>,
}

impl Serial {
    /// A port that raises its line with `interrupt`. Without an output, what the guest sends is
    /// lost, as with nothing plugged in.
    pub fn start(
        interrupt: impl Fn() + Send + 'static,
        input: Option<Input>,
        output: Option<Output>,
    ) -> io::Result<Self> {
        let uart = Uart::new(Line(Box::new(interrupt)), Wire(output));
        let port = Arc::new(Port {
            fifo_size: uart.fifo_capacity(),
            uart: Mutex::new(uart),
            waiting: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let feeder = input.map(|input| {
            let port = Arc::clone(&port);
            std::thread::Builder::new()
                .name("serial".to_owned())
                .spawn(move || port.feed(&input))
        });
        Ok(Serial {
            port,
            feeder: feeder.transpose()?,
        })
    }

    /// The registers, for the bus.
    pub fn device(&self) -> Arc<dyn BusDevice> {
        Arc::clone(&self.port) as _
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        self.port.ending.store(true, Ordering::SeqCst);
        self.port.wake();
        if let Some(Err(_)) = self.feeder.take().map(JoinHandle::join) {
            log::warn!("the thread that reads the serial port's input panicked");
        }
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial")
            .field("has_input", &self.feeder.is_some())
            .finish_non_exhaustive()
    }
}

type Uart = vm_superio::Serial<Line, NoEvents, Wire>;

/// The interrupt line.
struct Line(Box<dyn Fn() + Send>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        (self.0)();
        Ok(())
    }
}

/// The sending side.
struct Wire(Option<Output>);

impl Write for Wire {
    /// What does not fit is dropped, and counted by the output: the guest can't be told.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if let Some(output) = &self.0 {
            output.push(data);
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Port {
    uart: Mutex<Uart>,
    fifo_size: usize,
    /// The feeder waits for an empty FIFO.
    waiting: AtomicBool,
    /// The feeder is to end.
    ending: AtomicBool,
    /// An event descriptor.
    wake: OwnedFd,
}

impl BusDevice for Port {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut uart = self.lock();
        read_each(offset, data, |register| match u8::try_from(register) {
            Ok(number) if register < REGISTERS => uart.read(number),
            _ => 0xff,
        });
        self.after_access(&uart);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        let mut uart = self.lock();
        let action = write_each(offset, data, |register, value| {
            if let Ok(number) = u8::try_from(register)
                && register < REGISTERS
                && let Err(error) = uart.write(number, value)
            {
                log::debug!("serial port: {error}");
            }
            Action::None
        });
        self.after_access(&uart);
        action
    }
}

impl Port {
    // The registers are valid whatever panicked while they were locked.
    fn lock(&self) -> MutexGuard<'_, Uart> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the feeder is awake anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Wakes the feeder if it waits for what the guest has just done. The lock is held here and
    /// where `waiting` is set, so neither can miss the other.
    fn after_access(&self, uart: &Uart) {
        if self.waiting.load(Ordering::Relaxed) && uart.fifo_capacity() == self.fifo_size {
            self.waiting.store(false, Ordering::Relaxed);
            self.wake();
        }
    }

    /// The feeder thread.
    fn feed(&self, input: &Input) {
        let mut chunk = [0; CHUNK];
        while self.wait_for(Some(input)) {
            let size = match input.read(&mut chunk) {
                Ok(0) => return,
                Ok(size) => size,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => {
                    log::warn!("the serial port's input ends: {error}");
                    return;
                }
            };
            if !self.deliver(chunk.get(..size).unwrap_or_default()) {
                return;
            }
        }
    }

    /// Puts all of `data` into the FIFO, in as many pieces as the guest's reading asks for. False
    /// if the port is to end.
    fn deliver(&self, mut data: &[u8]) -> bool {
        loop {
            let mut uart = self.lock();
            // In loopback the line is cut: nothing is taken until it is over. A full FIFO is an
            // error here, and takes nothing either.
            let taken = uart.enqueue_raw_bytes(data).unwrap_or(0);
            data = data.get(taken..).unwrap_or_default();
            let done = data.is_empty() && uart.fifo_capacity() == self.fifo_size;
            self.waiting.store(!done, Ordering::Relaxed);
            drop(uart);
            if done {
                return true;
            }
            if !self.wait_for(None) {
                return false;
            }
            if data.is_empty() {
                return true;
            }
        }
    }

    /// Waits for `input`, or to be woken. False if the port is to end.
    fn wait_for(&self, input: Option<&Input>) -> bool {
        loop {
            if self.ending.load(Ordering::SeqCst) {
                return false;
            }
            let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
            fds.extend(input.map(|input| PollFd::new(input, PollFlags::IN)));
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    log::warn!("the serial port's input ends: {error}");
                    return false;
                }
                Ok(_) => {}
            }
            let woken = fds.first().is_some_and(|fd| !fd.revents().is_empty());
            let readable = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
            if woken {
                let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            }
            if self.ending.load(Ordering::SeqCst) {
                return false;
            }
            if readable || (woken && input.is_none()) {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
