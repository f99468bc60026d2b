//! A device with nothing in it but what a device can do to those around it.
//!
//! Queue 0 copies what is readable to what is writable. Queue 1 keeps its chains until the
//! driver asks for them or the device is quiesced. What the driver writes to the configuration
//! space is a [`Command`].

use crate::config::ConfigSpace;
use crate::{Device, Error, Event, Io, Kind, Spec, Step, Token};
use std::io::{Read, Write};
use std::sync::Arc;

/// The queue that echoes.
pub const ECHO: u16 = 0;
/// The queue that keeps its chains.
pub const KEEP: u16 = 1;
/// Where in the configuration space a command is written, as one byte.
pub const COMMAND: u64 = 8;
/// A feature of the device's own, to negotiate.
pub const FEATURE: u64 = 1 << 3;

/// What the driver can order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// Complete what was kept.
    Release = 1,
    /// Fail.
    Fail = 2,
    /// Panic.
    Panic = 3,
    /// Count the first byte of the configuration space up, and say so.
    Count = 4,
}

/// The device.
pub struct Echo {
    spec: Spec,
    kept: Vec<Token>,
}

impl Default for Echo {
    fn default() -> Self {
        Echo {
            spec: Spec {
                kind: Kind::Rng,
                name: "echo0".to_owned(),
                features: FEATURE,
                queues: vec![256, 64],
                config: Arc::new(ConfigSpace::with_writable(vec![0; 16], 8..16)),
            },
            kept: Vec::new(),
        }
    }
}

impl Echo {
    fn release(&mut self, io: &mut Io) -> Result<(), Error> {
        self.kept
            .drain(..)
            .try_for_each(|token| io.complete(KEEP, token, 0))
    }

    fn obey(&mut self, io: &mut Io) -> Result<(), Error> {
        let mut command = [0];
        io.config().read(COMMAND, &mut command);
        let [command] = command;
        if command == Command::Release as u8 {
            self.release(io)?;
        } else if command == Command::Fail as u8 {
            return Err(Error::Request {
                queue: ECHO,
                what: "the driver ordered a failure",
            });
        } else if command == Command::Panic as u8 {
            panic!("the driver ordered a panic");
        } else if command == Command::Count as u8 {
            io.update_config(|bytes| {
                if let Some(first) = bytes.first_mut() {
                    *first = first.wrapping_add(1);
                }
            });
        }
        Ok(())
    }
}

impl Device for Echo {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn activate(&mut self, _io: &mut Io) -> Result<(), Error> {
        assert!(self.kept.is_empty(), "activated with chains in flight");
        Ok(())
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error> {
        match event {
            Event::Queue(KEEP) => io.drain(KEEP, |chain| {
                self.kept.push(chain.token());
                Ok(Step::Later)
            }),
            Event::Queue(queue) => io.drain(queue, |chain| {
                let mut buffer = [0; 256];
                loop {
                    let count = chain.reader().read(&mut buffer).unwrap_or(0);
                    let bytes = buffer.get(..count).unwrap_or_default();
                    let taken = chain.writer().write(bytes).unwrap_or(0);
                    if taken < count || count == 0 {
                        return Ok(Step::Done(chain.written()));
                    }
                }
            }),
            Event::ConfigWritten => self.obey(io),
            Event::Fd(_) | Event::Shared => Ok(()),
        }
    }

    fn quiesce(&mut self, io: &mut Io) -> Result<(), Error> {
        self.release(io)
    }
}
