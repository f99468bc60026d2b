//! The lanes of a card: each serves one of the pairs behind the first, on a thread of its own.
//!
//! A pair that the driver does not use has no thread: its lane sleeps until the driver uses it.

use super::card::Card;
use super::pair::Pair;
use crate::{Error, Event, Io, Lane};
use std::ops::Range;
use std::sync::Arc;

/// Serves a pair while it is active.
pub(super) struct PairLane {
    number: u16,
    card: Arc<Card>,
    pair: Option<Box<Pair>>,
}

impl PairLane {
    pub(super) fn new(number: u16, card: Arc<Card>) -> Self {
        PairLane {
            number,
            card,
            pair: None,
        }
    }

    /// Tells the device's own lane how this one is.
    fn report(&self, pair: &Pair, io: &Io) -> Result<(), Error> {
        self.card.note(self.number, pair.settings(), pair.is_up());
        io.tell_lanes()
    }
}

impl Lane for PairLane {
    fn queues(&self) -> Range<u16> {
        2 * self.number..2 * self.number + 2
    }

    fn is_asleep(&self) -> bool {
        self.number >= self.card.settings().in_use
    }

    fn activate(&mut self, io: &mut Io) -> Result<(), Error> {
        self.pair = self.card.take(self.number);
        if let Some(pair) = &mut self.pair {
            pair.activate(self.card.settings(), io)?;
        }
        match &self.pair {
            Some(pair) => self.report(pair, io),
            None => Ok(()),
        }
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error> {
        let Some(pair) = &mut self.pair else {
            return Ok(());
        };
        let before = (Arc::clone(pair.settings()), pair.is_up());
        match event {
            Event::Shared => pair.follow(self.card.settings(), io)?,
            event => pair.handle(event, io)?,
        }
        let is_same = Arc::ptr_eq(&before.0, pair.settings()) && before.1 == pair.is_up();
        match &self.pair {
            Some(pair) if !is_same => self.report(pair, io),
            _ => Ok(()),
        }
    }

    fn quiesce(&mut self, io: &mut Io) -> Result<(), Error> {
        if let Some(mut pair) = self.pair.take() {
            pair.quiesce(io);
            self.card.put(self.number, pair);
        }
        Ok(())
    }
}
