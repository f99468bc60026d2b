//! Where BARs answer: in the window that the host bridge passes on, wherever the guest puts them.
//!
//! A function says where its BAR wants to be; it gets the place if that lies within the window
//! and no other BAR is there. Who came first stays, and who was refused is asked again whenever
//! somebody leaves. A BAR that has its place has its doorbells there too.

use super::Function;
use crate::arch::layout::PCI_WINDOW;
use crate::bus::{Action, BusDevice};
use std::sync::{Arc, PoisonError, RwLock};
use virtio::transport::Doorbell;
use virtio::transport::pci::Pci;

/// Binds doorbells of a BAR that is at `base`, until the result is dropped.
pub(crate) trait Binder: Send + Sync {
    fn bind(&self, name: &str, base: u64, doorbells: &[Doorbell]) -> Bound;
}

/// What is bound.
pub(crate) type Bound = Box<dyn Send + Sync>;

/// Where BARs are before the guest changes that.
pub(super) fn addresses(start: u64) -> impl Iterator<Item = u64> {
    (0..).map(move |index| start + index * Pci::BAR_SIZE)
}

/// One function's BAR.
#[derive(Default)]
struct Place {
    /// Where it would answer.
    wanted: Option<u64>,
    /// Where it does.
    held: Option<Held>,
}

struct Held {
    base: u64,
    _doorbells: Bound,
}

/// The BARs of all functions.
pub(super) struct Places {
    functions: Arc<[Function]>,
    places: RwLock<Vec<Place>>,
    binder: Box<dyn Binder>,
}

impl Places {
    pub(super) fn new(functions: Arc<[Function]>, binder: Box<dyn Binder>) -> Self {
        let places = functions.iter().map(|_| Place::default()).collect();
        Places {
            functions,
            places: RwLock::new(places),
            binder,
        }
    }

    /// The guest may have moved this function's BAR.
    pub(super) fn follow(&self, index: usize) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let (Some(function), Some(place)) = (self.functions.get(index), places.get_mut(index))
        else {
            return;
        };
        // Asked under the lock on places, so that the last of several writers says how it is.
        let wanted = function.lock().decoded().filter(|base| inside(*base));
        if place.wanted == wanted {
            return;
        }
        *place = Place { wanted, held: None };
        for index in 0..places.len() {
            self.settle(&mut places, index);
        }
    }

    /// Gives a function its place, if it wants one and can have it.
    fn settle(&self, places: &mut [Place], index: usize) {
        let bases = || {
            places
                .iter()
                .filter_map(|place| Some(place.held.as_ref()?.base))
        };
        if let Some(place) = places.get(index)
            && let (None, Some(base)) = (&place.held, place.wanted)
            && bases().all(|other| other.abs_diff(base) >= Pci::BAR_SIZE)
            && let Some(function) = self.functions.get(index)
        {
            let doorbells = function.lock().doorbells();
            let held = Held {
                base,
                _doorbells: self.binder.bind(function.name(), base, &doorbells),
            };
            if let Some(place) = places.get_mut(index) {
                place.held = Some(held);
            }
        }
    }

    /// The function that answers at an address, and where in its BAR that is.
    fn find(&self, address: u64) -> Option<(u64, &Function)> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places
            .iter()
            .zip(&*self.functions)
            .find_map(|(place, function)| {
                let offset = address.checked_sub(place.held.as_ref()?.base)?;
                (offset < Pci::BAR_SIZE).then_some((offset, function))
            })
    }
}

fn inside(base: u64) -> bool {
    (PCI_WINDOW.start..=PCI_WINDOW.end - Pci::BAR_SIZE).contains(&base)
}

/// The window: each access goes to the BAR that is there now.
pub(super) struct Bars(pub Arc<Places>);

impl Bars {
    fn find(&self, offset: u64) -> Option<(u64, &Function)> {
        self.0.find(PCI_WINDOW.start.checked_add(offset)?)
    }
}

impl BusDevice for Bars {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.find(offset) {
            Some((offset, function)) => function.lock().read(offset, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        if let Some((offset, function)) = self.find(offset) {
            function.lock().write(offset, data);
        }
        Action::None
    }
}
