//! The console device (virtio 1.2, 5.3): one port, from and to a host stream.
//!
//! # The problem
//!
//! Linux waits for each chain of console output in a loop with interrupts off, so a chain must
//! not wait for the host for long. A host that is merely slower than the guest should
//! lose nothing all the same: a person who lists a large file wants to see all of it. And
//! whatever comes from the host must wait there until the guest has room for it.
//!
//! # The design
//!
//! * Transmitted bytes go into an [`Output`], which is bounded and written out by a thread of
//!   its own. When it is congested, chains are left in the ring until it has room, but no longer
//!   than 100 ms: from then on bytes are dropped and counted, until the host has caught up.
//! * When the machine ends, chains that are still in the ring are transmitted: the last words of a
//!   guest that dies are what people need. Nothing can wait for room then; what the [`Output`] has
//!   none for is dropped and counted.
//! * A chain may claim up to 4 GiB. Of one chain 256 KiB are copied; the rest
//!   is dropped and counted. A slow host would lose it anyway; the limit makes
//!   sure that the device's thread is soon back to see whether it should stop. No driver is near
//!   it: Linux sends at most 32 KiB at a time.
//! * Input is read when there is a chain for it and only as much as that chain takes, up to a
//!   page. While the driver has no chain ready, the input is not even polled. Its end is
//!   handled once: it is never polled again.
//! * [`Resizer`] changes the configuration space at any time, from any thread. The device is
//!   woken only to interrupt the driver.
//!
//! Costs: per transmitted chain two copies and no system call of this thread's, besides those of
//! [`Output`]; per received chain one read(2) and two copies of at most 4 KiB.
//!
//! # What it does not do
//!
//! `VIRTIO_CONSOLE_F_MULTIPORT`. And nothing about terminals: modes, signals and the window's
//! size are the embedder's. Emergency writes are taken from the configuration space by the
//! device's thread: of those that come faster than it looks, or before the device is active, the
//! last one is printed.

#[cfg(test)]
mod tests;

use crate::io::Interest;
use crate::stream::{Input, Output};
use crate::{Chain, ConfigSpace, Device, Error, Event, Io, Kind, Spec, Step};
use rustix::event::{EventfdFlags, eventfd};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// `VIRTIO_CONSOLE_F_SIZE`: the configuration space holds the size of the window.
const F_SIZE: u64 = 1 << 0;
/// `VIRTIO_CONSOLE_F_EMERG_WRITE`: a character written to the configuration space is printed.
const F_EMERG_WRITE: u64 = 1 << 2;

/// `receiveq(port0)`.
const RECEIVEQ: u16 = 0;
/// `transmitq(port0)`.
const TRANSMITQ: u16 = 1;
/// Linux puts one page into each chain of the receive queue and has some 16 bytes to send in most
/// chains of the other: longer queues would only cost it memory.
const QUEUE_SIZE: u16 = 64;

/// The layout of `struct virtio_console_config` (5.3.4): `cols`, `rows`, `max_nr_ports`,
/// `emerg_wr`.
const CONFIG_SIZE: usize = 12;
const EMERG_WR: usize = 8;

/// How much of one transmitted chain is forwarded.
const TRANSMIT_LIMIT: usize = 256 << 10;
/// The size of one copy, and of what is read for one chain.
const STEP: usize = 4096;

/// Watch tokens.
const INPUT: u32 = 0;
const ROOM: u32 = 1;
const RESIZED: u32 = 2;

/// A console with one port.
pub struct Console {
    spec: Spec,
    /// `None` also after its end.
    input: Option<Input>,
    output: Option<Output>,
    resized: Option<Arc<OwnedFd>>,
    /// What is on its way between host and guest.
    step: Box<[u8; STEP]>,
}

impl Console {
    /// A console between the guest and these two streams. Without an input nothing is ever
    /// received; without an output, what is transmitted is thrown away.
    pub fn new(input: Option<Input>, output: Option<Output>) -> Console {
        let writable = EMERG_WR..CONFIG_SIZE;
        let config = ConfigSpace::with_writable(vec![0; CONFIG_SIZE], writable);
        let spec = Spec {
            kind: Kind::Console,
            name: "console".to_owned(),
            features: F_SIZE | F_EMERG_WRITE,
            queues: vec![QUEUE_SIZE; 2],
            config: Arc::new(config),
        };
        // Without it a change of size is still there to be read, but not announced.
        let resized = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .inspect_err(|error| log::warn!("console sizes are not announced: {error}"))
            .ok();
        let resized = resized.map(Arc::new);
        Console {
            spec,
            input,
            output,
            resized,
            step: Box::new([0; STEP]),
        }
    }

