//! The network card (virtio 1.2, 5.1): frames between the guest and a [`NetBackend`].
//!
//! # The problem
//!
//! A card has to move many frames with few system calls, and it stands between two sides that may
//! stop at any time: the guest gives no buffers, the host takes no frames, an interface goes away.
//! Neither side may be held up by the other, and nothing may spin. And every header that the guest
//! writes is about to reach the host's kernel.
//!
//! # The design
//!
//! ```text
//!   Net ---- Pair 0: receiveq1, transmitq1, one NetBackend     frames: one readv or writev each, on
//!    |                                                         guest memory, no copy of ours
//!    +------ controlq: Order -> Settings (filter, offloads, how many pairs are in use)
//!    |
//!   Card (settings, pairs that nobody serves)
//!    |
//!   PairLane - Pair 1: receiveq2, transmitq2, one NetBackend   on a thread of its own,
//!   PairLane - Pair 2: ...                                     once the driver uses it
//! ```
//!
//! * A pair (`pair.rs`) is all that moves frames: it shares nothing with the others but what the driver
//!   has ordered (`card.rs`). What happens when a side does not keep up is told there.
//! * A frame's header is copied, checked and cleaned ([`header`]) before the host sees it. What is
//!   not right costs that frame, and is counted.
//! * Frames are received straight into the driver's buffers, several of them if it takes that
//!   (`VIRTIO_NET_F_MRG_RXBUF`, `window.rs`), which it then finds all at once.
//! * Nothing allocates or locks for a frame. The driver is interrupted once a turn.
//! * A host side that fails costs the link, which the driver can read, and never the device.
//!
//! Where frames go: [`Tap`], an interface of the host; [`Passt`], the host's network without
//! privileges; [`Wire`], another card or a program; and whatever implements [`NetBackend`].
//!
//! # What it does not do
//!
//! Filter by VLAN, hash (RSS), coalesce interrupts, segment UDP, announce itself after a migration,
//! or limit rates. What a guest sends as its own address is not checked: a bridge is where that
//! belongs.

pub mod backend;
mod card;
mod control;
mod controlq;
pub mod counters;
mod features;
mod filter;
pub mod header;
mod lane;
pub mod mac;
mod pair;
pub mod passt;
pub mod tap;
#[cfg(test)]
mod tests;
mod window;
pub mod wire;

pub use backend::{NetBackend, Properties, Refusal};
pub use counters::{Counters, Counts};
pub use header::{HEADER_LEN, Header, Offloads};
pub use mac::{Mac, MacError};
pub use passt::Passt;
pub use tap::Tap;
pub use wire::Wire;

use crate::{ConfigSpace, Device, Error, Event, Io, Kind, Lane, Spec};
use card::{Card, Settings};
use controlq::Pending;
use filter::Filter;
use lane::PairLane;
use pair::Pair;
use std::sync::Arc;

/// A burst of some 200 frames is no loss, and memory for buffers is the driver's: Linux takes 1.5 KiB
/// each until frames are larger.
const QUEUE_SIZE: u16 = 256;
/// Orders are rare.
const CONTROL_QUEUE_SIZE: u16 = 64;

/// The most pairs that a card can have. Each is two queues, each with a doorbell of its own.
pub const MAX_PAIRS: usize = 16;

/// What Ethernet's packets are, if nothing else is known.
const USUAL_MTU: u16 = 1500;
/// The smallest MTU that IPv4 allows; with less, Linux refuses the card.
const MIN_MTU: u16 = 68;

/// Where the fields of the configuration space are (5.1.4).
const CONFIG_STATUS: usize = 6;
const CONFIG_PAIRS: usize = 8;
const CONFIG_MTU: usize = 10;
const CONFIG_SIZE: usize = 12;
/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u8 = 1;

