//! A device in one file: a console (virtio 1.2, 5.3) whose guest is heard line by line.
//!
//! Its driver is that of every virtio console, so that Linux has it as `hvc0`, `hvc1`, ... What is
//! printed there arrives at a function of the program's own as whole lines of text, without the
//! carriage returns that a terminal needs. A program that waits for a word of its guest's, or keeps
//! a log with times, needs no more.
//!
//! The guest decides what it prints, so nothing here grows with that: a line is cut when it is too
//! long, and of a chain that claims to be huge only the beginning counts. What it does not do is to
//! type: the queue for input is there, because a driver expects it, and stays as the driver fills it.

use std::sync::Arc;
use virtio::{Chain, ConfigSpace, Device, Error, Event, Io, Kind, Spec, Step};

/// `receiveq(port0)` and `transmitq(port0)` (5.3.2).
const QUEUES: usize = 2;
const TRANSMITQ: u16 = 1;
const QUEUE_SIZE: u16 = 64;

/// A line that is longer arrives in pieces.
const LINE_LIMIT: usize = 4096;
/// What counts of one chain. Linux sends a page at most.
const CHAIN_LIMIT: usize = 64 << 10;

/// A console that gives each line to a function.
pub struct Lines<F> {
    spec: Spec,
    each: F,
    /// The line so far.
    line: Vec<u8>,
}

impl<F: FnMut(&str) + Send + 'static> Lines<F> {
    /// A console whose lines go to `each`. That is called on the device's thread: the guest waits
    /// while it takes its time.
    pub fn new(each: F) -> Self {
        let spec = Spec {
            kind: Kind::Console,
            name: "lines".to_owned(),
            // No feature, so no configuration space either: it would have the window's size.
            features: 0,
            queues: vec![QUEUE_SIZE; QUEUES],
            config: Arc::new(ConfigSpace::new(Vec::new())),
        };
        let line = Vec::new();
        Lines { spec, each, line }
    }

    /// Hears what the driver has put into a chain.
    fn hear(&mut self, chain: &mut Chain<'_>) {
        let mut reader = chain.reader();
        let mut left = reader.remaining().min(CHAIN_LIMIT);
        // Guest memory may change at any time: it is copied, and the copy looked at.
        let mut copy = [0; 512];
        while left > 0 {
            let Some(piece) = copy.get_mut(..left.min(512)) else {
                return;
            };
            if reader.read_exact(piece).is_err() {
                return;
            }
            left -= piece.len();
            piece.iter().for_each(|byte| self.push(*byte));
        }
    }

    fn push(&mut self, byte: u8) {
        match byte {
            b'\n' => self.end_line(),
            b'\r' => {}
            byte => {
                self.line.push(byte);
                if self.line.len() == LINE_LIMIT {
                    self.end_line();
                }
            }
        }
    }

    fn end_line(&mut self) {
        (self.each)(&String::from_utf8_lossy(&self.line));
        self.line.clear();
    }
}

impl<F: FnMut(&str) + Send + 'static> Device for Lines<F> {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    // A device with descriptors to wait for would watch them from here on.
    fn activate(&mut self, _io: &mut Io) -> Result<(), Error> {
        Ok(())
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error> {
        if event == Event::Queue(TRANSMITQ) {
            io.drain(TRANSMITQ, |chain| {
                self.hear(chain);
                // Nothing was written into the driver's memory.
                Ok(Step::Done(0))
            })?;
        }
        Ok(())
    }

    // Each chain is done before `handle` returns: nothing is in flight.
    fn quiesce(&mut self, _io: &mut Io) -> Result<(), Error> {
        Ok(())
    }

    // Another driver begins with a line of its own.
    fn reset(&mut self) {
        self.line.clear();
    }
}