    /// Changes how messages call the device.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.spec.name = name.to_owned();
        self
    }

    /// A handle to announce the size of the window with.
    pub fn resizer(&self) -> Resizer {
        Resizer {
            config: Arc::clone(&self.spec.config),
            resized: self.resized.clone(),
        }
    }

    /// Takes what is in the ring; if it `may_wait`, only as long as the output has room.
    fn transmit(&mut self, io: &mut Io, may_wait: bool) -> Result<(), Error> {
        let Some(output) = &self.output else {
            return io.drain(TRANSMITQ, |_| Ok(Step::Done(0)));
        };
        let step = &mut self.step;
        io.drain(TRANSMITQ, |chain| {
            if may_wait && output.is_congested() {
                return Ok(Step::Stop);
            }
            forward(chain, output, step.as_mut_slice())
        })
    }

    fn receive(&mut self, io: &mut Io) -> Result<(), Error> {
        let Some(input) = &self.input else {
            return Ok(());
        };
        let step = &mut self.step;
        let mut next = Next::WaitForChains;
        io.drain(RECEIVEQ, |chain| {
            // What has just come up short has nothing more to give for now.
            if next != Next::WaitForChains {
                return Ok(Step::Stop);
            }
            let room = chain.writable_len().min(STEP as u32) as usize;
            let Some(room) = step.get_mut(..room).filter(|room| !room.is_empty()) else {
                return Ok(Step::Done(0));
            };
            let size = match input.read(room) {
                Ok(size) => size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    next = Next::WaitForInput;
                    return Ok(Step::Stop);
                }
                Err(error) => {
                    log::warn!("console input ends: {error}");
                    0
                }
            };
            if size == 0 {
                next = Next::Ended;
                return Ok(Step::Stop);
            }
            if size < room.len() {
                next = Next::WaitForInput;
            }
            let received = room.get(..size).unwrap_or_default();
            chain
                .writer()
                .write_all(received)
                .map_err(|source| copying(RECEIVEQ, source))?;
            Ok(Step::Done(chain.written()))
        })?;
        match next {
            Next::WaitForInput => io.watch(INPUT, input.as_fd(), Interest::READ)?,
            Next::WaitForChains => io.unwatch(INPUT),
            Next::Ended => {
                io.unwatch(INPUT);
                self.input = None;
            }
        }
        Ok(())
    }

    /// Forwards the character that the driver wrote to `emerg_wr`, if it did.
    fn emergency_write(&mut self, io: &Io) {
        let mut word = [0; CONFIG_SIZE - EMERG_WR];
        io.config().read(EMERG_WR as u64, &mut word);
        if word == [0; CONFIG_SIZE - EMERG_WR] {
            return;
        }
        // Taken, so that the next one can be told from it.
        io.config().update(|bytes| {
            if let Some(bytes) = bytes.get_mut(EMERG_WR..CONFIG_SIZE) {
                word.copy_from_slice(bytes);
                bytes.fill(0);
            }
        });
        // Only the lower byte counts (5.3.4).
        if let (Some(output), [character, ..]) = (&self.output, word) {
            output.push(&[character]);
        }
    }
}

/// What the receive queue waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    WaitForInput,
    WaitForChains,
    Ended,
}

/// Forwards the readable part of a chain. Should it have a writable part, that is left alone.
fn forward(chain: &mut Chain<'_>, output: &Output, step: &mut [u8]) -> Result<Step, Error> {
    let mut reader = chain.reader();
    let mut forwarded = 0;
    while forwarded < TRANSMIT_LIMIT {
        let size = reader
            .read(step)
            .map_err(|source| copying(TRANSMITQ, source))?;
        let bytes = step.get(..size).unwrap_or_default();
        forwarded += size;
        // Less than that: the buffer is full, or the output has ended.
        if bytes.is_empty() || output.push(bytes) < size {
            break;
        }
    }
    output.count_dropped(reader.remaining());
    Ok(Step::Done(0))
}

fn copying(queue: u16, source: io::Error) -> Error {
    Error::Host {
        what: format!("copying the buffers of queue {queue}"),
        source,
    }
}

impl Device for Console {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn activate(&mut self, io: &mut Io) -> Result<(), Error> {
        if let Some(resized) = &self.resized {
            io.watch(RESIZED, resized.as_fd(), Interest::READ)?;
        }
        if let Some(output) = &self.output {
            let room = output.room().map_err(|source| Error::Host {
                what: "making a timer for the console's output".to_owned(),
                source,
            })?;
            io.watch(ROOM, room, Interest::READ)?;
        }
        self.emergency_write(io);
        // The input is watched once there is a chain for it.
        Ok(())
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error> {
        match event {
            Event::Queue(RECEIVEQ) | Event::Fd(INPUT) => self.receive(io)?,
            Event::Queue(TRANSMITQ) => self.transmit(io, true)?,
            Event::Fd(ROOM) => {
                if let Some(output) = &self.output {
                    output.room_event();
                }
                self.transmit(io, true)?;
            }
            Event::Fd(RESIZED) => {
                if let Some(resized) = &self.resized {
                    // Only to make it unreadable: one interrupt is enough for many changes.
                    let _ = rustix::io::read(resized, &mut [0; 8]);
                }
                // The new size is in the configuration space already.
                io.update_config(|_| {});
            }
            Event::ConfigWritten => self.emergency_write(io),
            Event::Queue(_) | Event::Fd(_) | Event::Shared => {}
        }
        Ok(())
    }

    fn quiesce(&mut self, io: &mut Io) -> Result<(), Error> {
        for token in [INPUT, ROOM, RESIZED] {
            io.unwatch(token);
        }
        Ok(())
    }

    fn finish(&mut self, io: &mut Io) -> Result<(), Error> {
        self.transmit(io, false)?;
        self.emergency_write(io);
        Ok(())
    }
}

/// Announces the size of a console's window, at any time and from any thread.
#[derive(Debug, Clone)]
pub struct Resizer {
    config: Arc<ConfigSpace>,
    resized: Option<Arc<OwnedFd>>,
}

impl Resizer {
    /// The window now has this many columns and rows. Of many calls the last one counts, and the
    /// driver may be interrupted once for all of them. Before the driver is there, and after it
    /// has gone, only the configuration space changes.
    pub fn resize(&self, columns: u16, rows: u16) {
        let [c0, c1] = columns.to_le_bytes();
        let [r0, r1] = rows.to_le_bytes();
        self.config.update(|bytes| {
            for (to, from) in bytes.iter_mut().zip([c0, c1, r0, r1]) {
                *to = from;
            }
        });
        if let Some(resized) = &self.resized {
            // It fails only when the counter is about to overflow: then the device is woken too.
            let _ = rustix::io::write(resized, &1u64.to_ne_bytes());
        }
    }
}
