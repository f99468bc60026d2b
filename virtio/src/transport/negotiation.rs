//! Which features a driver may take (virtio 1.2, 2.2).

use crate::device::Kind;
use crate::features::{EVENT_IDX, INDIRECT_DESC, RING_PACKED, TRANSPORT_MASK, VERSION_1};

/// What the rings and the transport offer, for every device. Not `IN_ORDER`: devices use chains
/// as host I/O ends.
const COMMON: u64 = VERSION_1 | INDIRECT_DESC | EVENT_IDX;

/// The ring layouts that a driver may choose from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rings {
    /// Packed rings are offered. Drivers that know them take them: they touch less memory for
    /// each request.
    #[default]
    Any,
    /// Split rings only, which every driver knows.
    Split,
    /// Packed rings only. A driver that does not know them can't use the device.
    Packed,
}

impl Rings {
    fn offered(self) -> u64 {
        match self {
            Rings::Any | Rings::Packed => RING_PACKED,
            Rings::Split => 0,
        }
    }

    /// What a driver has to take.
    fn required(self) -> u64 {
        match self {
            Rings::Any | Rings::Split => 0,
            Rings::Packed => RING_PACKED,
        }
    }
}

/// A feature that is of use only with one of some others.
struct Dependency {
    feature: u8,
    needs_one_of: &'static [u8],
}

const fn needs(feature: u8, needs_one_of: &'static [u8]) -> Dependency {
    Dependency {
        feature,
        needs_one_of,
    }
}

/// Network card, 5.1.3.1. The bits by number: CSUM 0, GUEST_CSUM 1, GUEST_TSO4 7, GUEST_TSO6 8,
/// HOST_TSO4 11, HOST_TSO6 12, CTRL_VQ 17.
const NET: &[Dependency] = &[
    needs(7, &[1]),       // GUEST_TSO4
    needs(8, &[1]),       // GUEST_TSO6
    needs(9, &[7, 8]),    // GUEST_ECN
    needs(10, &[1]),      // GUEST_UFO
    needs(11, &[0]),      // HOST_TSO4
    needs(12, &[0]),      // HOST_TSO6
    needs(13, &[11, 12]), // HOST_ECN
    needs(14, &[0]),      // HOST_UFO
    needs(18, &[17]),     // CTRL_RX
    needs(19, &[17]),     // CTRL_VLAN
    needs(21, &[17]),     // GUEST_ANNOUNCE
    needs(22, &[17]),     // MQ
    needs(23, &[17]),     // CTRL_MAC_ADDR
    needs(53, &[17]),     // NOTF_COAL
    needs(54, &[1]),      // GUEST_USO4
    needs(55, &[1]),      // GUEST_USO6
    needs(56, &[0]),      // HOST_USO
    needs(60, &[17]),     // RSS
    needs(61, &[11, 12]), // RSC_EXT
];

/// The dependencies that the device types of chapter 5 state.
fn dependencies(kind: Kind) -> &'static [Dependency] {
    match kind {
        Kind::Net => NET,
        _ => &[],
    }
}

/// All that a device offers: its own bits, and those of rings and transport.
pub(crate) fn offered(device: u64, rings: Rings) -> u64 {
    (device & !TRANSPORT_MASK) | COMMON | rings.offered()
}

/// Whether the device agrees to what the driver takes.
pub(crate) fn acceptable(kind: Kind, rings: Rings, offered: u64, taken: u64) -> bool {
    let has = |bit: &u8| taken & (1 << bit) != 0;
    let required = VERSION_1 | rings.required();
    taken & !offered == 0
        && taken & required == required
        && dependencies(kind)
            .iter()
            .all(|rule| !has(&rule.feature) || rule.needs_one_of.iter().any(has))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bits that a bit needs, and those that they need.
    fn with_needs(rules: &[Dependency], bit: u8) -> u64 {
        let needed = rules.iter().find(|rule| rule.feature == bit);
        let needed = needed.map_or(0, |rule| with_needs(rules, rule.needs_one_of[0]));
        1 << bit | needed
    }

    #[test]
    fn a_feature_without_what_it_needs_is_refused() {
        for rule in dependencies(Kind::Net) {
            let all = with_needs(NET, rule.feature) | VERSION_1;
            let alone = 1 << rule.feature | VERSION_1;
            assert!(
                acceptable(Kind::Net, Rings::Any, u64::MAX, all),
                "{} with all",
                rule.feature
            );
            assert!(
                !acceptable(Kind::Net, Rings::Any, u64::MAX, alone),
                "{} alone",
                rule.feature
            );
            assert!(
                acceptable(Kind::Rng, Rings::Any, u64::MAX, alone),
                "{} elsewhere",
                rule.feature
            );
        }
    }

    #[test]
    fn any_one_of_several_needs_is_enough() {
        for tso in [7, 8] {
            let taken = 1 << 9 | 1 << tso | 1 << 1 | VERSION_1;
            assert!(acceptable(Kind::Net, Rings::Any, u64::MAX, taken));
        }
    }

    #[test]
    fn a_device_cannot_offer_bits_of_the_transport() {
        assert_eq!(offered(u64::MAX, Rings::Split) & TRANSPORT_MASK, COMMON);
        assert_eq!(offered(0, Rings::Split), COMMON);
    }

    #[test]
    fn the_packed_layout_is_offered_unless_split_is_forced() {
        for (rings, is_offered) in [
            (Rings::Any, true),
            (Rings::Packed, true),
            (Rings::Split, false),
        ] {
            assert_eq!(
                offered(0, rings) & RING_PACKED != 0,
                is_offered,
                "{rings:?}"
            );
        }
    }

    #[test]
    fn a_driver_without_the_layout_that_is_forced_is_refused() {
        for (rings, with, without) in [
            (Rings::Any, true, true),
            (Rings::Packed, true, false),
            (Rings::Split, false, true),
        ] {
            let offered = offered(0, rings);
            let agrees = |taken| acceptable(Kind::Rng, rings, offered, VERSION_1 | taken);
            assert_eq!(
                (agrees(RING_PACKED), agrees(0)),
                (with, without),
                "{rings:?}"
            );
        }
    }
}
