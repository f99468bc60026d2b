//! Which frames the driver wants (virtio 1.2, 5.1.6.5.1 and 5.1.6.5.2).
//!
//! It is there to spare the guest what a bridge floods: what is filtered out costs it no interrupt.
//! Until the driver has said anything, everything is let through.

use super::Mac;

/// How many addresses of a kind are kept. With more than that all of the kind are let through, as
/// 5.1.6.5.2 allows.
pub(super) const MAX_ADDRESSES: usize = 64;

/// A mode that the driver switches (class 0), by the number of its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mode {
    /// Everything.
    Promiscuous = 0,
    /// All multicast.
    AllMulticast = 1,
    /// All unicast.
    AllUnicast = 2,
    /// No multicast.
    NoMulticast = 3,
    /// No unicast.
    NoUnicast = 4,
    /// No broadcast.
    NoBroadcast = 5,
}

impl Mode {
    /// The mode that a command is about.
    pub(super) fn from_command(command: u8) -> Option<Mode> {
        use Mode::*;
        let all = [
            Promiscuous,
            AllMulticast,
            AllUnicast,
            NoMulticast,
            NoUnicast,
            NoBroadcast,
        ];
        all.into_iter().find(|mode| *mode as u8 == command)
    }
}

/// Addresses of one kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    addresses: Vec<Mac>,
    has_all: bool,
}

impl Table {
    pub(super) fn new(addresses: Vec<Mac>) -> Self {
        Table {
            addresses,
            has_all: false,
        }
    }

    /// Stands for more addresses than are kept.
    pub(super) fn everything() -> Self {
        Table {
            addresses: Vec::new(),
            has_all: true,
        }
    }

    fn has(&self, address: Mac) -> bool {
        self.has_all || self.addresses.contains(&address)
    }
}

/// What is let through.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    /// A bit for each mode that is on.
    modes: u8,
    address: Mac,
    pub(super) unicast: Table,
    pub(super) multicast: Table,
}

impl Filter {
    /// Lets everything through.
    pub(super) fn new(address: Mac) -> Self {
        Filter {
            modes: bit(Mode::Promiscuous),
            address,
            unicast: Table::default(),
            multicast: Table::default(),
        }
    }

    pub(super) fn set(&mut self, mode: Mode, on: bool) {
        if on {
            self.modes |= bit(mode);
        } else {
            self.modes &= !bit(mode);
        }
    }

    pub(super) fn set_address(&mut self, address: Mac) {
        self.address = address;
    }

    /// Whether all frames pass, so that it need not be looked where one goes.
    pub(super) fn is_open(&self) -> bool {
        self.modes == bit(Mode::Promiscuous)
    }

    /// Whether the driver wants a frame to this address.
    pub(super) fn passes(&self, to: Mac) -> bool {
        let on = |mode| self.modes & bit(mode) != 0;
        if to == Mac::BROADCAST {
            return !on(Mode::NoBroadcast);
        }
        let (none, all, known) = if to.is_multicast() {
            let known = self.multicast.has(to);
            (Mode::NoMulticast, Mode::AllMulticast, known)
        } else {
            let known = to == self.address || self.unicast.has(to);
            (Mode::NoUnicast, Mode::AllUnicast, known)
        };
        on(Mode::Promiscuous) || !on(none) && (on(all) || known)
    }
}

fn bit(mode: Mode) -> u8 {
    1 << mode as u8
}
