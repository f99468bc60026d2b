//! What the pairs of a card have in common, on whichever thread each of them is served.
//!
//! The driver's orders make [`Settings`], which never change: an order makes new ones. Each pair has
//! those that it follows, so a frame costs no lock. When there are new ones, the pairs are told
//! ([`Io::tell_lanes`](crate::Io::tell_lanes)), and an order is answered when all of them follow: no
//! frame is received the old way afterwards.
//!
//! Here are also the pairs that nobody serves. A lane takes its pair when it is activated and puts
//! it back when it is idle.

use super::filter::Filter;
use super::header::Offloads;
use super::pair::{MAX_FRAME, MAX_HEADER, Pair};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What holds for all pairs of a card.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) filter: Filter,
    /// What the driver may leave to us.
    pub(super) from_driver: Offloads,
    /// What we may leave to the driver.
    pub(super) to_driver: Offloads,
    /// Whether a received frame may be spread over chains.
    pub(super) mergeable: bool,
    /// The longest packet, if frames are not segmented.
    pub(super) mtu: u16,
    /// How many pairs the driver uses.
    pub(super) in_use: u16,
}

impl Settings {
    /// The longest frame that is to be expected.
    pub(super) fn largest(&self) -> usize {
        if self.to_driver.intersects(Offloads::TSO4 | Offloads::TSO6) {
            MAX_FRAME
        } else {
            usize::from(self.mtu) + MAX_HEADER
        }
    }
}

/// What the lanes of a card share.
pub(super) struct Card {
    state: Mutex<State>,
}

struct State {
    settings: Arc<Settings>,
    /// Those of all pairs but the first, which the device itself serves.
    seats: Vec<Seat>,
}

/// Where a pair is.
enum Seat {
    /// Nobody serves it.
    Home(Box<Pair>),
    /// A lane serves it.
    Away {
        /// It knows the settings as they are now.
        follows: bool,
        /// Its link is up.
        up: bool,
    },
}

impl Card {
    /// All pairs but the first, by their numbers from 1 on.
    pub(super) fn new(settings: Arc<Settings>, pairs: Vec<Pair>) -> Self {
        let seats = pairs.into_iter().map(|pair| Seat::Home(Box::new(pair)));
        Card {
            state: Mutex::new(State {
                settings,
                seats: seats.collect(),
            }),
        }
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.lock().settings)
    }

    /// From now on these hold. Pairs that are served don't know them yet.
    pub(super) fn publish(&self, settings: Settings) {
        let mut state = self.lock();
        state.settings = Arc::new(settings);
        for seat in &mut state.seats {
            if let Seat::Away { follows, .. } = seat {
                *follows = false;
            }
        }
    }

    /// Takes a pair to serve it.
    pub(super) fn take(&self, number: u16) -> Option<Box<Pair>> {
        let mut state = self.lock();
        let seat = state.seat(number)?;
        let away = Seat::Away {
            follows: false,
            up: true,
        };
        match std::mem::replace(seat, away) {
            Seat::Home(pair) => Some(pair),
            other => {
                *seat = other;
                None
            }
        }
    }

    /// Puts a pair back that is not served any more.
    pub(super) fn put(&self, number: u16, pair: Box<Pair>) {
        if let Some(seat) = self.lock().seat(number) {
            *seat = Seat::Home(pair);
        }
    }

    /// A lane says which settings its pair follows, and whether its link is up.
    pub(super) fn note(&self, number: u16, followed: &Arc<Settings>, is_up: bool) {
        let mut state = self.lock();
        let is_latest = Arc::ptr_eq(&state.settings, followed);
        if let Some(Seat::Away { follows, up }) = state.seat(number) {
            *follows = is_latest;
            *up = is_up;
        }
    }

    /// Whether all pairs that are served follow the settings as they are now.
    pub(super) fn all_follow(&self) -> bool {
        let state = self.lock();
        let mut seats = state.seats.iter();
        seats.all(|seat| !matches!(seat, Seat::Away { follows: false, .. }))
    }

    /// Whether the links of all pairs that the driver uses are up.
    pub(super) fn is_up(&self) -> bool {
        let state = self.lock();
        // The first pair is not here.
        let in_use = usize::from(state.settings.in_use).saturating_sub(1);
        state.seats.iter().take(in_use).all(|seat| match seat {
            Seat::Home(pair) => pair.is_up(),
            Seat::Away { up, .. } => *up,
        })
    }

    /// Does something to each pair that nobody serves.
    pub(super) fn each_at_home(&self, mut act: impl FnMut(&mut Pair)) {
        for seat in &mut self.lock().seats {
            if let Seat::Home(pair) = seat {
                act(pair);
            }
        }
    }

    // What is in here is right after each single change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn seat(&mut self, number: u16) -> Option<&mut Seat> {
        self.seats.get_mut(usize::from(number).checked_sub(1)?)
    }
}
