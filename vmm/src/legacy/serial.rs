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
//! A guest that looks at the port by itself while it prints has its bytes gathered by the kernel,
//! see [`gather`].
//!
//! Baud rate, parity and the modem lines are remembered and mean nothing. There is one port.

mod gather;
mod habit;
mod registers;

pub use gather::{Coalesced, Gather};

use self::habit::Habit;
use self::registers::{DATA, REGISTERS};
use super::{read_each, write_each};
use crate::bus::{Action, BusDevice};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::convert::Infallible;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use virtio::stream::{Input, Output};
use vm_superio::Trigger;
use vm_superio::serial::NoEvents;

/// Read from the host in one go: as much as the receive FIFO holds.
const CHUNK: usize = 64;

/// The port, and its threads. Dropping it ends them.
pub struct Serial {
    port: Arc<Port>,
    feeder: Option<JoinHandle<()>>,
}

impl Serial {
    /// A port that raises its line with `interrupt`. Without an output, what the guest sends is
    /// lost, as with nothing plugged in. `gather` is asked for help when the guest prints.
    pub fn start(
        interrupt: impl Fn() + Send + 'static,
        input: Option<Input>,
        output: Option<Output>,
        gather: Option<Arc<dyn Gather>>,
    ) -> io::Result<Self> {
        let uart = Uart::new(Line(Box::new(interrupt)), Wire(output));
        let port = Arc::new(Port {
            fifo_size: uart.fifo_capacity(),
            model: Mutex::new(Model {
                uart,
                habit: Habit::default(),
                gatherer: None,
            }),
            gather,
            trust_changed: Condvar::new(),
            waiting: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let feeder = input.map(|input| {
            let port = Arc::clone(&port);
            thread::Builder::new()
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
        Arc::new(Window(Arc::clone(&self.port)))
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        self.port.ending.store(true, Ordering::SeqCst);
        self.port.wake();
        // With the lock, or the gatherer might miss it between its look at `ending` and its wait.
        let gatherer = self.port.lock().gatherer.take();
        self.port.trust_changed.notify_all();
        for thread in [self.feeder.take(), gatherer].into_iter().flatten() {
            if thread.join().is_err() {
                log::warn!("a thread of the serial port panicked");
            }
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

/// What the guest accesses.
struct Model {
    uart: Uart,
    habit: Habit,
    /// Exists since the guest was trusted for the first time.
    gatherer: Option<JoinHandle<()>>,
}

impl Model {
    fn read(&mut self, register: u8) -> u8 {
        self.habit.read(register);
        self.uart.read(register)
    }

    fn write(&mut self, register: u8, value: u8) {
        self.habit.write(register, value);
        if let Err(error) = self.uart.write(register, value) {
            log::debug!("serial port: {error}");
        }
    }
}

struct Port {
    /// Held while gathered bytes are taken out, so that nothing overtakes them.
    model: Mutex<Model>,
    gather: Option<Arc<dyn Gather>>,
    /// The guest is trusted, or no longer; or the port is to end.
    trust_changed: Condvar,
    fifo_size: usize,
    /// The feeder waits for an empty FIFO.
    waiting: AtomicBool,
    /// The feeder is to end.
    ending: AtomicBool,
    /// An event descriptor.
    wake: OwnedFd,
}

/// The port as the bus sees it.
struct Window(Arc<Port>);

impl BusDevice for Window {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.access(|model| {
            read_each(offset, data, |register| match u8::try_from(register) {
                Ok(number) if register < REGISTERS => model.read(number),
                _ => 0xff,
            });
        });
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        self.access(|model| {
            write_each(offset, data, |register, value| {
                match u8::try_from(register) {
                    Ok(number) if register < REGISTERS => model.write(number, value),
                    _ => {}
                }
                Action::None
            })
        })
    }

    fn settle(&self) {
        self.access(|_| ());
    }
}

impl Window {
    /// An access of a vCPU's, after what it and the others had sent before.
    fn access<T>(&self, access: impl FnOnce(&mut Model) -> T) -> T {
        let port = &self.0;
        let mut model = port.lock();
        let trusted = model.habit.is_trusted();
        port.take_gathered(&mut model);
        let result = access(&mut model);
        port.wake_feeder(&model.uart);
        if model.habit.is_trusted() != trusted {
            self.trust_changed(&mut model);
        }
        result
    }

    /// Tells the gatherer, which is started when it is needed for the first time.
    fn trust_changed(&self, model: &mut Model) {
        let port = &self.0;
        port.trust_changed.notify_all();
        let Some(gather) = &port.gather else { return };
        if model.gatherer.is_some() || port.ending.load(Ordering::SeqCst) {
            return;
        }
        let (gather, port) = (Arc::clone(gather), Arc::clone(port));
        let gatherer = thread::Builder::new()
            .name("serial-gather".to_owned())
            .spawn(move || port.gather(&*gather));
        match gatherer {
            Ok(thread) => model.gatherer = Some(thread),
            Err(error) => {
                log::warn!("each byte sent by the serial port is an exit: {error}");
                model.habit.give_up();
            }
        }
    }
}

impl Port {
    // The registers are valid whatever panicked while they were locked.
    fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the feeder is awake anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Sends what the kernel has gathered.
    fn take_gathered(&self, model: &mut Model) {
        if let Some(gather) = &self.gather {
            gather.drain(&mut |byte| model.write(DATA, byte));
        }
    }

    /// Wakes the feeder if it waits for what the guest has just done. The lock is held here and
    /// where `waiting` is set, so neither can miss the other.
    fn wake_feeder(&self, uart: &Uart) {
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
            let mut model = self.lock();
            let uart = &mut model.uart;
            // In loopback the line is cut: nothing is taken until it is over. A full FIFO is an
            // error here, and takes nothing either.
            let taken = uart.enqueue_raw_bytes(data).unwrap_or(0);
            data = data.get(taken..).unwrap_or_default();
            let done = data.is_empty() && uart.fifo_capacity() == self.fifo_size;
            self.waiting.store(!done, Ordering::Relaxed);
            drop(model);
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