/// Why a card can't be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No guest would take it.
    #[error("an MTU of {mtu} is not possible: it is {MIN_MTU} to {max}")]
    Mtu {
        /// What was asked for.
        mtu: u16,
        /// The most that the host side takes.
        max: u16,
    },
    /// There are too many pairs of queues.
    #[error("a card has at most {MAX_PAIRS} pairs of queues")]
    Pairs,
    /// A frame could leave by one lane and not by another.
    #[error("the lanes of a card have to be alike: {first:?} and {other:?}")]
    Unlike {
        /// The first lane.
        first: Properties,
        /// The one that differs.
        other: Properties,
    },
    /// The address is not one of a card.
    #[error("address {mac}")]
    Mac {
        /// The address.
        mac: Mac,
        /// What is wrong with it.
        source: MacError,
    },
}

/// A network card.
pub struct Net {
    spec: Spec,
    mac: Mac,
    properties: Properties,
    card: Arc<Card>,
    /// How many pairs there are.
    pairs: u16,
    /// The first pair, which the device itself serves.
    first: Pair,
    /// Orders that the other pairs don't follow yet.
    pending: Vec<Pending>,
    /// The driver was ready since the last reset.
    started: bool,
    /// What the status says about the link.
    up: bool,
    counters: Arc<Counters>,
}

impl Net {
    /// A card with this address, and a host side for its only pair of queues.
    pub fn new(backend: impl NetBackend, mac: Mac) -> Result<Net, ConfigError> {
        let lanes: Vec<Box<dyn NetBackend>> = vec![Box::new(backend)];
        Self::with_lanes(lanes, mac)
    }

    /// A card with a pair of queues for each of several lanes of one host side.
    pub fn with_lanes(lanes: Vec<Box<dyn NetBackend>>, mac: Mac) -> Result<Net, ConfigError> {
        mac.check()
            .map_err(|source| ConfigError::Mac { mac, source })?;
        let first = lanes.first().map(|lane| lane.properties());
        let properties = first.ok_or(ConfigError::Pairs)?;
        if lanes.len() > MAX_PAIRS {
            return Err(ConfigError::Pairs);
        }
        if let Some(other) = lanes
            .iter()
            .map(|lane| lane.properties())
            .find(|other| *other != properties)
        {
            let first = properties;
            return Err(ConfigError::Unlike { first, other });
        }
        // At most `MAX_PAIRS`.
        let count = lanes.len() as u16;
        let settings = Arc::new(Settings {
            filter: Filter::new(mac),
            from_driver: Offloads::empty(),
            to_driver: Offloads::empty(),
            mergeable: false,
            mtu: properties.mtu.unwrap_or(USUAL_MTU),
            in_use: 1,
        });
        let counters = Counters::new(lanes.len());
        let mut pairs = (0..)
            .zip(lanes)
            .zip(counters.pairs())
            .map(|((number, lane), counters)| {
                Pair::new(number, lane, Arc::clone(&settings), counters)
            });
        let first = pairs.next().ok_or(ConfigError::Pairs)?;
        let mut queues = vec![QUEUE_SIZE; 2 * usize::from(count)];
        queues.push(CONTROL_QUEUE_SIZE);
        let mut net = Net {
            spec: Spec {
                kind: Kind::Net,
                name: "net".to_owned(),
                features: offered(&properties, count),
                queues,
                config: Arc::new(ConfigSpace::new(vec![0; CONFIG_SIZE])),
            },
            mac,
            properties,
            card: Arc::new(Card::new(Arc::clone(&settings), pairs.collect())),
            pairs: count,
            first,
            pending: Vec::new(),
            started: false,
            up: true,
            counters: Arc::new(counters),
        };
        net.write_config(properties.mtu);
        Ok(net)
    }

    /// Changes how messages call the device.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.spec.name = name.to_owned();
        self
    }

    /// Tells the guest how large packets may be, if that is less than what the host side takes.
    pub fn mtu(mut self, mtu: u16) -> Result<Self, ConfigError> {
        let max = self.properties.mtu.unwrap_or(u16::MAX);
        if !(MIN_MTU..=max).contains(&mtu) {
            return Err(ConfigError::Mtu { mtu, max });
        }
        self.change(|settings| settings.mtu = mtu);
        self.spec.features |= features::MTU;
        self.write_config(Some(mtu));
        Ok(self)
    }

    /// What has passed, to be read at any time.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    fn write_config(&mut self, mtu: Option<u16>) {
        let mut bytes = [0; CONFIG_SIZE];
        put(&mut bytes, 0, &self.mac.bytes());
        put(&mut bytes, CONFIG_STATUS, &[LINK_UP]);
        put(&mut bytes, CONFIG_PAIRS, &self.pairs.to_le_bytes());
        put(&mut bytes, CONFIG_MTU, &mtu.unwrap_or(0).to_le_bytes());
        self.spec.config.update(|config| put(config, 0, &bytes));
    }

    /// Lets the driver read whether all lanes that it uses are up.
    fn report_link(&mut self, io: &Io) {
        let up = self.first.is_up() && self.card.is_up();
        if up != self.up {
            self.up = up;
            let status = if up { LINK_UP } else { 0 };
            io.update_config(|config| put(config, CONFIG_STATUS, &[status]));
        }
    }
}

impl Device for Net {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn activate(&mut self, io: &mut Io) -> Result<(), Error> {
        let features = io.features();
        if !self.started {
            self.started = true;
            self.change(|settings| {
                settings.from_driver = features::host_offloads(features);
                settings.to_driver = features::guest_offloads(features);
                settings.mergeable = features & features::MRG_RXBUF != 0;
            });
        }
        let settings = self.card.settings();
        self.card.each_at_home(|pair| pair.leave_unused(&settings));
        self.first.activate(settings, io)?;
        self.report_link(io);
        Ok(())
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error> {
        match event {
            Event::Queue(queue) if queue == self.controlq(io.features()) => {
                self.take_orders(io)?;
            }
            Event::Shared => self.take_orders(io)?,
            event => self.first.handle(event, io)?,
        }
        self.report_link(io);
        Ok(())
    }

    fn quiesce(&mut self, io: &mut Io) -> Result<(), Error> {
        self.first.quiesce(io);
        Ok(())
    }

    fn reset(&mut self) {
        self.started = false;
        self.pending.clear();
        self.change(|settings| {
            settings.in_use = 1;
            settings.filter = Filter::new(self.mac);
        });
        let mac = self.mac.bytes();
        self.spec.config.update(|config| put(config, 0, &mac));
        self.first.reset();
        self.card.each_at_home(Pair::reset);
    }

    fn lanes(&self, features: u64) -> Vec<Box<dyn Lane>> {
        if features & features::MQ == 0 {
            return Vec::new();
        }
        let lane = |number| Box::new(PairLane::new(number, Arc::clone(&self.card))) as _;
        (1..self.pairs).map(lane).collect()
    }
}

/// What a card with such a host side offers.
fn offered(properties: &Properties, pairs: u16) -> u64 {
    let mut offered = features::of(properties.offloads)
        | features::MAC
        | features::MRG_RXBUF
        | features::STATUS
        | features::CTRL_VQ
        | features::CTRL_RX
        | features::CTRL_RX_EXTRA
        | features::CTRL_MAC_ADDR;
    if offered & features::GUEST_OFFLOADS != 0 {
        offered |= features::CTRL_GUEST_OFFLOADS;
    }
    if properties.mtu.is_some() {
        offered |= features::MTU;
    }
    if pairs > 1 {
        offered |= features::MQ;
    }
    offered
}

/// Writes bytes into a configuration space that is large enough.
fn put(config: &mut [u8], at: usize, bytes: &[u8]) {
    let target = config.get_mut(at..).unwrap_or_default();
    for (to, from) in target.iter_mut().zip(bytes) {
        *to = *from;
    }
}
